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

/* By the clock: to wait after each look would favour times when nobody else runs. */
static size_t watch(struct target *t, double from, size_t looks)
{
    size_t seen = 0;
    for (size_t i = 0; i < looks; i++) {
        double left = from + (double)i / RATE - seconds(CLOCK_MONOTONIC);
        if (left > 0)
            usleep((useconds_t)(left * 1e6));
        assert_int_equal(target_look(t, see_work, &seen, NULL), 0);
    }
    return seen;
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
    struct times from = times_of(c.pid), to;
    size_t looks = WATCH_SECONDS * RATE, seen = watch(t, from.at, looks);
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

/* A thread of C works and falls asleep before anybody has listed it; when it is, what it used does
 * not explain what another one uses from then on. */
static void test_unlisted(void **state)
{
    (void)state;
    struct child c = child_start(
        python,
        "import ctypes, hashlib, threading, time\n"
        "libc = ctypes.CDLL(None)\n"
        "pointer = lambda f: ctypes.cast(f, ctypes.c_void_p)\n"
        "digits = ctypes.c_char_p(b'0' * 20000000)\n"
        "kept = [ctypes.create_string_buffer(1 << 16) for i in range(32)]\n"
        /* One context leads to the next: to read a long number, again and again, then to
         * sleep; see makecontext(3). */
        "contexts = [ctypes.create_string_buffer(8192) for i in kept]\n"
        "for i, c in enumerate(contexts):\n"
        "    libc.getcontext(c)\n"
        "    fields = (ctypes.c_size_t * 5).from_buffer(c)\n"
        "    last = i + 1 == len(contexts)\n"
        "    fields[1] = 0 if last else pointer(contexts[i + 1]).value\n"
        "    fields[2], fields[4] = pointer(kept[i]).value, len(kept[i])\n"
        "    libc.makecontext(c, pointer(libc.pause if last else libc.atol), 1, digits)\n"
        "def native():\n"
        "    t = ctypes.c_ulong()\n"
        "    libc.pthread_create(ctypes.byref(t), None, pointer(libc.setcontext), contexts[0])\n"
        "def work():\n"
        "    until = time.thread_time() + 0.7\n"
        "    while time.thread_time() < until:\n"
        "        hashlib.pbkdf2_hmac('sha256', b'', b'', 100000)\n"
        "def tick():\n"
        "    while True: time.sleep(0.0005)\n"
        "begin = threading.Event()\n"
        "def worker():\n"
        "    begin.wait()\n"
        "    work()\n"
        "    time.sleep(1000)\n"
        "def start(f, *args): threading.Thread(target=f, args=args, daemon=True).start()\n"
        "for i in range(20): start(time.sleep, 1000)\n"
        "start(worker)\n"
        "start(tick)\n"
        "print('ready', flush=1)\n"
        "time.sleep(0.5)\n"
        "native()\n"
        "time.sleep(1.5)\n"
        "start(time.sleep, 1000)\n" /* so that threads are listed anew */
        "time.sleep(0.5)\n"
        "begin.set()\n"
        "time.sleep(1000)\n");
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    struct times before = times_of(c.pid);
    size_t seen = watch(t, before.at, 240);
    double native = times_of(c.pid).used - before.used;
    seen += watch(t, seconds(CLOCK_MONOTONIC), 200);
    double worked = times_of(c.pid).used - before.used - native;
    print_message("%s: %zu samples of %.2f s, after %.2f s of another thread\n", python, seen,
                  worked, native);
    target_close(t);
    child_end(&c);
    assert_true(native > 0.2 && worked > 0.2);
    assert_true((double)seen > 0.5 * worked * RATE);
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_large_pool),
        cmocka_unit_test(test_huge_pool),
        cmocka_unit_test(test_unlisted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
