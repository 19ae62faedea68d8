#include "helpers.h"

#include <float.h>
#include <math.h>

static void test_everything_once(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(4096);
    struct json_writer w = JSON_WRITER(&out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "cstr", "a");
    json_put_str(&w, "str", STR("b"));
    json_putf(&w, "f", "%d-%s", 7, "\"x\"");
    json_put_int(&w, "min", INT64_MIN);
    json_put_bool(&w, "t", true);
    json_put_bool(&w, "u", false);
    json_put_null(&w, "z");
    json_put_time(&w, "time", INT64_C(1769903999000));
    json_begin_array(&w, "list");
    json_put_int(&w, NULL, 1);
    json_begin_array(&w, NULL);
    json_end_array(&w);
    json_begin_object(&w, NULL);
    json_end_object(&w);
    json_put_raw(&w, NULL, STR("{\"raw\":1}"));
    json_end_array(&w);
    json_put_pair(&w, STR("na\"me"), STR("value"));
    json_put_tree(&w, "tree", NULL);
    json_put_cstr(&w, "none", NULL);
    json_end_object(&w);
    assert_int_equal(buf_error(&out, "it", NULL), 0);
    assert_int_equal(w.depth, 0);
    assert_string_equal(
        buf_cstr(&out),
        "{\"cstr\":\"a\",\"str\":\"b\",\"f\":\"7-\\\"x\\\"\",\"min\":-9223372036854775808,"
        "\"t\":true,\"u\":false,\"z\":null,\"time\":\"2026-01-31T23:59:59Z\","
        "\"list\":[1,[],{},{\"raw\":1}],\"na\\\"me\":\"value\",\"tree\":null,\"none\":\"\"}");
    buf_finish(&out);
}

#define FFFD "\xEF\xBF\xBD"

struct row {
    struct str text;
    const char *expected;
};

static const struct row texts[] = {
    {STR(""), "\"\""},
    {STR("plain"), "\"plain\""},
    {STR("\"\\/"), "\"\\\"\\\\/\""},
    {STR("\n\r\t\b\f\0\x1F"), "\"\\n\\r\\t\\u0008\\u000c\\u0000\\u001f\""},
    {STR("\x7F"), "\"\x7F\""},
    {STR("a\xC3\xA9"
         "b"),
     "\"a\xC3\xA9"
     "b\""},
    {STR("\xE2\x82\xAC\xF0\x9F\x98\x80"), "\"\xE2\x82\xAC\xF0\x9F\x98\x80\""},
    {STR("a\xFF"
         "b"),
     "\"a" FFFD "b\""},
    {STR("\xC3"), "\"" FFFD "\""}, /* cut off */
    {STR("\xE2\x82"), "\"" FFFD FFFD "\""},
    {STR("\xC0\xAF"), "\"" FFFD FFFD "\""}, /* over-long */
    {STR("\xE0\x80\xAF"), "\"" FFFD FFFD FFFD "\""},
    {STR("\xF0\x80\x80\xAF"), "\"" FFFD FFFD FFFD FFFD "\""},
    {STR("\xED\xA0\x80"), "\"" FFFD FFFD FFFD "\""},          /* surrogate */
    {STR("\xF4\x90\x80\x80"), "\"" FFFD FFFD FFFD FFFD "\""}, /* past U+10FFFF */
    {STR("\x80\""), "\"" FFFD "\\\"\""},
};

static void test_texts(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct buf out = BUF_INIT(4096);
        struct json_writer w = JSON_WRITER(&out);
        char *exact = malloc(texts[i].text.len + 1);
        memcpy(exact, texts[i].text.ptr, texts[i].text.len);
        json_put_str(&w, NULL, (struct str){exact, texts[i].text.len});
        free(exact);
        assert_string_equal(buf_cstr(&out), texts[i].expected);
        struct err err = ERR_INIT;
        const struct json *tree;
        bool nul = memchr(texts[i].text.ptr, 0, texts[i].text.len) != NULL;
        assert_int_equal(json_parse(*state, buf_str(&out), NULL, &tree, &err),
                         nul ? ERR_INVALID : 0);
        buf_finish(&out);
    }
}

