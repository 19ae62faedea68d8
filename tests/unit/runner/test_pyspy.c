/* What is asked of py-spy, what it says, and what the way it ended means: tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>

#include "base/cleanup.h"
#include "runner/pyspy.h"

struct wish {
    bool own, joined;
    const char *python;
    struct sampling_spec sampling;
    const char *flags; /* behind --output */
    const char *accuracy;
};

static const struct wish wishes[] = {
    {false, false, "3.12.1", {0}, "--gil --nonblocking", "GILOnly"},
    {false, false, "3.12.1", {.gil = true}, "--gil --nonblocking", "GILOnly"},
    {false, false, "3.12.1", {.idle = true}, "--idle --nonblocking", "IdleCounted"},
    {false, false, "3.12.1", {.idle = true, .gil = true}, "--gil --idle --nonblocking", "GILOnly"},
    {false, false, "3.12.1", {.threads = true}, "--threads --gil --nonblocking", "GILOnly"},
    {false, false, "3.12.1", {.functions = true}, "--function --gil --nonblocking", "GILOnly"},
    {true, true, "3.11.0", {0}, "--nonblocking", "Full"},
    {true, true, "3.13.0", {.nonblocking = true}, "--nonblocking", "Full"},
    {true, true, "3.12.1", {.gil = true}, "--gil --nonblocking", "GILOnly"},
    {true, true, "3.12.1", {.idle = true}, "--idle --nonblocking", "IdleCounted"},
    {true, true, "3.12.1", {.native = true}, "--native", "Full"},
    {true, false, "3.8.18", {.native = true}, "--native", "Full"},
    {true, true, "3.10.13", {0}, "--gil --nonblocking", "GILOnly"},
    {true, true, "2.7.18", {0}, "--gil --nonblocking", "GILOnly"},
    {true, true, "", {0}, "--gil --nonblocking", "GILOnly"},
    {true, true, "4.0", {0}, "--nonblocking", "Full"},
};

static void test_arguments(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wishes); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        _cleanup_(buf_finish) struct buf line = BUF_INIT(4096), expected = BUF_INIT(4096);
        struct sampling_spec sampling = wishes[i].sampling;
        sampling.duration_ms = 30000;
        sampling.rate = 99;
        struct pyspy_request request = {.pid = 7,
                                        .own_namespace = wishes[i].own,
                                        .joined = wishes[i].joined,
                                        .python = str_of(wishes[i].python),
                                        .ordered = true};
        struct pyspy_arguments arguments;
        pyspy_make_arguments(arena, "/usr/bin/py-spy", &sampling, &request, &arguments);
        for (size_t k = 0; arguments.argv[k]; k++)
            buf_appendf(&line, "%s%s", k ? " " : "", arguments.argv[k]);
        buf_appendf(&expected,
                    "/usr/bin/py-spy record --pid 7 --duration 30 --rate 99 --format speedscope "
                    "--output /proc/self/fd/3 %s",
                    wishes[i].flags);
        if (!str_eq(buf_str(&line), buf_str(&expected)))
            fail_msg("row %zu: %s", i, buf_cstr(&line));
        assert_string_equal(arguments.accuracy, wishes[i].accuracy);
    }

    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct sampling_spec sampling = {.duration_ms = 1000, .rate = 1};
    struct pyspy_request request = {.pid = 7, .subprocesses = true};
    struct pyspy_arguments arguments;
    pyspy_make_arguments(arena, "p", &sampling, &request, &arguments);
    assert_string_equal(arguments.argv[9], "raw");
    assert_string_equal(arguments.argv[12], "--subprocesses");
}

