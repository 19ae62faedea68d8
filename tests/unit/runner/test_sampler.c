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

/* The lines of its code lie in memory that somebody should bring, but does not. */
#define HANGING                                                                                    \
    "import ctypes, fcntl, os, platform, struct\n"                                                 \
    "libc = ctypes.CDLL(None)\n"                                                                   \
    "number = {'x86_64': 323, 'aarch64': 282}[platform.machine()]\n"                               \
    "fd = libc.syscall(number, os.O_CLOEXEC)\n"                                                    \
    "if fd < 0: os._exit(77)\n"                                                                    \
    "def spin():\n"                                                                                \
    "    while True: pass\n"                                                                       \
    "table = bytes(4 << 20)\n"                                                                     \
    "start, size = (id(table) + (1 << 20)) & -65536, 1 << 20\n"                                    \
    "libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 4)\n"                             \
    "fcntl.ioctl(fd, 0xc018aa3f, struct.pack('3Q', 0xaa, 0, 0))\n"                                 \
    "fcntl.ioctl(fd, 0xc020aa00, struct.pack('4Q', start, size, 1, 0))\n"                          \
    "spin.__code__ = spin.__code__.replace(co_linetable=table)\n"                                  \
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

static void sample(struct run *run, const char *code, struct sampling_spec sampling)
{
    if (!program_python(&target, code)) {
        program_kill(&target);
        skip(); /* no /usr/bin/python3, or it cannot do that here */
    }
    tree_put_living(&tree, target.pid, TREE_ID);
    assert_int_equal(run_set_up(run, &options), 0);
    run->task = (struct task){.containers = {container, 1}, .sampling = sampling};
    run->task.sampling.rate = 200;
    assert_int_equal(run_find(run) + run_choose(run), 0);
    run_sample(run);
    assert_int_equal(run->n_samplers, 1);
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

/* All of this process stands still for longer than the sampler may be late. */
static void test_pause(void **state)
{
    (void)state;
    pid_t self = getpid(), pauser = fork();
    if (pauser == 0) {
        usleep(1500000);
        kill(self, SIGSTOP);
        usleep(7000000);
        kill(self, SIGCONT);
        _exit(0);
    }
    struct run run;
    sample(&run, SPIN, (struct sampling_spec){.duration_ms = 2000, .engine = ENGINE_AUTO});
    assert_int_equal(run.outcome.reason, REASON_NONE);
    assert_null(run.samplers[0].abandoned);
    assert_true(profile_samples(run.profile) > 0);
    finish(&run);
    waitpid(pauser, NULL, 0);
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
        cmocka_unit_test_setup_teardown(test_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_program, set_up, tear_down),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/sampler", tests, NULL, NULL);
}
