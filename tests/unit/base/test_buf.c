#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"

static void test_append_in_series(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(100);
    assert_string_equal(buf_cstr(&b), "");
    assert_int_equal(buf_str(&b).len, 0);
    buf_append_cstr(&b, "a");
    buf_append_char(&b, 'b');
    buf_append_str(&b, STR("c"));
    buf_append_str(&b, STR_NULL);
    buf_append(&b, "d\0e", 3);
    buf_appendf(&b, "%d-%s", 12, "x");
    assert_int_equal(buf_error(&b, "text", NULL), 0);
    assert_int_equal(b.len, 10);
    assert_memory_equal(b.ptr, "abcd\0e12-x", 11);
    buf_finish(&b);
    assert_null(b.ptr);
    buf_append_cstr(&b, "again");
    assert_string_equal(buf_cstr(&b), "again");
    buf_finish(&b);
}

/* Exactly the maximum fits, in whatever pieces; one byte more does not. */
static void test_maximum(void **state)
{
    (void)state;
    for (size_t max = 0; max < 200; max++) {
        for (size_t piece = 1; piece < 9; piece++) {
            struct buf b = BUF_INIT(max);
            while (b.len < max) {
                size_t n = max - b.len < piece ? max - b.len : piece;
                buf_append(&b, "12345678", n);
            }
            assert_int_equal(buf_error(&b, "x", NULL), 0);
            assert_true(b.cap <= max + 1);
            buf_append_char(&b, 'x');
            assert_int_equal(buf_error(&b, "x", NULL), ERR_TOO_LARGE);
            assert_int_equal(b.len, max);
            buf_finish(&b);
        }
    }
}

static void test_failure_is_sticky(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(4);
    buf_append_cstr(&b, "ab");
    buf_append_cstr(&b, "cde");
    buf_append_cstr(&b, "f"); /* would fit, but the text would have a hole */
    buf_appendf(&b, "%d", 1);
    assert_null(buf_reserve(&b, 0));
    assert_string_equal(buf_cstr(&b), "ab");
    struct err err = ERR_INIT;
    assert_int_equal(buf_error(&b, "the reply", &err), ERR_TOO_LARGE);
    assert_string_equal(err.message, "the reply is larger than 4 bytes");
    buf_clear(&b);
    buf_append_cstr(&b, "abcd");
    assert_int_equal(buf_error(&b, "", NULL), 0);
    buf_finish(&b);
}

static void test_appendf_at_the_maximum(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(5);
    buf_appendf(&b, "%s", "12345");
    assert_int_equal(buf_error(&b, "", NULL), 0);
    assert_string_equal(buf_cstr(&b), "12345");
    buf_appendf(&b, "%s", "");
    assert_int_equal(buf_error(&b, "", NULL), 0);
    buf_appendf(&b, "%s", "6");
    assert_int_equal(buf_error(&b, "", NULL), ERR_TOO_LARGE);
    assert_string_equal(buf_cstr(&b), "12345");
    buf_finish(&b);

    struct buf wide = BUF_INIT(10000);
    buf_append_cstr(&wide, "x");
    buf_appendf(&wide, "%9000d", 7);
    assert_int_equal(wide.len, 9001);
    buf_finish(&wide);
}

static void test_huge_lengths_do_not_wrap(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(SIZE_MAX - 1);
    buf_append_cstr(&b, "abc");
    assert_null(buf_reserve(&b, SIZE_MAX - 2));
    assert_int_equal(buf_error(&b, "", NULL), ERR_TOO_LARGE);
    buf_finish(&b);
}

static void test_reserve_consume_truncate(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(1000);
    char *to = buf_reserve(&b, 600);
    memset(to, 'z', 600);
    b.len += 600;
    assert_int_equal(strlen(buf_cstr(&b)), 600);
    buf_consume(&b, 590);
    assert_string_equal(buf_cstr(&b), "zzzzzzzzzz");
    buf_truncate(&b, 3);
    assert_string_equal(buf_cstr(&b), "zzz");
    buf_truncate(&b, 30);
    assert_int_equal(b.len, 3);
    buf_consume(&b, 30);
    assert_int_equal(b.len, 0);
    buf_finish(&b);
}

