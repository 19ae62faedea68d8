#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/map.h"
#include "base/random.h"

static struct str number_key(char out[static 32], uint64_t n)
{
    return (struct str){out,
                        (size_t)snprintf(out, 32, "default/profile-%llu", (unsigned long long)n)};
}

/* CPython hashes bytes with SipHash-1-3; these are its values for PYTHONHASHSEED=0 (key 0). */
static void test_siphash13(void **state)
{
    (void)state;
    static const uint64_t key[2] = {0, 0};
    assert_true(map_siphash13(key, STR("a")) == 0x407448d2b89b1813);
    assert_true(map_siphash13(key, STR("1234567")) == 0xa33d651594fdae81);
    assert_true(map_siphash13(key, STR("12345678")) == 0x3489982430560a87);
    assert_true(map_siphash13(key, STR("default/web-0")) == 0xbbdde749f4938223);
    char bytes[64];
    for (int i = 0; i < 64; i++)
        bytes[i] = (char)i;
    assert_true(map_siphash13(key, (struct str){bytes, 64}) == 0x75e05fd5bbc870c6);
    static const uint64_t other[2] = {1, 0};
    assert_true(map_siphash13(other, STR("a")) != 0x407448d2b89b1813);
}

static void test_set_get_remove(void **state)
{
    (void)state;
    _cleanup_(map_destroyp) struct map *m = map_create();
    int a, b;
    assert_null(map_get(m, STR("x")));
    assert_null(map_remove(m, STR("x")));
    assert_null(map_set(m, STR("x"), &a));
    assert_ptr_equal(map_set(m, STR("x"), &b), &a);
    assert_int_equal(map_size(m), 1);
    assert_ptr_equal(map_get(m, STR("x")), &b);
    assert_null(map_get(m, STR("X")));
    assert_ptr_equal(map_remove(m, STR("x")), &b);
    assert_null(map_remove(m, STR("x")));
    assert_int_equal(map_size(m), 0);
}

static void test_keys_are_bytes_and_copied(void **state)
{
    (void)state;
    _cleanup_(map_destroyp) struct map *m = map_create();
    char key[] = "a\0b";
    int values[3];
    map_set(m, (struct str){key, 3}, &values[0]);
    map_set(m, STR("a"), &values[1]);
    map_set(m, STR_NULL, &values[2]);
    memset(key, 'z', sizeof(key));
    assert_ptr_equal(map_get(m, STR("a\0b")), &values[0]);
    assert_ptr_equal(map_get(m, STR("a")), &values[1]);
    assert_ptr_equal(map_get(m, STR("")), &values[2]);
    assert_int_equal(map_size(m), 3);
}

static void test_many_keys_with_removals(void **state)
{
    (void)state;
    enum { N = 100000 };
    static char values[N];
    char text[32];
    _cleanup_(map_destroyp) struct map *m = map_create();
    for (uint64_t i = 0; i < N; i++)
        assert_null(map_set(m, number_key(text, i), &values[i]));
    assert_int_equal(map_size(m), N);
    for (uint64_t i = 0; i < N; i += 3)
        assert_ptr_equal(map_remove(m, number_key(text, i)), &values[i]);
    for (uint64_t i = 0; i < N; i++)
        assert_ptr_equal(map_get(m, number_key(text, i)), i % 3 ? &values[i] : NULL);
    for (uint64_t i = 0; i < N; i += 3)
        assert_null(map_set(m, number_key(text, i), &values[i]));
    for (uint64_t i = 0; i < N; i++)
        assert_ptr_equal(map_remove(m, number_key(text, i)), &values[i]);
    assert_int_equal(map_size(m), 0);
}

/* Keys that come and go for ever must not fill the table with what they leave behind. */
static void test_turnover(void **state)
{
    (void)state;
    _cleanup_(map_destroyp) struct map *m = map_create();
    char text[32];
    int value;
    for (uint64_t i = 0; i < 200000; i++) {
        map_set(m, number_key(text, i), &value);
        if (i >= 10)
            assert_ptr_equal(map_remove(m, number_key(text, i - 10)), &value);
        assert_null(map_get(m, number_key(text, i + 1)));
    }
    assert_int_equal(map_size(m), 10);
    struct map_iter it = {0};
    while (map_next(m, &it))
        ;
    assert_true(it.position <= 64);
}

static void test_random_operations_against_an_array(void **state)
{
    (void)state;
    enum { KEYS = 300 };
    struct random_seeded r;
    random_seed(&r, 11);
    _cleanup_(map_destroyp) struct map *m = map_create();
    void *model[KEYS] = {0};
    size_t size = 0;
    char text[32];
    for (int step = 0; step < 100000; step++) {
        uint64_t k = random_below(&r.source, KEYS);
        struct str key = number_key(text, k);
        void *value = &model[random_below(&r.source, KEYS)];
        switch (random_below(&r.source, 3)) {
        case 0:
            assert_ptr_equal(map_get(m, key), model[k]);
            break;
        case 1:
            assert_ptr_equal(map_set(m, key, value), model[k]);
            size += model[k] == NULL;
            model[k] = value;
            break;
        default:
            assert_ptr_equal(map_remove(m, key), model[k]);
            size -= model[k] != NULL;
            model[k] = NULL;
        }
        assert_int_equal(map_size(m), size);
    }
}

static void test_iteration_with_removal(void **state)
{
    (void)state;
    enum { N = 1000 };
    static int seen[N];
    char text[32];
    _cleanup_(map_destroyp) struct map *m = map_create();
    struct map_iter none = {0};
    assert_false(map_next(m, &none));
    for (uint64_t i = 0; i < N; i++)
        map_set(m, number_key(text, i), &seen[i]);
    struct map_iter it = {0};
    while (map_next(m, &it)) {
        int *count = it.value;
        assert_true(str_eq(it.key, number_key(text, (uint64_t)(count - seen))));
        (*count)++;
        if ((count - seen) % 2)
            assert_ptr_equal(map_remove(m, it.key), count);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(map_size(m), N / 2);
}

static void test_destroy_null(void **state)
{
    (void)state;
    map_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash13),
        cmocka_unit_test(test_set_get_remove),
        cmocka_unit_test(test_keys_are_bytes_and_copied),
        cmocka_unit_test(test_many_keys_with_removals),
        cmocka_unit_test(test_turnover),
        cmocka_unit_test(test_random_operations_against_an_array),
        cmocka_unit_test(test_iteration_with_removal),
        cmocka_unit_test(test_destroy_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
