#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "runner/options.h"

static int parse(const char *a, const char *b, const char *c, struct options *ret, struct err *err)
{
    char *argv[] = {(char *)(uintptr_t) "pyspy-runner", (char *)(uintptr_t)a, (char *)(uintptr_t)b,
                    (char *)(uintptr_t)c, NULL};
    int argc = 1 + (a != NULL) + (b != NULL) + (c != NULL);
    return options_parse(argc, argv, ret, err);
}

static void test_defaults(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(parse("run", NULL, NULL, &o, NULL), 0);
    assert_int_equal(o.command, COMMAND_RUN);
    assert_string_equal(o.py_spy, "/usr/bin/py-spy");
    assert_string_equal(o.uploader, "/usr/bin/pyspy-upload");
    assert_string_equal(o.token, "/var/run/secrets/pyspy/token");
    assert_string_equal(o.summary, "/dev/termination-log");
    assert_string_equal(o.proc, "/proc");
    assert_int_equal(o.upload_deadline_ms, 600000);
    assert_int_equal(o.log_level, LOG_INFO);
}

static void test_flags(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(parse("run", "--py-spy", "/x", &o, NULL), 0);
    assert_string_equal(o.py_spy, "/x");
    assert_int_equal(parse("run", "--uploader", "/z", &o, NULL), 0);
    assert_string_equal(o.uploader, "/z");
    assert_int_equal(parse("run", "--summary=/y", "--upload-deadline=1m30s", &o, NULL), 0);
    assert_string_equal(o.summary, "/y");
    assert_int_equal(o.upload_deadline_ms, 90000);
    assert_int_equal(parse("run", "--log-level", "debug", &o, NULL), 0);
    assert_int_equal(o.log_level, LOG_DEBUG);
    assert_int_equal(parse("--version", NULL, NULL, &o, NULL), 0);
    assert_int_equal(o.command, COMMAND_VERSION);
    assert_int_equal(parse("run", "--help", NULL, &o, NULL), 0);
    assert_int_equal(o.command, COMMAND_HELP);
}

static void test_what_is_not_understood(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b, *c, *says;
    } rows[] = {
        {NULL, NULL, NULL, "record, top, dump or run"},
        {"walk", NULL, NULL, "record, top, dump or run"},
        {"run", "--nonsense", NULL, "--nonsense"},
        {"run", "--py-spy", NULL, "--py-spy"},
        {"run", "--py-spyder=x", NULL, "--py-spyder=x"},
        {"run", "--upload-deadline", "soon", "soon"},
        {"run", "--log-level=loud", NULL, "loud"},
        {"run", "surplus", NULL, "surplus"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct options o;
        struct err err = ERR_INIT;
        assert_int_equal(parse(rows[i].a, rows[i].b, rows[i].c, &o, &err), ERR_INVALID);
        if (str_find(str_of(err.message), str_of(rows[i].says)) < 0)
            fail_msg("row %zu: %s", i, err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_what_is_not_understood),
    };
    return cmocka_run_group_tests_name("runner/options", tests, NULL, NULL);
}
