#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/random.h"

static int pipe_fds[2];
static char line[65536];

/* What was written since the last call, as one string. */
static const char *read_back(void)
{
    ssize_t n = read(pipe_fds[0], line, sizeof(line) - 1);
    assert_true(n > 0);
    line[n] = '\0';
    return line;
}

/* The line behind its time, which is checked for its form. */
static const char *without_time(const char *text, const char *before, const char *after)
{
    assert_true(str_starts_with(str_of(text), str_of(before)));
    text += strlen(before);
    static const char form[] = "0000-00-00T00:00:00.000Z";
    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        if (form[i] == '0')
            assert_in_range(text[i], '0', '9');
        else
            assert_int_equal(text[i], form[i]);
    }
    text += sizeof(form) - 1;
    assert_true(str_starts_with(str_of(text), str_of(after)));
    return text + strlen(after);
}

static const struct {
    struct str value;
    const char *logfmt, *json;
} escapes[] = {
    {{"plain", 5}, "plain", "\"plain\""},
    {{"", 0}, "\"\"", "\"\""},
    {{NULL, 0}, "\"\"", "\"\""},
    {{"two words", 9}, "\"two words\"", "\"two words\""},
    {{"a=b", 3}, "\"a=b\"", "\"a=b\""},
    {{"say \"hi\"", 8}, "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""},
    {{"c:\\x", 4}, "\"c:\\\\x\"", "\"c:\\\\x\""},
    {{"a\nb\tc\rd", 7}, "\"a\\nb\\tc\\rd\"", "\"a\\nb\\tc\\rd\""},
    {{"nul\0in", 6}, "\"nul\\u0000in\"", "\"nul\\u0000in\""},
    {{"\xe2\x80\xae", 3}, "\"\\u202e\"", "\"\\u202e\""},
    {{"\x1b[31m", 5}, "\"\\u001b[31m\"", "\"\\u001b[31m\""},
    {{"\x7f", 1}, "\"\\u007f\"", "\"\\u007f\""},
    {{"\xc2\x9b"
      "31m",
      5},
     "\"\\u009b31m\"",
     "\"\\u009b31m\""}, /* C1: CSI in one character */
    {{"\xe2\x80\xa8", 3}, "\"\\u2028\"", "\"\\u2028\""},
    {{"caf\xc3\xa9", 5}, "\"caf\xc3\xa9\"", "\"caf\xc3\xa9\""},
    {{"\xff!", 2}, "\"\xef\xbf\xbd!\"", "\"\xef\xbf\xbd!\""},
    {{"\xe2\x82", 2}, "\"\xef\xbf\xbd\xef\xbf\xbd\"", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
    {{"%s%n", 4}, "%s%n", "\"%s%n\""},
};

static void test_escaping_logfmt(void **state)
{
    (void)state;
    log_setup(pipe_fds[1], LOG_INFO, LOG_LOGFMT);
    for (size_t i = 0; i < ARRAY_SIZE(escapes); i++) {
        log_info("m", LOG_S("v", escapes[i].value));
        const char *rest = without_time(read_back(), "time=", " level=info msg=m v=");
        char want[200];
        snprintf(want, sizeof(want), "%s\n", escapes[i].logfmt);
        assert_string_equal(rest, want);
    }
}

static void test_escaping_json(void **state)
{
    (void)state;
    log_setup(pipe_fds[1], LOG_INFO, LOG_JSON);
    for (size_t i = 0; i < ARRAY_SIZE(escapes); i++) {
        log_info("m", LOG_S("v", escapes[i].value));
        const char *rest =
            without_time(read_back(), "{\"time\":\"", "\",\"level\":\"info\",\"msg\":\"m\",\"v\":");
        char want[200];
        snprintf(want, sizeof(want), "%s}\n", escapes[i].json);
        assert_string_equal(rest, want);
    }
}

static void test_types(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    err_set(&err, ERR_IO, "it broke");
    log_setup(pipe_fds[1], LOG_DEBUG, LOG_LOGFMT);
    log_error("done", LOG_I("n", -7), LOG_B("ok", true), LOG_D("r", 0.25), LOG_D("nan", NAN),
              LOG_C("none", NULL), LOG_ERR(&err));
    assert_string_equal(without_time(read_back(), "time=", " level=error "),
                        "msg=done n=-7 ok=true r=0.25 nan=null none=\"\" err=\"it broke\"\n");
    log_setup(pipe_fds[1], LOG_DEBUG, LOG_JSON);
    log_debug("done", LOG_I("n", INT64_MIN), LOG_B("ok", false), LOG_D("r", INFINITY));
    assert_string_equal(without_time(read_back(), "{\"time\":\"", "\",\"level\":\"debug\","),
                        "\"msg\":\"done\",\"n\":-9223372036854775808,\"ok\":false,\"r\":null}\n");
}

static void test_levels(void **state)
{
    (void)state;
    log_setup(pipe_fds[1], LOG_WARN, LOG_LOGFMT);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARN));
    log_debug("no");
    log_info("no");
    log_warn("yes");
    assert_non_null(strstr(read_back(), "level=warn msg=yes\n"));
    enum log_level level = LOG_ERROR;
    assert_int_equal(log_level_parse(STR("debug"), &level), 0);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse(STR("loud"), &level), ERR_INVALID);
    assert_int_equal(level, LOG_DEBUG);
    enum log_format format = LOG_LOGFMT;
    assert_int_equal(log_format_parse(STR("json"), &format), 0);
    assert_int_equal(format, LOG_JSON);
    assert_int_equal(log_format_parse(STR("xml"), &format), ERR_INVALID);
}

