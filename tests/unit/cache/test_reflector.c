/* Named after client-go's reflector_test and reflector_watchlist_test where the rules are the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "cache/reflector.h"
#include "kube_fixture.h"

#define PODS       "/api/v1/pods?"
#define FIRST_LIST PODS "limit=500&resourceVersion=0"
#define WATCH(version)                                                                             \
    PODS "watch=true&allowWatchBookmarks=true&resourceVersion=" version "&timeoutSeconds=*"
#define STREAM(version)                                                                            \
    PODS "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch="        \
         "NotOlderThan" version "&timeoutSeconds=*"
#define RELIST(version)                                                                            \
    PODS "limit=500&resourceVersion=" version "&resourceVersionMatch=NotOlderThan"

#define POD(name, uid, version)                                                                    \
    "{\"metadata\":{\"name\":\"" name "\",\"namespace\":\"ns\",\"uid\":\"" uid                     \
    "\",\"resourceVersion\":\"" version "\",\"labels\":{\"keep\":\"" uid "\"}}}"
#define LIST_OF(version, items)                                                                    \
    "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"" version "\"},\"items\":[" items   \
    "]}"
#define PAGE_OF(version, next, items)                                                              \
    "{\"metadata\":{\"resourceVersion\":\"" version "\",\"continue\":\"" next                      \
    "\"},\"items\":[" items "]}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define BOOKMARK(version)   EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version "\"}}")
#define INITIAL_END(version)                                                                       \
    EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version                              \
                      "\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}")
#define ERROR_EVENT(code, reason)                                                                  \
    EVENT("ERROR", "{\"kind\":\"Status\",\"code\":" code ",\"reason\":\"" reason "\"}")

struct fixture {
    struct kube_fixture kube;
    struct reflector *reflector;
    struct reflector_options options;
    struct buf story; /* what changed() was told: "+a@5 ~a@6 -a@6 " */
    int synced, failures;
    struct err failure; /* the last one */
};

static const struct kube_resource pods = {"", "v1", "pods"};

static void changed(void *context, enum cache_change change, struct kube_object *old,
                    struct kube_object *now)
{
    struct fixture *f = context;
    const struct kube_object *o = now ? now : old;
    buf_appendf(&f->story, "%c%.*s@%.*s ", "+~-"[change], STR_ARG(o->name),
                STR_ARG(o->resource_version));
}

static void synced(void *context)
{
    ((struct fixture *)context)->synced++;
}

static void failed(void *context, const struct err *err)
{
    struct fixture *f = context;
    f->failures++;
    f->failure = *err;
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    f->story = BUF_INIT(65536);
    f->options = (struct reflector_options){.name = "pods",
                                            .client = f->kube.client,
                                            .loop = f->kube.loop,
                                            .random = &f->kube.random.source,
                                            .resource = &pods,
                                            .no_watch_list = true,
                                            .changed = changed,
                                            .synced = synced,
                                            .failed = failed,
                                            .context = f};
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    reflector_destroy(f->reflector);
    kube_fixture_finish(&f->kube);
    buf_finish(&f->story);
    free(f);
    return 0;
}

static void start(struct fixture *f)
{
    struct err err = ERR_INIT;
    assert_int_equal(reflector_create(&f->options, &f->reflector, &err), 0);
    reflector_start(f->reflector);
}

/* Runs for so long; then all that was expected has come, and the story is this. */
static void check(struct fixture *f, int64_t ms, const char *story)
{
    kube_fixture_run(&f->kube, ms);
    assert_int_equal(fake_expected(f->kube.fake), 0);
    assert_string_equal(buf_cstr(&f->story), story);
    buf_clear(&f->story);
}

static void expect(struct fixture *f, const char *path)
{
    fake_expect(f->kube.fake, "GET", path);
}

static void expect_reply(struct fixture *f, const char *path, const char *body)
{
    expect(f, path);
    fake_reply(f->kube.fake, 200, body);
}

/* Listed "a" at version 5 and watching. */
static void start_with_a(struct fixture *f)
{
    expect_reply(f, FIRST_LIST, LIST_OF("5", POD("a", "1", "5")));
    expect(f, WATCH("5"));
}

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

static void test_very_short_watch(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_wait(f->kube.fake, 900);
    fake_end(f->kube.fake);
    start(f);
    check(f, 1000, "+a@5 ");
    assert_int_equal(f->failures, 1);
    assert_non_null(strstr(f->failure.message, "very short watch"));
    expect(f, WATCH("5")); /* after 800 to 1600 ms */
    check(f, 1600, "");
}

