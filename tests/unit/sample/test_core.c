/* Coming to the core of a process that is busy there, and back, as the kernel really does it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
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

static int first_core(void)
{
    int core = 0;
    while (!CPU_ISSET((size_t)core, &before))
        core++;
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
    return sched_setaffinity(0, sizeof(before), &before);
}

static bool is_as_before(void)
{
    cpu_set_t now;
    return sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_EQUAL(&now, &before);
}

static void test_join(void **state)
{
    (void)state;
    int number = first_core(), still = 0;
    start_busy(number);
    for (int i = 0; i < TIMES; i++) {
        struct core core = {0};
        usleep(1000);
        assert_true(core_join(&core, number));
        assert_int_equal(sched_getcpu(), number);
        uint64_t was = *count;
        int64_t until = clock_read_ns(CLOCK_MONOTONIC) + LONG_NS;
        while (clock_read_ns(CLOCK_MONOTONIC) < until)
            continue;
        still += *count == was;
        assert_true(core_join(&core, number)); /* is there */
        core_leave(&core);
        assert_true(is_as_before());
        core_leave(&core); /* has left */
        assert_true(is_as_before());
    }
    assert_true(still >= TIMES / 2); /* the kernel may interrupt us as well */
}

static void test_refused(void **state)
{
    (void)state;
    struct core core = {0};
    assert_false(core_join(&core, -1));
    assert_false(core_join(&core, CORES_MAX));
    assert_true(is_as_before());
    if (CPU_COUNT(&before) < 2)
        skip();
    int own = first_core(), other = own + 1;
    while (!CPU_ISSET((size_t)other, &before))
        other++;
    pin(0, own); /* as taskset does: that is not to be left */
    assert_false(core_join(&core, other));
    assert_int_equal(sched_getcpu(), own);
    core_leave(&core);
    assert_int_equal(sched_getcpu(), own);
    assert_true(core_join(&core, own));
    core_leave(&core);
    assert_int_equal(sched_getcpu(), own);
}

/* Neither getting there nor being there takes more than a part of the time. */
static void test_too_often(void **state)
{
    (void)state;
    struct core core = {0};
    int number = first_core();
    assert_true(core_join(&core, number));
    int64_t joined = clock_read_ns(CLOCK_MONOTONIC);
    usleep(20000);
    int64_t left = clock_read_ns(CLOCK_MONOTONIC);
    core_leave(&core);
    assert_true(core.next_ns >= left + 4 * (left - joined));
    core.next_ns = INT64_MAX;
    assert_false(core_join(&core, number));
    assert_true(is_as_before());
    core.next_ns = 0;
    assert_true(core_join(&core, number));
    core_leave(&core);
    int64_t before_ns = clock_read_ns(CLOCK_MONOTONIC);
    core_refuse(&core);
    assert_true(core.next_ns > before_ns);
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
        struct core core = {0};
        usleep(5000);
        assert_true(core_join(&core, number));
        assert_true(kernel_thread_place(kernel, thread, &place));
        uint64_t was = *count;
        int64_t until = clock_read_ns(CLOCK_MONOTONIC) + LONG_NS;
        while (clock_read_ns(CLOCK_MONOTONIC) < until)
            continue;
        bool same = *count == was;
        if (kernel_thread_waited(thread, &place)) {
            assert_true(same);
            waited++;
        }
        core_leave(&core);
    }
    assert_true(waited > 0);
    uint64_t was = *count;
    while (*count == was)
        usleep(1000);
    assert_false(kernel_thread_waited(thread, &place));

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
        cmocka_unit_test_setup_teardown(test_join, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_often, setup, teardown),
        cmocka_unit_test_setup_teardown(test_place, setup, teardown),
        cmocka_unit_test(test_real_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
