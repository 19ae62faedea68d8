/* Every way that py-spy can go wrong, with a script in its place: what the run makes of it, and
 * that it ends in time. The targets are real processes behind a made-up /proc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/sample.h"
#include "tree.h"

#define BEGIN   "echo 'py-spy> Sampling process 100 times a second for 1 seconds.'\n"
#define SAMPLES "echo 'py-spy> Wrote speedscope file to x. Samples: 3 Errors: 2'\n"
#define PROFILE                                                                                    \
    "echo '{\"shared\":{\"frames\":[{\"name\":\"f\",\"file\":\"a.py\",\"line\":1},"                \
    "{\"name\":\"process 7:\\\"python --password=hunter2\\\"\",\"file\":\"\",\"line\":0}]},"       \
    "\"profiles\":[{\"type\":\"sampled\",\"name\":\"Thread 1\",\"unit\":\"seconds\","              \
    "\"startValue\":0.0,\"endValue\":0.03,\"samples\":[[1,0],[1,0],[1,0]],"                        \
    "\"weights\":[0.01,0.01,0.01]}]}' > /proc/self/fd/3\n"

static struct tree tree;
static char script[128];
static struct options options = {.proc = tree.root, .py_spy = script};
static pid_t target;
static struct task_container container[] = {{STR("app"), STR(TREE_ID)}};

static pid_t start_target(int container_pid)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    struct tree_process p = {pid, container_pid, 'S', 100 + container_pid, 0, "app", TREE_ID, true};
    tree_put(&tree, &p);
    return pid;
}

static void end_target(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static int set_up(void **state)
{
    (void)state;
    tree_create(&tree);
    snprintf(script, sizeof(script), "%s/py-spy", tree.root);
    target = start_target(7);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    end_target(target);
    tree_destroy(&tree);
    return 0;
}

static void put_script(const char *body)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
    buf_appendf(&text, "#!/bin/sh\n%s", body);
    tree_put_file(&tree, "py-spy", text.ptr, text.len, 0755);
}

static int sample(struct run *run)
{
    assert_int_equal(run_set_up(run, &options), 0);
    run->task = (struct task){
        .containers = {container, 1},
        .sampling = {.duration_ms = 1000,
                     .rate = 100,
                     .subprocesses = true,
                     .engine = ENGINE_PYSPY},
    };
    int r = run_find(run);
    if (r == 0)
        r = run_choose(run);
    return r == 0 ? run_sample(run) : r;
}

static const struct {
    const char *name, *script;
    int reason;
    const char *says;
    int64_t samples;
} rows[] = {
    {"all well", BEGIN PROFILE SAMPLES, REASON_NONE, "", 3},
    {"samples and a failure", BEGIN PROFILE "echo 'Error: at the end' >&2\nexit 1\n",
     REASON_PROFILER_FAILED, "after 3 samples: at the end", 3},
    {"denied", "echo 'Error: Permission denied (os error 13)' >&2\nexit 1\n",
     REASON_PERMISSION_DENIED, "runner.capabilities", 0},
    {"panic", "printf \"thread 'main' panicked at a.rs:1:\\nboom\\n\" >&2\nexit 101\n",
     REASON_PROFILER_FAILED, "boom", 0},
    {"unsupported", "echo 'Error: Unsupported version of Python: 3.99.0' >&2\nexit 1\n",
     REASON_UNSUPPORTED_PYTHON, "3.99.0", 0},
    {"killed", BEGIN "kill -9 $$\n", REASON_PROFILER_FAILED, "memory limit", 0},
    {"silent success", BEGIN, REASON_PROFILER_FAILED, "it is empty", 0},
    {"no samples", BEGIN "echo '{\"shared\":{\"frames\":[]},\"profiles\":[]}' > /proc/self/fd/3\n",
     REASON_NO_SAMPLES, "no thread was running", 0},
    {"silent failure", "exit 3\n", REASON_PROFILER_FAILED, "it said nothing", 0},
    {"garbage", BEGIN "echo 'no JSON at all' > /proc/self/fd/3\n", REASON_PROFILER_FAILED,
     "cannot be read", 0},
    {"half a profile", BEGIN "printf '{\"shared\":{\"frames\":[' > /proc/self/fd/3\n",
     REASON_PROFILER_FAILED, "cannot be read", 0},
    {"huge standard error",
     BEGIN "head -c 2000000 /dev/zero | tr '\\0' x >&2\necho >&2\necho 'Error: last' >&2\nexit 1\n",
     REASON_PROFILER_FAILED, "py-spy: last", 0},
    {"says that its process exited",
     BEGIN PROFILE "echo 'py-spy> Stopped sampling because process exited'\n",
     REASON_PROCESS_EXITED, "3 samples until then are kept", 3},
    {"no environment, no descriptors",
     "[ -z \"$HOME$PYSPY_TASK\" ] || exit 9\n"
     "[ \"$RUST_BACKTRACE\" = 0 ] || exit 8\n"
     "for f in /proc/self/fd/*; do case ${f##*/} in\n"
     "[0-3]|10|255) ;; *) [ -e $f ] && exit 7;; esac; done\n"
     "[ \"$(ulimit -c)\" = 0 ] || exit 6\n" BEGIN PROFILE,
     REASON_NONE, "", 3},
    {"samples too long, then ends well",
     "trap 'echo late >&2; " /* a quote would end the trap: the profile comes from a function */
     "done_now' INT\ndone_now() {\n" PROFILE "exit 0\n}\n" BEGIN "while :; do sleep 0.1; done\n",
     REASON_NONE, "", 3},
};