static void test_watch_that_lived_a_second_is_no_error(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_wait(f->kube.fake, 1000);
    fake_end(f->kube.fake);
    expect(f, WATCH("5"));
    start(f);
    check(f, 1100, "+a@5 ");
    assert_int_equal(f->failures, 0);
}

static void test_list_and_watch_with_errors(void **state)
{
    struct fixture *f = *state;
    expect(f, FIRST_LIST);
    fake_status(f->kube.fake, 403, "Forbidden");
    start(f);
    check(f, 10, "");
    assert_int_equal(f->failure.code, ERR_FORBIDDEN);
    start_with_a(f);
    check(f, 1600, "+a@5 ");
}

static void test_list_and_watch_init_conn_backoff(void **state)
{
    struct fixture *f = *state;
    /* Doubling from 800 ms to 30 s, each up to twice as long by jitter. */
    static const int64_t waits[] = {800, 1600, 3200, 6400, 12800, 25600, 30000, 30000};
    expect(f, FIRST_LIST);
    fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    start(f);
    for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
        check(f, i ? 0 : 10, "");
        int64_t wait = loop_next_timer(f->kube.loop);
        assert_in_range(wait, waits[i] - 10, 2 * waits[i]);
        expect(f, FIRST_LIST);
        fake_fail(f->kube.fake, ERR_IO, "Connection refused");
        kube_fixture_run(&f->kube, wait);
        kube_fixture_run(&f->kube, 0);
    }
    assert_int_equal(f->failures, 1 + ARRAY_SIZE(waits));
}

static void test_backoff_resets_after_two_good_minutes(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_fail(f->kube.fake, ERR_IO, "reset");
    for (int i = 0; i < 4; i++) {
        expect(f, WATCH("5"));
        fake_fail(f->kube.fake, ERR_IO, "refused");
    }
    start(f);
    while (fake_expected(f->kube.fake))
        kube_fixture_run(&f->kube, 10);
    kube_fixture_run(&f->kube, 10);
    assert_in_range(loop_next_timer(f->kube.loop), 12800 - 10, 25600); /* the fifth wait */

    expect(f, WATCH("5"));
    fake_wait(f->kube.fake, 121 * 1000);
    fake_fail(f->kube.fake, ERR_IO, "reset");
    while (f->failures < 6)
        kube_fixture_run(&f->kube, 10);
    assert_in_range(loop_next_timer(f->kube.loop), 800 - 10, 1600);
    check(f, 0, "+a@5 ");
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

static void test_full_list_if_expired(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, FIRST_LIST, PAGE_OF("5", "C1", POD("a", "1", "3")));
    expect(f, PODS "limit=500&continue=C1");
    fake_status(f->kube.fake, 410, "Expired");
    expect_reply(f, PODS "resourceVersion=0", LIST_OF("9", POD("b", "2", "4")));
    expect(f, WATCH("9"));
    start(f);
    check(f, 10, "+b@4 "); /* nothing of the half list */
    assert_int_equal(f->failures, 0);
}

static void test_expired_exact_resource_version(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, ERROR_EVENT("410", "Expired"));
    expect_reply(f, PODS "limit=500", LIST_OF("50", POD("a", "1", "5") "," POD("b", "2", "44")));
    expect(f, WATCH("50"));
    start(f);
    check(f, 10, "+a@5 +b@44 ");
    assert_int_equal(f->failures, 0); /* at once, and no error */
    struct reflector_stats stats;
    reflector_stats(f->reflector, &stats);
    assert_int_equal(stats.relists, 1);
}

static void test_gone_as_status(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_wait(f->kube.fake, 2000);
    fake_end(f->kube.fake);
    expect(f, WATCH("5"));
    fake_status(f->kube.fake, 410, "Gone");
    expect_reply(f, PODS "limit=500", LIST_OF("50", ""));
    expect(f, WATCH("50"));
    start(f);
    check(f, 2010, "+a@5 -a@5 ");
}

static void test_expired_again_and_again_backs_off(void **state)
{
    struct fixture *f = *state;
    expect(f, FIRST_LIST);
    fake_status(f->kube.fake, 410, "Expired");
    expect(f, PODS "limit=500");
    fake_status(f->kube.fake, 410, "Expired");
    start(f);
    check(f, 500, "");
    assert_int_equal(f->failures, 1);
    expect_reply(f, PODS "limit=500", LIST_OF("7", ""));
    expect(f, WATCH("7"));
    check(f, 1600, "");
}

