#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "metrics/metrics.h"

static void expect_text(struct metrics_registry *r, const char *want)
{
    struct buf out = BUF_INIT(65536);
    metrics_write(r, &out);
    assert_int_equal(buf_error(&out, "", NULL), 0);
    assert_string_equal(buf_cstr(&out), want);
    buf_finish(&out);
}

static void test_families(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    expect_text(r, "");
    metrics_counter(r, "plain_total", "No labels: there from the start.");
    struct metrics_family *f =
        metrics_counter(r, "rest_client_requests_total", "Requests.", "code", "method");
    metrics_gauge(r, "unused", "Labels, but no series.", "name");
    metrics_add(metrics_series(f, "200", "GET"), 3);
    metrics_add(metrics_series(f, "409", "PUT"), 1);
    expect_text(r, "# HELP plain_total No labels: there from the start.\n"
                   "# TYPE plain_total counter\n"
                   "plain_total 0\n"
                   "# HELP rest_client_requests_total Requests.\n"
                   "# TYPE rest_client_requests_total counter\n"
                   "rest_client_requests_total{code=\"200\",method=\"GET\"} 3\n"
                   "rest_client_requests_total{code=\"409\",method=\"PUT\"} 1\n");
}

static void test_histogram_with_labels(void **state)
{
    (void)state;
    static const double bounds[] = {0.005, 0.1};
    static const struct metrics_buckets buckets = {bounds, 2};
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_family *f = metrics_histogram(r, "t_seconds", "T.", &buckets, "name");
    metrics_observe(metrics_series(f, "a"), 0.05);
    expect_text(r, "# HELP t_seconds T.\n"
                   "# TYPE t_seconds histogram\n"
                   "t_seconds_bucket{name=\"a\",le=\"0.005\"} 0\n"
                   "t_seconds_bucket{name=\"a\",le=\"0.1\"} 1\n"
                   "t_seconds_bucket{name=\"a\",le=\"+Inf\"} 1\n"
                   "t_seconds_sum{name=\"a\"} 0.05\n"
                   "t_seconds_count{name=\"a\"} 1\n");
}

static void test_escaping(void **state)
{
    (void)state;
    static const struct {
        const char *value, *text;
    } rows[] = {
        {"plain", "plain"},
        {"", ""},
        {"a\"b", "a\\\"b"},
        {"a\\b", "a\\\\b"},
        {"a\nb", "a\\nb"},
        {"a\tb", "a\tb"},
        {"{x=\"y\"} 1", "{x=\\\"y\\\"} 1"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
        {"\xff\xc3", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"%s%n", "%s%n"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
        metrics_series(metrics_gauge(r, "x", "Back\\slash\nand line.", "v"), rows[i].value);
        char want[200];
        snprintf(want, sizeof(want),
                 "# HELP x Back\\\\slash\\nand line.\n# TYPE x gauge\nx{v=\"%s\"} 0\n",
                 rows[i].text);
        expect_text(r, want);
    }
}

static void test_long_values_are_cut(void **state)
{
    (void)state;
    char value[1000];
    memset(value, 'v', sizeof(value));
    value[sizeof(value) - 1] = '\0';
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    metrics_series(metrics_gauge(r, "x", "X.", "v"), value);
    struct buf out = BUF_INIT(4096);
    metrics_write(r, &out);
    ssize_t from = str_find(buf_str(&out), STR("v=\"")), to = str_find(buf_str(&out), STR("\"}"));
    assert_int_equal(to - from - 3, METRICS_MAX_LABEL_VALUE);
    buf_finish(&out);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } rows[] = {
        {0, "0"},
        {-3, "-3"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {1e-8, "1e-08"},
        {1760000000.125, "1760000000.125"},
        {999999999999999, "999999999999999"},
        {1e15, "1e+15"},
        {1e300, "1e+300"},
        {5e-324, "4.94066e-324"},
        {(double)INFINITY, "+Inf"},
        {-(double)INFINITY, "-Inf"},
        {(double)NAN, "NaN"},
    };
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    struct metrics_series *s = metrics_series(metrics_gauge(r, "x", "X."));
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        metrics_set(s, rows[i].value);
        char want[100];
        snprintf(want, sizeof(want), "# HELP x X.\n# TYPE x gauge\nx %s\n", rows[i].text);
        expect_text(r, want);
    }
}

static void test_too_small_a_buffer(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    metrics_gauge(r, "x", "X.");
    struct buf whole = BUF_INIT(4096);
    metrics_write(r, &whole);
    for (size_t max = 0; max < whole.len; max++) {
        struct buf out = BUF_INIT(max);
        metrics_write(r, &out);
        assert_int_equal(buf_error(&out, "metrics", NULL), ERR_TOO_LARGE);
        buf_finish(&out);
    }
    buf_finish(&whole);
}

static void count(void *context)
{
    metrics_add(context, 1);
}

static void test_before_write(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    metrics_before_write(r, count, metrics_series(metrics_gauge(r, "x", "X.")));
    expect_text(r, "# HELP x X.\n# TYPE x gauge\nx 1\n");
    expect_text(r, "# HELP x X.\n# TYPE x gauge\nx 2\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),     cmocka_unit_test(test_histogram_with_labels),
        cmocka_unit_test(test_escaping),     cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_too_small_a_buffer),
        cmocka_unit_test(test_before_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
