/* Lists and watches that fail, expire or are cut: what is asked for next, and how soon. Named after
 * client-go's reflector_test where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reflector_fixture.h"

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

static const char too_large[] =
    "{\"kind\":\"Status\",\"code\":504,\"reason\":\"Timeout\",\"message\":\"Too large resource "
    "version: 7, current: 5\",\"details\":{\"causes\":[{\"reason\":\"ResourceVersionTooLarge\"}]}}";

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_very_short_watch),
        TEST(test_watch_that_lived_a_second_is_no_error),
        TEST(test_list_and_watch_with_errors),
        TEST(test_list_and_watch_init_conn_backoff),
        TEST(test_backoff_resets_after_two_good_minutes),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
