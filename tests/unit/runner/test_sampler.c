/* Our own sampler at real interpreters that it cannot read, or not to the end: what the run makes
 * of it. A script stands for py-spy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "programs.h"
#include "runner/sample.h"
#include "tree.h"

/* What would be the file's name is none, in all code that runs. */
#define UNREADABLE                                                                                 \
    "import ctypes, sys\n"                                                                         \
    "other = b'\\xff' * 64\n"                                                                      \
    "def spin():\n"                                                                                \
    "    while True: pass\n"                                                                       \
    "def spoil(code):\n"                                                                           \
    "    words = (ctypes.c_size_t * 24).from_address(id(code))\n"                                  \
    "    for i in range(24):\n"                                                                    \
    "        if words[i] == id(code.co_filename): words[i] = id(other)\n"                          \
    "spoil(spin.__code__)\n"                                                                       \
    "spoil(sys._getframe().f_code)\n"                                                              \
    "print('ready', flush=True)\n"                                                                 \
    "spin()\n"

static struct tree tree;
static char script[128];
static struct options options = {.proc = tree.root, .py_spy = script};
static struct task_container container[] = {{STR("app"), STR(TREE_ID)}};
static struct program target;

static int set_up(void **state)
{
    (void)state;
    static const char text[] =
        "#!/bin/sh\n"
        "while [ $# -gt 0 ]; do [ \"$1\" = --duration ] && seconds=$2; shift; done\n"
        "echo 'py-spy> Sampling process 100 times a second for 1 seconds.'\n"
        "echo '{\"shared\":{\"frames\":[{\"name\":\"f\",\"file\":\"a.py\",\"line\":'$seconds'}]},"
        "\"profiles\":[{\"type\":\"sampled\",\"name\":\"Thread 1\",\"unit\":\"seconds\","
        "\"startValue\":0.0,\"endValue\":0.01,\"samples\":[[0]],\"weights\":[0.01]}]}' "
        "> /proc/self/fd/3\n"
        "echo 'py-spy> Wrote speedscope file to x. Samples: 1 Errors: 0'\n";
    tree_create(&tree);
    snprintf(script, sizeof(script), "%s/py-spy", tree.root);
    tree_put_file(&tree, "py-spy", text, sizeof(text) - 1, 0755);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tree_destroy(&tree);
    return 0;
}

static void start(const char *code)
{
    if (program_python(&target, code))
        return;
    program_kill(&target);
    skip(); /* no /usr/bin/python3, or it cannot do that here */
}

static void sample_started(struct run *run, struct sampling_spec sampling)
{
    tree_put_living(&tree, target.pid, TREE_ID);
    assert_int_equal(run_set_up(run, &options), 0);
    run->task = (struct task){.containers = {container, 1}, .sampling = sampling};
    run->task.sampling.rate = 200;
    assert_int_equal(run_find(run) + run_choose(run), 0);
    run_sample(run);
    assert_int_equal(run->n_samplers, 1);
}

static void sample(struct run *run, const char *code, struct sampling_spec sampling)
{
    start(code);
    sample_started(run, sampling);
}

static pid_t later(pid_t pid, int signal_number, int64_t ms)
{
    pid_t sender = fork();
    if (sender == 0) {
        usleep((useconds_t)(ms * 1000));
        kill(pid, signal_number);
        _exit(0);
    }
    return sender;
}

static void finish(struct run *run)
{
    run_finish(run);
    program_kill(&target);
}

static void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

/* py-spy gets the time that is left. */
static void test_unreadable(void **state)
{
    (void)state;
    struct run run;
    sample(&run, UNREADABLE,
           (struct sampling_spec){.duration_ms = 20000, .engine = ENGINE_AUTO, .threads = true});
    const struct sampler *s = &run.samplers[0];
    assert_int_equal(run.outcome.reason, REASON_NONE);
    assert_int_equal(s->engine, ENGINE_PYSPY);
    assert_int_equal(s->engine_reason, ENGINE_REASON_NATIVE_FAILED);
    assert_says(s->engine_message, "100 stacks could not be read in ");
    _cleanup_(buf_finish) struct buf raw = BUF_INIT(1 << 20);
    assert_int_equal(profile_write_raw(run.profile, &raw, NULL), 0);
    /* Its line is the duration: 20 s without what ours took. */
    if (!strstr(buf_cstr(&raw), "f (a.py:") || strstr(buf_cstr(&raw), "f (a.py:20)"))
        fail_msg("%s", buf_cstr(&raw));
    finish(&run);
}

static void test_unreadable_by_ours_alone(void **state)
{
    (void)state;
    struct run run;
    sample(&run, UNREADABLE, (struct sampling_spec){.duration_ms = 1000, .engine = ENGINE_NATIVE});
    assert_int_equal(run.outcome.reason, REASON_NO_SAMPLES);
    assert_says(run.outcome.message, "could not be read");
    finish(&run);
}

