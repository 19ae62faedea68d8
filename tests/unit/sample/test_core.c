/* Work on the core of a process that is busy there, as the kernel really does it. */
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
#include <unistd.h>

#include "base/clock.h"
#include "sample/core.h"
#include "sample/sample_internal.h"

#define TIMES   50
#define LONG_NS 50000 /* longer than a look takes to copy a stack */

static cpu_set_t before; /* where the test may run */
static volatile uint64_t *count;
static pid_t busy; /* 0: nobody */
static struct visitor *visitor;

struct work {
    struct kernel *kernel; /* NULL: not asked */
    struct kernel_thread *thread;
    int times, core;
    pid_t tid;
    bool still; /* the other one, meanwhile */
    bool placed, waited;
};

static int first_core(void)
{
    int core = 0;
    while (!CPU_ISSET((size_t)core, &before))
        core++;
    return core;
}

static int next_core(int core)
{
    do
        core = (core + 1) % CPU_SETSIZE;
    while (!CPU_ISSET((size_t)core, &before));
    return core;
}

static void pin(pid_t pid, int core)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)core, &one);
    assert_int_equal(sched_setaffinity(pid, sizeof(one), &one), 0);
}

static pid_t start_busy(int core)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            ++*count;
    }
    assert_true(pid > 0);
    busy = pid;
    pin(pid, core);
    while (*count == 0)
        usleep(1000);
    return pid;
}

static void end_busy(void)
{
    if (busy) {
        kill(busy, SIGKILL);
        waitpid(busy, NULL, 0);
    }
    busy = 0;
}

static int setup(void **state)
{
    (void)state;
    if (!count)
        count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *count = 0;
    return sched_getaffinity(0, sizeof(before), &before);
}

static int teardown(void **state)
{
    (void)state;
    end_busy();
    visitor_destroy(visitor);
    visitor = NULL;
    return sched_setaffinity(0, sizeof(before), &before);
}

static bool is_as_before(void)
{
    cpu_set_t now;
    return sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_EQUAL(&now, &before);
}

static void work(void *context)
{
    struct work *w = context;
    struct kernel_place place;
    w->times++;
    w->core = sched_getcpu();
    w->tid = gettid();
    w->placed = w->kernel && kernel_thread_place(w->kernel, w->thread, &place);
    uint64_t was = *count;
    int64_t until = clock_read_ns(CLOCK_MONOTONIC) + LONG_NS;
    while (clock_read_ns(CLOCK_MONOTONIC) < until)
        continue;
    w->still = *count == was;
    w->waited = w->placed && kernel_thread_same_turn(w->thread, &place);
}

static bool visit(int number, struct work *w)
{
    struct core core = {.visitor = &visitor};
    bool visited = core_visit(&core, number, work, w);
    assert_true(is_as_before());
    return visited;
}

static void test_visit(void **state)
{
    (void)state;
    int number = first_core(), still = 0;
    start_busy(number);
    for (int i = 0; i < TIMES; i++) {
        struct work w = {0};
        if (i == TIMES / 2 && CPU_COUNT(&before) > 1)
            pin(busy, number = next_core(number));
        pin(0, next_core(number)); /* who is there already would do the work */
        sched_setaffinity(0, sizeof(before), &before);
        usleep(1000);
        assert_true(visit(number, &w));
        assert_int_equal(w.times, 1);
        assert_int_equal(w.core, number);
        still += w.still;
    }
    assert_true(still >= TIMES / 2); /* the kernel may interrupt us as well */
}

static void test_refused(void **state)
{
    (void)state;
    struct core core = {.visitor = &visitor};
    struct work w = {0};
    assert_false(core_visit(&core, -1, work, &w));
    assert_false(core_visit(&core, CPU_SETSIZE, work, &w));
    assert_true(is_as_before());
    if (CPU_COUNT(&before) < 2)
        skip();
    int own = first_core();
    pin(0, own); /* as taskset does: that is not to be left */
    assert_false(core_visit(&core, next_core(own), work, &w));
    assert_int_equal(w.times, 0);
    assert_true(core_visit(&core, own, work, &w));
    assert_int_equal(w.times, 1);
    assert_int_equal(w.core, own);
}

/* What was bound to one core is on another one, as when the container loses cores: nothing is done
 * there, and the next time all is well again. */
