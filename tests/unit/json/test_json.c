#include "helpers.h"

struct good {
    const char *text, *expected;
};

static const struct good good[] = {
    {"null", "null"},
    {" true ", "true"},
    {"false\n", "false"},
    {"0", "0"},
    {"-0", "-0"},
    {"12345678901234567890123", "12345678901234567890123"},
    {"1.50e+07", "1.50e+07"},
    {"\"\"", "\"\""},
    {"[]", "[]"},
    {"{}", "{}"},
    {"[ 1 , [ ] , { } ]", "[1,[],{}]"},
    {"{\"a\":{\"b\":[null,true]}}", "{\"a\":{\"b\":[null,true]}}"},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\""},
    {"\"\\u0041\\u00e9\\u20AC\\uD83D\\uDE00\"", "\"A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
    {"\"\\\\ud800\"", "\"\\\\ud800\""}, /* an escaped backslash, no escape of a surrogate */
    {"\"\x7F\"", "\"\x7F\""},
    {"{\"a\":1,\"b\":2,\"a\":3}", "{\"b\":2,\"a\":3}"}, /* the last one wins */
    {"{\"a\":1,\"a\":null}", "{\"a\":null}"},
    {"{\"\":0}", "{\"\":0}"},
};

static void test_well_formed(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct err err = ERR_INIT;
        const struct json *tree = NULL;
        if (json_parse(*state, str_of(good[i].text), NULL, &tree, &err) != 0)
            fail_msg("%s: %s", good[i].text, err.message);
        assert_string_equal(tree_text(*state, tree), good[i].expected);
    }
}

struct bad {
    struct str text;
    const char *message;
};

static const struct bad bad[] = {
    {STR(""), "the document is empty"},
    {STR("  \n "), "line 2: the document ends too early"},
    {STR("["), "line 1: the document ends too early"},
    {STR("{\"a\":\n1\n"), "line 3: the document ends too early"},
    {STR("\"abc"), "line 1: the document ends too early"},
    {STR("1 2"), "line 1: trailing garbage"},
    {STR("{}\n\n{}"), "line 3: trailing garbage"},
    {STR("[1,]"), "line 1: unallowed token at this point in JSON text"},
    {STR("[\n1,\n2\n3]"), "line 4: after array element, I expect ',' or ']'"},
    {STR("{\"a\" 1}"), "line 1: object key and value must be separated by a colon (':')"},
    {STR("{a:1}"), "line 1: invalid char in json text."},
    {STR("{1:1}"), "line 1: invalid object key (must be a string)"},
    {STR("[nul]"), "line 1: invalid string in json text."},
    {STR("[01]"), "line 1: after array element, I expect ',' or ']'"},
    {STR("[-]"), "line 1: malformed number, a digit is required after the minus sign."},
    {STR("[1.]"), "line 1: malformed number, a digit is required after the decimal point."},
    {STR("[1e]"), "line 1: malformed number, a digit is required after the exponent."},
    {STR("/* */1"), "line 1: probable comment found in input text, comments are not enabled."},
    {STR("\xEF\xBB\xBF{}"), "line 1: invalid char in json text."},
    {STR("{}\0"), "line 1: trailing garbage"},
    {STR("\0{}"), "line 1: invalid char in json text."},
    {STR("\"a\nb\""), "line 1: invalid character inside string."},
    {STR("\"\\x\""), "line 1: inside a string, '\\' occurs before a character which it may not."},
    {STR("\"\\u12g4\""), "line 1: invalid (non-hex) character occurs after '\\u' inside string."},
    {STR("[\n\"a\\u0000b\"]"), "line 2: a NUL byte in a string"},
    {STR("{\"\\u0000\":1}"), "line 1: a NUL byte in a string"},
    {STR("\n\"\\uD800\""), "line 2: half of a surrogate pair in a string"},
    {STR("\"\\uD800\\uD800\""), "line 1: half of a surrogate pair in a string"},
    {STR("\"\\uD800\\u004"), "line 1: half of a surrogate pair in a string"},
    {STR("\"\\uDC00\""), "line 1: half of a surrogate pair in a string"},
    {STR("\"\\\\\\uDFFF\""), "line 1: half of a surrogate pair in a string"},
    {STR("\n\n\"\xFF\""), "line 3: a string that is not UTF-8"},
    {STR("\"\xC0\xAF\""), "line 1: a string that is not UTF-8"},         /* over-long */
    {STR("\"\xED\xA0\x80\""), "line 1: a string that is not UTF-8"},     /* surrogate */
    {STR("\"\xF5\x80\x80\x80\""), "line 1: a string that is not UTF-8"}, /* past U+10FFFF */
    {STR("{\"\x80\":1}"), "line 1: a string that is not UTF-8"},
};