static void test_hanging(void **state)
{
    (void)state;
    struct run run;
    int64_t began = clock_monotonic_ms(&clock_system);
    sample(&run, HANGING, (struct sampling_spec){.duration_ms = 1000, .engine = ENGINE_AUTO});
    assert_true(clock_monotonic_ms(&clock_system) - began < 30000);
    assert_int_equal(run.outcome.reason, REASON_PROFILER_FAILED);
    assert_says(run.outcome.message, "does not come back");
    /* In a program its thread would end with it; here the page comes with the target's end. */
    struct native *abandoned = TAKE(run.samplers[0].abandoned);
    program_kill(&target);
    native_destroy(abandoned);
    run_finish(&run);
}

/* While it is opened: whoever asks for the end gets it all the same. */
static void test_hanging_at_once(void **state)
{
    (void)state;
    struct run run;
    start(HANGING_AT_ONCE);
    int64_t began = clock_monotonic_ms(&clock_system);
    pid_t sender = later(getpid(), SIGTERM, 2000);
    sample_started(&run, (struct sampling_spec){.duration_ms = 60000, .engine = ENGINE_AUTO});
    assert_true(clock_monotonic_ms(&clock_system) - began < 30000);
    assert_int_equal(run.outcome.reason, REASON_CANCELLED);
    assert_string_equal(run.samplers[0].outcome.message, "opening it does not come back");
    struct native *abandoned = TAKE(run.samplers[0].abandoned);
    program_kill(&target);
    native_destroy(abandoned);
    run_finish(&run);
    waitpid(sender, NULL, 0);
}

/* It is sampled for as long as asked for, from when it was open. */
static void test_slow_to_open(void **state)
{
    (void)state;
    struct run run;
    start(HANGING_FOR_2_S);
    int64_t began = clock_monotonic_ms(&clock_system);
    sample_started(&run, (struct sampling_spec){.duration_ms = 1500, .engine = ENGINE_AUTO});
    const struct sampler *s = &run.samplers[0];
    assert_true(clock_monotonic_ms(&clock_system) - began > 2500);
    assert_int_equal(run.outcome.reason, REASON_NONE);
    assert_int_equal(s->engine, ENGINE_NATIVE);
    assert_true(profile_samples(run.profile) > 0);
    assert_in_range(s->ended_ms - s->began_ms, 1300, 10000);
    finish(&run);
}

static void test_cancelled_while_it_opens(void **state)
{
    (void)state;
    struct run run;
    start(HANGING_FOR_2_S);
    pid_t sender = later(getpid(), SIGTERM, 500);
    sample_started(&run, (struct sampling_spec){.duration_ms = 60000, .engine = ENGINE_AUTO});
    assert_int_equal(run.outcome.reason, REASON_CANCELLED);
    assert_int_equal(run.samplers[0].outcome.reason, REASON_CANCELLED);
    assert_int_equal(profile_samples(run.profile), 0);
    assert_null(run.samplers[0].abandoned);
    finish(&run);
    waitpid(sender, NULL, 0);
}

/* What cannot be opened because it has ended is told as that, and nothing else is tried. */
static void test_killed_while_it_opens(void **state)
{
    (void)state;
    static const int engines[] = {ENGINE_AUTO, ENGINE_NATIVE};
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        struct run run;
        start(HANGING_AT_ONCE);
        pid_t sender = later(target.pid, SIGKILL, 1000);
        sample_started(&run, (struct sampling_spec){.duration_ms = 60000, .engine = engines[i]});
        assert_int_equal(run.outcome.reason, REASON_PROCESS_EXITED);
        assert_int_equal(run.samplers[0].engine, ENGINE_NATIVE);
        finish(&run);
        waitpid(sender, NULL, 0);
    }
}

/* All of this process stands still for longer than the sampler may be late. */
static void test_pause(void **state)
{
    (void)state;
    struct run run;
    start(SPIN);
    pid_t stop = later(getpid(), SIGSTOP, 1000), go_on = later(getpid(), SIGCONT, 8000);
    sample_started(&run, (struct sampling_spec){.duration_ms = 2000, .engine = ENGINE_AUTO});
    assert_int_equal(run.outcome.reason, REASON_NONE);
    assert_null(run.samplers[0].abandoned);
    assert_true(profile_samples(run.profile) > 0);
    finish(&run);
    waitpid(stop, NULL, 0);
    waitpid(go_on, NULL, 0);
}

static void test_another_program(void **state)
{
    (void)state;
    struct run run;
    sample(&run,
           "import os, time\n"
           "print('ready', flush=True)\n"
           "end = time.time() + 2\n"
           "while time.time() < end: pass\n"
           "os.execv('/bin/sleep', ['sleep', '100'])\n",
           (struct sampling_spec){.duration_ms = 20000, .engine = ENGINE_AUTO});
    assert_int_equal(run.outcome.reason, REASON_PROCESS_EXITED);
    assert_says(run.outcome.message, "runs another program now");
    assert_true(profile_samples(run.profile) > 0);
    finish(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unreadable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unreadable_by_ours_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hanging, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hanging_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slow_to_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancelled_while_it_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_killed_while_it_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_program, set_up, tear_down),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/sampler", tests, NULL, NULL);
}