static void test_failures(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        put_script(rows[i].script);
        struct run run;
        int r = sample(&run);
        if (run.outcome.reason != rows[i].reason || (r == 0) != (rows[i].samples > 0) ||
            profile_samples(run.profile) != rows[i].samples ||
            str_find(str_of(run.outcome.message), str_of(rows[i].says)) < 0)
            fail_msg("%s: %s: %s (%lld samples)", rows[i].name,
                     profile_reason_names[run.outcome.reason], run.outcome.message,
                     (long long)profile_samples(run.profile));
        /* Whatever happened, the target is as it was. */
        assert_int_equal(waitpid(target, NULL, WNOHANG), 0);
        run_finish(&run);
    }
}

static void test_no_program(void **state)
{
    (void)state;
    struct run run;
    unlink(script);
    assert_int_equal(sample(&run), -1);
    assert_int_equal(run.outcome.reason, REASON_PROFILER_FAILED);
    assert_non_null(strstr(run.outcome.message, "No such file or directory"));
    run_finish(&run);
}

static void test_command_lines_are_scrubbed(void **state)
{
    (void)state;
    put_script(BEGIN PROFILE SAMPLES);
    for (int wanted = 0; wanted < 2; wanted++) {
        struct run run;
        _cleanup_(buf_finish) struct buf raw = BUF_INIT(65536);
        assert_int_equal(run_set_up(&run, &options), 0);
        run.task = (struct task){
            .containers = {container, 1},
            .sampling = {.duration_ms = 1000,
                         .rate = 100,
                         .subprocesses = true,
                         .command_lines = wanted,
                         .engine = ENGINE_PYSPY},
        };
        assert_int_equal(run_find(&run) + run_choose(&run) + run_sample(&run), 0);
        assert_int_equal(run.samplers[0].status.errors, 2);
        assert_int_equal(profile_write_raw(run.profile, &raw, NULL), 0);
        assert_non_null(strstr(buf_cstr(&raw), "process 7"));
        assert_int_equal(strstr(buf_cstr(&raw), "hunter2") != NULL, wanted);
        run_finish(&run);
    }
}

