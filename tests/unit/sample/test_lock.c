/* Threads that sleep while they hold the interpreter's lock: what uses the processor meanwhile gets
 * the samples, and who holds the lock gets none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <unistd.h>

#include "pythons.h"
#include "sample/sample_internal.h"

struct seen {
    size_t looks, compute, hold, work;
};

static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    bool compute = false, hold = false, work = false;
    for (size_t i = 0; i < t->depth; i++) {
        compute = compute || str_is(t->frames[i]->function, "compute");
        hold = hold || str_is(t->frames[i]->function, "hold");
        work = work || str_is(t->frames[i]->function, "work");
    }
    s->compute += compute;
    s->hold += hold;
    s->work += work;
}

static struct seen watch(const char *program, int64_t ms)
{
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    struct seen s = {0};
    for (int64_t end = memory_now_ms() + ms; memory_now_ms() < end; s.looks++) {
        assert_int_equal(target_look(t, see, &s, NULL), 0);
        usleep(5000);
    }
    print_message("%s: %zu looks: compute %zu, hold %zu, work %zu; %d errors\n", python, s.looks,
                  s.compute, s.hold, s.work, (int)target_counts(t).errors);
    target_close(t);
    child_end(&c);
    return s;
}

static void expect(const char *what, size_t n, size_t looks, double least, double most)
{
    double share = (double)n / (double)looks;
    if (share < least || share > most)
        fail_msg("%s: %s in %.3f of all looks, not in %.2f to %.2f", python, what, share, least,
                 most);
}

/* All that `compute` does is to keep the lock; `hold` sleeps with it, half of the time. */
static void test_alone(void **state)
{
    (void)state;
    struct seen s = watch("import ctypes, time\n"
                          "usleep = ctypes.PyDLL(None).usleep\n"
                          "def compute(seconds):\n"
                          "    end = time.monotonic() + seconds\n"
                          "    while time.monotonic() < end: sum(range(1000))\n"
                          "def hold(): usleep(500000)\n"
                          "print('ready', flush=1)\n"
                          "while True:\n"
                          "    compute(0.5)\n"
                          "    hold()\n",
                          3000);
    expect("hold", s.hold, s.looks, 0, 0.03);
    expect("compute", s.compute, s.looks, 0.3, 0.8);
}

/* The process uses one processor all the time: `compute` does, then `work`, which has no need of
 * the lock and is begun before `hold` and ends after it. */
static void test_beside_work(void **state)
{
    (void)state;
    struct seen s =
        watch("import ctypes, hashlib, threading, time\n"
              "usleep = ctypes.PyDLL(None).usleep\n"
              "def work(n): hashlib.pbkdf2_hmac('sha256', b'', b'', n)\n"
              "def compute(seconds):\n"
              "    end = time.monotonic() + seconds\n"
              "    while time.monotonic() < end: sum(range(1000))\n"
              "def hold(): usleep(1000000)\n"
              "def used(thread):\n"
              "    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))\n"
              "def begin_work(n):\n"
              "    thread = threading.Thread(target=work, args=[n], daemon=True)\n"
              "    thread.start()\n"
              "    while used(thread) < 0.01: time.sleep(0.0005)\n"
              "    return thread\n"
              "begun = time.process_time()\n"
              "work(200000)\n"
              "n = int(200000 * 1.5 / (time.process_time() - begun))\n"
              "print('ready', flush=1)\n"
              "while True:\n"
              "    compute(0.8)\n"
              "    thread = begin_work(n)\n"
              "    hold()\n"
              "    thread.join()\n",
              6000);
    expect("hold", s.hold, s.looks, 0, 0.03);
    expect("work", s.work, s.looks, 0.4, 1);
    expect("compute", s.compute, s.looks, 0.05, 0.6);
    expect("either", s.compute + s.work, s.looks, 0.88, 1.12);
}

/* And a thread that Python does not know: it shuffles bytes until `hold` no longer waits for it. */
static void test_beside_others(void **state)
{
    (void)state;
    struct seen s = watch("import ctypes, threading, time\n"
                          "c = ctypes.PyDLL(None)\n"
                          "bytes = ctypes.create_string_buffer(b'x' * (48 << 20))\n"
                          "id = ctypes.c_ulong()\n"
                          "def compute(seconds):\n"
                          "    end = time.monotonic() + seconds\n"
                          "    while time.monotonic() < end: sum(range(1000))\n"
                          "def hold(): c.pthread_join(id, None)\n"
                          "threading.Thread(target=time.sleep, args=[1000], daemon=True).start()\n"
                          "print('ready', flush=1)\n"
                          "while True:\n"
                          "    compute(0.8)\n"
                          "    c.pthread_create(ctypes.byref(id), None, c.strfry, bytes)\n"
                          "    hold()\n",
                          4000);
    expect("hold", s.hold, s.looks, 0, 0.03);
    expect("compute", s.compute, s.looks, 0.1, 0.9);
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_beside_work),
        cmocka_unit_test(test_beside_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
