#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/cleanup.h"
#include "base/str.h"

static void test_set(void **state)
{
    (void)state;
    struct err err = {.http_status = 409, .retry_after_ms = 5, .reason = "Conflict"};
    assert_int_equal(err_set(&err, ERR_INVALID, "%s: %d", "rate", 7), ERR_INVALID);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(err.message, "rate: 7");
    /* Nothing of an earlier failure is left. */
    assert_int_equal(err.http_status, 0);
    assert_int_equal(err.retry_after_ms, 0);
    assert_string_equal(err.reason, "");
}

static void test_null_is_allowed(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_GONE, "x"), ERR_GONE);
    assert_int_equal(err_set_errno(NULL, EACCES, "x"), ERR_FORBIDDEN);
    assert_int_equal(err_wrap(NULL, "x"), ERR_IO);
}

static void test_set_from_its_own_message(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_IO, "inner");
    err_set(&err, ERR_TIMEOUT, "outer (%s)", err.message);
    assert_string_equal(err.message, "outer (inner)");
}

static void test_errno(void **state)
{
    (void)state;
    static const struct {
        int errnum, code;
    } rows[] = {
        {ENOENT, ERR_NOT_FOUND}, {ESRCH, ERR_NOT_FOUND}, {EACCES, ERR_FORBIDDEN},
        {EPERM, ERR_FORBIDDEN},  {EEXIST, ERR_EXISTS},   {ECONNREFUSED, ERR_IO},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct err err = ERR_INIT;
        assert_int_equal(err_set_errno(&err, rows[i].errnum, "open %s", "/x"), rows[i].code);
        assert_int_equal(err.code, rows[i].code);
    }
    struct err err = ERR_INIT;
    err_set_errno(&err, ENOENT, "open %s", "/x");
    assert_string_equal(err.message, "open /x: No such file or directory");
}

static void test_wrap_keeps_the_rest(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_CONFLICT, "job changed");
    err.http_status = 409;
    assert_int_equal(err_wrap(&err, "apply %s", "a/b"), ERR_CONFLICT);
    assert_string_equal(err.message, "apply a/b: job changed");
    assert_int_equal(err.http_status, 409);
}

/* A message too long is cut between characters, never inside one. */
static void test_long_messages(void **state)
{
    (void)state;
    char text[1200];
    for (size_t shift = 0; shift < 3; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof(text); i += 3)
            memcpy(text + i, "\xe2\x82\xac", 4);
        struct err err = ERR_INIT;
        err_set(&err, ERR_IO, "%s", text);
        size_t len = strlen(err.message);
        assert_in_range(len, sizeof(err.message) - 3, sizeof(err.message) - 1);
        assert_true(str_is_utf8(str_of(err.message)));
        err_wrap(&err, "%s", "a context");
        assert_true(strlen(err.message) < sizeof(err.message));
        assert_true(str_starts_with(str_of(err.message), STR("a context: ")));
        assert_true(str_is_utf8(str_of(err.message)));
    }
}

static void test_one_line(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_PROTOCOL, "bad header\r\nX-Evil: 1");
    assert_string_equal(err.message, "bad header  X-Evil: 1");
}

static void test_what_it_quotes_cannot_drive_a_terminal(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_INVALID, "file '%s'", "\x1b[2J\x9b\xe2\x80\xae");
    assert_string_equal(err.message, "file '\\x1b[2J\\x9b\\u202e'");
    err_wrap(&err, "read \x07");
    assert_string_equal(err.message, "read \\x07: file '\\x1b[2J\\x9b\\u202e'");
}

static void test_code_names(void **state)
{
    (void)state;
    assert_string_equal(err_code_name(0), "None");
    assert_string_equal(err_code_name(ERR_TIMEOUT), "Timeout");
    assert_string_equal(err_code_name(-999), "Unknown");
    for (int code = ERR_TIMEOUT; code < 0; code++) {
        assert_string_not_equal(err_code_name(code), "Unknown");
        for (int other = code + 1; other <= 0; other++)
            assert_string_not_equal(err_code_name(code), err_code_name(other));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_null_is_allowed),
        cmocka_unit_test(test_set_from_its_own_message),
        cmocka_unit_test(test_errno),
        cmocka_unit_test(test_wrap_keeps_the_rest),
        cmocka_unit_test(test_long_messages),
        cmocka_unit_test(test_one_line),
        cmocka_unit_test(test_what_it_quotes_cannot_drive_a_terminal),
        cmocka_unit_test(test_code_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
