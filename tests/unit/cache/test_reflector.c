/* Lists, watches and what comes of them in the store. Named after client-go's reflector_test where
 * the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reflector_fixture.h"

static void test_list_and_watch(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake,
               EVENT("ADDED", POD("b", "2", "6")) EVENT("MODIFIED", POD("a", "1", "7")));
    fake_chunk(f->kube.fake, EVENT("DELETED", POD("b", "2", "8")));
    start(f);
    assert_false(reflector_synced(f->reflector));
    check(f, 100, "+a@5 +b@6 ~a@7 -b@6 ");
    assert_true(reflector_synced(f->reflector));
    assert_int_equal(f->synced, 1);
    assert_int_equal(reflector_size(f->reflector), 1);
    assert_true(str_is(reflector_get(f->reflector, STR("ns/a"))->resource_version, "7"));
    assert_null(reflector_get(f->reflector, STR("ns/b")));
    struct reflector_iter it = {0};
    assert_ptr_equal(reflector_next(f->reflector, &it), reflector_get(f->reflector, STR("ns/a")));
    assert_null(reflector_next(f->reflector, &it));
}

/* Events that come in pieces, or several in one. */
static void test_watch_handler(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, "{\"type\":\"ADD");
    fake_wait(f->kube.fake, 10);
    fake_chunk(f->kube.fake, "ED\",\"object\":" POD("b", "2", "6") "}{\"type\":\"DELETED\",\"ob");
    fake_chunk(f->kube.fake, "ject\":" POD("a", "1", "7") "}");
    start(f);
    check(f, 100, "+a@5 +b@6 -a@5 ");
}

static void test_watch_goes_on_from_the_last_version(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, EVENT("MODIFIED", POD("a", "1", "9")));
    fake_end(f->kube.fake);
    expect(f, WATCH("9"));
    start(f);
    check(f, 100, "+a@5 ~a@9 ");
    assert_int_equal(f->failures, 0);
}

static void test_bookmark_advances_the_version_only(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, BOOKMARK("40"));
    fake_end(f->kube.fake);
    expect(f, WATCH("40"));
    start(f);
    check(f, 100, "+a@5 ");
    struct reflector_stats stats;
    reflector_stats(f->reflector, &stats);
    assert_int_equal(stats.bookmarks, 1);
    assert_int_equal(stats.lists, 1);
    assert_int_equal(stats.watches, 2);
}

static void test_watch_lasts_290_seconds_and_some(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    start(f);
    check(f, 100, "+a@5 ");
    const char *seconds = strstr(fake_sent(f->kube.fake)->url, "timeoutSeconds=") + 15;
    int64_t s;
    assert_int_equal(str_to_i64(str_of(seconds), 290, 310, &s), 0);
    /* The client gives up a little later than the server should. */
    assert_true(fake_sent(f->kube.fake)->timeout_ms > s * 1000);
    assert_true(fake_sent(f->kube.fake)->timeout_ms <= s * 1000 + 15000);
}

static void test_stop_watch(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    start(f);
    check(f, 10, "+a@5 ");
    reflector_destroy(f->reflector);
    f->reflector = NULL;
    assert_int_equal(fake_open(f->kube.fake), 0);
    kube_fixture_run(&f->kube, 600 * 1000); /* and nothing more is asked for */
}

static void test_list_page_size(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, FIRST_LIST, PAGE_OF("5", "C1/+=", POD("a", "1", "3")));
    expect_reply(f, PODS "limit=500&continue=C1%2F%2B%3D", PAGE_OF("5", "C2", POD("b", "2", "4")));
    expect_reply(f, PODS "limit=500&continue=C2", LIST_OF("5", POD("c", "3", "5")));
    expect(f, WATCH("5"));
    start(f);
    kube_fixture_run(&f->kube, 10);
    assert_int_equal(reflector_size(f->reflector), 3);
    assert_int_equal(f->synced, 1);
}

