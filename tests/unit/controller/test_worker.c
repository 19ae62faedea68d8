/* The worker: in order, off the loop's thread, bounded, and an end with tasks that wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>

#include "base/cleanup.h"
#include "controller/worker.h"

enum { TASKS = 100, MAX_QUEUED = 4 };

struct story {
    struct loop *loop;
    struct worker *worker;
    pthread_t main;
    sem_t begun, go;
    int ran, done; /* ran: the worker's; done: the loop's */
};

struct task {
    struct worker_task task;
    struct story *story;
    int number;
    bool on_worker;
};

static struct task *task_of(struct worker_task *t)
{
    return CONTAINER_OF(t, struct task, task);
}

static void run(struct worker_task *t)
{
    struct task *task = task_of(t);
    task->on_worker =
        !pthread_equal(pthread_self(), task->story->main) && task->story->ran == task->number;
    task->story->ran++;
}

static void run_slowly(struct worker_task *t)
{
    run(t);
    sem_post(&task_of(t)->story->begun);
    while (sem_wait(&task_of(t)->story->go))
        ;
}

static void done(struct worker_task *t)
{
    struct task *task = task_of(t);
    assert_true(pthread_equal(pthread_self(), task->story->main));
    assert_true(task->on_worker);
    assert_int_equal(task->story->done, task->number);
    task->story->done++;
}

static int set_up(void **state)
{
    static struct story story;
    story = (struct story){.main = pthread_self()};
    sem_init(&story.begun, 0, 0);
    sem_init(&story.go, 0, 0);
    assert_int_equal(loop_create(&clock_system, &story.loop, NULL), 0);
    assert_int_equal(worker_create(story.loop, MAX_QUEUED, &story.worker, NULL), 0);
    *state = &story;
    return 0;
}

static int tear_down(void **state)
{
    struct story *s = *state;
    worker_destroy(s->worker);
    loop_destroy(s->loop);
    sem_destroy(&s->begun);
    sem_destroy(&s->go);
    return 0;
}

static void submit(struct story *s, struct task *task, int number, bool slow)
{
    struct err err = ERR_INIT;
    *task = (struct task){
        .task = {.run = slow ? run_slowly : run, .done = done}, .story = s, .number = number};
    int r;
    while ((r = worker_submit(s->worker, &task->task, &err)) == ERR_THROTTLED)
        loop_step(s->loop, 1, NULL);
    assert_int_equal(r, 0);
}

static void tasks_run_in_order(void **state)
{
    struct story *s = *state;
    struct task tasks[TASKS];
    for (int i = 0; i < TASKS; i++)
        submit(s, &tasks[i], i, false);
    while (s->done < TASKS)
        assert_true(loop_step(s->loop, 10000, NULL) > 0);
}

static void only_so_many_wait(void **state)
{
    struct story *s = *state;
    struct task tasks[MAX_QUEUED + 2];
    struct err err = ERR_INIT;
    submit(s, &tasks[0], 0, true);
    while (sem_wait(&s->begun))
        ;
    for (int i = 1; i <= MAX_QUEUED; i++)
        submit(s, &tasks[i], i, false);
    struct task *last = &tasks[MAX_QUEUED + 1];
    *last = (struct task){.task = {.run = run, .done = done}, .story = s};
    assert_int_equal(worker_submit(s->worker, &last->task, &err), ERR_THROTTLED);
    assert_string_equal(err.message, "4 uploads wait already");
    sem_post(&s->go);
    while (s->done <= MAX_QUEUED)
        assert_true(loop_step(s->loop, 10000, NULL) > 0);
    submit(s, last, MAX_QUEUED + 1, false); /* there is room again */
    while (s->done <= MAX_QUEUED + 1)
        assert_true(loop_step(s->loop, 10000, NULL) > 0);
}

static void *let_go(void *arg)
{
    struct story *s = arg;
    struct timespec pause = {.tv_nsec = 30 * 1000 * 1000};
    nanosleep(&pause, NULL);
    sem_post(&s->go);
    return NULL;
}

/* The one under way ends, and says so; the others are as if they never were. */
static void those_that_wait_are_dropped(void **state)
{
    struct story *s = *state;
    struct task tasks[3];
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        submit(s, &tasks[i], i, true);
    while (sem_wait(&s->begun))
        ;
    assert_int_equal(pthread_create(&thread, NULL, let_go, s), 0);
    worker_destroy(TAKE(s->worker));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(s->ran, 1);
    assert_int_equal(s->done, 0);
    loop_flush_posts(s->loop);
    assert_int_equal(s->done, 1);
}

static void an_idle_worker_ends(void **state)
{
    struct story *s = *state;
    worker_destroy(TAKE(s->worker));
    worker_destroy(NULL);
    assert_int_equal(loop_step(s->loop, 0, NULL), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tasks_run_in_order),
        TEST(only_so_many_wait),
        TEST(those_that_wait_are_dropped),
        TEST(an_idle_worker_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
