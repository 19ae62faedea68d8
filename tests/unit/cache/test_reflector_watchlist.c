/* The first list as a stream. Named after client-go's reflector_watchlist_test where the rules are
 * the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reflector_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_watch_list),
        TEST(test_watch_list_fallback),
        TEST(test_watch_list_refused_by_event),
        TEST(test_watch_list_keeps_trying),
        TEST(test_watch_list_that_never_ends_its_initial_events),
        TEST(test_watch_list_after_expiry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
