#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "sim_time.h"

struct fixture {
    struct sim_time time; /* used by those that want time simulated */
    struct loop *loop;
    struct buf story;
};

struct named_timer {
    struct loop_timer timer;
    struct fixture *f;
    char name;
    void (*also)(struct named_timer *t);
};

static void fired(struct loop_timer *timer)
{
    struct named_timer *t = CONTAINER_OF(timer, struct named_timer, timer);
    buf_append_char(&t->f->story, t->name);
    if (t->also)
        t->also(t);
}

static struct named_timer timer_of(struct fixture *f, char name)
{
    return (struct named_timer){.timer.fire = fired, .f = f, .name = name};
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    f->story = BUF_INIT(1000);
    sim_time_init(&f->time);
    *state = f;
    return loop_create(&clock_system, &f->loop, NULL);
}

static int set_up_simulated(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    f->story = BUF_INIT(1000);
    sim_time_init(&f->time);
    *state = f;
    return loop_create(&f->time.clock, &f->loop, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    loop_destroy(f->loop);
    buf_finish(&f->story);
    free(f);
    return 0;
}

/* Timers */

static void test_timers_fire_in_order_and_once(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a'), b = timer_of(f, 'b'), c = timer_of(f, 'c');
    assert_int_equal(loop_next_timer(f->loop), -1);
    loop_timer_arm(f->loop, &a.timer, 30);
    loop_timer_arm(f->loop, &b.timer, 10);
    loop_timer_arm(f->loop, &c.timer, 20);
    assert_int_equal(loop_next_timer(f->loop), 10);
    sim_run(&f->time, f->loop, 9);
    assert_string_equal(buf_cstr(&f->story), "");
    sim_run(&f->time, f->loop, 1);
    assert_string_equal(buf_cstr(&f->story), "b");
    assert_false(loop_timer_armed(&b.timer));
    assert_true(loop_timer_armed(&c.timer));
    sim_run(&f->time, f->loop, 1000);
    assert_string_equal(buf_cstr(&f->story), "bca");
}

static void test_timer_moved_and_disarmed(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a'), b = timer_of(f, 'b');
    loop_timer_arm(f->loop, &a.timer, 10);
    loop_timer_arm(f->loop, &a.timer, 50);
    loop_timer_arm(f->loop, &b.timer, 20);
    sim_run(&f->time, f->loop, 30);
    assert_string_equal(buf_cstr(&f->story), "b");
    loop_timer_disarm(f->loop, &a.timer);
    loop_timer_disarm(f->loop, &a.timer);
    sim_run(&f->time, f->loop, 100);
    assert_string_equal(buf_cstr(&f->story), "b");
}

static void arm_again(struct named_timer *t)
{
    loop_timer_arm(t->f->loop, &t->timer, 0);
}

static void test_timer_that_arms_itself_does_not_hold_the_turn(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a');
    a.also = arm_again;
    loop_timer_arm(f->loop, &a.timer, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(loop_step(f->loop, 0, NULL), 1);
    assert_string_equal(buf_cstr(&f->story), "aaa");
    loop_timer_disarm(f->loop, &a.timer); /* its memory goes before the loop */
}

static struct named_timer *victim;

static void disarm_victim(struct named_timer *t)
{
    loop_timer_disarm(t->f->loop, &victim->timer);
}

static void test_timer_disarmed_by_another_of_the_same_turn(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a'), b = timer_of(f, 'b');
    a.also = disarm_victim;
    victim = &b;
    loop_timer_arm(f->loop, &a.timer, 1);
    loop_timer_arm(f->loop, &b.timer, 2);
    f->time.now_ms += 10; /* both are due */
    loop_step(f->loop, 0, NULL);
    loop_step(f->loop, 0, NULL);
    assert_string_equal(buf_cstr(&f->story), "a");
}

static void test_simulated_time_is_never_waited_for(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a');
    loop_timer_arm(f->loop, &a.timer, 3600 * 1000);
    int64_t before = clock_monotonic_ms(&clock_system);
    assert_int_equal(loop_step(f->loop, -1, NULL), 0);
    sim_run(&f->time, f->loop, 3600 * 1000);
    assert_string_equal(buf_cstr(&f->story), "a");
    assert_true(clock_monotonic_ms(&clock_system) - before < 5000);
}

static void test_step_waits_for_the_timer(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a');
    int64_t before = clock_monotonic_ms(&clock_system);
    loop_timer_arm(f->loop, &a.timer, 50);
    assert_int_equal(loop_step(f->loop, 10, NULL), 0); /* its own limit comes first */
    while (!f->story.len)
        loop_step(f->loop, -1, NULL);
    assert_true(clock_monotonic_ms(&clock_system) - before >= 50);
}

/* Posts */

struct post {
    struct fixture *f;
    const char *text;
};

static void run_post(void *arg)
{
    struct post *p = arg;
    buf_append_cstr(&p->f->story, p->text);
}

static void post_again(void *arg)
{
    struct post *p = arg;
    run_post(arg);
    p->text = "again ";
    loop_post(p->f->loop, run_post, p);
}

static void test_posts_run_in_order(void **state)
{
    struct fixture *f = *state;
    struct post a = {f, "a "}, b = {f, "b "};
    loop_post(f->loop, post_again, &a);
    loop_post(f->loop, run_post, &b);
    assert_int_equal(loop_step(f->loop, 0, NULL), 2);
    assert_string_equal(buf_cstr(&f->story), "a b ");
    assert_int_equal(loop_step(f->loop, -1, NULL), 1); /* and the wait does not hold it up */
    assert_string_equal(buf_cstr(&f->story), "a b again ");
}

static void test_posts_left_behind_are_freed(void **state)
{
    struct fixture *f = *state;
    struct post a = {f, "a "};
    loop_post(f->loop, run_post, &a); /* the leak check watches */
}

static void never(struct loop_timer *timer)
{
    (void)timer;
    fail_msg("a timer fired");
}

/* What posts in turn too; and nothing but posts. */
static void test_posts_are_flushed(void **state)
{
    struct fixture *f = *state;
    struct post a = {f, "a "};
    struct loop_timer timer = {.fire = never};
    loop_timer_arm(f->loop, &timer, 0);
    loop_flush_posts(f->loop);
    loop_post(f->loop, post_again, &a);
    loop_flush_posts(f->loop);
    assert_string_equal(buf_cstr(&f->story), "a again ");
    loop_timer_disarm(f->loop, &timer);
}

static void *post_from_thread(void *arg)
{
    struct post *p = arg;
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&pause, NULL);
    loop_post(p->f->loop, run_post, p);
    nanosleep(&pause, NULL);
    loop_stop(p->f->loop);
    return NULL;
}

static void test_another_thread_posts_and_stops(void **state)
{
    struct fixture *f = *state;
    struct post a = {f, "from afar"};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_from_thread, &a), 0);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(buf_cstr(&f->story), "from afar");
}

