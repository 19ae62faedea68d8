#include "loop/loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "loop/loop_internal.h"

struct post {
    struct post *next;
    void (*fn)(void *arg);
    void *arg;
};

struct loop {
    const struct clock *clock;
    struct loop_io *io; /* NULL: descriptors only */
    int wake_fd;        /* eventfd: ends the wait, from any thread */
    int64_t now;
    struct heap timers;

    struct loop_watch *watches;
    size_t n_watches;
    struct loop_watch *next_watch; /* where the walk over ready ones goes on */
    struct pollfd *pollfds;        /* wake_fd, then the watches */
    size_t pollfds_cap;

    struct loop_watch signal_watch; /* fd -1: none */
    void (*on_signal)(void *context, int signo);
    void *signal_context;

    pthread_mutex_t lock; /* guards the posts */
    struct post *posts, **posts_tail;
    atomic_bool stop;
};

int loop_create(const struct clock *clock, struct loop **ret, struct err *err)
{
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0)
        return err_set_errno(err, errno, "eventfd");
    struct loop *l = xcalloc(1, sizeof(*l));
    l->clock = clock;
    l->wake_fd = wake_fd;
    l->now = clock_monotonic_ms(clock);
    l->signal_watch.fd = -1;
    l->posts_tail = &l->posts;
    pthread_mutex_init(&l->lock, NULL);
    *ret = l;
    return 0;
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    if (l->signal_watch.fd >= 0) {
        loop_watch_remove(l, &l->signal_watch);
        close(l->signal_watch.fd);
    }
    while (l->posts) {
        struct post *post = l->posts;
        l->posts = post->next;
        free(post);
    }
    heap_finish(&l->timers);
    if (l->io)
        l->io->destroy(l->io);
    close(l->wake_fd);
    pthread_mutex_destroy(&l->lock);
    free(l->pollfds);
    free(l);
}

const struct clock *loop_clock(const struct loop *l)
{
    return l->clock;
}

int64_t loop_now(const struct loop *l)
{
    return l->now;
}

struct loop_io *loop_io(const struct loop *l)
{
    return l->io;
}

void loop_set_io(struct loop *l, struct loop_io *io)
{
    l->io = io;
}