static void put_in_foreign_namespace(void)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%d/ns/pid", tree.root, (int)target);
    unlink(path);
    assert_int_equal(symlink("/proc/self/ns/net", path), 0);
}

/* The target is CPython by its symbols only, so that our own sampler refuses it. */
static void test_engines(void **state)
{
    (void)state;
    static const struct {
        struct sampling_spec sampling;
        bool foreign; /* in a PID namespace of its own: there py-spy knows the GIL only */
        int engine;
        enum engine_reason why;
        const char *says;
        int reason;
        const char *accuracy;
    } engines[] = {
        {{.engine = ENGINE_PYSPY},
         false,
         ENGINE_PYSPY,
         ENGINE_REASON_REQUESTED,
         "",
         REASON_NONE,
         "Full"},
        {{.engine = ENGINE_AUTO},
         true,
         ENGINE_PYSPY,
         ENGINE_REASON_UNSUPPORTED_PYTHON,
         "is no ELF64 file",
         REASON_NONE,
         "GILOnly"},
        {{.engine = ENGINE_AUTO, .async_tasks = true},
         true,
         ENGINE_PYSPY,
         ENGINE_REASON_UNSUPPORTED_PYTHON,
         "; sampling.asyncTasks: py-spy does not show",
         REASON_NONE,
         "GILOnly"},
        {{.engine = ENGINE_AUTO, .native = true},
         false,
         ENGINE_PYSPY,
         ENGINE_REASON_NATIVE_STACKS,
         "sampling.native",
         REASON_NONE,
         "Full"},
        {{.engine = ENGINE_NATIVE},
         false,
         ENGINE_NATIVE,
         ENGINE_REASON_REQUESTED,
         "",
         REASON_UNSUPPORTED_PYTHON,
         ""},
    };
    put_script(BEGIN PROFILE SAMPLES);
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        struct run run;
        bool fails = engines[i].reason != REASON_NONE;
        if (engines[i].foreign)
            put_in_foreign_namespace();
        assert_int_equal(run_set_up(&run, &options), 0);
        run.task = (struct task){.containers = {container, 1}, .sampling = engines[i].sampling};
        run.task.sampling.duration_ms = 1000;
        run.task.sampling.rate = 100;
        assert_int_equal(run_find(&run) + run_choose(&run), 0);
        assert_int_equal(run_sample(&run), fails ? -1 : 0);
        assert_int_equal(run.outcome.reason, engines[i].reason);
        assert_int_equal(profile_samples(run.profile), fails ? 0 : 3);
        const struct sampler *s = run.engine_from;
        assert_ptr_equal(s, &run.samplers[0]);
        assert_int_equal(s->engine, engines[i].engine);
        assert_int_equal(s->engine_reason, engines[i].why);
        if (str_find(str_of(s->engine_message), str_of(engines[i].says)) < 0)
            fail_msg("row %zu: %s", i, s->engine_message);
        assert_int_equal(s->engine_message[0] != '\0', engines[i].says[0] != '\0');
        assert_string_equal(run.accuracy, engines[i].accuracy);
        assert_false(run.engines_differ);
        if (fails)
            assert_non_null(strstr(run.outcome.message, "sampling.engine Native: "));
        run_finish(&run);
        struct tree_process p = {target, 7, 'S', 107, 0, "app", TREE_ID, true};
        tree_put(&tree, &p);
    }
}