/* The kernel counts each time the thread went to sleep: a wake-up a second would show. */
static void test_idle_means_no_wakeups(void **state)
{
    struct fixture *f = *state;
    struct named_timer a = timer_of(f, 'a');
    struct rusage before, after;
    loop_timer_arm(f->loop, &a.timer, 1500);
    loop_step(f->loop, 0, NULL);
    getrusage(RUSAGE_THREAD, &before);
    int turns = 0;
    for (; !f->story.len; turns++)
        loop_step(f->loop, -1, NULL);
    getrusage(RUSAGE_THREAD, &after);
    assert_in_range(turns, 1, 2); /* 2: woken a fraction of a millisecond early */
    assert_in_range(after.ru_nvcsw - before.ru_nvcsw, 1, 2);
}

/* Watches */

struct pipe_watch {
    struct loop_watch watch;
    struct fixture *f;
    int write_fd;
    char name;
    struct pipe_watch *remove; /* when it is ready */
};

static void pipe_ready(struct loop_watch *watch)
{
    struct pipe_watch *p = watch->context;
    char c;
    assert_int_equal(read(watch->fd, &c, 1), 1);
    buf_append_char(&p->f->story, p->name);
    if (p->remove)
        loop_watch_remove(p->f->loop, &p->remove->watch);
}

