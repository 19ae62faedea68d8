/* A process that waits for its core because we run there, as the kernel really does it, and the
 * ways in which it may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "sample/hold.h"

#define MOST_NS    INT64_C(20000000000) /* that what depends on chance may take */
#define LOOK_NS    20000                /* about what it takes to copy a stack */
#define BURST_NS   30000
#define REFUSED_NS 1000000000
#define HELD       300
#define SLEPT      3
#define OTHERS     3

static volatile uint64_t *count; /* of what the process does */
static cpu_set_t cores;          /* where the test may run */
static pid_t pids[1 + OTHERS];   /* the first one is the one that is held; 0: none */
static int proc;
static struct kernel *kernel;
static struct visitor *visitor;
static struct hold hold;

struct look {
    bool sleeps; /* so that others run there */
    int begun;   /* times */
    bool held;
    uint64_t before, behind;
};

static void nap(int64_t ns)
{
    struct timespec ts = {.tv_nsec = ns};
    nanosleep(&ts, NULL);
}

static void spin(int64_t ns)
{
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + ns;
    while (clock_read_ns(CLOCK_MONOTONIC) < until)
        ++*count;
}

static pid_t start(bool bursts)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            spin(BURST_NS);
            if (bursts)
                nap(10 * BURST_NS);
        }
    }
    assert_true(pid > 0);
    return pid;
}

static void hold_new(bool bursts)
{
    pids[0] = start(bursts);
    while (*count == 0)
        usleep(1000);
    assert_int_equal(kernel_create(proc, pids[0], &kernel, NULL), 0);
    hold_init(&hold, kernel, &visitor);
    hold_begin(&hold, kernel_find(kernel, pids[0]));
    assert_non_null(hold.thread);
}

static int setup(void **state)
{
    (void)state;
    if (!count)
        count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *count = 0;
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return sched_getaffinity(0, sizeof(cores), &cores);
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pids) / sizeof(*pids); i++) {
        if (pids[i]) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
        }
        pids[i] = 0;
    }
    visitor_destroy(visitor);
    visitor = NULL;
    kernel_destroy(kernel);
    kernel = NULL;
    close(proc);
    return sched_setaffinity(0, sizeof(cores), &cores);
}

static void look(void *context)
{
    struct look *l = context;
    if (!hold.holder.begin(&hold.holder))
        return;
    l->begun++;
    l->before = *count;
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + LOOK_NS;
    while (clock_read_ns(CLOCK_MONOTONIC) < until)
        continue;
    if (l->sleeps)
        nap(10 * BURST_NS);
    l->behind = *count;
    l->held = hold.holder.held(&hold.holder);
}

static struct look visit(bool sleeps)
{
    struct look l = {.sleeps = sleeps};
    hold_begin(&hold, hold.thread);
    hold.core.next_ns = 0;
    hold.holder.visit(&hold.holder, look, &l);
    return l;
}

static void test_held(void **state)
{
    (void)state;
    int held = 0;
    hold_new(false);
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + MOST_NS;
    for (; held < HELD && clock_read_ns(CLOCK_MONOTONIC) < until; usleep(500)) {
        struct look l = visit(false);
        assert_false(hold.slept);
        assert_int_equal(hold.waited, l.held);
        held += l.held;
        if (l.held)
            assert_int_equal(l.before, l.behind);
    }
    assert_int_equal(held, HELD);
}

static int pin(pid_t pid, size_t core)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    return sched_setaffinity(pid, sizeof(one), &one);
}

/* It runs on another core than the one on which it is looked for. */
static void test_elsewhere(void **state)
{
    (void)state;
    size_t core = 0, other;
    if (CPU_COUNT(&cores) < 2)
        skip();
    while (!CPU_ISSET(core, &cores))
        core++;
    for (other = core + 1; !CPU_ISSET(other, &cores);)
        other++;
    hold_new(false);
    assert_int_equal(pin(pids[0], core), 0);
    assert_int_equal(pin(0, other), 0);
    usleep(20000);
    assert_true(kernel_thread_place(kernel, hold.thread, &hold.place));
    assert_int_equal(hold.place.core, core);
    hold.place = (struct kernel_place){(int)other, hold.place.turns - 1};
    assert_false(hold.holder.begin(&hold.holder));
    assert_false(hold.slept);
    assert_int_equal(hold.place.core, core);
}

/* Who is looked at there runs meanwhile: that is told. */
static void test_left(void **state)
{
    (void)state;
    int begun = 0;
    hold_new(false);
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + MOST_NS;
    for (; begun < HELD / 10 && clock_read_ns(CLOCK_MONOTONIC) < until; usleep(500)) {
        struct look l = visit(true);
        begun += l.begun;
        if (l.before != l.behind)
            assert_false(l.held);
    }
    assert_int_equal(begun, HELD / 10);
}

/* The process, and we, are moved from core to core all the time: whenever it was held it did
 * nothing. */
static void test_moved(void **state)
{
    (void)state;
    int held = 0, looks = 0;
    if (CPU_COUNT(&cores) < 2)
        skip();
    hold_new(false);
    for (size_t i = 1; i < sizeof(pids) / sizeof(*pids); i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (int64_t ns = 0;; ns = (ns + 77777) % 3000000) {
                int64_t end = clock_read_ns(CLOCK_MONOTONIC) + ns;
                while (clock_read_ns(CLOCK_MONOTONIC) < end)
                    continue;
                nap(ns / 2);
                if (i == 1)
                    pin(pids[0], (size_t)sched_getcpu());
                else
                    sched_setaffinity(pids[0], sizeof(cores), &cores);
            }
        }
    }
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + MOST_NS;
    for (; held < 10 * HELD && clock_read_ns(CLOCK_MONOTONIC) < until; looks++, nap(100000)) {
        struct look l = visit(looks % 4 == 0);
        held += l.held;
        if (l.held)
            assert_int_equal(l.before, l.behind);
    }
    print_message("held %d of %d looks\n", held, looks);
    assert_true(held > 0);
}

/* It fell asleep on our way there, and stood still for that reason: it did not run, and is not to
 * be counted as if it had. Who is seen to wait was about to run. */
static void test_slept(void **state)
{
    (void)state;
    int waited = 0, slept = 0;
    hold_new(true);
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + 2 * MOST_NS; /* rare, where cores work */
    while ((waited < SLEPT || slept < SLEPT) && clock_read_ns(CLOCK_MONOTONIC) < until) {
        struct look l = visit(false);
        assert_false(hold.slept && hold.waited);
        if (hold.slept)
            assert_true(hold.core.next_ns > clock_read_ns(CLOCK_MONOTONIC) + REFUSED_NS / 2);
        waited += hold.waited;
        slept += l.held && hold.slept;
        nap(10000 + slept * 1000 % 300000);
    }
    print_message("waited %d times, slept %d times\n", waited, slept);
    assert_true(waited >= SLEPT);
    assert_true(slept >= SLEPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