static void test_options_that_cannot_be_had(void **state)
{
    (void)state;
    static const struct {
        struct sampling_spec sampling;
        bool own, joined;
        const char *python;
        int reason;
        const char *says;
    } rows[] = {
        {{0}, false, false, "3.12", REASON_NONE, ""},
        {{.native = true}, false, false, "3.12", REASON_PERMISSION_DENIED, "runner.joinNamespaces"},
        {{.native = true}, true, true, "3.12", REASON_NONE, ""},
        {{.native = true}, true, false, "3.8", REASON_NONE, ""},
        {{.native = true}, true, true, "3.8", REASON_UNSUPPORTED_PYTHON, "3.11"},
        {{.native = true, .nonblocking = true},
         true,
         true,
         "3.12",
         REASON_PROFILER_FAILED,
         "sampling.nonblocking"},
        {{.engine = ENGINE_NATIVE, .native = true},
         true,
         true,
         "3.12",
         REASON_PROFILER_FAILED,
         "engine"},
        {{.engine = ENGINE_PYSPY}, true, true, "3.12", REASON_NONE, ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct outcome outcome = {0};
        struct pyspy_request request = {.own_namespace = rows[i].own,
                                        .joined = rows[i].joined,
                                        .python = str_of(rows[i].python)};
        int r = pyspy_check_options(&rows[i].sampling, &request, &outcome);
        if ((r < 0) != (rows[i].reason != REASON_NONE) || outcome.reason != rows[i].reason ||
            str_find(str_of(outcome.message), str_of(rows[i].says)) < 0)
            fail_msg("row %zu: %s", i, outcome.message);
    }
}

static void test_order_is_kept_while_it_fits(void **state)
{
    (void)state;
    struct sampling_spec sampling = {.duration_ms = 3000000, .rate = 100};
    struct pyspy_request gil = {.python = STR("3.12")};
    struct pyspy_request full = {.python = STR("3.12"), .own_namespace = true};
    assert_true(pyspy_wants_order(&sampling, &gil, 50));
    assert_true(pyspy_wants_order(&sampling, &full, 1));
    assert_false(pyspy_wants_order(&sampling, &full, 2));
    sampling.duration_ms += 1000;
    assert_false(pyspy_wants_order(&sampling, &gil, 1));
}

/* Texts of py-spy 0.4.3. */
static const struct {
    const char *text;
    const char *error, *last;
    int64_t late, errors;
    bool started, exited;
} texts[] = {
    {"py-spy> Sampling process 100 times a second for 2 seconds. Press Control-C to exit.\n\n"
     "py-spy> Wrote speedscope file to '/proc/self/fd/3'. Samples: 119 Errors: 194\n"
     "py-spy> Visit https://www.speedscope.app/ to view\n",
     "", "", 0, 194, true, false},
    {"py-spy> Sampling process 1000 times a second for 6 seconds. Press Control-C to exit.\n"
     "py-spy> 3.34s behind in sampling, results may be inaccurate. Try reducing the sampling rate\n"
     "py-spy> 3.02s behind in sampling, results may be inaccurate. Try reducing the sampling rate\n"
     "\n\npy-spy> Stopped sampling because process exited\n"
     "py-spy> Wrote raw flamegraph data to 'o'. Samples: 154 Errors: 0\n",
     "", "", 2, 0, true, true},
    {"Error: Failed to find python version from target process\n",
     "Failed to find python version from target process",
     "Error: Failed to find python version from target process", 0, 0, false, false},
    {"Error: Failed to get process executable name. Check that the process is running.\n\n"
     "Caused by:\n    0: Permission denied (os error 13)\n    1: Permission denied (os error 13)\n",
     "Failed to get process executable name. Check that the process is running.: Permission denied "
     "(os error 13)",
     "1: Permission denied (os error 13)", 0, 0, false, false},
    {"Error: Failed to suspend process\n\nCaused by:\n    unexpected waitpid result X\n\n"
     "Stack backtrace:\n   0: anyhow::error\n",
     "Failed to suspend process: unexpected waitpid result X", "0: anyhow::error", 0, 0, false,
     false},
    {"\nthread 'main' (32285) panicked at src/config.rs:398:65:\ninvalid duration: ParseIntError\n"
     "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
     "thread 'main' (32285) panicked at src/config.rs:398:65:: invalid duration: ParseIntError",
     "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace", 0, 0, false,
     false},
    {"cut off", "", "cut off", 0, 0, false, false},
    {"py-spy> Wrote x. Samples: 1 Errors: many\n", "", "", 0, 0, false, false},
    {"", "", "", 0, 0, false, false},
};

static void test_output(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        /* However the pipe cuts it. */
        for (size_t step = 1; step < 40; step += 13) {
            struct pyspy_output o;
            pyspy_output_init(&o);
            struct str text = str_of(texts[i].text);
            for (size_t at = 0; at < text.len; at += step)
                pyspy_output_feed(&o, str_sub(text, at, step));
            pyspy_output_end(&o);
            if (!str_is(str_of(o.error), texts[i].error) ||
                !str_is(str_of(o.last), texts[i].last) || o.late != texts[i].late ||
                o.errors != texts[i].errors || o.started != texts[i].started ||
                o.process_exited != texts[i].exited)
                fail_msg("row %zu: error \"%s\" last \"%s\"", i, o.error, o.last);
            pyspy_output_finish(&o);
        }
    }
}

