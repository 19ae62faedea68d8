/* Our own sampler in the runner: at a real interpreter, on its thread, told to the loop; and what
 * the ways it ends mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/native.h"

struct told {
    bool opened, done;
    int code;
};

static void on_opened(void *context, int code, const struct err *err)
{
    struct told *told = context;
    assert_false(told->opened);
    assert_true((code < 0) == (err && err->message[0]));
    told->opened = true;
    told->code = code;
}

static void on_done(void *context)
{
    struct told *told = context;
    assert_true(told->opened);
    told->done = true;
}

static struct native *start(struct run *run, pid_t pid, bool children, struct profile *profile,
                            struct told *told)
{
    struct native_events events = {on_opened, on_done, told};
    struct native *n = NULL;
    struct err err = ERR_INIT;
    if (native_start(run, pid, children, profile, &events, &n, &err) < 0)
        fail_msg("%s", err.message);
    return n;
}

static pid_t start_python(void)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        unsetenv("LD_PRELOAD");
        execl("/usr/bin/python3", "python3", "-c",
              "def spin():\n"
              "    while True:\n"
              "        x = 1\n"
              "        x = 2\n"
              "print('ready', flush=1)\n"
              "spin()\n",
              NULL);
        _exit(127);
    }
    close(fds[1]);
    char text[8] = "";
    ssize_t n = 1;
    /* To the end of the line: a pipe closed under it would end it. */
    while (n == 1 && text[0] != '\n')
        n = read(fds[0], text, 1);
    close(fds[0]);
    if (n == 1)
        return pid;
    waitpid(pid, NULL, 0);
    return 0;
}

/* Debian's interpreter, which is older than what shows the tasks of asyncio, or not. */
static bool shows_tasks(void)
{
    return system("/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 12))'") == 0;
}

static void sample(int64_t duration_ms, bool stop, bool end)
{
    pid_t pid = start_python();
    if (pid == 0)
        skip(); /* no /usr/bin/python3 */
    struct options options = {.proc = "/proc"};
    struct run run;
    struct told told = {0};
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task.sampling = (struct sampling_spec){
        .rate = 100, .duration_ms = duration_ms, .engine = ENGINE_NATIVE, .async_tasks = true};
    struct native *n = start(&run, pid, true, run.profile, &told);
    usleep(1000000);
    if (stop)
        native_stop(n);
    if (end)
        kill(pid, SIGKILL);
    for (int i = 0; i < 200 && !told.done; i++)
        loop_step(run.loop, 100, NULL);
    assert_true(told.done);
    assert_int_equal(told.code, 0);
    struct record_result result = native_result(n);
    assert_int_equal(result.exited, end);
    assert_string_equal(result.without_tasks, shows_tasks() ? "" : result.version);
    assert_true(profile_samples(run.profile) >= 1);
    assert_true(result.counts.stacks == profile_samples(run.profile));
    native_destroy(n);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    run_finish(&run);
}

static void test_whole(void **state)
{
    (void)state;
    sample(500, false, false);
}

static void test_stopped(void **state)
{
    (void)state;
    sample(60000, true, false);
}

static void test_target_ends(void **state)
{
    (void)state;
    sample(60000, false, true);
}

static void test_no_python(void **state)
{
    (void)state;
    struct options options = {.proc = "/proc"};
    struct run run;
    struct told told = {0};
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task.sampling = (struct sampling_spec){.rate = 100, .duration_ms = 500};
    struct native *n = start(&run, getpid(), false, run.profile, &told);
    for (int i = 0; i < 200 && !told.opened; i++)
        loop_step(run.loop, 100, NULL);
    assert_true(told.opened);
    assert_int_equal(told.code, ERR_INVALID);
    native_destroy(n);
    assert_false(told.done);
    run_finish(&run);
}

/* What was taken until no more fitted is there. */
static void test_full(void **state)
{
    (void)state;
    pid_t pid = start_python();
    if (pid == 0)
        skip(); /* no /usr/bin/python3 */
    struct options options = {.proc = "/proc"};
    struct run run;
    struct told told = {0};
    assert_int_equal(run_set_up(&run, &options), 0);
    run.room.nodes = 2; /* one line of the loop, not the other */
    _cleanup_(profile_destroyp) struct profile *profile = run_create_profile(&run, true);
    run.task.sampling = (struct sampling_spec){.rate = 1000, .duration_ms = 10000};
    struct native *n = start(&run, pid, false, profile, &told);
    for (int i = 0; i < 200 && !told.done; i++)
        loop_step(run.loop, 100, NULL);
    struct record_result result = native_result(n);
    struct outcome outcome;
    native_judge(&(struct native_facts){.result = &result, .samples = profile_samples(profile)},
                 &outcome);
    assert_true(result.full);
    assert_true(profile_samples(profile) > 0);
    assert_int_equal(outcome.reason, REASON_RESULT_TOO_LARGE);
    assert_non_null(strstr(outcome.message, "samples until then are kept"));
    native_destroy(n);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    run_finish(&run);
}

