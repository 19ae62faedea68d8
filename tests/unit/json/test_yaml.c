#include "helpers.h"

struct same {
    const char *yaml, *json;
};

static const struct same same[] = {
    {"", "null"},
    {"# only a comment\n", "null"},
    {"---\n", "null"},
    {"--- \na: 1\n...\n", "{\"a\":1}"},
    {"%YAML 1.2\n---\na: b\n", "{\"a\":\"b\"}"},
    {"\xEF\xBB\xBF"
     "a: 1\n",
     "{\"a\":1}"},
    {"a:\n  b: [x, 'y', \"z\\n\"]\n  c: {d: e}\n",
     "{\"a\":{\"b\":[\"x\",\"y\",\"z\\n\"],\"c\":{\"d\":\"e\"}}}"},
    {"- 1\n-\n- - 2\n", "[1,null,[2]]"},
    {"a: |\n  one\n  two\nb: >-\n  three\n  four\n",
     "{\"a\":\"one\\ntwo\\n\",\"b\":\"three four\"}"},
    {"{\"a\": [1, 2.5, true, null, \"\\u00e9\"]}", "{\"a\":[1,2.5,true,null,\"\xC3\xA9\"]}"},
    /* YAML 1.2.2, 10.3.2 */
    {"[null, Null, NULL, ~]", "[null,null,null,null]"},
    {"[true, True, TRUE, false, False, FALSE]", "[true,true,true,false,false,false]"},
    {"[yes, no, on, off, y, n, tRUE]",
     "[\"yes\",\"no\",\"on\",\"off\",\"y\",\"n\",\"tRUE\"]"}, /* booleans in 1.1 only */
    {"[0, -0, +12, -12, 007, -00]", "[0,-0,12,-12,7,-0]"},
    {"[0o17, 0x1F, 0xdeadBEEF, 0o0]", "[15,31,3735928559,0]"},
    {"[0x7fffffffffffffff, 0o777777777777777777777]", "[9223372036854775807,9223372036854775807]"},
    {"[1.5, .5, -.5, 1., +1.e3, 1e3, 1E-3, 00.10]", "[1.5,0.5,-0.5,1.0,1.0e3,1e3,1E-3,0.10]"},
    {"[0o8, 0xg, 0x, 0o, ., -, +, e3, 1e, 1e+, 1.2.3, 1_000, 0b1, -0x1, 12:30, --1]",
     "[\"0o8\",\"0xg\",\"0x\",\"0o\",\".\",\"-\",\"+\",\"e3\",\"1e\",\"1e+\",\"1.2.3\",\"1_000\","
     "\"0b1\",\"-0x1\",\"12:30\",\"--1\"]"},
    {"['1', \"true\", 'null', '', ! 5, !!str 5, !!str ]",
     "[\"1\",\"true\",\"null\",\"\",\"5\",\"5\",\"\"]"},
    {"!!map {a: !!seq [1]}", "{\"a\":[1]}"},
    {"1: a\ntrue: b\n~: c\n", "{\"1\":\"a\",\"true\":\"b\",\"~\":\"c\"}"},
    {"2026-01-31T23:59:59Z", "\"2026-01-31T23:59:59Z\""},
    {"<<: {a: 1}", "{\"<<\":{\"a\":1}}"}, /* merging went with 1.1 */
};

static void test_same_as_json(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
        struct err err = ERR_INIT;
        const struct json *yaml = NULL, *json = NULL;
        if (json_parse_yaml(*state, str_of(same[i].yaml), NULL, &yaml, &err) != 0)
            fail_msg("%s: %s", same[i].yaml, err.message);
        assert_int_equal(json_parse(*state, str_of(same[i].json), NULL, &json, &err), 0);
        assert_string_equal(tree_text(*state, yaml), tree_text(*state, json));
    }
}

struct bad {
    struct str text;
    const char *message;
};

static const struct bad bad[] = {
    {STR("a: 1\n---\nb: 2\n"), "line 2: a second document"},
    {STR("a: &x 1\n"), "line 1: anchors are not supported"},
    {STR("a:\n  - &x {}\n"), "line 2: anchors are not supported"},
    {STR("a: &x [1]\n"), "line 1: anchors are not supported"},
    {STR("&x a: 1\n"), "line 1: anchors are not supported"},
    {STR("a: 1\nb: *a\n"), "line 2: aliases are not supported"},
    {STR("a: 1\nb: 2\n\na: 3\n"), "line 4: the key \"a\" is given twice"},
    {STR("a:\n  x: 1\n  'x': 2\n"), "line 3: the key \"x\" is given twice"},
    {STR("{a: 1, a: 2}"), "line 1: the key \"a\" is given twice"},
    {STR("? [a]\n: b\n"), "line 1: a key that is a mapping or a sequence"},
    {STR("a: b\n? {c: d}\n: e\n"), "line 2: a key that is a mapping or a sequence"},
    {STR("a: !!int '3'\n"), "line 1: the tag tag:yaml.org,2002:int is not supported"},
    {STR("a:\n  !mine {}\n"), "line 2: the tag !mine is not supported"},
    {STR("!!seq {}"), "line 1: the tag tag:yaml.org,2002:seq is not supported"},
    {STR("!!str []"), "line 1: the tag tag:yaml.org,2002:str is not supported"},
    {STR("[1,\n.inf]"), "line 2: a number that is not finite"},
    {STR("-.INF"), "line 1: a number that is not finite"},
    {STR("+.Inf"), "line 1: a number that is not finite"},
    {STR(".NaN"), "line 1: a number that is not finite"},
    {STR("0x8000000000000000"), "line 1: a number that is too large"},
    {STR("0xfffffffffffffffffffffffff"), "line 1: a number that is too large"},
    {STR("a: \"\\0\"\n"), "line 1: a NUL byte in a string"},
    {STR("\"\\0\": 1\n"), "line 1: a NUL byte in a string"},
    {STR("a: 1\nb: [1\n"),
     "line 3: while parsing a flow sequence, did not find expected ',' or ']'"},
    {STR("a: 'x\n"), "line 2: while scanning a quoted scalar, found unexpected end of stream"},
    {STR("a:\n\t- b\n"),
     "line 2: while scanning for the next token, found character that cannot start any token"},
    {STR("a: b\n c: d\n"), "line 2: mapping values are not allowed in this context"},
    {STR("a: 1\nb: \xFF\n"), "line 2: invalid leading UTF-8 octet"},
    {STR("a: 1\n\n\xC3"), "line 3: incomplete UTF-8 octet sequence"},
    {STR("a: \x01\n"), "line 1: control characters are not allowed"},
    {STR("a: b\0\n"), "line 1: control characters are not allowed"},
};