static void test_output_without_end(void **state)
{
    (void)state;
    struct pyspy_output o;
    pyspy_output_init(&o);
    char junk[4096];
    memset(junk, 'x', sizeof(junk));
    for (int i = 0; i < 1000; i++)
        pyspy_output_feed(&o, (struct str){junk, sizeof(junk)});
    pyspy_output_feed(&o, STR("\nError: a\nCaused by:\n"));
    for (int i = 0; i < 1000; i++)
        pyspy_output_feed(&o, STR("0: another cause that is somewhat longer than nothing\n"));
    assert_true(strnlen(o.error, sizeof(o.error)) < sizeof(o.error));
    assert_true(str_starts_with(str_of(o.error), STR("a: another cause")));
    assert_true(o.line.cap <= 2 * PYSPY_LINE_MAX);
    pyspy_output_finish(&o);
}

#define EXIT(n)   ((n) << 8)
#define SIGNAL(n) (n)

struct judgement {
    struct pyspy_facts facts; /* output is made from `text` */
    const char *text;
    int reason;
    const char *says;
};

static const struct judgement judgements[] = {
    {{.samples = 100, .attached = true}, "", REASON_NONE, ""},
    {{.samples = 100, .attached = true, .target_exited = true}, "", REASON_NONE, ""},
    {{.samples = 87, .attached = true, .target_exited = true},
     "py-spy> Stopped sampling because process exited\n",
     REASON_PROCESS_EXITED,
     "87 samples"},
    {{.samples = 5, .cancelled = true, .attached = true}, "", REASON_CANCELLED, "5 samples"},
    {{.samples = 9, .target_stopped = true, .attached = true},
     "",
     REASON_PROFILER_FAILED,
     "stopped (state T); 9 samples"},
    {{.samples = 9, .attached = false},
     "py-spy> Sampling process\n",
     REASON_PROCESS_EXITED,
     "before sampling began"},
    {{.samples = 9, .attached = true, .wait_status = EXIT(1)},
     "Error: late\n",
     REASON_PROFILER_FAILED,
     "after 9 samples: late"},
    {{.target_exited = true, .wait_status = EXIT(1)},
     "Error: No such file (os error 2)\n",
     REASON_PROCESS_EXITED,
     "ended"},
    {{.target_exited = true, .wait_status = SIGNAL(SIGKILL)},
     "",
     REASON_PROCESS_EXITED,
     "took py-spy along"},
    {{.wait_status = SIGNAL(SIGKILL)}, "", REASON_PROFILER_FAILED, "memory limit"},
    {{.wait_status = SIGNAL(SIGKILL), .timed_out = true},
     "Error: stuck\n",
     REASON_PROFILER_FAILED,
     "did not end in time and was killed; its last line: stuck"},
    {{.wait_status = SIGNAL(SIGSEGV)}, "", REASON_PROFILER_FAILED, "signal 11"},
    {{.wait_status = SIGNAL(SIGXFSZ)}, "", REASON_RESULT_TOO_LARGE, "64 MiB"},
    {{.wait_status = SIGNAL(SIGXFSZ), .samples = 7},
     "",
     REASON_RESULT_TOO_LARGE,
     "the 7 samples that fit are kept"},
    {{.samples = 7, .full = "too many frames"},
     "",
     REASON_RESULT_TOO_LARGE,
     "too many frames; the 7 samples that fit are kept"},
    {{.wait_status = EXIT(1)},
     "Error: Failed to find python version from target process\n",
     REASON_UNSUPPORTED_PYTHON,
     "version"},
    {{.wait_status = EXIT(1)},
     "Error: Unsupported version of Python: 3.99.0\n",
     REASON_UNSUPPORTED_PYTHON,
     "3.99.0"},
    {{.wait_status = EXIT(1)},
     "Error: Permission denied (os error 13)\n",
     REASON_PERMISSION_DENIED,
     "DAC_READ_SEARCH"},
    {{.wait_status = EXIT(1)},
     "Permission Denied: Try running again with elevated permissions by going 'sudo'\n",
     REASON_PERMISSION_DENIED,
     "SYS_PTRACE"},
    {{.wait_status = EXIT(1)},
     "Error: x\n\nCaused by:\n  Operation not permitted (os error 1)\n",
     REASON_PERMISSION_DENIED,
     "Operation not permitted"},
    {{.wait_status = EXIT(1)},
     "Error: failed to get os threadid\n",
     REASON_PROFILER_FAILED,
     "py-spy: failed to get os threadid"},
    {{.wait_status = EXIT(101)},
     "thread 'main' panicked at a.rs:1:\nboom\n",
     REASON_PROFILER_FAILED,
     "boom"},
    {{.wait_status = EXIT(1)}, "", REASON_PROFILER_FAILED, "it said nothing"},
    {{.wait_status = EXIT(SPAWN_EXIT_SETUP)},
     "Error: /usr/bin/py-spy: No such file or directory\n",
     REASON_PROFILER_FAILED,
     "/usr/bin/py-spy: No such file"},
    {{.wait_status = EXIT(SPAWN_EXIT_SETUP)},
     "Error: runner.joinNamespaces: mount /proc: Operation not permitted\n",
     REASON_PERMISSION_DENIED,
     "mount /proc"},
    {{.unreadable = "line 1: no JSON"}, "", REASON_PROFILER_FAILED, "line 1: no JSON"},
    {{.attached = true, .looks = 3000, .accuracy = "GILOnly"},
     "",
     REASON_NO_SAMPLES,
     "the GIL was free in 3000 of 3000 looks: idle, or in native code"},
    {{.attached = true, .looks = 300, .accuracy = "Full"},
     "",
     REASON_NO_SAMPLES,
     "no thread was running in 300 of 300 looks"},
    {{.attached = true, .looks = 300, .accuracy = "Full"},
     "py-spy> Wrote x. Samples: 0 Errors: 200\n",
     REASON_NO_SAMPLES,
     "200 of 300 looks"},
};

