/* Named after client-go's queue_test, delaying_queue_test, rate_limiting_queue_test,
 * default_rate_limiters_test and metrics_test, whose rules these check without threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "queue/queue.h"

struct fake_clock {
    struct clock clock;
    int64_t now_ms;
};

static int64_t fake_now(const struct clock *self)
{
    return ((const struct fake_clock *)(const void *)self)->now_ms;
}

struct fixture {
    struct fake_clock time;
    struct queue *q;
};

static int setup(void **state)
{
    static struct fixture f;
    f.time = (struct fake_clock){{fake_now, fake_now}, 1000000};
    f.q = queue_create(&f.time.clock);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    queue_destroy(f->q);
    return 0;
}

static void expect_get(struct queue *q, const char *want)
{
    struct str key = STR_NULL;
    bool got = queue_get(q, &key, NULL);
    if (!want) {
        if (got)
            fail_msg("nothing expected, got %.*s", STR_ARG(key));
        return;
    }
    if (!got || !str_is(key, want))
        fail_msg("%s expected, got %.*s", want, STR_ARG(key));
}

static struct str number_key(char out[static 32], uint64_t n)
{
    return (struct str){out, (size_t)snprintf(out, 32, "ns/p-%llu", (unsigned long long)n)};
}

static void test_basic(void **state)
{
    struct fixture *f = *state;
    char text[32];
    for (int round = 0; round < 50; round++) {
        for (uint64_t i = 0; i < 50; i++)
            queue_add(f->q, number_key(text, i), QUEUE_NORMAL);
    }
    assert_int_equal(queue_len(f->q), 50);
    for (uint64_t i = 0; i < 50; i++) {
        number_key(text, i);
        expect_get(f->q, text); /* first in, first out; each once */
        queue_done(f->q, str_of(text));
    }
    expect_get(f->q, NULL);
    assert_int_equal(queue_len(f->q), 0);
}

static void test_add_while_processing(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("a"), QUEUE_NORMAL);
    expect_get(f->q, "a");
    queue_add(f->q, STR("a"), QUEUE_NORMAL);
    queue_add(f->q, STR("a"), QUEUE_NORMAL);
    assert_int_equal(queue_len(f->q), 0);
    expect_get(f->q, NULL); /* never twice at a time */
    queue_done(f->q, STR("a"));
    expect_get(f->q, "a");
    queue_done(f->q, STR("a"));
    expect_get(f->q, NULL); /* the two adds were one */
}

static void test_len(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("foo"), QUEUE_NORMAL);
    assert_int_equal(queue_len(f->q), 1);
    queue_add(f->q, STR("bar"), QUEUE_LOW);
    assert_int_equal(queue_len(f->q), 2);
    queue_add(f->q, STR("foo"), QUEUE_URGENT);
    assert_int_equal(queue_len(f->q), 2);
}

static void test_reinsert(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("foo"), QUEUE_NORMAL);
    struct str key;
    assert_true(queue_get(f->q, &key, NULL));
    queue_add(f->q, key, QUEUE_NORMAL);
    queue_done(f->q, key);
    assert_true(queue_get(f->q, &key, NULL));
    assert_true(str_is(key, "foo"));
    queue_done(f->q, key);
    assert_int_equal(queue_len(f->q), 0);
}

/* client-go: what was taken must not stay referenced. Here: nothing
 * is kept of a key that succeeded. */
static void test_garbage_collection(void **state)
{
    struct fixture *f = *state;
    char text[32];
    for (uint64_t i = 0; i < 20000; i++) {
        struct str key = number_key(text, i), got;
        queue_add_rate_limited(f->q, key, QUEUE_NORMAL);
        f->time.now_ms += 5;
        assert_true(queue_get(f->q, &got, NULL));
        if (i % 2) {
            queue_forget(f->q, got);
            queue_done(f->q, got);
        } else {
            queue_done(f->q, got);
            assert_int_equal(queue_failures(f->q, key), 1); /* an end alone is no success */
            queue_forget(f->q, key);
        }
        assert_int_equal(queue_failures(f->q, key), 0);
    }
    struct queue_stats stats;
    queue_stats(f->q, &stats);
    assert_int_equal(stats.keys, 0);
}

static void test_done_of_what_is_not_processing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(queue_done(f->q, STR("a")), 0);
    queue_add(f->q, STR("a"), QUEUE_NORMAL);
    assert_int_equal(queue_done(f->q, STR("a")), 0);
    expect_get(f->q, "a");
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("low-1"), QUEUE_LOW);
    queue_add(f->q, STR("normal-1"), QUEUE_NORMAL);
    queue_add(f->q, STR("urgent-1"), QUEUE_URGENT);
    queue_add(f->q, STR("low-2"), QUEUE_LOW);
    queue_add(f->q, STR("urgent-2"), QUEUE_URGENT);
    queue_add(f->q, STR("normal-2"), QUEUE_NORMAL);
    static const char *const want[] = {"urgent-1", "urgent-2", "normal-1",
                                       "normal-2", "low-1",    "low-2"};
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        expect_get(f->q, want[i]);
}

