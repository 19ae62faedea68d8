#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/poison.h"

static void test_xcalloc_zeroes(void **state)
{
    (void)state;
    _cleanup_(freep) char *p = xcalloc(16, 16);
    for (int i = 0; i < 256; i++)
        assert_int_equal(p[i], 0);
}

static void test_zero_sizes_give_memory(void **state)
{
    (void)state;
    _cleanup_(freep) char *a = xcalloc(0, 8);
    _cleanup_(freep) char *b = xrealloc(NULL, 0, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
}

static void test_xrealloc_keeps_content(void **state)
{
    (void)state;
    _cleanup_(freep) int *p = xrealloc(NULL, 4, sizeof(int));
    for (int i = 0; i < 4; i++)
        p[i] = i;
    p = xrealloc(p, 4096, sizeof(int));
    for (int i = 0; i < 4; i++)
        assert_int_equal(p[i], i);
}

static void test_strings(void **state)
{
    (void)state;
    _cleanup_(freep) char *a = xstrdup("web-0");
    _cleanup_(freep) char *b = xasprintf("%s/%d", a, 7);
    assert_string_equal(a, "web-0");
    assert_string_equal(b, "web-0/7");
}

static void test_take_moves(void **state)
{
    (void)state;
    _cleanup_(freep) char *a = xstrdup("x");
    _cleanup_(freep) char *b = TAKE(a);
    assert_null(a);
    assert_string_equal(b, "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xcalloc_zeroes),
        cmocka_unit_test(test_zero_sizes_give_memory),
        cmocka_unit_test(test_xrealloc_keeps_content),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_take_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