static void test_malformed(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = ERR_INIT;
        const struct json *tree = NULL;
        int code = json_parse(*state, bad[i].text, NULL, &tree, &err);
        if (code != ERR_INVALID || strcmp(err.message, bad[i].message) != 0)
            fail_msg("row %zu: %d \"%s\", not \"%s\"", i, code, err.message, bad[i].message);
        assert_null(tree);
        assert_int_equal(json_parse(*state, bad[i].text, NULL, &tree, NULL), ERR_INVALID);
    }
}

/* Every prefix of a document is refused, but never read past its end (ASan watches). */
static void test_every_prefix(void **state)
{
    struct str text = STR("{\"a\":[1,2.5e3,\"x\\u00e9\\n\",null,true],\"b\":{\"c\":false}}");
    for (size_t n = 0; n < text.len; n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, text.ptr, n);
        const struct json *tree = NULL;
        int code = json_parse(*state, (struct str){exact, n}, NULL, &tree, NULL);
        free(exact);
        assert_int_equal(code, ERR_INVALID);
    }
}

static char *nested(size_t depth, const char *open, const char *close)
{
    struct buf out = BUF_INIT(1 << 20);
    for (size_t i = 0; i < depth; i++)
        buf_append_cstr(&out, open);
    buf_append_cstr(&out, "1");
    for (size_t i = 0; i < depth; i++)
        buf_append_cstr(&out, close);
    return buf_take(&out);
}

struct cap {
    size_t depth;
    struct json_limits limits;
    int code;
    const char *message;
};

static const struct cap caps[] = {
    {64, {0}, 0, ""},
    {65, {0}, ERR_TOO_LARGE, "line 1: nested deeper than 64 levels"},
    {5000, {0}, ERR_TOO_LARGE, "line 1: nested deeper than 64 levels"},
    {3, {.max_depth = 3}, 0, ""},
    {4, {.max_depth = 3}, ERR_TOO_LARGE, "line 1: nested deeper than 3 levels"},
    {1000, {.max_depth = 1 << 30}, 0, ""},
    {1001, {.max_depth = 1 << 30}, ERR_TOO_LARGE, "line 1: nested deeper than 1000 levels"},
    {3, {.max_nodes = 4}, 0, ""},
    {3, {.max_nodes = 3}, ERR_TOO_LARGE, "line 1: more than 3 values"},
};

static void test_nested_caps(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(caps); i++) {
        _cleanup_(freep) char *arrays = nested(caps[i].depth, "[", "]");
        _cleanup_(freep) char *objects = nested(caps[i].depth, "{\"a\":", "}");
        const char *texts[] = {arrays, objects};
        for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
            struct err err = ERR_INIT;
            const struct json *tree = NULL;
            int code = json_parse(*state, str_of(texts[k]), &caps[i].limits, &tree, &err);
            assert_string_equal(err.message, caps[i].message);
            assert_int_equal(code, caps[i].code);
        }
    }
}

static void test_size_caps(void **state)
{
    struct err err = ERR_INIT;
    const struct json *tree = NULL;
    struct json_limits limits = {.max_bytes = 4};
    assert_int_equal(json_parse(*state, STR("[10]"), &limits, &tree, &err), 0);
    tree = NULL;
    assert_int_equal(json_parse(*state, STR("[100]"), &limits, &tree, &err), ERR_TOO_LARGE);
    assert_string_equal(err.message, "the document is larger than 4 bytes");
    assert_null(tree);
}

static void test_lines(void **state)
{
    const struct json *tree;
    struct str text = STR("\n{\"a\":\n {\n\"b\"\n:\n[1,\n2]},\n\"c\":3}");
    assert_int_equal(json_parse(*state, text, NULL, &tree, NULL), 0);
    assert_int_equal(tree->line, 2);
    assert_int_equal(json_get(tree, "a")->line, 2); /* the line of its name */
    const struct json *b = json_at(tree, "a", "b", NULL);
    assert_int_equal(b->line, 4);
    assert_int_equal(json_item(b, 0)->line, 6);
    assert_int_equal(json_item(b, 1)->line, 7);
    assert_int_equal(json_get(tree, "c")->line, 8);
}

