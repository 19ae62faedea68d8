#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"

static void test_zeroed_and_aligned(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *a = arena_create(64);
    for (size_t size = 0; size < 300; size++) {
        arena_cstr(a, STR("x")); /* leaves the next place unaligned */
        char *p = arena_alloc(a, size);
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, size);
    }
}

static void test_allocations_do_not_overlap(void **state)
{
    (void)state;
    enum { N = 500 };
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    unsigned char *p[N];
    for (int i = 0; i < N; i++) {
        p[i] = arena_alloc(a, (size_t)i * 7 % 90);
        memset(p[i], i & 0xff, (size_t)i * 7 % 90);
    }
    for (int i = 0; i < N; i++) {
        for (size_t j = 0; j < (size_t)i * 7 % 90; j++)
            assert_int_equal(p[i][j], i & 0xff);
    }
}

static void test_larger_than_a_chunk(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *a = arena_create(128);
    char *small = arena_alloc(a, 16);
    char *big = arena_alloc(a, 1 << 20);
    char *next = arena_alloc(a, 16);
    memset(big, 1, 1 << 20);
    assert_ptr_equal(next, small + 16); /* the first chunk's room stays in use */
    assert_true(arena_size(a) >= (1 << 20));
    assert_true(arena_size(a) < (1 << 20) + 4096);
}

static void test_strings(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    struct str copy = arena_str(a, str_sub(STR("name: web"), 6, 3));
    assert_true(str_is(copy, "web"));
    assert_int_equal(copy.ptr[3], 0);
    assert_string_equal(arena_cstr(a, STR_NULL), "");
    assert_non_null(arena_str(a, STR_NULL).ptr);
    assert_string_equal(arena_printf(a, "%s-%05d", "job", 42), "job-00042");
    char *wide = arena_printf(a, "%3000d", 1);
    assert_int_equal(strlen(wide), 3000);
}

static void test_destroy_null(void **state)
{
    (void)state;
    arena_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_and_aligned),
        cmocka_unit_test(test_allocations_do_not_overlap),
        cmocka_unit_test(test_larger_than_a_chunk),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_destroy_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