/* A replace tells what vanished, and two changes where the name is another thing now. */
static void test_replace_tells_deletions(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, FIRST_LIST,
                 LIST_OF("5", POD("a", "1", "1") "," POD("b", "2", "2") "," POD("c", "3", "3")));
    expect(f, WATCH("5"));
    start(f);
    kube_fixture_run(&f->kube, 10);
    struct kube_object *b = kube_object_ref(reflector_get(f->reflector, STR("ns/b")));
    reflector_destroy(f->reflector);
    f->reflector = NULL;
    buf_clear(&f->story);

    expect_reply(f, FIRST_LIST, LIST_OF("5", POD("a", "1", "1")));
    expect(f, WATCH("5"));
    fake_chunk(f->kube.fake, ERROR_EVENT("410", "Expired"));
    expect_reply(f, PODS "limit=500", LIST_OF("9", POD("a", "7", "8")));
    expect(f, WATCH("9"));
    start(f);
    check(f, 10, "+a@1 -a@1 +a@8 ");
    assert_true(str_is(b->name, "b")); /* a reference outlives the store */
    kube_object_unref(b);
}

static struct kube_object *keep_odd(void *context, struct kube_object *object)
{
    (void)context;
    char last = object->resource_version.ptr[object->resource_version.len - 1];
    return last % 2 ? kube_object_ref(object) : NULL;
}

static void test_transformer(void **state)
{
    struct fixture *f = *state;
    f->options.transform = keep_odd;
    expect_reply(f, FIRST_LIST, LIST_OF("5", POD("a", "1", "4") "," POD("b", "2", "5")));
    expect(f, WATCH("5"));
    fake_chunk(f->kube.fake,
               EVENT("MODIFIED", POD("a", "1", "7")) EVENT("MODIFIED", POD("b", "2", "8")));
    start(f);
    check(f, 10, "+b@5 +a@7 -b@5 ");
}

static void test_selectors(void **state)
{
    struct fixture *f = *state;
    f->options.namespace_ = "n s";
    f->options.label_selector = "a=b,!c";
    f->options.field_selector = "status.phase!=Completed";
    f->options.metadata_only = true;
    expect_reply(f,
                 "/api/v1/namespaces/n%20s/pods?limit=500&resourceVersion=0&labelSelector="
                 "a%3Db%2C%21c&fieldSelector=status.phase%21%3DCompleted",
                 LIST_OF("5", ""));
    expect(f, "/api/v1/namespaces/n%20s/pods?watch=true&allowWatchBookmarks=true&resourceVersion=5"
              "&labelSelector=a%3Db%2C%21c&fieldSelector=status.phase%21%3DCompleted&*");
    start(f);
    check(f, 10, "");
    assert_string_equal(fake_sent_header(f->kube.fake, "Accept"),
                        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,"
                        "application/json");
}

static void test_field_selector_optional(void **state)
{
    struct fixture *f = *state;
    f->options.field_selector = "status.phase!=Completed";
    f->options.field_selector_optional = true;
    expect(f, FIRST_LIST "&fieldSelector=status.phase%21%3DCompleted");
    fake_status(f->kube.fake, 400, "BadRequest");
    start_with_a(f);
    start(f);
    check(f, 10, "+a@5 ");
    assert_int_equal(f->failures, 0);
}

static void test_field_selector_needed(void **state)
{
    struct fixture *f = *state;
    f->options.field_selector = "status.phase!=Completed";
    expect(f, FIRST_LIST "&fieldSelector=status.phase%21%3DCompleted");
    fake_status(f->kube.fake, 400, "BadRequest");
    start(f);
    check(f, 10, "");
    assert_int_equal(f->failure.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_list_and_watch),
        TEST(test_watch_handler),
        TEST(test_watch_goes_on_from_the_last_version),
        TEST(test_bookmark_advances_the_version_only),
        TEST(test_watch_lasts_290_seconds_and_some),
        TEST(test_stop_watch),
        TEST(test_list_page_size),
        TEST(test_replace_tells_deletions),
        TEST(test_transformer),
        TEST(test_selectors),
        TEST(test_field_selector_optional),
        TEST(test_field_selector_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
