/* Events. Named after client-go's tools/events/eventseries_test where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kube/events.h"
#include "kube_fixture.h"

#define EVENTS "/apis/events.k8s.io/v1/namespaces/shop/events"

struct fixture {
    struct kube_fixture kube;
    struct event_recorder *recorder;
};

static const struct event_regarding profile = {
    "profiling.pyspy.dev/v1alpha1", "PySpyProfile", STR("shop"), STR("slow"), STR("u-1"), STR("7")};

static void make_recorder(struct fixture *f, size_t max_queued)
{
    event_recorder_destroy(f->recorder);
    struct event_recorder_options o = {.client = f->kube.client,
                                       .loop = f->kube.loop,
                                       .random = &f->kube.random.source,
                                       .controller = "example.dev/controller",
                                       .instance = "pod-1",
                                       .max_queued = max_queued};
    assert_int_equal(event_recorder_create(&o, &f->recorder, NULL), 0);
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    make_recorder(f, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    event_recorder_destroy(f->recorder);
    kube_fixture_finish(&f->kube);
    free(f);
    return 0;
}

static void record(struct fixture *f, const char *reason)
{
    event_record(f->recorder, &profile, EVENT_NORMAL, reason, "Reconcile", STR("a note"));
}

static void expect(struct fixture *f, const char *method, const char *path)
{
    fake_expect(f->kube.fake, method, path);
    fake_reply(f->kube.fake, 200, "{}");
}

static void run(struct fixture *f, int64_t ms)
{
    kube_fixture_run(&f->kube, ms);
    assert_int_equal(fake_expected(f->kube.fake), 0);
}

static void check_sent(struct fixture *f, const char *a, const char *b, const char *want)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree;
    struct str body = str_of(fake_sent(f->kube.fake)->body);
    assert_int_equal(json_parse(arena, body, NULL, &tree, NULL), 0);
    const struct json *v = json_at(tree, a, b, NULL);
    if (!v || !str_is(v->text, want))
        fail_msg("%s of %s", want, fake_sent(f->kube.fake)->body);
}

static void test_event(void **state)
{
    struct fixture *f = *state;
    expect(f, "POST", EVENTS);
    event_record(f->recorder, &profile, EVENT_WARNING, "TargetNotFound", "Resolve",
                 STR("no Pod \"x\""));
    assert_int_equal(fake_open(f->kube.fake), 1); /* sent at once */
    run(f, 10);
    check_sent(f, "apiVersion", NULL, "events.k8s.io/v1");
    check_sent(f, "type", NULL, "Warning");
    check_sent(f, "reason", NULL, "TargetNotFound");
    check_sent(f, "action", NULL, "Resolve");
    check_sent(f, "note", NULL, "no Pod \"x\"");
    check_sent(f, "eventTime", NULL, "2026-01-01T00:00:01.000000Z");
    check_sent(f, "reportingController", NULL, "example.dev/controller");
    check_sent(f, "reportingInstance", NULL, "pod-1");
    check_sent(f, "regarding", "kind", "PySpyProfile");
    check_sent(f, "regarding", "uid", "u-1");
    check_sent(f, "regarding", "resourceVersion", "7");
    check_sent(f, "metadata", "namespace", "shop");
    assert_null(strstr(fake_sent(f->kube.fake)->body, "series"));
    assert_int_equal(event_recorder_dropped(f->recorder), 0);
}

static void test_of_what_is_in_no_namespace(void **state)
{
    struct fixture *f = *state;
    const struct event_regarding node = {"v1", "Node", STR(""), STR("n1"), STR(""), STR("")};
    expect(f, "POST", "/apis/events.k8s.io/v1/namespaces/default/events");
    event_record(f->recorder, &node, EVENT_NORMAL, "A", "B", STR(""));
    run(f, 10);
}

static void test_event_seriesf(void **state)
{
    struct fixture *f = *state;
    expect(f, "POST", EVENTS);
    record(f, "A");
    run(f, 1000);
    fake_expect(f->kube.fake, "PATCH", EVENTS "/slow.*");
    fake_reply(f->kube.fake, 200, "{}");
    record(f, "A"); /* the second makes it a series, at once */
    run(f, 1000);
    check_sent(f, "series", "count", "2");
    check_sent(f, "series", "lastObservedTime", "2026-01-01T00:00:02.000000Z");
    assert_string_equal(fake_sent_header(f->kube.fake, "Content-Type"),
                        "application/merge-patch+json");
    /* The next ones are told together, six minutes later. */
    for (int i = 0; i < 100; i++) {
        record(f, "A");
        run(f, 1000);
    }
    run(f, (6 * 60 - 102) * 1000);
    expect(f, "PATCH", EVENTS "/slow.*");
    run(f, 2000);
    check_sent(f, "series", "count", "102");
}

static void test_finish_series(void **state)
{
    struct fixture *f = *state;
    expect(f, "POST", EVENTS);
    record(f, "A");
    expect(f, "PATCH", EVENTS "/slow.*");
    record(f, "A");
    run(f, 1000);
    /* Quiet for six minutes: it has ended, and then nothing is left that wakes anybody. */
    run(f, 6 * 60 * 1000);
    assert_int_equal(loop_next_timer(f->kube.loop), -1);
    expect(f, "POST", EVENTS);
    record(f, "A");
    run(f, 10);
}