static void test_every_way_to_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(judgements); i++) {
        struct pyspy_output o;
        pyspy_output_init(&o);
        pyspy_output_feed(&o, str_of(judgements[i].text));
        struct pyspy_facts facts = judgements[i].facts;
        facts.output = &o;
        if (!facts.accuracy)
            facts.accuracy = "Full";
        struct outcome outcome = {0};
        pyspy_judge(&facts, &outcome);
        if (outcome.reason != judgements[i].reason ||
            str_find(str_of(outcome.message), str_of(judgements[i].says)) < 0)
            fail_msg("row %zu: %s: %s", i, profile_reason_names[outcome.reason], outcome.message);
        pyspy_output_finish(&o);
    }
}

static void test_scrub(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"process 7:\"python a.py\";main (a.py:1) 5\n", "process 7;main (a.py:1) 5\n"},
        {"process 7:\"p\";process 8:\"q --password=x\";f (a.py:1) 5\n",
         "process 7;process 8;f (a.py:1) 5\n"},
        {"process 7:\"p --password=a;b\";c\";f (a.py:1) 5\n", "process 7;f (a.py:1) 5\n"},
        {"process 7:\"p\";process 666:\"secret\";x\";f (a.py:1) 5\n",
         "process 7;process 666;f (a.py:1) 5\n"},
        {"process 7:\"python -c import x\nrun(secret 7\nrest\";f (a.py:1) 5\n", "f (a.py:1) 5\n"},
        {"secret 12\n", ""},
        {"", ""},
        {"\n\n", ""},
        {"process 7:\"p\";f (a.py:1) 5", "process 7;f (a.py:1) 5\n"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(buf_finish) struct buf out = BUF_INIT(4096);
        scrub_raw(str_of(rows[i].in), &out);
        if (!str_is(buf_str(&out), rows[i].out))
            fail_msg("row %zu: \"%s\"", i, buf_cstr(&out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_options_that_cannot_be_had),
        cmocka_unit_test(test_order_is_kept_while_it_fits),
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_output_without_end),
        cmocka_unit_test(test_every_way_to_end),
        cmocka_unit_test(test_scrub),
    };
    return cmocka_run_group_tests_name("runner/pyspy", tests, NULL, NULL);
}