static void test_several_processes(void **state)
{
    (void)state;
    pid_t second = start_target(8);
    /* The first fails, the other brings samples: they are kept, and the failure is told. */
    _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
    buf_appendf(&text, "[ $3 = %d ] && { echo 'Error: bad luck' >&2; exit 1; }\n" BEGIN PROFILE,
                (int)target);
    put_script(buf_cstr(&text));
    struct run run;
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task = (struct task){
        .containers = {container, 1},
        .process = {.select = SELECT_ALL},
        .sampling = {.duration_ms = 1000,
                     .rate = 100,
                     .subprocesses = true,
                     .engine = ENGINE_PYSPY},
    };
    assert_int_equal(run_find(&run) + run_choose(&run) + run_sample(&run), 0);
    assert_int_equal(run.n_samplers, 2);
    assert_int_equal(run.outcome.reason, REASON_PROFILER_FAILED);
    assert_non_null(strstr(run.outcome.message, "process 7: py-spy: bad luck"));
    assert_int_equal(profile_samples(run.profile), 3);
    _cleanup_(buf_finish) struct buf raw = BUF_INIT(65536);
    assert_int_equal(profile_write_raw(run.profile, &raw, NULL), 0);
    assert_true(str_starts_with(buf_str(&raw), STR("process 8;")));
    run_finish(&run);
    end_target(second);
}

/* raw, as the duration makes it. */
static void sample_long(struct run *run, size_t nodes)
{
    assert_int_equal(run_set_up(run, &options), 0);
    run->room.nodes = nodes;
    run->task = (struct task){
        .containers = {container, 1},
        .sampling = {.duration_ms = 1000000, .rate = 1000, .engine = ENGINE_PYSPY},
    };
    assert_int_equal(run_find(run) + run_choose(run), 0);
    assert_int_equal(run_sample(run), 0);
    assert_int_equal(run->outcome.reason, REASON_RESULT_TOO_LARGE);
}

static void test_what_fits_is_kept(void **state)
{
    (void)state;
    struct run run;
    put_script(BEGIN "printf 'a;b 1\\na;c 2\\nd;e' > /proc/self/fd/3\nkill -XFSZ $$\n");
    sample_long(&run, 1000);
    assert_non_null(strstr(run.outcome.message, "the 3 samples that fit"));
    assert_int_equal(profile_samples(run.profile), 3);
    run_finish(&run);

    put_script(BEGIN "printf 'a;b 1\\na;c 2\\nd;e 3\\n' > /proc/self/fd/3\n");
    sample_long(&run, 3);
    assert_non_null(strstr(run.outcome.message, "a call tree of more than"));
    assert_int_equal(profile_samples(run.profile), 3);
    run_finish(&run);
}

static bool ended(void *context)
{
    return ((const struct run *)context)->uploader.ended;
}

/* tail keeps the last bytes of a pipe in memory. */
#define TAKE_64_MIB "head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null\n"

static void test_memory_is_what_sampling_took(void **state)
{
    (void)state;
    struct run run;
    int64_t before, mib = 1 << 20;
    put_script(BEGIN PROFILE SAMPLES);
    assert_int_equal(sample(&run), 0);
    before = run_memory(&run);
    assert_true(before > mib);
    /* As pyspy-upload does: another child, after all samplers. */
    run.uploader = (struct run_child){.pid = fork()};
    if (run.uploader.pid == 0) {
        execl("/bin/sh", "sh", "-c", TAKE_64_MIB, NULL);
        _exit(127);
    }
    assert_true(run_wait(&run, ended, &run, 60000));
    assert_int_equal(run.uploader.status, 0);
    assert_in_range(run_memory(&run), before, before + 32 * mib);
    run_finish(&run);

    put_script(TAKE_64_MIB BEGIN PROFILE SAMPLES);
    assert_int_equal(sample(&run), 0);
    assert_true(run_memory(&run) > before + 32 * mib);
    run_finish(&run);
}

struct push {
    struct loop_timer timer;
    void (*act)(void);
};

static void fire(struct loop_timer *timer)
{
    CONTAINER_OF(timer, struct push, timer)->act();
}

static void terminate_self(void)
{
    kill(getpid(), SIGTERM);
}

static void stop_target(void)
{
    struct tree_process p = {target, 7, 'T', 107, 0, "app", TREE_ID, true};
    tree_put(&tree, &p);
}

static void kill_target(void)
{
    kill(target, SIGKILL);
}