static void test_take(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(10);
    _cleanup_(freep) char *empty = buf_take(&b);
    assert_string_equal(empty, "");
    buf_append_cstr(&b, "abc");
    _cleanup_(freep) char *text = buf_take(&b);
    assert_string_equal(text, "abc");
    assert_null(b.ptr);
    assert_int_equal(b.max, 10);
}

static void test_percent(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(100);
    buf_append_percent(&b, STR("az-AZ_09.~ /?&=%+\xc3\xa9\n"));
    assert_string_equal(buf_cstr(&b), "az-AZ_09.~%20%2F%3F%26%3D%25%2B%C3%A9%0A");
    buf_finish(&b);
}

static char directory[] = "/tmp/test_buf.XXXXXX";

static void write_file(const char *path, size_t len)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (size_t i = 0; i < len; i++)
        fputc('a' + (int)(i % 26), f);
    assert_int_equal(fclose(f), 0);
}

static void test_read_file_sizes(void **state)
{
    (void)state;
    _cleanup_(freep) char *path = xasprintf("%s/f", directory);
    static const size_t sizes[] = {0, 1, 63, 64, 4095, 4096, 4097, 100000};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        write_file(path, sizes[i]);
        struct buf b = BUF_INIT(sizes[i]);
        buf_append_cstr(&b, "what was there before");
        assert_int_equal(buf_read_file(&b, path, NULL), 0);
        assert_int_equal(b.len, sizes[i]);
        assert_int_equal(strlen(buf_cstr(&b)), sizes[i]);
        for (size_t j = 0; j < b.len; j++)
            assert_int_equal(b.ptr[j], 'a' + (int)(j % 26));
        buf_finish(&b);

        write_file(path, sizes[i] + 1);
        struct err err = ERR_INIT;
        assert_int_equal(buf_read_file(&b, path, &err), ERR_TOO_LARGE);
        assert_int_equal(err.code, ERR_TOO_LARGE);
        assert_int_equal(b.len, 0);
        buf_finish(&b);
    }
}

static void test_append_rune(void **state)
{
    (void)state;
    static const struct {
        uint32_t rune;
        const char *text;
    } rows[] = {{'a', "a"},
                {0x7f, "\x7f"},
                {0x80, "\xc2\x80"},
                {0x7ff, "\xdf\xbf"},
                {0x800, "\xe0\xa0\x80"},
                {0xffff, "\xef\xbf\xbf"},
                {0x10000, "\xf0\x90\x80\x80"},
                {0x10ffff, "\xf4\x8f\xbf\xbf"},
                {0xd800, "\xef\xbf\xbd"},
                {0x110000, "\xef\xbf\xbd"}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct buf b = BUF_INIT(16);
        buf_append_rune(&b, rows[i].rune);
        assert_string_equal(buf_cstr(&b), rows[i].text);
        buf_finish(&b);
    }
}

static void test_read_file_failures(void **state)
{
    (void)state;
    struct buf b = BUF_INIT(100);
    struct err err = ERR_INIT;
    _cleanup_(freep) char *missing = xasprintf("%s/none", directory);
    assert_int_equal(buf_read_file(&b, missing, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, missing));
    assert_int_equal(buf_read_file(&b, directory, &err), ERR_IO);
    assert_int_equal(b.len, 0);
    buf_finish(&b);
}

static void test_read_file_at_proc(void **state)
{
    (void)state;
    int dirfd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dirfd >= 0);
    struct buf b = BUF_INIT(1 << 20); /* files of /proc say their size is 0 */
    assert_int_equal(buf_read_file_at(&b, dirfd, "status", NULL), 0);
    assert_true(str_starts_with(buf_str(&b), STR("Name:\ttest_base_buf")));
    close(dirfd);
    buf_finish(&b);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    _cleanup_(freep) char *path = xasprintf("%s/f", directory);
    return unlink(path) || rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_in_series),
        cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_failure_is_sticky),
        cmocka_unit_test(test_appendf_at_the_maximum),
        cmocka_unit_test(test_huge_lengths_do_not_wrap),
        cmocka_unit_test(test_reserve_consume_truncate),
        cmocka_unit_test(test_take),
        cmocka_unit_test(test_percent),
        cmocka_unit_test(test_read_file_sizes),
        cmocka_unit_test(test_append_rune),
        cmocka_unit_test(test_read_file_failures),
        cmocka_unit_test(test_read_file_at_proc),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
