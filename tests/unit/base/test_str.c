#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"

static void assert_str(struct str got, const char *want)
{
    if (!str_is(got, want))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(got), want);
}

static void test_compare(void **state)
{
    (void)state;
    assert_true(str_eq(STR_NULL, STR("")));
    assert_true(str_is(STR("ab"), "ab"));
    assert_true(str_is(STR_NULL, NULL));
    assert_false(str_is(STR("ab"), "abc"));
    assert_false(str_eq(STR("a\0b"), STR("a\0c")));
    static const char *const sorted[] = {"", "A", "Z", "a", "aa", "ab", "b", "\xff"};
    for (size_t i = 0; i < ARRAY_SIZE(sorted); i++) {
        for (size_t j = 0; j < ARRAY_SIZE(sorted); j++) {
            int order = str_cmp(str_of(sorted[i]), str_of(sorted[j]));
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
    }
}

static void test_parts(void **state)
{
    (void)state;
    assert_true(str_starts_with(STR("abc"), STR("ab")));
    assert_true(str_starts_with(STR("abc"), STR("")));
    assert_false(str_starts_with(STR("ab"), STR("abc")));
    assert_true(str_ends_with(STR("abc"), STR("bc")));
    assert_false(str_ends_with(STR("bc"), STR("abc")));
    assert_true(str_ends_with(STR_NULL, STR_NULL));
    assert_str(str_sub(STR("abcdef"), 2, 3), "cde");
    assert_str(str_sub(STR("abcdef"), 4, SIZE_MAX), "ef");
    assert_str(str_sub(STR("abc"), 3, 1), "");
    assert_str(str_sub(STR("abc"), SIZE_MAX, SIZE_MAX), "");
    assert_str(str_sub(STR_NULL, 1, 1), "");
}

static void test_trim(void **state)
{
    (void)state;
    assert_str(str_trim(STR(" \t\r\n\v\f a b \n")), "a b");
    assert_str(str_trim(STR("   ")), "");
    assert_str(str_trim(STR_NULL), "");
    assert_str(str_trim(STR("x")), "x");
    assert_str(str_trim(STR("\xc2\xa0x")), "\xc2\xa0x"); /* no other white space than ASCII's */
}

static void test_find(void **state)
{
    (void)state;
    struct str s = STR("a.b.c");
    assert_int_equal(str_find_char(s, '.'), 1);
    assert_int_equal(str_rfind_char(s, '.'), 3);
    assert_int_equal(str_find_char(s, 'x'), -1);
    assert_int_equal(str_find_char(STR_NULL, 'x'), -1);
    assert_int_equal(str_rfind_char(STR_NULL, 'x'), -1);
    assert_int_equal(str_find(s, STR(".c")), 3);
    assert_int_equal(str_find(s, STR("")), 0);
    assert_int_equal(str_find(s, STR("a.b.c.")), -1);
    assert_int_equal(str_find(STR_NULL, STR("a")), -1);
    /* The view ends before the match. */
    assert_int_equal(str_find(str_sub(s, 0, 3), STR("b.")), -1);
    assert_int_equal(str_find_char(str_sub(s, 0, 1), '.'), -1);
}

static void test_cut(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *parts[4];
    } rows[] = {
        {"a,b", {"a", "b"}}, {"a", {"a"}},    {"", {""}},
        {"a,", {"a", ""}},   {",", {"", ""}}, {",,b", {"", "", "b"}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str rest = str_of(rows[i].text);
        size_t n = 0;
        while (rest.ptr)
            assert_str(str_cut(&rest, ','), rows[i].parts[n++]);
        assert_null(rows[i].parts[n]);
    }
}

static void test_dup(void **state)
{
    (void)state;
    _cleanup_(freep) char *a = str_dup(str_sub(STR("abcd"), 1, 2));
    _cleanup_(freep) char *b = str_dup(STR_NULL);
    assert_string_equal(a, "bc");
    assert_string_equal(b, "");
}

static void test_to_i64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t min, max, want;
        bool ok;
    } rows[] = {
        {"0", 0, 0, 0, true},
        {"-0", 0, 0, 0, true},
        {"007", 0, 9, 7, true},
        {"42", 1, 42, 42, true},
        {"43", 1, 42, 0, false},
        {"0", 1, 42, 0, false},
        {"-1", INT64_MIN, INT64_MAX, -1, true},
        {"9223372036854775807", INT64_MIN, INT64_MAX, INT64_MAX, true},
        {"9223372036854775808", INT64_MIN, INT64_MAX, 0, false},
        {"-9223372036854775808", INT64_MIN, INT64_MAX, INT64_MIN, true},
        {"-9223372036854775809", INT64_MIN, INT64_MAX, 0, false},
        {"18446744073709551616", INT64_MIN, INT64_MAX, 0, false},
        {"99999999999999999999999", INT64_MIN, INT64_MAX, 0, false},
        {"", INT64_MIN, INT64_MAX, 0, false},
        {"-", INT64_MIN, INT64_MAX, 0, false},
        {"--1", INT64_MIN, INT64_MAX, 0, false},
        {"+1", INT64_MIN, INT64_MAX, 0, false},
        {" 1", INT64_MIN, INT64_MAX, 0, false},
        {"1 ", INT64_MIN, INT64_MAX, 0, false},
        {"1.0", INT64_MIN, INT64_MAX, 0, false},
        {"1e3", INT64_MIN, INT64_MAX, 0, false},
        {"0x10", INT64_MIN, INT64_MAX, 0, false},
        {"\xd9\xa1", INT64_MIN, INT64_MAX, 0, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int64_t value = 77;
        int code = str_to_i64(str_of(rows[i].text), rows[i].min, rows[i].max, &value);
        if (code != (rows[i].ok ? 0 : ERR_INVALID) || value != (rows[i].ok ? rows[i].want : 77))
            fail_msg("\"%s\": %d, %lld", rows[i].text, code, (long long)value);
    }
    int64_t value;
    assert_int_equal(str_to_i64(str_sub(STR("123"), 0, 2), 0, 99, &value), 0);
    assert_int_equal(value, 12);
    assert_int_equal(str_to_i64(STR("1\0"), 0, 99, &value), ERR_INVALID);
}