static void test_a_higher_priority_moves_up(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("a"), QUEUE_LOW);
    queue_add(f->q, STR("b"), QUEUE_LOW);
    queue_add(f->q, STR("c"), QUEUE_NORMAL);
    f->time.now_ms += 7;
    queue_add(f->q, STR("b"), QUEUE_URGENT);
    queue_add(f->q, STR("b"), QUEUE_LOW); /* never down */
    f->time.now_ms += 3;
    struct str key;
    int64_t waited_ms;
    assert_true(queue_get(f->q, &key, &waited_ms));
    assert_true(str_is(key, "b"));
    assert_int_equal(waited_ms, 10); /* since it was first ready */
    expect_get(f->q, "c");
    expect_get(f->q, "a");
}

static void test_priority_of_an_add_while_processing(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("a"), QUEUE_URGENT);
    expect_get(f->q, "a");
    /* What it was taken with is spent; the highest of the new ones counts. */
    queue_add(f->q, STR("a"), QUEUE_LOW);
    queue_add(f->q, STR("b"), QUEUE_NORMAL);
    queue_done(f->q, STR("a"));
    expect_get(f->q, "b");
    expect_get(f->q, "a");
    queue_add(f->q, STR("a"), QUEUE_LOW);
    queue_add(f->q, STR("a"), QUEUE_URGENT);
    queue_add(f->q, STR("a"), QUEUE_LOW);
    queue_add(f->q, STR("c"), QUEUE_NORMAL);
    queue_done(f->q, STR("a"));
    expect_get(f->q, "a");
    expect_get(f->q, "c");
}

static void test_simple_queue(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(queue_next_ms(f->q), -1);
    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 50);
    assert_int_equal(queue_len(f->q), 0);
    assert_int_equal(queue_next_ms(f->q), 50);
    f->time.now_ms += 49;
    expect_get(f->q, NULL);
    assert_int_equal(queue_next_ms(f->q), 1);
    f->time.now_ms += 1;
    assert_int_equal(queue_next_ms(f->q), 0);
    f->time.now_ms += 1;
    assert_int_equal(queue_next_ms(f->q), 0);
    assert_int_equal(queue_len(f->q), 1);
    assert_int_equal(queue_next_ms(f->q), -1);
    expect_get(f->q, "foo");
    queue_done(f->q, STR("foo"));
    f->time.now_ms += 10000;
    expect_get(f->q, NULL);
}

static void test_deduping(void **state)
{
    struct fixture *f = *state;
    /* The earlier time stays, whichever came first. */
    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 50);
    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 70);
    assert_int_equal(queue_next_ms(f->q), 50);
    f->time.now_ms += 60;
    expect_get(f->q, "foo");
    queue_done(f->q, STR("foo"));
    f->time.now_ms += 20;
    expect_get(f->q, NULL);

    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 50);
    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 30);
    f->time.now_ms += 40;
    expect_get(f->q, "foo");
    queue_done(f->q, STR("foo"));
    f->time.now_ms += 20;
    expect_get(f->q, NULL);
}

static void test_add_two_fire_early(void **state)
{
    struct fixture *f = *state;
    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 1000);
    queue_add_after(f->q, STR("bar"), QUEUE_NORMAL, 50);
    queue_add_after(f->q, STR("baz"), QUEUE_NORMAL, 2000);
    assert_int_equal(queue_len(f->q), 0);
    f->time.now_ms += 60;
    expect_get(f->q, "bar");
    queue_add_after(f->q, STR("qux"), QUEUE_NORMAL, 2);
    f->time.now_ms += 2;
    expect_get(f->q, "qux");
    f->time.now_ms += 1000;
    expect_get(f->q, "foo");
    expect_get(f->q, NULL);
    assert_int_equal(queue_next_ms(f->q), 938);
}

/* Delays that pass together come in the order of their times. */
static void test_copy_shifting(void **state)
{
    struct fixture *f = *state;
    queue_add_after(f->q, STR("foo"), QUEUE_NORMAL, 1000);
    queue_add_after(f->q, STR("bar"), QUEUE_NORMAL, 500);
    queue_add_after(f->q, STR("baz"), QUEUE_NORMAL, 300);
    f->time.now_ms += 2000;
    assert_int_equal(queue_len(f->q), 3);
    expect_get(f->q, "baz");
    expect_get(f->q, "bar");
    expect_get(f->q, "foo");
}