/* A scanner for `{"k":v,…}` with strings, numbers and words, as far as the lines here go. */
static void check_json_line(const char *text)
{
    size_t len = strlen(text);
    assert_true(len <= 8192);
    assert_int_equal(text[len - 1], '\n');
    assert_int_equal(text[len - 2], '}');
    assert_true(str_is_utf8(str_of(text)));
    bool in_string = false;
    for (size_t i = 0; i < len - 1; i++) {
        assert_true((unsigned char)text[i] >= 0x20);
        if (in_string && text[i] == '\\') {
            i++;
            assert_non_null(strchr("\"\\nrtu", text[i]));
            if (text[i] == 'u') {
                for (int d = 1; d <= 4; d++)
                    assert_non_null(strchr("0123456789abcdef", text[i + (size_t)d]));
            }
        } else if (text[i] == '"') {
            in_string = !in_string;
        } else if (!in_string) {
            assert_non_null(strchr("{}:,0123456789-truefalsn", text[i]));
        }
    }
    assert_false(in_string);
}

static void test_any_bytes_give_one_valid_line(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 3);
    log_setup(pipe_fds[1], LOG_INFO, LOG_JSON);
    static char bytes[9000];
    for (int round = 0; round < 500; round++) {
        size_t len = random_below(&r.source, round % 10 ? 64 : sizeof(bytes));
        random_fill(&r.source, bytes, len);
        log_info("m", LOG_S("v", ((struct str){bytes, len})), LOG_I("n", round), LOG_B("b", true));
        check_json_line(read_back());
    }
}

/* Wherever the cap falls, the line is whole and says that it was cut. */
static void test_cap(void **state)
{
    (void)state;
    static char bytes[9000];
    static const char *const fillings[] = {"x", "\n", "\xc3\xa9", "\x01", " "};
    for (size_t f = 0; f < ARRAY_SIZE(fillings); f++) {
        size_t step = strlen(fillings[f]);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = fillings[f][i % step];
        for (size_t len = f == 0 ? 8000 : 1300; len < (f == 0 ? 8200u : 1400u); len++) {
            struct str value = {bytes, len};
            log_setup(pipe_fds[1], LOG_INFO, LOG_JSON);
            log_info("m", LOG_S("a", value), LOG_S("b", value), LOG_S("c", value),
                     LOG_S("d", value), LOG_S("e", value), LOG_S("f", value), LOG_S("g", value));
            check_json_line(read_back());
            assert_non_null(strstr(line, ",\"truncated\":true}\n"));
            log_setup(pipe_fds[1], LOG_INFO, LOG_LOGFMT);
            log_info("m", LOG_S("a", value), LOG_S("b", value), LOG_S("c", value),
                     LOG_S("d", value), LOG_S("e", value), LOG_S("f", value), LOG_S("g", value));
            read_back();
            assert_true(strlen(line) <= 8192);
            assert_true(str_ends_with(str_of(line), STR(" truncated=true\n")));
        }
    }
}

static void test_many_fields_are_cut_whole(void **state)
{
    (void)state;
    struct log_field fields[2001];
    for (size_t i = 0; i < 2000; i++)
        fields[i] = LOG_I("number", i * 1000000);
    fields[2000] = (struct log_field){.key = NULL};
    log_setup(pipe_fds[1], LOG_INFO, LOG_JSON);
    log_write_fields(LOG_INFO, "m", fields);
    check_json_line(read_back());
    assert_null(strstr(line, ":,"));
    assert_non_null(strstr(line, "000,\"truncated\":true}\n"));
}

static int open_pipe(void **state)
{
    (void)state;
    return pipe(pipe_fds);
}

static int close_pipe(void **state)
{
    (void)state;
    return close(pipe_fds[0]) || close(pipe_fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escaping_logfmt),
        cmocka_unit_test(test_escaping_json),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_any_bytes_give_one_valid_line),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_many_fields_are_cut_whole),
    };
    return cmocka_run_group_tests(tests, open_pipe, close_pipe);
}