static void test_moved(void **state)
{
    (void)state;
    struct work w = {0};
    if (CPU_COUNT(&before) < 2)
        skip();
    int number = first_core(), other = next_core(number);
    start_busy(number);
    pin(busy, number);
    for (; w.tid == 0 || w.tid == gettid(); usleep(1000))
        visit(number, &w); /* who is there already does the work */
    pid_t tid = w.tid;
    int refused = 0;
    for (int i = 0; i < TIMES; i++) {
        w.times = 0;
        pin(tid, other);
        pin(0, other); /* who is there already would do the work */
        sched_setaffinity(0, sizeof(before), &before);
        bool visited = visit(number, &w);
        assert_int_equal(w.times, visited);
        if (visited)
            assert_int_equal(w.core, number);
        refused += !visited;
        assert_true(visited || visit(number, &w));
        assert_int_equal(w.times, 1);
        assert_int_equal(w.core, number);
    }
    assert_true(refused > 0);
}

/* Neither getting there nor being there takes more than a part of the time. */
static void test_too_often(void **state)
{
    (void)state;
    struct core core = {.visitor = &visitor};
    struct work w = {0};
    int number = first_core();
    int64_t begun = clock_read_ns(CLOCK_MONOTONIC);
    assert_true(core_visit(&core, number, work, &w));
    assert_true(core.next_ns >= begun + 5 * LONG_NS);
    core.next_ns = INT64_MAX;
    assert_false(core_visit(&core, number, work, &w));
    assert_int_equal(w.times, 1);
    core.next_ns = 0;
    assert_true(core_visit(&core, number, work, &w));
    int64_t before_ns = clock_read_ns(CLOCK_MONOTONIC);
    core_refuse(&core);
    assert_true(core.next_ns > before_ns);
}

static void refuse(void *context)
{
    core_refuse(context);
}

/* What is refused there stays refused. */
static void test_refused_there(void **state)
{
    (void)state;
    struct core core = {.visitor = &visitor};
    int64_t begun = clock_read_ns(CLOCK_MONOTONIC);
    assert_true(core_visit(&core, first_core(), refuse, &core));
    assert_true(core.next_ns >= begun + INT64_C(1000000000));
}

/* Where a thread runs or waits, unless it need not let others run there. */
static void test_place(void **state)
{
    (void)state;
    int number = first_core();
    pid_t pid = start_busy(number);
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct kernel *kernel = NULL;
    assert_int_equal(kernel_create(proc, pid, &kernel, NULL), 0);
    struct kernel_thread *thread = kernel_find(kernel, pid);
    assert_non_null(thread);
    struct kernel_place place;
    assert_true(kernel_thread_place(kernel, thread, &place));
    assert_int_equal(place.core, number);
    struct sched_param usual = {0};
    assert_int_equal(sched_setscheduler(pid, SCHED_BATCH, &usual), 0);
    assert_true(kernel_thread_place(kernel, thread, &place));

    int waited = 0;
    for (int i = 0; i < TIMES; i++) {
        struct work w = {.kernel = kernel, .thread = thread};
        usleep(5000);
        assert_true(visit(number, &w));
        assert_true(w.placed);
        assert_true(w.still || !w.waited);
        waited += w.waited;
    }
    assert_true(waited > 0);
    assert_true(kernel_thread_place(kernel, thread, &place));
    struct work w = {0};
    visit(number, &w); /* after which it begins anew */
    for (uint64_t was = *count; *count == was;)
        usleep(1000);
    assert_false(kernel_thread_same_turn(thread, &place));

    kill(pid, SIGSTOP);
    waitpid(pid, NULL, WUNTRACED);
    assert_false(kernel_thread_place(kernel, thread, &place));
    end_busy();
    assert_false(kernel_thread_place(kernel, thread, &place));
    kernel_destroy(kernel);
    close(proc);
}

/* It need not let others run. */
static void test_real_time(void **state)
{
    (void)state;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct kernel *kernel = NULL;
    struct kernel_place place;
    assert_int_equal(kernel_create(proc, getpid(), &kernel, NULL), 0);
    struct kernel_thread *thread = kernel_find(kernel, getpid());
    assert_non_null(thread);
    struct sched_param usual = {0}, first = {.sched_priority = 1};
    bool before_it = kernel_thread_place(kernel, thread, &place), then = false;
    bool allowed = sched_setscheduler(0, SCHED_FIFO, &first) == 0;
    if (allowed) {
        then = kernel_thread_place(kernel, thread, &place);
        sched_setscheduler(0, SCHED_OTHER, &usual);
    }
    kernel_destroy(kernel);
    close(proc);
    assert_true(before_it);
    assert_false(then);
    if (!allowed)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_visit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_often, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_place, setup, teardown),
        cmocka_unit_test(test_real_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
