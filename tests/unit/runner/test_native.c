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

static void on_done(void *context)
{
    *(bool *)context = true;
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
              "    while True: pass\n"
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

static void sample(int64_t duration_ms, bool stop, bool end)
{
    pid_t pid = start_python();
    if (pid == 0)
        skip(); /* no /usr/bin/python3 */
    struct options options = {.proc = "/proc"};
    struct run run;
    struct native *n = NULL;
    struct err err = ERR_INIT;
    bool done = false;
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task.sampling =
        (struct sampling_spec){.rate = 100, .duration_ms = duration_ms, .engine = ENGINE_NATIVE};
    int r = native_start(&run, pid, true, run.profile, on_done, &done, &n, &err);
    if (r < 0)
        fail_msg("%s", err.message);
    usleep(1000000);
    if (stop)
        native_stop(n);
    if (end)
        kill(pid, SIGKILL);
    for (int i = 0; i < 200 && !done; i++)
        loop_step(run.loop, 100, NULL);
    assert_true(done);
    struct record_result result = native_result(n);
    assert_int_equal(result.exited, end);
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

static void test_wanted(void **state)
{
    (void)state;
    assert_false(native_wanted(&(struct sampling_spec){.engine = ENGINE_AUTO}));
    assert_false(native_wanted(&(struct sampling_spec){.engine = ENGINE_AUTO, .native = true}));
    assert_false(native_wanted(&(struct sampling_spec){.engine = ENGINE_PYSPY}));
    assert_true(native_wanted(&(struct sampling_spec){.engine = ENGINE_NATIVE}));
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
        cmocka_unit_test(test_target_ends), cmocka_unit_test(test_wanted),
        cmocka_unit_test(test_judge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