static const char too_large[] =
    "{\"kind\":\"Status\",\"code\":504,\"reason\":\"Timeout\",\"message\":\"Too large resource "
    "version: 7, current: 5\",\"details\":{\"causes\":[{\"reason\":\"ResourceVersionTooLarge\"}]}}";

static void test_watches_that_expire_at_once_back_off(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, ERROR_EVENT("410", "Expired"));
    expect_reply(f, PODS "limit=500", LIST_OF("6", ""));
    expect(f, WATCH("6"));
    fake_chunk(f->kube.fake, ERROR_EVENT("410", "Expired"));
    start(f);
    check(f, 500, "+a@5 -a@5 ");
    assert_int_equal(f->failures, 1);
    expect_reply(f, PODS "limit=500", LIST_OF("7", ""));
    expect(f, WATCH("7"));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("b", "2", "8")) ERROR_EVENT("410", "Expired"));
    /* That one has lived: the next list follows at once. */
    expect_reply(f, PODS "limit=500", LIST_OF("9", ""));
    expect(f, WATCH("9"));
    check(f, 1600, "+b@8 -b@8 ");
    assert_int_equal(f->failures, 1);
}

static void test_full_list_if_too_large(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, ERROR_EVENT("500", "InternalError"));
    start(f);
    check(f, 10, "+a@5 ");
    expect(f, RELIST("5"));
    fake_reply(f->kube.fake, 504, too_large);
    expect_reply(f, PODS "limit=500", LIST_OF("4", POD("a", "1", "4")));
    expect(f, WATCH("4"));
    check(f, 1600, "~a@4 "); /* the server was restored from a backup: its word counts */
}

static void test_retry_internal_error(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, ERROR_EVENT("500", "InternalError"));
    start(f);
    check(f, 10, "+a@5 ");
    assert_int_equal(f->failures, 1);
    expect_reply(f, RELIST("5"), LIST_OF("8", POD("a", "1", "5")));
    expect(f, WATCH("8"));
    check(f, 1600, "");
}

static void test_no_relist_on_too_many_requests(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, ERROR_EVENT("429", "TooManyRequests"));
    start(f);
    check(f, 10, "+a@5 ");
    expect(f, WATCH("5"));
    fake_status(f->kube.fake, 429, "TooManyRequests");
    check(f, 1600, "");
    assert_int_equal(f->failures, 2);
    expect(f, WATCH("5"));
    check(f, 3200, "");
}

static void test_no_relist_on_refused_or_cut_connections(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("b", "2", "6")) "{\"type\":\"ADD");
    fake_fail(f->kube.fake, ERR_IO, "transfer closed");
    start(f);
    check(f, 10, "+a@5 +b@6 ");
    expect(f, WATCH("6"));
    fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    check(f, 1600, "");
    expect(f, WATCH("6"));
    check(f, 3200, "");
}

static void test_garbage_is_an_error(void **state)
{
    struct fixture *f = *state;
    start_with_a(f);
    fake_chunk(f->kube.fake,
               EVENT("ADDED", POD("b", "2", "6")) "{\"type\":\"SURPRISE\",\"object\":{}}");
    start(f);
    check(f, 10, "+a@5 +b@6 ");
    assert_int_equal(f->failure.code, ERR_PROTOCOL);
    expect(f, WATCH("6"));
    check(f, 1600, "");
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

static void test_watch_list(void **state)
{
    struct fixture *f = *state;
    f->options.no_watch_list = false;
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("a", "1", "3")) EVENT("ADDED", POD("b", "2", "4")));
    fake_chunk(f->kube.fake,
               EVENT("MODIFIED", POD("a", "1", "5")) EVENT("DELETED", POD("b", "2", "6")));
    fake_wait(f->kube.fake, 100);
    fake_chunk(f->kube.fake, INITIAL_END("7"));
    fake_wait(f->kube.fake, 100);
    fake_chunk(f->kube.fake, EVENT("MODIFIED", POD("a", "1", "9")));
    fake_end(f->kube.fake);
    expect(f, WATCH("9"));
    start(f);
    kube_fixture_run(&f->kube, 50);
    assert_int_equal(f->story.len, 0); /* nothing is told before all is there */
    assert_int_equal(reflector_size(f->reflector), 0);
    check(f, 300, "+a@5 ~a@9 ");
    assert_int_equal(f->synced, 1);
}