static void test_doubles(void **state)
{
    static const struct {
        double value;
        const char *expected;
    } rows[] = {
        {0, "0"},
        {0.1, "0.1"},
        {1e300, "1e+300"},
        {-2.5, "-2.5"},
        {1.0 / 3, "0.3333333333333333"},
        {NAN, "null"},
        {INFINITY, "null"},
        {-INFINITY, "null"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct buf out = BUF_INIT(64);
        struct json_writer w = JSON_WRITER(&out);
        json_put_double(&w, NULL, rows[i].value);
        assert_string_equal(buf_cstr(&out), rows[i].expected);
        buf_finish(&out);
    }
    double exact[] = {DBL_MAX, DBL_MIN, DBL_EPSILON, 0x1p-1074, 123456789.123456789, 5e-324, -0.0};
    for (size_t i = 0; i < ARRAY_SIZE(exact); i++) {
        struct buf out = BUF_INIT(64);
        struct json_writer w = JSON_WRITER(&out);
        json_put_double(&w, NULL, exact[i]);
        const struct json *tree;
        double back;
        assert_int_equal(json_parse(*state, buf_str(&out), NULL, &tree, NULL), 0);
        assert_int_equal(json_number_double(tree, &back), 0);
        assert_memory_equal(&back, &exact[i], sizeof(back));
        buf_finish(&out);
    }
}

/* write(parse(x)) parses to the same again, whatever x. */
static void test_round_trip(void **state)
{
    const char *documents[] = {
        "{\"a\":[1,2.50,-3e-7,true,false,null,\"\\u00e9\\\"\\\\\\n\\u001f\"],\"b\":{\"\":{}}}",
        "[[[[]]],{},{\"x\":[{\"y\":\"\\uD83D\\uDE00\"}]}]",
        "\"\\u2028\\u007f\"",
        "123456789012345678901234567890.5",
    };
    for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
        const struct json *tree, *again;
        assert_int_equal(json_parse(*state, str_of(documents[i]), NULL, &tree, NULL), 0);
        const char *once = tree_text(*state, tree);
        assert_int_equal(json_parse(*state, str_of(once), NULL, &again, NULL), 0);
        assert_string_equal(tree_text(*state, again), once);
    }
}

/* A buffer that is too small fails stickily at every size, and holds no more than its maximum. */
static void test_every_buffer_size(void **state)
{
    (void)state;
    const size_t whole = strlen("{\"a\":[1,\"x\\n\"],\"b\":\"yy\"}");
    for (size_t max = 1; max <= whole; max++) {
        struct buf out = BUF_INIT(max);
        struct json_writer w = JSON_WRITER(&out);
        json_begin_object(&w, NULL);
        json_begin_array(&w, "a");
        json_put_int(&w, NULL, 1);
        json_put_cstr(&w, NULL, "x\n");
        json_end_array(&w);
        json_putf(&w, "b", "%s", "yy");
        json_end_object(&w);
        assert_int_equal(buf_error(&out, "it", NULL), max < whole ? ERR_TOO_LARGE : 0);
        assert_true(out.len <= max);
        buf_finish(&out);
    }
}

/* The text alone is too long for the buffer, so nothing cut may pass as whole. */
static void test_formatted_too_long(void **state)
{
    (void)state;
    struct buf out = BUF_INIT(16);
    struct json_writer w = JSON_WRITER(&out);
    json_putf(&w, NULL, "%064d", 1);
    assert_int_equal(buf_error(&out, "it", NULL), ERR_TOO_LARGE);
    buf_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_once),   cmocka_unit_test(test_texts),
        cmocka_unit_test(test_doubles),           cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_buffer_size), cmocka_unit_test(test_formatted_too_long),
    };
    return cmocka_run_group_tests(tests, arena_setup, arena_teardown);
}
