#include "controller/worker.h"

#include <pthread.h>

#include "base/alloc.h"

struct worker {
    struct loop *loop;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    struct worker_task *first, **last;
    size_t queued, max_queued;
    bool stop;
};

static void task_done(void *arg)
{
    struct worker_task *task = arg;
    task->done(task);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    pthread_mutex_lock(&w->mutex);
    while (!w->stop) {
        struct worker_task *task = w->first;
        if (!task) {
            pthread_cond_wait(&w->filled, &w->mutex);
            continue;
        }
        w->first = task->next;
        if (!w->first)
            w->last = &w->first;
        w->queued--;
        pthread_mutex_unlock(&w->mutex);
        task->run(task);
        loop_post(w->loop, task_done, task);
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

int worker_create(struct loop *loop, size_t max_queued, struct worker **ret, struct err *err)
{
    struct worker *w = xcalloc(1, sizeof(*w));
    w->loop = loop;
    w->max_queued = max_queued;
    w->last = &w->first;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->filled, NULL);
    int r = pthread_create(&w->thread, NULL, worker_main, w);
    if (r) {
        pthread_cond_destroy(&w->filled);
        pthread_mutex_destroy(&w->mutex);
        free(w);
        return err_set_errno(err, r, "cannot start the worker thread");
    }
    *ret = w;
    return 0;
}

void worker_destroy(struct worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->filled);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

int worker_submit(struct worker *w, struct worker_task *task, struct err *err)
{
    int r = 0;
    pthread_mutex_lock(&w->mutex);
    if (w->queued >= w->max_queued) {
        r = err_set(err, ERR_THROTTLED, "%zu uploads wait already", w->queued);
    } else {
        task->worker = w;
        task->next = NULL;
        *w->last = task;
        w->last = &task->next;
        w->queued++;
        pthread_cond_signal(&w->filled);
    }
    pthread_mutex_unlock(&w->mutex);
    return r;
}