static void test_delays_and_states(void **state)
{
    struct fixture *f = *state;
    /* No delay is an add. */
    queue_add_after(f->q, STR("a"), QUEUE_NORMAL, 0);
    queue_add_after(f->q, STR("b"), QUEUE_NORMAL, -5);
    expect_get(f->q, "a");
    expect_get(f->q, "b");
    /* A delay that passes during the work queues the key when that is done. */
    queue_add_after(f->q, STR("a"), QUEUE_NORMAL, 10);
    f->time.now_ms += 10;
    expect_get(f->q, NULL);
    queue_done(f->q, STR("a"));
    expect_get(f->q, "a");
    queue_done(f->q, STR("a"));
    /* An add does not cancel the delay: it may be for another reason. */
    queue_add_after(f->q, STR("c"), QUEUE_NORMAL, 10);
    queue_add(f->q, STR("c"), QUEUE_NORMAL);
    expect_get(f->q, "c");
    queue_done(f->q, STR("c"));
    f->time.now_ms += 10;
    expect_get(f->q, "c");
    queue_done(f->q, STR("c"));
    /* A delay passing while the key is ready changes nothing but its priority. */
    queue_add(f->q, STR("d"), QUEUE_LOW);
    queue_add(f->q, STR("e"), QUEUE_NORMAL);
    queue_add_after(f->q, STR("d"), QUEUE_LOW, 5);
    queue_add_after(f->q, STR("d"), QUEUE_URGENT, 9); /* later, but more urgent */
    f->time.now_ms += 5;
    expect_get(f->q, "d");
    expect_get(f->q, "e");
    queue_done(f->q, STR("d"));
    f->time.now_ms += 100;
    expect_get(f->q, NULL);
    queue_add_after(f->q, STR("f"), QUEUE_LOW, INT64_MAX);
    assert_true(queue_next_ms(f->q) == INT64_MAX - f->time.now_ms);
}

static void test_item_exponential_failure_rate_limiter(void **state)
{
    struct fixture *f = *state;
    static const int64_t want[] = {5, 10, 20, 40, 80, 160, 320, 640, 1280};
    for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
        assert_int_equal(queue_failures(f->q, STR("one")), i);
        assert_int_equal(queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL), want[i]);
    }
    assert_int_equal(queue_add_rate_limited(f->q, STR("two"), QUEUE_NORMAL), 5);
    queue_forget(f->q, STR("one"));
    assert_int_equal(queue_failures(f->q, STR("one")), 0);
    assert_int_equal(queue_failures(f->q, STR("two")), 1);
    assert_int_equal(queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL), 5);
    queue_forget(f->q, STR("never seen"));
}

static void test_item_exponential_failure_rate_limiter_overflow(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 17; i++)
        assert_int_equal(queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL), 5 << i);
    assert_int_equal(queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL), 5 << 17);
    for (int i = 0; i < 200; i++)
        assert_int_equal(queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL), 1000000);
    assert_int_equal(queue_failures(f->q, STR("one")), 218);
}

static void test_rate_limiting_queue(void **state)
{
    struct fixture *f = *state;
    queue_add(f->q, STR("one"), QUEUE_NORMAL);
    expect_get(f->q, "one");
    queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL);
    queue_done(f->q, STR("one"));
    expect_get(f->q, NULL);
    assert_int_equal(queue_next_ms(f->q), 5);
    f->time.now_ms += 5;
    expect_get(f->q, "one");
    queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL);
    queue_done(f->q, STR("one"));
    assert_int_equal(queue_next_ms(f->q), 10);
    /* Forgetting resets the count and leaves the delay under way. */
    queue_forget(f->q, STR("one"));
    assert_int_equal(queue_next_ms(f->q), 10);
    f->time.now_ms += 10;
    expect_get(f->q, "one");
    assert_int_equal(queue_add_rate_limited(f->q, STR("one"), QUEUE_NORMAL), 5);
}