static void test_to_u64(void **state)
{
    (void)state;
    uint64_t value = 77;
    assert_int_equal(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &value), 0);
    assert_true(value == UINT64_MAX);
    assert_int_equal(str_to_u64(STR("18446744073709551616"), UINT64_MAX, &value), ERR_INVALID);
    assert_int_equal(str_to_u64(STR("256"), 255, &value), ERR_INVALID);
    assert_int_equal(str_to_u64(STR("-1"), UINT64_MAX, &value), ERR_INVALID);
    assert_true(value == UINT64_MAX);
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        bool valid;
    } rows[] = {
        {{"", 0}, true},
        {{"abc\0d", 5}, true},
        {{"\xc2\x80", 2}, true},
        {{"\xdf\xbf", 2}, true},
        {{"\xe0\xa0\x80", 3}, true},
        {{"\xed\x9f\xbf", 3}, true},
        {{"\xee\x80\x80", 3}, true},
        {{"\xef\xbf\xbf", 3}, true},
        {{"\xf0\x90\x80\x80", 4}, true},
        {{"\xf4\x8f\xbf\xbf", 4}, true},
        {{"\xf4\x90\x80\x80", 4}, false}, /* past U+10FFFF */
        {{"\xf5\x80\x80\x80", 4}, false},
        {{"\xc0\xaf", 2}, false}, /* over-long "/" */
        {{"\xc1\xbf", 2}, false},
        {{"\xe0\x9f\xbf", 3}, false},
        {{"\xf0\x8f\xbf\xbf", 4}, false},
        {{"\xed\xa0\x80", 3}, false}, /* surrogate */
        {{"\xed\xbf\xbf", 3}, false},
        {{"\x80", 1}, false},
        {{"\xff", 1}, false},
        {{"\xc2", 1}, false},
        {{"\xe2\x82", 2}, false},
        {{"\xf0\x9f\x92", 3}, false},
        {{"\xc2\x41", 2}, false},
        {{"\xe2\x82\x41", 3}, false},
        {{"ok\xe2\x82\xac\xff", 6}, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        /* A tight copy: ASan sees a byte read past the end. */
        char *copy = malloc(rows[i].text.len ? rows[i].text.len : 1);
        memcpy(copy, rows[i].text.ptr, rows[i].text.len);
        bool valid = str_is_utf8((struct str){copy, rows[i].text.len});
        free(copy);
        if (valid != rows[i].valid)
            fail_msg("row %zu", i);
    }
}

/* Every code point, encoded here, is read back; every surrogate is refused. */
static void test_utf8_next(void **state)
{
    (void)state;
    for (uint32_t rune = 0; rune <= 0x10ffff; rune++) {
        unsigned char b[4];
        size_t len = rune < 0x80 ? 1 : rune < 0x800 ? 2 : rune < 0x10000 ? 3 : 4;
        static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        uint32_t left = rune;
        for (size_t i = len; i-- > 1; left >>= 6)
            b[i] = (unsigned char)(0x80 | (left & 0x3f));
        b[0] = (unsigned char)(first[len] | left);
        uint32_t got = 0;
        size_t n = str_utf8_next((struct str){(char *)b, len}, &got);
        bool surrogate = rune >= 0xd800 && rune <= 0xdfff;
        if (n != (surrogate ? 0 : len) || got != (surrogate ? 0 : rune))
            fail_msg("U+%04X: %zu bytes, U+%04X", rune, n, got);
    }
}

