#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/heap.h"
#include "base/random.h"

enum { NODES = 200 };

static void check_invariant(const struct heap *h)
{
    for (size_t i = 0; i < h->len; i++) {
        assert_int_equal(h->nodes[i]->index, i + 1);
        if (i > 0)
            assert_true(h->nodes[(i - 1) / 2]->key <= h->nodes[i]->key);
    }
}

/* Random inserts, moves and removals, against a scan of all nodes. */
static void test_against_a_model(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 42);
    struct heap h = {0};
    struct heap_node nodes[NODES] = {0};
    for (int step = 0; step < 20000; step++) {
        struct heap_node *node = &nodes[random_below(&r.source, NODES)];
        if (random_below(&r.source, 3))
            heap_insert(&h, node, (int64_t)random_below(&r.source, 100) - 50);
        else
            heap_remove(&h, node);
        int64_t lowest = INT64_MAX;
        size_t in = 0;
        for (size_t i = 0; i < NODES; i++) {
            in += nodes[i].index != 0;
            if (nodes[i].index && nodes[i].key < lowest)
                lowest = nodes[i].key;
        }
        assert_int_equal(h.len, in);
        struct heap_node *first = heap_first(&h);
        if (in)
            assert_true(first->key == lowest);
        else
            assert_null(first);
        if (step % 16 == 0)
            check_invariant(&h);
    }
    heap_finish(&h);
    for (size_t i = 0; i < NODES; i++)
        assert_int_equal(nodes[i].index, 0);
}

static void test_pops_sorted(void **state)
{
    (void)state;
    struct random_seeded r;
    random_seed(&r, 7);
    struct heap h = {0};
    static struct heap_node nodes[5000];
    for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
        heap_insert(&h, &nodes[i], (int64_t)(random_u64(&r.source) >> 1));
    int64_t last = INT64_MIN;
    for (struct heap_node *n; (n = heap_first(&h)); heap_remove(&h, n)) {
        assert_true(n->key >= last);
        last = n->key;
    }
    heap_finish(&h);
}

static void test_removing_what_is_not_in(void **state)
{
    (void)state;
    struct heap h = {0};
    struct heap_node a = {0};
    heap_remove(&h, &a);
    assert_null(heap_first(&h));
    heap_insert(&h, &a, 1);
    heap_remove(&h, &a);
    heap_remove(&h, &a);
    assert_int_equal(h.len, 0);
    heap_finish(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_pops_sorted),
        cmocka_unit_test(test_removing_what_is_not_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