static void test_metrics(void **state)
{
    struct fixture *f = *state;
    struct queue_stats stats;
    struct str key;
    int64_t waited_ms;
    queue_add(f->q, STR("foo"), QUEUE_NORMAL);
    f->time.now_ms += 50;
    queue_add(f->q, STR("foo"), QUEUE_NORMAL);
    queue_add(f->q, STR("low"), QUEUE_LOW);
    queue_add_rate_limited(f->q, STR("later"), QUEUE_LOW);
    queue_stats(f->q, &stats);
    assert_int_equal(stats.adds, 2);
    assert_int_equal(stats.retries, 1);
    assert_int_equal(stats.depth[QUEUE_NORMAL], 1);
    assert_int_equal(stats.depth[QUEUE_LOW], 1);
    assert_int_equal(stats.depth[QUEUE_URGENT], 0);
    assert_int_equal(stats.delayed, 1);
    assert_int_equal(stats.processing, 0);
    assert_int_equal(stats.keys, 3);
    assert_int_equal(stats.longest_running_ms, 0);

    assert_true(queue_get(f->q, &key, &waited_ms));
    assert_int_equal(waited_ms, 50);
    f->time.now_ms += 25;
    assert_true(queue_get(f->q, &key, &waited_ms));
    assert_int_equal(waited_ms, 25);
    f->time.now_ms += 10;
    queue_add(f->q, STR("foo"), QUEUE_NORMAL);
    queue_stats(f->q, &stats);
    assert_int_equal(stats.adds, 4); /* and "later", whose time has come */
    assert_int_equal(stats.delayed, 0);
    assert_int_equal(stats.processing, 2);
    assert_int_equal(stats.longest_running_ms, 35);
    assert_int_equal(stats.unfinished_work_ms, 45);
    assert_int_equal(queue_done(f->q, STR("foo")), 35);
    assert_int_equal(queue_done(f->q, STR("low")), 10);
    f->time.now_ms += 4;
    assert_true(queue_get(f->q, &key, &waited_ms)); /* waits anew from the end of the work */
    assert_true(str_is(key, "foo"));
    assert_int_equal(waited_ms, 4);
}

enum { KEYS = 40 };

/* client-go's two sets and our priorities, written down as plainly as can be. */
struct model {
    bool dirty[KEYS], processing[KEYS];
    int priority[KEYS];
    int64_t at_ms[KEYS]; /* 0: no delay */
    int delayed_priority[KEYS];
};

static void model_add(struct model *m, size_t k, int priority)
{
    if (!m->dirty[k] || priority > m->priority[k])
        m->priority[k] = priority;
    m->dirty[k] = true;
}

static void model_due(struct model *m, int64_t now_ms)
{
    for (size_t k = 0; k < KEYS; k++) {
        if (m->at_ms[k] && m->at_ms[k] <= now_ms) {
            m->at_ms[k] = 0;
            model_add(m, k, m->delayed_priority[k]);
        }
    }
}

static void model_add_after(struct model *m, size_t k, int priority, int64_t at_ms)
{
    if (!m->at_ms[k] || priority > m->delayed_priority[k])
        m->delayed_priority[k] = priority;
    if (!m->at_ms[k] || at_ms < m->at_ms[k])
        m->at_ms[k] = at_ms;
}

static int model_best(const struct model *m)
{
    int best = -1;
    for (size_t k = 0; k < KEYS; k++) {
        if (m->dirty[k] && !m->processing[k] && m->priority[k] > best)
            best = m->priority[k];
    }
    return best;
}

static void test_random_operations_against_a_model(void **state)
{
    struct fixture *f = *state;
    struct random_seeded r;
    random_seed(&r, 99);
    struct model m = {0};
    for (int step = 0; step < 100000; step++) {
        char text[32];
        size_t k = random_below(&r.source, KEYS);
        struct str key = number_key(text, k);
        int priority = (int)random_below(&r.source, QUEUE_PRIORITIES);
        switch (random_below(&r.source, 6)) {
        case 0:
            queue_add(f->q, key, (enum queue_priority)priority);
            model_add(&m, k, priority);
            break;
        case 1: {
            int64_t delay_ms = 1 + (int64_t)random_below(&r.source, 30);
            queue_add_after(f->q, key, (enum queue_priority)priority, delay_ms);
            model_add_after(&m, k, priority, f->time.now_ms + delay_ms);
            break;
        }
        case 2:
            f->time.now_ms += (int64_t)random_below(&r.source, 10);
            break;
        case 3:
            queue_done(f->q, key);
            m.processing[k] = false;
            break;
        default: {
            model_due(&m, f->time.now_ms);
            int best = model_best(&m);
            struct str got;
            assert_int_equal(queue_get(f->q, &got, NULL), best >= 0);
            if (best < 0)
                break;
            int64_t number;
            assert_int_equal(str_to_i64(str_sub(got, 5, got.len), 0, KEYS - 1, &number), 0);
            assert_true(m.dirty[number] && !m.processing[number]);
            assert_int_equal(m.priority[number], best);
            m.dirty[number] = false;
            m.processing[number] = true;
        }
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_basic),
        TEST(test_add_while_processing),
        TEST(test_len),
        TEST(test_reinsert),
        TEST(test_garbage_collection),
        TEST(test_done_of_what_is_not_processing),
        TEST(test_priorities),
        TEST(test_a_higher_priority_moves_up),
        TEST(test_priority_of_an_add_while_processing),
        TEST(test_simple_queue),
        TEST(test_deduping),
        TEST(test_add_two_fire_early),
        TEST(test_copy_shifting),
        TEST(test_delays_and_states),
        TEST(test_item_exponential_failure_rate_limiter),
        TEST(test_item_exponential_failure_rate_limiter_overflow),
        TEST(test_rate_limiting_queue),
        TEST(test_metrics),
        TEST(test_random_operations_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