static void test_refused(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = ERR_INIT;
        const struct json *tree = NULL;
        int code = json_parse_yaml(*state, bad[i].text, NULL, &tree, &err);
        if (code != ERR_INVALID || strcmp(err.message, bad[i].message) != 0)
            fail_msg("row %zu: %d \"%s\", not \"%s\"", i, code, err.message, bad[i].message);
        assert_null(tree);
        assert_int_equal(json_parse_yaml(*state, bad[i].text, NULL, &tree, NULL), ERR_INVALID);
    }
}

static void test_lines(void **state)
{
    const struct json *tree;
    struct str text = STR("# first\n"
                          "a: 1\n"
                          "b:\n"
                          "  c: x\n"
                          "\n"
                          "  d:\n"
                          "  - y\n"
                          "  - z\n"
                          "e: |\n"
                          "  text\n"
                          "f: 2\n");
    assert_int_equal(json_parse_yaml(*state, text, NULL, &tree, NULL), 0);
    assert_int_equal(tree->line, 2);
    assert_int_equal(json_get(tree, "a")->line, 2);
    assert_int_equal(json_get(tree, "b")->line, 3); /* the line of its name */
    assert_int_equal(json_at(tree, "b", "c", NULL)->line, 4);
    const struct json *d = json_at(tree, "b", "d", NULL);
    assert_int_equal(d->line, 6);
    assert_int_equal(json_item(d, 1)->line, 8);
    assert_int_equal(json_get(tree, "e")->line, 9);
    assert_int_equal(json_get(tree, "f")->line, 11);
}

static void test_caps(void **state)
{
    struct err err = ERR_INIT;
    const struct json *tree = NULL;
    assert_int_equal(
        json_parse_yaml(*state, STR("[[[1]]]"), &(struct json_limits){.max_depth = 3}, &tree, &err),
        0);
    assert_int_equal(json_parse_yaml(*state, STR("a:\n  b:\n    c:\n    - 1"),
                                     &(struct json_limits){.max_depth = 3}, &tree, &err),
                     ERR_TOO_LARGE);
    assert_string_equal(err.message, "line 4: nested deeper than 3 levels");
    assert_int_equal(json_parse_yaml(*state, STR("- 1\n- 2\n- 3\n"),
                                     &(struct json_limits){.max_nodes = 3}, &tree, &err),
                     ERR_TOO_LARGE);
    assert_string_equal(err.message, "line 3: more than 3 values");
    assert_int_equal(
        json_parse_yaml(*state, STR("abcde"), &(struct json_limits){.max_bytes = 4}, &tree, &err),
        ERR_TOO_LARGE);
    assert_string_equal(err.message, "the document is larger than 4 bytes");
}

static void test_deep_nesting(void **state)
{
    static char text[100000];
    static const struct {
        const char *pattern;
        int code;
    } rows[] = {
        {"[", ERR_TOO_LARGE},    {"- ", ERR_TOO_LARGE},
        {"{a: ", ERR_TOO_LARGE}, {"{", ERR_INVALID}, /* a key that is a mapping */
        {"[{", ERR_INVALID},     {"? ", ERR_INVALID},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct json *tree;
        size_t n = strlen(rows[i].pattern), len = sizeof(text) / n * n;
        for (size_t at = 0; at < len; at++)
            text[at] = rows[i].pattern[at % n];
        assert_int_equal(json_parse_yaml(*state, (struct str){text, len}, NULL, &tree, NULL),
                         rows[i].code);
    }
}

/* Every prefix parses or is refused, and reads nothing past its end (ASan watches). */
static void test_every_prefix(void **state)
{
    struct str text = STR("a: {b: [1, 'x', \"\\u00e9\"], c: !!str d}\ne: |\n  f\n  g\nh: 0x1F\n");
    for (size_t n = 0; n < text.len; n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, text.ptr, n);
        const struct json *tree = NULL;
        int code = json_parse_yaml(*state, (struct str){exact, n}, NULL, &tree, NULL);
        free(exact);
        assert_true(code == 0 ? tree != NULL : code == ERR_INVALID && tree == NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_json), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lines),        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_deep_nesting), cmocka_unit_test(test_every_prefix),
    };
    return cmocka_run_group_tests(tests, arena_setup, arena_teardown);
}
