/* Pools of threads that mostly sleep, and each run for some milliseconds now and then: who was
 * asked last slept, and yet all of them together get the samples of the processor time that they
 * use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <glob.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "pythons.h"
#include "sample/sample_internal.h"

#define WATCH_SECONDS 3
#define RATE          100

static void see_work(void *context, const struct sample_thread *t)
{
    for (size_t i = 0; i < t->depth; i++) {
        if (!str_is(t->frames[i]->function, "work"))
            continue;
        ++*(size_t *)context;
        return;
    }
}

static double seconds(clockid_t clock)
{
    struct timespec ts;
    assert_int_equal(clock_gettime(clock, &ts), 0);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

struct times {
    double at, used, waited; /* seconds; waited: for a processor */
};

static struct times times_of(pid_t pid)
{
    struct times times = {.at = seconds(CLOCK_MONOTONIC)};
    _cleanup_(freep) char *pattern = xasprintf("/proc/%d/task/*/schedstat", (int)pid);
    glob_t found = {0};
    glob(pattern, 0, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(256);
        if (buf_read_file(&text, found.gl_pathv[i], NULL) < 0)
            continue;
        char *end;
        times.used += (double)strtoll(buf_cstr(&text), &end, 10) / 1e9;
        times.waited += (double)strtoll(end, NULL, 10) / 1e9;
    }
    globfree(&found);
    return times;
}

/* burst: takes some 2 ms. share: of a processor, that all threads together use. What is expected
 * at least: of the samples that the time on processors makes, and of those that it makes together
 * with the time that was waited for one. The latter cannot be had in full: a thread that has not
 * run yet shows in no account, and who waits while the sampler has to wait as well is not looked
 * at. */
static void check(const char *burst, int threads, double share, double least_of_used,
                  double least_of_wanted)
{
    char program[1024];
    snprintf(program, sizeof(program),
             "import hashlib, random, threading, time\n"
             "def burst(): %s\n"
             "def rest(): time.sleep(random.expovariate(1 / pause))\n"
             "def work():\n"
             "    while True:\n"
             "        rest()\n"
             "        burst()\n"
             "begun = time.process_time()\n"
             "for i in range(20): burst()\n"
             "pause = (time.process_time() - begun) / 20 * %d / %g\n"
             "for i in range(%d): threading.Thread(target=work, daemon=True).start()\n"
             "print('ready', flush=1)\n"
             "time.sleep(1000)\n",
             burst, threads, share, threads);
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    size_t seen = 0, looks = 0;
    struct times from = times_of(c.pid), to;
    /* By the clock: to wait after each look would favour times when nobody else runs. */
    for (; looks < WATCH_SECONDS * RATE; looks++) {
        double left = from.at + (double)looks / RATE - seconds(CLOCK_MONOTONIC);
        if (left > 0)
            usleep((useconds_t)(left * 1e6));
        assert_int_equal(target_look(t, see_work, &seen, NULL), 0);
    }
    to = times_of(c.pid);
    double span = to.at - from.at, used = to.used - from.used, waited = to.waited - from.waited;
    double of_used = (double)seen / (used / span * (double)looks);
    double of_wanted = (double)seen / ((used + waited) / span * (double)looks);
    print_message("%s: %zu samples in %zu looks; %.2f s used and %.2f s waited of %.2f s: %.2f and "
                  "%.2f\n",
                  python, seen, looks, used, waited, span, of_used, of_wanted);
    target_close(t);
    child_end(&c);
    if (used <= 0)
        skip(); /* a kernel that does not tell */
    assert_true(of_used >= least_of_used);
    assert_true(of_wanted >= least_of_wanted);
}

static const char with_lock[] = "sum(range(100000))";
static const char without_lock[] = "hashlib.pbkdf2_hmac('sha256', b'', b'', 4000)";

static void test_pool(void **state)
{
    (void)state;
    check(with_lock, 20, 1, 0.7, 0.3);
    check(without_lock, 20, 1, 0.7, 0.3);
}

/* So seldom that none counts as running when it begins. */
static void test_large_pool(void **state)
{
    (void)state;
    check(without_lock, 200, 0.6, 0.6, 0);
}

/* More than there are descriptors for, so that to ask them all takes several looks. */
static void test_huge_pool(void **state)
{
    (void)state;
    check(without_lock, 600, 0.6, 0.25, 0);
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_large_pool),
        cmocka_unit_test(test_huge_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