static void test_show(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        const char *shown;
    } rows[] = {
        {STR(""), ""},
        {STR("na\xc3\xafve (a.py:7)"), "na\xc3\xafve (a.py:7)"},
        {STR("a\\b"), "a\\b"},
        {STR("a\nb\rc\td\0e"), "a\\nb\\rc\\td\\x00e"},
        {STR("\x1b]0;owned\x07\x1b[2J\x7f"), "\\x1b]0;owned\\x07\\x1b[2J\\x7f"},
        {STR("\xc2\x9b\x33\x31m\xc2\x85"), "\\u009b31m\\u0085"},
        {STR("\x9b\x33\x31m\xff\xc3"), "\\x9b31m\\xff\\xc3"},
        {STR("\xc0\xaf\xed\xa0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80"},
        {STR("\xe2\x80\xaetxt.exe\xe2\x81\xa6\xd8\x9c"), "\\u202etxt.exe\\u2066\\u061c"},
        {STR("\xe2\x80\xa8\xe2\x80\xa9"), "\\u2028\\u2029"},
        {STR("\xf0\x9f\x90\x8d"), "\xf0\x9f\x90\x8d"},
    };
    char to[64];
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(str_show(rows[i].text, to, sizeof(to)), strlen(rows[i].shown));
        assert_string_equal(to, rows[i].shown);
        /* What is shown once may be shown again. */
        char again[64];
        str_show(str_of(to), again, sizeof(again));
        assert_string_equal(again, to);
    }
    /* Cut between characters, never inside an escape, and nothing is written behind the size. */
    for (size_t size = 0; size < 12; size++) {
        memset(to, '#', sizeof(to));
        size_t len = str_show(STR("a\x1b\xc3\xafz"), to, size);
        size_t want = size < 2 ? 0 : size < 6 ? 1 : size < 8 ? 5 : size < 9 ? 7 : 8;
        assert_int_equal(len, want);
        if (size)
            assert_int_equal(to[len], '\0');
        for (size_t i = size; i < sizeof(to); i++)
            assert_int_equal(to[i], '#');
    }
}

/* No code point that a terminal would obey comes through, and every other one does. */
static void test_show_all(void **state)
{
    (void)state;
    for (uint32_t rune = 0; rune <= 0x10ffff; rune++) {
        if (rune >= 0xd800 && rune <= 0xdfff)
            continue;
        char text[5] = "", to[16];
        size_t n = rune < 0x80 ? 1 : rune < 0x800 ? 2 : rune < 0x10000 ? 3 : 4;
        static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
        uint32_t left = rune;
        for (size_t i = n; i-- > 1; left >>= 6)
            text[i] = (char)(0x80 | (left & 0x3f));
        text[0] = (char)(first[n] | left);
        str_show((struct str){text, n}, to, sizeof(to));
        bool control = rune < 32 || (rune > 126 && rune < 160) || rune == 0x2028 ||
                       rune == 0x2029 || rune == 0x61c || rune == 0x200e || rune == 0x200f ||
                       (rune > 0x2029 && rune < 0x202f) || (rune > 0x2065 && rune < 0x206a);
        if (control ? to[0] != '\\' : strcmp(to, text) != 0)
            fail_msg("U+%04X is shown as %s", rune, to);
    }
}

static void test_hash(void **state)
{
    (void)state;
    /* From the FNV authors' test suite. */
    assert_true(str_hash(STR("")) == 0xcbf29ce484222325);
    assert_true(str_hash(STR("a")) == 0xaf63dc4c8601ec8c);
    assert_true(str_hash(STR("foobar")) == 0x85944171f73967e8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare),  cmocka_unit_test(test_parts),
        cmocka_unit_test(test_trim),     cmocka_unit_test(test_find),
        cmocka_unit_test(test_cut),      cmocka_unit_test(test_dup),
        cmocka_unit_test(test_to_i64),   cmocka_unit_test(test_to_u64),
        cmocka_unit_test(test_utf8),     cmocka_unit_test(test_utf8_next),
        cmocka_unit_test(test_hash),     cmocka_unit_test(test_show),
        cmocka_unit_test(test_show_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
