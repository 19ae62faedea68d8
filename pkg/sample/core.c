/* To read a thread while it does not run, without stopping it: to come to the core on which it
 * runs, as any program may that has work to do. Where the kernel lets us run at once the thread
 * waits there; where we have to wait, as with a small share of a busy core, we had better not. Who
 * moves from core to core is moved by the kernel's own threads, for which the other one waits as
 * well; so it is a thread apart that wakes up there and sleeps again. */
#include "sample/core.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"

#define REFUSED_NS INT64_C(1000000000)
#define SHARE      5 /* one part of time in so many may go into getting there, and into being there */
#define AWAKE_NS   INT64_C(200000) /* that the caller stays awake: to wake up costs it more */

struct visitor {
    pthread_t thread;
    int number; /* the core to which it is bound; -1: none */
    sem_t begin, done;
    void (*work)(void *context); /* NULL: it is to end */
    void *context;
    bool there;
};

static void take(sem_t *s)
{
    while (sem_wait(s) < 0 && errno == EINTR)
        continue;
}

static void *visit(void *argument)
{
    struct visitor *v = argument;
    for (take(&v->begin); v->work; take(&v->begin)) {
        v->there = sched_getcpu() == v->number;
        if (v->there)
            v->work(v->context);
        sem_post(&v->done);
    }
    return NULL;
}

static struct visitor *create(void)
{
    struct visitor *v = xcalloc(1, sizeof(*v));
    sigset_t all, before;
    v->number = -1;
    sem_init(&v->begin, 0, 0);
    sem_init(&v->done, 0, 0);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&v->thread, NULL, visit, v);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e == 0)
        return v;
    sem_destroy(&v->begin);
    sem_destroy(&v->done);
    free(v);
    return NULL;
}

void visitor_destroy(struct visitor *v)
{
    if (!v)
        return;
    cpu_set_t own; /* so that nobody on its core can keep it from its end */
    if (sched_getaffinity(0, sizeof(own), &own) == 0)
        pthread_setaffinity_np(v->thread, sizeof(own), &own);
    v->work = NULL;
    sem_post(&v->begin);
    pthread_join(v->thread, NULL);
    sem_destroy(&v->begin);
    sem_destroy(&v->done);
    free(v);
}

static bool is_own(int number)
{
    cpu_set_t own;
    return sched_getaffinity(0, sizeof(own), &own) == 0 && CPU_ISSET((size_t)number, &own);
}

static bool bind_to(struct visitor *v, int number)
{
    cpu_set_t there;
    CPU_ZERO(&there);
    CPU_SET((size_t)number, &there);
    if (v->number != number && pthread_setaffinity_np(v->thread, sizeof(there), &there) != 0)
        return false;
    v->number = number;
    return true;
}

static bool send(struct visitor *v, void (*work)(void *context), void *context)
{
    v->work = work;
    v->context = context;
    sem_post(&v->begin);
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + AWAKE_NS;
    while (sem_trywait(&v->done) < 0)
        if (clock_read_ns(CLOCK_MONOTONIC) > until) {
            take(&v->done);
            break;
        }
    if (!v->there)
        v->number = -1; /* the container has lost that core */
    return v->there;
}

static bool go(struct visitor **v, int number, void (*work)(void *context), void *context)
{
    if (!*v)
        *v = create();
    return *v && bind_to(*v, number) && send(*v, work, context);
}

bool core_visit(struct core *c, int number, void (*work)(void *context), void *context)
{
    int64_t begun = clock_read_ns(CLOCK_MONOTONIC);
    if (number < 0 || number >= CPU_SETSIZE || begun < c->next_ns || !is_own(number))
        return false;
    bool there = sched_getcpu() == number; /* where the other one waits already */
    if (there)
        work(context);
    bool worked = there || go(c->visitor, number, work, context);
    if (!worked)
        core_refuse(c);
    int64_t now = clock_read_ns(CLOCK_MONOTONIC);
    int64_t next = now + (now - begun) * (SHARE - 1);
    c->next_ns = c->next_ns > next ? c->next_ns : next; /* the work may have refused */
    return worked;
}

void core_refuse(struct core *c)
{
    c->next_ns = clock_read_ns(CLOCK_MONOTONIC) + REFUSED_NS;
}