/* Many repeated names are sorted, few are compared: both keep the last, in source order. */
static void test_repeated_names(void **state)
{
    for (int distinct = 1; distinct <= 200; distinct += 33) {
        struct buf text = BUF_INIT(1 << 20);
        buf_append_char(&text, '{');
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < distinct; i++)
                buf_appendf(&text, "%s\"k%d\":%d", text.len > 1 ? "," : "", i, round * 1000 + i);
        }
        buf_append_char(&text, '}');
        const struct json *tree;
        assert_int_equal(json_parse(*state, buf_str(&text), NULL, &tree, NULL), 0);
        assert_int_equal(json_len(tree), distinct);
        for (int i = 0; i < distinct; i++) {
            char name[16];
            snprintf(name, sizeof(name), "k%d", i);
            assert_int_equal(json_int(json_get(tree, name), -1), 2000 + i);
            assert_true(str_is(tree->object.members[i].name, name));
        }
        buf_finish(&text);
    }
}

static void test_access(void **state)
{
    const struct json *t;
    struct str text = STR("{\"s\":\"x\",\"n\":null,\"i\":-7,\"b\":true,\"a\":[1,2],\"o\":{\"p\":"
                          "{\"q\":\"deep\"}}}");
    assert_int_equal(json_parse(*state, text, NULL, &t, NULL), 0);
    assert_true(str_is(json_text(json_get(t, "s")), "x"));
    assert_null(json_text(json_get(t, "i")).ptr);
    assert_null(json_text(NULL).ptr);
    assert_null(json_get(t, "n")); /* null counts as none */
    assert_null(json_get(t, "missing"));
    assert_null(json_get(json_get(t, "s"), "x"));
    assert_null(json_get(NULL, "x"));
    assert_null(json_get_str(t, STR("so")));
    assert_int_equal(json_int(json_get(t, "i"), 5), -7);
    assert_int_equal(json_int(json_get(t, "s"), 5), 5);
    assert_int_equal(json_int(NULL, 5), 5);
    assert_true(json_is_true(json_get(t, "b")));
    assert_false(json_is_true(json_get(t, "i")));
    assert_false(json_is_true(NULL));
    assert_int_equal(json_len(json_get(t, "a")), 2);
    assert_int_equal(json_len(t), 6);
    assert_int_equal(json_len(json_get(t, "s")), 0);
    assert_int_equal(json_len(NULL), 0);
    assert_int_equal(json_int(json_item(json_get(t, "a"), 1), 0), 2);
    assert_null(json_item(json_get(t, "a"), 2));
    assert_null(json_item(t, 0));
    assert_true(str_is(json_text(json_at(t, "o", "p", "q", NULL)), "deep"));
    assert_null(json_at(t, "o", "x", "q", NULL));
    assert_ptr_equal(json_at(t, NULL), t);
}

struct number {
    const char *text;
    int code;
    int64_t value;
};

static const struct number numbers[] = {
    {"0", 0, 0},
    {"-0", 0, 0},
    {"9223372036854775807", 0, INT64_MAX},
    {"-9223372036854775808", 0, INT64_MIN},
    {"9223372036854775808", ERR_INVALID, 0},
    {"1e3", 0, 1000},
    {"2.0", 0, 2},
    {"2.5", ERR_INVALID, 0},
    {"9007199254740992.0", 0, INT64_C(9007199254740992)},
    {"9007199254740994.0", ERR_INVALID, 0},
    {"1e400", ERR_INVALID, 0},
    {"\"1\"", ERR_INVALID, 0},
    {"true", ERR_INVALID, 0},
};

static void test_whole_numbers(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        const struct json *tree;
        int64_t value = 77;
        assert_int_equal(json_parse(*state, str_of(numbers[i].text), NULL, &tree, NULL), 0);
        int code = json_number_int(tree, &value);
        if (code != numbers[i].code || value != (code ? 77 : numbers[i].value))
            fail_msg("%s: %d %lld", numbers[i].text, code, (long long)value);
        assert_int_equal(json_int(tree, 77), value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed),    cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_every_prefix),   cmocka_unit_test(test_nested_caps),
        cmocka_unit_test(test_size_caps),      cmocka_unit_test(test_lines),
        cmocka_unit_test(test_repeated_names), cmocka_unit_test(test_access),
        cmocka_unit_test(test_whole_numbers),
    };
    return cmocka_run_group_tests(tests, arena_setup, arena_teardown);
}
