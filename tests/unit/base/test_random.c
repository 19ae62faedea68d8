#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/random.h"
#include "base/str.h"

static void test_seeded_replays(void **state)
{
    (void)state;
    struct random_seeded a, b, c;
    random_seed(&a, 5);
    random_seed(&b, 5);
    random_seed(&c, 6);
    int differ = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t value = random_u64(&a.source);
        assert_true(value == random_u64(&b.source));
        differ += value != random_u64(&c.source);
    }
    assert_int_equal(differ, 100);
}

/* The reference implementation's first values for the seed 1234567. */
static void test_splitmix64(void **state)
{
    (void)state;
    static const uint64_t want[] = {6457827717110365317u, 3203168211198807973u,
                                    9817491932198370423u};
    struct random_seeded r;
    random_seed(&r, 1234567);
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        assert_true(random_u64(&r.source) == want[i]);
}

static void test_below(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 9);
    int count[6] = {0};
    for (int i = 0; i < 60000; i++) {
        uint64_t value = random_below(&r.source, 6);
        assert_true(value < 6);
        count[value]++;
    }
    for (int i = 0; i < 6; i++)
        assert_in_range(count[i], 9500, 10500);
    assert_int_equal(random_below(&r.source, 1), 0);
    for (int i = 0; i < 100; i++)
        assert_true(random_below(&r.source, UINT64_C(1) << 63) < UINT64_C(1) << 63);
}

/* 2^64 is no multiple of 3·2^62: without drawing again, the lowest third would come half the time.
 */
static void test_below_is_even(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 9);
    int low = 0;
    for (int i = 0; i < 30000; i++)
        low += random_below(&r.source, UINT64_C(3) << 62) < UINT64_C(1) << 62;
    assert_in_range(low, 9500, 10500);
}

static void test_jitter(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 9);
    for (int i = 0; i < 1000; i++)
        assert_in_range(random_jitter(&r.source, 1000, 0.2), 1000, 1199);
    assert_int_equal(random_jitter(&r.source, 1000, 0), 1000);
    assert_int_equal(random_jitter(&r.source, 0, 1.0), 0);
}

static void test_system(void **state)
{
    (void)state;
    unsigned char bytes[1000] = {0};
    random_fill(&random_system, bytes, sizeof(bytes));
    int zeros = 0;
    for (size_t i = 0; i < sizeof(bytes); i++)
        zeros += bytes[i] == 0;
    assert_true(zeros < 40);
    assert_true(random_u64(&random_system) != random_u64(&random_system));
}

/* The share above x is exp(-x), in every part of the range; mean and variance are 1. */
static void test_exponential(void **state)
{
    (void)state;
    enum { N = 200000 };
    static const struct {
        double x, share;
    } rows[] = {{0.05, 0.951229}, {0.5, 0.606531}, {1, 0.367879},
                {1.5, 0.223130},  {3, 0.049787},   {6, 0.002479}};
    int above[ARRAY_SIZE(rows)] = {0};
    double sum = 0, squares = 0;
    struct random_seeded r;
    random_seed(&r, 9);
    for (int i = 0; i < N; i++) {
        double value = random_exponential(&r.source);
        assert_true(value >= 0);
        sum += value;
        squares += value * value;
        for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
            above[k] += value > rows[k].x;
    }
    assert_true(sum / N > 0.99 && sum / N < 1.01);
    assert_true(squares / N > 1.96 && squares / N < 2.04);
    for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
        double share = (double)above[k] / N;
        if (share < rows[k].share - 0.004 || share > rows[k].share + 0.004)
            fail_msg("above %g: %g, not %g", rows[k].x, share, rows[k].share);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeded_replays), cmocka_unit_test(test_splitmix64),
        cmocka_unit_test(test_below),          cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_exponential),    cmocka_unit_test(test_system),
        cmocka_unit_test(test_below_is_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