static void open_pipe(struct pipe_watch *p, struct fixture *f, char name)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    *p = (struct pipe_watch){.watch = {.fd = fds[0], .ready = pipe_ready, .context = p},
                             .f = f,
                             .write_fd = fds[1],
                             .name = name};
    loop_watch_add(f->loop, &p->watch);
}

static void close_pipe(struct pipe_watch *p)
{
    close(p->watch.fd);
    close(p->write_fd);
}

static void test_watches(void **state)
{
    struct fixture *f = *state;
    struct pipe_watch a, b;
    open_pipe(&a, f, 'a');
    open_pipe(&b, f, 'b');
    assert_int_equal(loop_step(f->loop, 0, NULL), 0);
    assert_int_equal(write(b.write_fd, "xx", 2), 2);
    assert_int_equal(loop_step(f->loop, -1, NULL), 1);
    assert_int_equal(loop_step(f->loop, -1, NULL), 1); /* as long as there is something */
    assert_string_equal(buf_cstr(&f->story), "bb");
    loop_watch_remove(f->loop, &b.watch);
    assert_int_equal(write(b.write_fd, "x", 1), 1);
    assert_int_equal(loop_step(f->loop, 10, NULL), 0);
    loop_watch_remove(f->loop, &a.watch);
    close_pipe(&a);
    close_pipe(&b);
}

static void test_watch_removed_by_another_of_the_same_turn(void **state)
{
    struct fixture *f = *state;
    struct pipe_watch a, b;
    open_pipe(&a, f, 'a');
    open_pipe(&b, f, 'b');
    a.remove = &b;
    b.remove = &a; /* whichever comes first */
    assert_int_equal(write(a.write_fd, "x", 1), 1);
    assert_int_equal(write(b.write_fd, "x", 1), 1);
    assert_int_equal(loop_step(f->loop, -1, NULL), 1);
    assert_int_equal(f->story.len, 1);
    loop_watch_remove(f->loop, &a.watch);
    loop_watch_remove(f->loop, &b.watch);
    close_pipe(&a);
    close_pipe(&b);
}

/* Signals */

static void on_signal(void *context, int signo)
{
    struct fixture *f = context;
    buf_appendf(&f->story, "%s ", signo == SIGUSR1 ? "usr1" : signo == SIGUSR2 ? "usr2" : "?");
    if (signo == SIGUSR2)
        loop_stop(f->loop);
}

static void test_signals(void **state)
{
    struct fixture *f = *state;
    static const int signals[] = {SIGUSR1, SIGUSR2, 0};
    assert_int_equal(loop_signals(f->loop, signals, on_signal, f, NULL), 0);
    assert_int_equal(loop_signals(f->loop, signals, on_signal, f, NULL), ERR_EXISTS);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    assert_int_equal(loop_run(f->loop, NULL), 0);
    assert_string_equal(buf_cstr(&f->story), "usr1 usr2 ");
}

#define TEST(name)      cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_TIME(name) cmocka_unit_test_setup_teardown(name, set_up_simulated, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_TIME(test_timers_fire_in_order_and_once),
        TEST_TIME(test_timer_moved_and_disarmed),
        TEST_TIME(test_timer_that_arms_itself_does_not_hold_the_turn),
        TEST_TIME(test_timer_disarmed_by_another_of_the_same_turn),
        TEST_TIME(test_simulated_time_is_never_waited_for),
        TEST(test_step_waits_for_the_timer),
        TEST(test_posts_run_in_order),
        TEST(test_posts_left_behind_are_freed),
        TEST(test_posts_are_flushed),
        TEST(test_another_thread_posts_and_stops),
        TEST(test_idle_means_no_wakeups),
        TEST(test_watches),
        TEST(test_watch_removed_by_another_of_the_same_turn),
        TEST(test_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