static void test_watch_list_fallback(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int status;
        const char *reason;
    } rows[] = {{422, "Invalid"}, {400, "BadRequest"}, {404, "NotFound"}, {500, "InternalError"}};
    f->options.no_watch_list = false;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        expect(f, STREAM(""));
        fake_status(f->kube.fake, rows[i].status, rows[i].reason);
        start_with_a(f);
        fake_chunk(f->kube.fake, ERROR_EVENT("410", "Expired"));
        expect_reply(f, PODS "limit=500", LIST_OF("6", "")); /* and no stream ever after */
        expect(f, WATCH("6"));
        start(f);
        check(f, 10, "+a@5 -a@5 ");
        assert_int_equal(f->failures, 0);
        reflector_destroy(f->reflector);
        f->reflector = NULL;
    }
}

static void test_watch_list_refused_by_event(void **state)
{
    struct fixture *f = *state;
    f->options.no_watch_list = false;
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, ERROR_EVENT("500", "InternalError")); /* an etcd before 3.4.25 */
    start_with_a(f);
    start(f);
    check(f, 10, "+a@5 ");
}

static void test_watch_list_keeps_trying(void **state)
{
    struct fixture *f = *state;
    f->options.no_watch_list = false;
    expect(f, STREAM(""));
    fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    start(f);
    check(f, 10, "");
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("a", "1", "3")));
    fake_fail(f->kube.fake, ERR_IO, "cut");
    check(f, 1600, "");
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("b", "2", "4")) INITIAL_END("7"));
    check(f, 3200, "+b@4 "); /* nothing is left of the stream that broke */
}

static void test_watch_list_that_never_ends_its_initial_events(void **state)
{
    struct fixture *f = *state;
    f->options.no_watch_list = false;
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("a", "1", "3")) BOOKMARK("4"));
    fake_wait(f->kube.fake, 2000);
    fake_end(f->kube.fake);
    start_with_a(f);
    start(f);
    check(f, 2010 + 1600, "+a@5 ");
    assert_int_equal(f->failure.code, ERR_PROTOCOL);
}

static void test_watch_list_after_expiry(void **state)
{
    struct fixture *f = *state;
    f->options.no_watch_list = false;
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("a", "1", "3")) INITIAL_END("7"));
    fake_chunk(f->kube.fake, ERROR_EVENT("410", "Expired"));
    expect(f, STREAM(""));
    fake_chunk(f->kube.fake, EVENT("ADDED", POD("b", "2", "8")) INITIAL_END("9"));
    start(f);
    check(f, 10, "+a@3 -a@3 +b@8 ");
    assert_int_equal(f->synced, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_list_and_watch),
        TEST(test_watch_handler),
        TEST(test_watch_goes_on_from_the_last_version),
        TEST(test_bookmark_advances_the_version_only),
        TEST(test_watch_lasts_290_seconds_and_some),
        TEST(test_very_short_watch),
        TEST(test_watch_that_lived_a_second_is_no_error),
        TEST(test_list_and_watch_with_errors),
        TEST(test_list_and_watch_init_conn_backoff),
        TEST(test_backoff_resets_after_two_good_minutes),
        TEST(test_stop_watch),
        TEST(test_list_page_size),
        TEST(test_full_list_if_expired),
        TEST(test_expired_exact_resource_version),
        TEST(test_gone_as_status),
        TEST(test_expired_again_and_again_backs_off),
        TEST(test_watches_that_expire_at_once_back_off),
        TEST(test_full_list_if_too_large),
        TEST(test_retry_internal_error),
        TEST(test_no_relist_on_too_many_requests),
        TEST(test_no_relist_on_refused_or_cut_connections),
        TEST(test_garbage_is_an_error),
        TEST(test_replace_tells_deletions),
        TEST(test_transformer),
        TEST(test_selectors),
        TEST(test_field_selector_optional),
        TEST(test_field_selector_needed),
        TEST(test_watch_list),
        TEST(test_watch_list_fallback),
        TEST(test_watch_list_refused_by_event),
        TEST(test_watch_list_keeps_trying),
        TEST(test_watch_list_that_never_ends_its_initial_events),
        TEST(test_watch_list_after_expiry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