static void test_ours_wherever_it_can(void **state)
{
    (void)state;
    static const struct {
        struct sampling_spec sampling;
        int engine;
        enum engine_reason why;
    } rows[] = {
        {{.engine = ENGINE_AUTO}, ENGINE_NATIVE, ENGINE_REASON_PREFERRED},
        {{.engine = ENGINE_AUTO, .gil = true}, ENGINE_NATIVE, ENGINE_REASON_PREFERRED},
        {{.engine = ENGINE_AUTO, .nonblocking = true}, ENGINE_NATIVE, ENGINE_REASON_PREFERRED},
        {{.engine = ENGINE_AUTO, .native = true}, ENGINE_PYSPY, ENGINE_REASON_NATIVE_STACKS},
        {{.engine = ENGINE_PYSPY}, ENGINE_PYSPY, ENGINE_REASON_REQUESTED},
        {{.engine = ENGINE_PYSPY, .native = true}, ENGINE_PYSPY, ENGINE_REASON_REQUESTED},
        {{.engine = ENGINE_NATIVE}, ENGINE_NATIVE, ENGINE_REASON_REQUESTED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        enum engine_reason why = ENGINE_REASON_NONE;
        assert_int_equal(native_or_not(&rows[i].sampling, &why), rows[i].engine);
        assert_int_equal(why, rows[i].why);
    }
}

static void test_takeover(void **state)
{
    (void)state;
    static const struct {
        int engine, code;
        enum engine_reason why;
    } rows[] = {
        {ENGINE_AUTO, ERR_INVALID, ENGINE_REASON_UNSUPPORTED_PYTHON},
        {ENGINE_AUTO, ERR_IO, ENGINE_REASON_NATIVE_FAILED},
        {ENGINE_AUTO, ERR_TOO_LARGE, ENGINE_REASON_NATIVE_FAILED},
        {ENGINE_AUTO, ERR_CONFLICT, ENGINE_REASON_NATIVE_FAILED},
        {ENGINE_AUTO, ERR_NOT_FOUND, ENGINE_REASON_NONE},
        {ENGINE_AUTO, ERR_FORBIDDEN, ENGINE_REASON_NONE},
        {ENGINE_NATIVE, ERR_INVALID, ENGINE_REASON_NONE},
        {ENGINE_NATIVE, ERR_IO, ENGINE_REASON_NONE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(
            native_takeover(&(struct sampling_spec){.engine = rows[i].engine}, rows[i].code),
            rows[i].why);
}

static void test_judge(void **state)
{
    (void)state;
    const struct {
        struct native_facts facts;
        struct record_result result;
        int reason;
    } rows[] = {
        {{.samples = 9}, {.looks = 10}, REASON_NONE},
        {{.samples = 9, .cancelled = true}, {.looks = 10}, REASON_CANCELLED},
        {{.samples = 9, .target_stopped = true}, {.looks = 10}, REASON_PROFILER_FAILED},
        {{.timed_out = true}, {.looks = 0}, REASON_PROFILER_FAILED},
        {{.samples = 9}, {.looks = 10, .full = true}, REASON_RESULT_TOO_LARGE},
        {{.samples = 9, .target_exited = true}, {.looks = 10}, REASON_PROCESS_EXITED},
        {{.target_exited = true}, {.looks = 10}, REASON_PROCESS_EXITED},
        {{0}, {.looks = 10}, REASON_NO_SAMPLES},
        {{.gil = true}, {.looks = 10}, REASON_NO_SAMPLES},
        {{0}, {.looks = 10, .counts = {.errors = 10}}, REASON_NO_SAMPLES},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct native_facts facts = rows[i].facts;
        struct outcome outcome = {0};
        facts.result = &rows[i].result;
        native_judge(&facts, &outcome);
        assert_int_equal(outcome.reason, rows[i].reason);
        assert_int_equal(outcome.message[0] != '\0', rows[i].reason != REASON_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),       cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_target_ends), cmocka_unit_test(test_ours_wherever_it_can),
        cmocka_unit_test(test_takeover),    cmocka_unit_test(test_judge),
        cmocka_unit_test(test_no_python),   cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