static void test_no_series_of_different_things(void **state)
{
    struct fixture *f = *state;
    struct event_regarding other = profile;
    for (int i = 0; i < 6; i++)
        expect(f, "POST", EVENTS);
    record(f, "A");
    record(f, "B");
    event_record(f->recorder, &profile, EVENT_WARNING, "A", "Reconcile", STR(""));
    event_record(f->recorder, &profile, EVENT_NORMAL, "A", "Other", STR(""));
    other.name = STR("slower");
    event_record(f->recorder, &other, EVENT_NORMAL, "A", "Reconcile", STR(""));
    other = profile;
    other.uid = STR("u-2");
    event_record(f->recorder, &other, EVENT_NORMAL, "A", "Reconcile", STR(""));
    run(f, 10);
}

static void test_one_at_a_time_in_order(void **state)
{
    struct fixture *f = *state;
    fake_expect(f->kube.fake, "POST", EVENTS);
    fake_wait(f->kube.fake, 1000);
    fake_reply(f->kube.fake, 201, "{}");
    record(f, "A");
    record(f, "B");
    kube_fixture_run(&f->kube, 900);
    check_sent(f, "reason", NULL, "A");
    expect(f, "POST", EVENTS);
    run(f, 200);
    check_sent(f, "reason", NULL, "B");
}

static void test_dropped_when_full(void **state)
{
    struct fixture *f = *state;
    make_recorder(f, 3);
    fake_expect(f->kube.fake, "POST", EVENTS); /* hangs */
    record(f, "A");
    record(f, "B");
    record(f, "C");
    assert_int_equal(event_recorder_dropped(f->recorder), 0);
    record(f, "D");
    record(f, "E");
    assert_int_equal(event_recorder_dropped(f->recorder), 2);
    run(f, 10);
    record(f, "D"); /* dropped again; it is no series of an Event that was never made */
    assert_int_equal(event_recorder_dropped(f->recorder), 3);
}

static void test_retried_while_the_server_is_away(void **state)
{
    struct fixture *f = *state;
    fake_expect(f->kube.fake, "POST", EVENTS);
    fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    record(f, "A");
    run(f, 9000);
    expect(f, "POST", EVENTS);
    run(f, 6000);
    check_sent(f, "reason", NULL, "A");
    assert_int_equal(event_recorder_dropped(f->recorder), 0);
}

static void test_given_up_in_the_end(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 12; i++) {
        fake_expect(f->kube.fake, "POST", EVENTS);
        fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    }
    record(f, "A");
    run(f, 12 * 15000);
    assert_int_equal(event_recorder_dropped(f->recorder), 1);
}

static void test_refused_is_dropped_and_the_next_goes_on(void **state)
{
    struct fixture *f = *state;
    fake_expect(f->kube.fake, "POST", EVENTS);
    fake_status(f->kube.fake, 403, "Forbidden"); /* the namespace is going */
    expect(f, "POST", EVENTS);
    record(f, "A");
    record(f, "B");
    run(f, 10);
    assert_int_equal(event_recorder_dropped(f->recorder), 1);
    expect(f, "POST", EVENTS); /* and no patch of an Event that is not there */
    record(f, "A");
    run(f, 10);
}

static void test_event_that_expired_is_made_again(void **state)
{
    struct fixture *f = *state;
    expect(f, "POST", EVENTS);
    record(f, "A");
    run(f, 10);
    fake_expect(f->kube.fake, "PATCH", EVENTS "/slow.*");
    fake_status(f->kube.fake, 404, "NotFound");
    record(f, "A");
    run(f, 10);
    expect(f, "POST", EVENTS);
    record(f, "A");
    run(f, 10);
}

static void test_long_notes_are_cut_between_characters(void **state)
{
    struct fixture *f = *state;
    _cleanup_(buf_finish) struct buf note = BUF_INIT(10000);
    buf_append_char(&note, 'x');
    for (int i = 0; i < 1000; i++)
        buf_append_cstr(&note, "\xc3\xa9");
    expect(f, "POST", EVENTS);
    event_record(f->recorder, &profile, EVENT_NORMAL, "A", "B", buf_str(&note));
    run(f, 10);
    note.ptr[1023] = '\0'; /* 1 + 511 * 2 */
    check_sent(f, "note", NULL, note.ptr);
}

static void test_long_names(void **state)
{
    struct fixture *f = *state;
    char name[254];
    memset(name, 'n', 253);
    name[253] = '\0';
    struct event_regarding long_one = profile;
    long_one.name = str_of(name);
    expect(f, "POST", EVENTS);
    event_record(f->recorder, &long_one, EVENT_NORMAL, "A", "B", STR(""));
    run(f, 10);
    const char *at = strstr(fake_sent(f->kube.fake)->body, "\"name\":\"") + 8;
    assert_int_equal(strcspn(at, "\""), 253);
}

static void test_series_kept_are_bounded(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 1100; i++) {
        char reason[16];
        snprintf(reason, sizeof(reason), "R%d", i);
        expect(f, "POST", EVENTS);
        record(f, reason);
        run(f, 1);
    }
    expect(f, "POST", EVENTS); /* R0 is forgotten, */
    record(f, "R0");
    expect(f, "PATCH", EVENTS "/slow.*"); /* R1099 is not */
    record(f, "R1099");
    run(f, 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_event),
        TEST(test_of_what_is_in_no_namespace),
        TEST(test_event_seriesf),
        TEST(test_finish_series),
        TEST(test_no_series_of_different_things),
        TEST(test_one_at_a_time_in_order),
        TEST(test_dropped_when_full),
        TEST(test_retried_while_the_server_is_away),
        TEST(test_given_up_in_the_end),
        TEST(test_refused_is_dropped_and_the_next_goes_on),
        TEST(test_event_that_expired_is_made_again),
        TEST(test_long_notes_are_cut_between_characters),
        TEST(test_long_names),
        TEST(test_series_kept_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