static const struct {
    const char *name, *script;
    void (*act)(void); /* 300 ms after sampling began */
    int reason;
    const char *says;
    int64_t samples, at_most_ms;
} pushes[] = {
    {"cancelled",
     "fin() {\n" PROFILE "exit 0\n}\ntrap fin INT\n" BEGIN "while :; do sleep 0.1; done\n",
     terminate_self, REASON_CANCELLED, "cancelled after 3 samples", 3, 1500},
    {"cancelled, deaf to SIGINT", "trap '' INT\n" BEGIN "while :; do sleep 0.1; done\n",
     terminate_self, REASON_CANCELLED, "cancelled after 0 samples", 0, 4500},
    {"target stopped",
     "fin() {\n" PROFILE "exit 0\n}\ntrap fin INT\n" BEGIN "while :; do sleep 0.1; done\n",
     stop_target, REASON_PROFILER_FAILED, "stopped (state T); 3 samples", 3, 2500},
    {"target exits, py-spy does not see it", "trap '' INT\n" BEGIN "while :; do sleep 0.1; done\n",
     kill_target, REASON_PROCESS_EXITED, "before there was a sample to keep", 0, 12000},
};

static void test_what_happens_meanwhile(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(pushes); i++) {
        put_script(pushes[i].script);
        struct run run;
        assert_int_equal(run_set_up(&run, &options), 0);
        run.task = (struct task){
            .containers = {container, 1},
            .sampling = {.duration_ms = 10000, .rate = 100, .engine = ENGINE_PYSPY},
        };
        assert_int_equal(run_find(&run) + run_choose(&run), 0);
        struct push push = {.timer = {.fire = fire}, .act = pushes[i].act};
        loop_timer_arm(run.loop, &push.timer, 300);
        int64_t began = clock_monotonic_ms(&clock_system);
        run_sample(&run);
        int64_t took = clock_monotonic_ms(&clock_system) - began;
        if (run.outcome.reason != pushes[i].reason ||
            profile_samples(run.profile) != pushes[i].samples || took > pushes[i].at_most_ms ||
            str_find(str_of(run.outcome.message), str_of(pushes[i].says)) < 0)
            fail_msg("%s: %s: %s (%lld samples, %lld ms)", pushes[i].name,
                     profile_reason_names[run.outcome.reason], run.outcome.message,
                     (long long)profile_samples(run.profile), (long long)took);
        run_finish(&run);
        end_target(target);
        tree_remove(&tree, target);
        target = start_target(7);
    }
}

static void test_target_that_is_stopped_already(void **state)
{
    (void)state;
    put_script("echo 'must not run' >&2; exit 1\n");
    stop_target();
    struct run run;
    assert_int_equal(sample(&run), -1);
    assert_int_equal(run.outcome.reason, REASON_PROFILER_FAILED);
    assert_non_null(strstr(run.outcome.message, "state T"));
    run_finish(&run);
}

/* Between finding and holding, the number came to mean another process. */
static void test_reused_number(void **state)
{
    (void)state;
    put_script(BEGIN PROFILE);
    struct run run;
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task = (struct task){.containers = {container, 1}, .sampling = {.duration_ms = 1000}};
    assert_int_equal(run_find(&run) + run_choose(&run), 0);
    struct tree_process other = {target, 7, 'S', 999, 0, "app", TREE_ID, true};
    tree_put(&tree, &other);
    assert_int_equal(run_sample(&run), -1);
    assert_int_equal(run.outcome.reason, REASON_PROCESS_EXITED);
    assert_int_equal(profile_samples(run.profile), 0);
    run_finish(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_program, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_command_lines_are_scrubbed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_engines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_several_processes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_fits_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_is_what_sampling_took, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_happens_meanwhile, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_target_that_is_stopped_already, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reused_number, set_up, tear_down),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/sample", tests, NULL, NULL);
}
