#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/backoff.h"
#include "base/cleanup.h"

static void test_grows_to_the_maximum(void **state)
{
    (void)state;
    struct backoff b = {.first_ms = 800, .max_ms = 30000, .factor = 2.0};
    static const int64_t want[] = {800, 1600, 3200, 6400, 12800, 25600, 30000, 30000};
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        assert_int_equal(backoff_next(&b, (int64_t)i, NULL), want[i]);
}

static void test_jitter_bounds(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 1);
    int64_t lowest = INT64_MAX, highest = 0;
    for (int i = 0; i < 10000; i++) {
        struct backoff b = {.first_ms = 1000, .max_ms = 30000, .factor = 2.0, .jitter = 1.0};
        int64_t ms = backoff_next(&b, 0, &r.source);
        assert_in_range(ms, 1000, 1999);
        lowest = ms < lowest ? ms : lowest;
        highest = ms > highest ? ms : highest;
    }
    /* The whole range is used, or the jitter would not spread a herd. */
    assert_true(lowest < 1010);
    assert_true(highest > 1990);
}

static void test_resets_after_a_pause(void **state)
{
    (void)state;
    struct backoff b = {.first_ms = 10, .max_ms = 1000, .factor = 2.0, .reset_after_ms = 120000};
    assert_int_equal(backoff_next(&b, 1000, NULL), 10);
    assert_int_equal(backoff_next(&b, 2000, NULL), 20);
    assert_int_equal(backoff_next(&b, 2000 + 119999, NULL), 40);
    assert_int_equal(backoff_next(&b, 121999 + 120000, NULL), 10);
}

static void test_never_resets_without_a_pause_given(void **state)
{
    (void)state;
    struct backoff b = {.first_ms = 10, .max_ms = 1000, .factor = 2.0};
    backoff_next(&b, 0, NULL);
    assert_int_equal(backoff_next(&b, INT64_C(1) << 40, NULL), 20);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, INT64_C(1) << 40, NULL), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_to_the_maximum),
        cmocka_unit_test(test_jitter_bounds),
        cmocka_unit_test(test_resets_after_a_pause),
        cmocka_unit_test(test_never_resets_without_a_pause_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