void loop_wake(struct loop *l)
{
    uint64_t one = 1;
    while (write(l->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

/* Posts */

void loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct post *post = xcalloc(1, sizeof(*post));
    post->fn = fn;
    post->arg = arg;
    pthread_mutex_lock(&l->lock);
    bool first = !l->posts;
    *l->posts_tail = post;
    l->posts_tail = &post->next;
    pthread_mutex_unlock(&l->lock);
    if (first)
        loop_wake(l);
}

void loop_stop(struct loop *l)
{
    atomic_store(&l->stop, true);
    loop_wake(l);
}

static bool has_posts(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    bool some = l->posts;
    pthread_mutex_unlock(&l->lock);
    return some;
}

/* Runs what was posted before this turn; what that posts in turn waits for the next one. */
static int run_posts(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    struct post *batch = l->posts;
    l->posts = NULL;
    l->posts_tail = &l->posts;
    pthread_mutex_unlock(&l->lock);

    int ran = 0;
    while (batch) {
        struct post *post = batch;
        batch = post->next;
        post->fn(post->arg);
        free(post);
        ran++;
    }
    return ran;
}

void loop_flush_posts(struct loop *l)
{
    while (run_posts(l) > 0)
        ;
}

/* Timers */

void loop_timer_arm(struct loop *l, struct loop_timer *t, int64_t delay_ms)
{
    int64_t now = clock_monotonic_ms(l->clock);
    heap_insert(&l->timers, &t->node, now + (delay_ms > 0 ? delay_ms : 0));
}

void loop_timer_disarm(struct loop *l, struct loop_timer *t)
{
    heap_remove(&l->timers, &t->node);
}

bool loop_timer_armed(const struct loop_timer *t)
{
    return t->node.index != 0;
}

int64_t loop_next_timer(const struct loop *l)
{
    const struct heap_node *first = heap_first(&l->timers);
    if (!first)
        return -1;
    int64_t left = first->key - clock_monotonic_ms(l->clock);
    return left > 0 ? left : 0;
}

static int run_timers(struct loop *l)
{
    /* At most those armed now, so that one which arms itself for "at once" cannot hold the turn. */
    size_t most = l->timers.len;
    int ran = 0;
    for (struct heap_node *first; most > 0 && (first = heap_first(&l->timers)); most--) {
        if (first->key > l->now)
            break;
        heap_remove(&l->timers, first);
        struct loop_timer *t = CONTAINER_OF(first, struct loop_timer, node);
        t->fire(t);
        ran++;
    }
    return ran;
}

/* Watches */

void loop_watch_add(struct loop *l, struct loop_watch *w)
{
    w->next = l->watches;
    l->watches = w;
    l->n_watches++;
}

void loop_watch_remove(struct loop *l, struct loop_watch *w)
{
    for (struct loop_watch **at = &l->watches; *at; at = &(*at)->next) {
        if (*at != w)
            continue;
        *at = w->next;
        l->n_watches--;
        if (l->next_watch == w)
            l->next_watch = w->next;
        w->next = NULL;
        return;
    }
}

static size_t fill_pollfds(struct loop *l)
{
    if (l->pollfds_cap < l->n_watches + 1) {
        l->pollfds = xrealloc(l->pollfds, l->n_watches + 1, sizeof(*l->pollfds));
        l->pollfds_cap = l->n_watches + 1;
    }
    size_t n = 0;
    l->pollfds[n++] = (struct pollfd){.fd = l->wake_fd, .events = POLLIN};
    for (const struct loop_watch *w = l->watches; w; w = w->next)
        l->pollfds[n++] = (struct pollfd){.fd = w->fd, .events = POLLIN};
    return n;
}

static bool is_ready(const struct loop *l, int fd, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (l->pollfds[i].fd == fd)
            return l->pollfds[i].revents != 0;
    return false;
}

static int run_watches(struct loop *l, size_t n)
{
    int ran = 0;
    for (struct loop_watch *w = l->watches; w; w = l->next_watch) {
        l->next_watch = w->next;
        if (is_ready(l, w->fd, n)) {
            w->ready(w);
            ran++;
        }
    }
    l->next_watch = NULL;
    return ran;
}

/* Signals */

static void signal_ready(struct loop_watch *watch)
{
    struct loop *l = watch->context;
    struct signalfd_siginfo info;
    while (read(watch->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        l->on_signal(l->signal_context, (int)info.ssi_signo);
}

int loop_signals(struct loop *l, const int *signals, void (*fn)(void *context, int signo),
                 void *context, struct err *err)
{
    if (l->signal_watch.fd >= 0)
        return err_set(err, ERR_EXISTS, "the loop has its signals already");
    sigset_t set;
    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    int failed = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (failed)
        return err_set_errno(err, failed, "block signals");
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "signalfd");
    l->on_signal = fn;
    l->signal_context = context;
    l->signal_watch = (struct loop_watch){.fd = fd, .ready = signal_ready, .context = l};
    loop_watch_add(l, &l->signal_watch);
    return 0;
}

/* Turns */

static int wait_ms(struct loop *l, int max_wait_ms)
{
    /* Another clock does not pass by waiting: its owner moves it. */
    if (has_posts(l) || l->clock != &clock_system)
        return 0;
    int64_t wait = max_wait_ms < 0 ? INT_MAX : max_wait_ms;
    int64_t timer = loop_next_timer(l);
    if (timer >= 0 && timer < wait)
        wait = timer;
    return (int)wait;
}

static int wait_for_descriptors(struct loop *l, size_t n, int ms, struct err *err)
{
    if (l->io)
        return l->io->wait(l->io, l->pollfds, n, ms, err);
    int ready = poll(l->pollfds, n, ms);
    if (ready >= 0)
        return 0;
    if (errno != EINTR)
        return err_set_errno(err, errno, "wait");
    for (size_t i = 0; i < n; i++)
        l->pollfds[i].revents = 0;
    return 0;
}

int loop_step(struct loop *l, int max_wait_ms, struct err *err)
{
    if (l->io)
        l->io->begin(l->io);
    size_t n = fill_pollfds(l);
    int failed = wait_for_descriptors(l, n, wait_ms(l, max_wait_ms), err);
    if (failed)
        return failed;
    uint64_t wakes;
    if (l->pollfds[0].revents && read(l->wake_fd, &wakes, sizeof(wakes)) < 0 && errno != EAGAIN &&
        errno != EINTR)
        return err_set_errno(err, errno, "eventfd");

    l->now = clock_monotonic_ms(l->clock);
    int ran = run_posts(l);
    if (l->io)
        ran += l->io->run(l->io);
    ran += run_watches(l, n);
    ran += run_timers(l);
    return ran;
}

int loop_run(struct loop *l, struct err *err)
{
    while (!atomic_load(&l->stop)) {
        int ran = loop_step(l, -1, err);
        if (ran < 0)
            return ran;
    }
    atomic_store(&l->stop, false);
    return 0;
}
