#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "metrics/metrics.h"

static void assert_value(const struct metrics_series *s, double want)
{
    if (metrics_value(s) != want)
        fail_msg("%.17g is not %.17g", metrics_value(s), want);
}

static void test_counter(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_series *s = metrics_series(metrics_counter(r, "x_total", "X."));
    assert_value(s, 0);
    metrics_add(s, 1);
    metrics_add(s, 2.5);
    metrics_add(s, -1);
    metrics_add(s, NAN);
    assert_value(s, 3.5);
}

static void test_gauge(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_series *s = metrics_series(metrics_gauge(r, "x", "X."));
    metrics_set(s, 10);
    metrics_add(s, -12);
    assert_value(s, -2);
}

static void test_series_are_found_again(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_family *f = metrics_counter(r, "x_total", "X.", "code", "method");
    struct metrics_series *a = metrics_series(f, "200", "GET");
    assert_ptr_equal(metrics_series(f, "200", "GET"), a);
    assert_ptr_not_equal(metrics_series(f, "200", "PUT"), a);
    assert_ptr_not_equal(metrics_series(f, "GET", "200"), a);
    assert_ptr_equal(metrics_series(f, NULL, "GET"), metrics_series(f, "", "GET"));
    /* Values that would meet if they were only put side by side. */
    assert_ptr_not_equal(metrics_series(f, "a\",method=\"b", ""), metrics_series(f, "a", "b"));
}

static void test_families_are_found_again(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_family *f = metrics_counter(r, "x_total", "X.", "code");
    assert_ptr_equal(metrics_counter(r, "x_total", "X.", "code"), f);
    assert_ptr_not_equal(metrics_counter(r, "y_total", "Y.", "code"), f);
}

static void test_overflow(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_family *f = metrics_counter(r, "x_total", "X.", "name");
    metrics_limit(f, 3);
    struct metrics_series *first = metrics_series(f, "1");
    metrics_series(f, "2");
    metrics_series(f, "3");
    struct metrics_series *overflow = metrics_series(f, "4");
    assert_ptr_equal(metrics_series(f, "5"), overflow);
    assert_ptr_equal(metrics_series(f, "overflow"), overflow);
    assert_ptr_equal(metrics_series(f, "1"), first);
    assert_ptr_not_equal(overflow, first);

    struct metrics_family *g = metrics_counter(r, "y_total", "Y.", "name");
    struct metrics_series *last = NULL, *s = NULL;
    size_t different = 0;
    for (int i = 0; i < METRICS_MAX_SERIES + 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        s = metrics_series(g, name);
        different += s != last;
        last = s;
    }
    assert_int_equal(different, METRICS_MAX_SERIES + 1);
}

static void test_histogram(void **state)
{
    (void)state;
    static const double bounds[] = {1, 2};
    static const struct metrics_buckets buckets = {bounds, 2};
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_series *s = metrics_series(metrics_histogram(r, "x_seconds", "X.", &buckets));
    static const double values[] = {0.5, 1, 1.5, 2, 2.5, 100};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        metrics_observe(s, values[i]);
    metrics_observe(s, NAN);
    assert_value(s, 107.5);
    struct buf out = BUF_INIT(4096);
    metrics_write(r, &out);
    assert_string_equal(buf_cstr(&out), "# HELP x_seconds X.\n"
                                        "# TYPE x_seconds histogram\n"
                                        "x_seconds_bucket{le=\"1\"} 2\n"
                                        "x_seconds_bucket{le=\"2\"} 4\n"
                                        "x_seconds_bucket{le=\"+Inf\"} 6\n"
                                        "x_seconds_sum 107.5\n"
                                        "x_seconds_count 6\n");
    buf_finish(&out);
}

/* Runs what must abort in a child. */
static void expect_abort(void (*fn)(struct metrics_registry *r))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        /* cmocka and sanitizers would catch it and report. */
        for (int signo = 1; signo < 32; signo++)
            signal(signo, SIG_DFL);
        fn(metrics_registry_create());
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void bad_name(struct metrics_registry *r)
{
    metrics_counter(r, "1x", "X.");
}

static void empty_name(struct metrics_registry *r)
{
    metrics_counter(r, "", "X.");
}

static void bad_label(struct metrics_registry *r)
{
    metrics_counter(r, "x_total", "X.", "a:b");
}

static void reserved_label(struct metrics_registry *r)
{
    metrics_counter(r, "x_total", "X.", "__name__");
}

static void le_of_a_histogram(struct metrics_registry *r)
{
    metrics_histogram(r, "x_seconds", "X.", &metrics_buckets_requests, "le");
}

static void falling_buckets(struct metrics_registry *r)
{
    static const double bounds[] = {2, 1};
    static const struct metrics_buckets buckets = {bounds, 2};
    metrics_histogram(r, "x_seconds", "X.", &buckets);
}

static void other_labels(struct metrics_registry *r)
{
    metrics_counter(r, "x_total", "X.", "a");
    metrics_counter(r, "x_total", "X.", "a", "b");
}

static void fewer_labels(struct metrics_registry *r)
{
    metrics_counter(r, "x_total", "X.", "a", "b");
    metrics_counter(r, "x_total", "X.", "a");
}

static void other_type(struct metrics_registry *r)
{
    metrics_counter(r, "x_total", "X.");
    metrics_gauge(r, "x_total", "X.");
}

static void too_few_values(struct metrics_registry *r)
{
    metrics_series(metrics_counter(r, "x_total", "X.", "a", "b"), "1");
}

static void set_of_a_counter(struct metrics_registry *r)
{
    metrics_set(metrics_series(metrics_counter(r, "x_total", "X.")), 1);
}

static void observe_of_a_gauge(struct metrics_registry *r)
{
    metrics_observe(metrics_series(metrics_gauge(r, "x", "X.")), 1);
}

static void test_misuse_aborts(void **state)
{
    (void)state;
    static void (*const misuses[])(struct metrics_registry *) = {
        bad_name,          empty_name,      bad_label,        reserved_label,
        le_of_a_histogram, falling_buckets, other_labels,     fewer_labels,
        other_type,        too_few_values,  set_of_a_counter, observe_of_a_gauge,
    };
    for (size_t i = 0; i < ARRAY_SIZE(misuses); i++)
        expect_abort(misuses[i]);
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *work(void *context)
{
    struct metrics_registry *r = context;
    struct metrics_family *f = metrics_counter(r, "x_total", "X.", "n");
    struct metrics_series *all =
        metrics_series(metrics_histogram(r, "y_seconds", "Y.", &metrics_buckets_requests));
    for (int i = 0; i < ROUNDS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", i % 50);
        metrics_add(metrics_series(f, name), 1);
        metrics_observe(all, 0.5);
    }
    return NULL;
}

/* Writers and readers at once lose nothing; TSan watches. */
static void test_threads(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, r), 0);
    for (int i = 0; i < 50; i++) {
        struct buf out = BUF_INIT(1 << 20);
        metrics_write(r, &out);
        assert_int_equal(buf_error(&out, "", NULL), 0);
        buf_finish(&out);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    struct metrics_family *f = metrics_counter(r, "x_total", "X.", "n");
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        assert_value(metrics_series(f, name), THREADS * ROUNDS / 50);
    }
    assert_value(metrics_series(metrics_histogram(r, "y_seconds", "Y.", &metrics_buckets_requests)),
                 THREADS * ROUNDS * 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter),
        cmocka_unit_test(test_gauge),
        cmocka_unit_test(test_series_are_found_again),
        cmocka_unit_test(test_families_are_found_again),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_misuse_aborts),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
