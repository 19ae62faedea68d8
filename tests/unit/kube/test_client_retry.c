/* What the client asks again, when, how often, and what ends it; what it tells the transport and
 * its observer. Named after client-go's rest/request_test where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client_fixture.h"

static void test_check_retry(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int status;
        int64_t retry_after_ms;
        bool again;
    } rows[] = {
        {429, 1000, true}, {503, 1000, true},  {500, 2000, true},  {429, 0, false},
        {503, 0, false},   {404, 1000, false}, {409, 1000, false}, {400, 1000, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        f->answers = 0;
        expect_x(f);
        fake_reply_later(f->kube.fake, rows[i].status, rows[i].retry_after_ms, "");
        if (!rows[i].again) {
            get_x(f, 10000);
            assert_int_equal(f->err.http_status, rows[i].status);
            continue;
        }
        client_send(
            f, (struct kube_request){
                   .verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")});
        kube_fixture_run(&f->kube, rows[i].retry_after_ms - 10);
        assert_int_equal(f->answers, 0);
        expect_x(f);
        fake_reply(f->kube.fake, 200, "{}");
        kube_fixture_run(&f->kube, 20);
        assert_int_equal(f->answers, 1);
        assert_int_equal(f->err.code, 0);
    }
}

static void test_retry_after_an_hour_is_half_a_minute(void **state)
{
    struct fixture *f = *state;
    expect_x(f);
    fake_reply_later(f->kube.fake, 503, 3600 * 1000, "");
    expect_x(f);
    fake_reply(f->kube.fake, 200, "{}");
    get_x(f, 30 * 1000 + 10);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->err.code, 0);
}

static void test_max_retries(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 11; i++) { /* one, and ten again */
        expect_x(f);
        fake_reply_later(f->kube.fake, 503, 1000, "");
    }
    get_x(f, 60000);
    assert_int_equal(f->err.code, ERR_THROTTLED);
    assert_int_equal(f->err.retry_after_ms, 1000);
}

static void test_cancel_while_waiting_to_retry(void **state)
{
    struct fixture *f = *state;
    expect_x(f);
    fake_reply_later(f->kube.fake, 429, 1000, "");
    struct kube_call *call = client_send(
        f, (struct kube_request){
               .verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")});
    kube_fixture_run(&f->kube, 500);
    kube_cancel(f->kube.client, call);
    kube_fixture_run(&f->kube, 5000);
    assert_int_equal(f->answers, 0);
}

static void test_cancel_under_way_and_before(void **state)
{
    struct fixture *f = *state;
    struct kube_request request = {
        .verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")};
    expect_x(f);
    kube_cancel(f->kube.client, client_send(f, request));
    expect_x(f);
    struct kube_call *call = client_send(f, request);
    kube_fixture_run(&f->kube, 10);
    kube_cancel(f->kube.client, call);
    kube_cancel(f->kube.client, NULL);
    request.name = STR("..");
    kube_cancel(f->kube.client, client_send(f, request)); /* a failure that is still to be told */
    kube_fixture_run(&f->kube, 10);
    assert_int_equal(f->answers, 0);
    assert_int_equal(fake_open(f->kube.fake), 0);
}

static void test_unauthorized_twice_is_final(void **state)
{
    struct fixture *f = *state;
    expect_x(f);
    fake_status(f->kube.fake, 401, "Unauthorized");
    expect_x(f);
    fake_status(f->kube.fake, 401, "Unauthorized");
    get_x(f, 1000);
    assert_int_equal(f->err.code, ERR_UNAUTHORIZED);
}

static void test_urgent_and_limits_reach_the_transport(void **state)
{
    struct fixture *f = *state;
    expect_x(f);
    fake_reply(f->kube.fake, 200, "{}");
    client_send(f, (struct kube_request){.verb = KUBE_GET,
                                         .resource = &pods,
                                         .namespace_ = STR("ns"),
                                         .name = STR("x"),
                                         .urgent = true,
                                         .timeout_ms = 1234});
    assert_true(fake_sent(f->kube.fake)->urgent);
    assert_int_equal(fake_sent(f->kube.fake)->timeout_ms, 1234);
    kube_fixture_run(&f->kube, 10);
}

static void observe(void *context, const char *verb, const char *group, const char *resource,
                    int code, int64_t duration_ms)
{
    buf_appendf(context, "%s %s %s %d %lld\n", verb, group, resource, code, (long long)duration_ms);
}

static void test_observe(void **state)
{
    struct fixture *f = *state;
    _cleanup_(buf_finish) struct buf observed = BUF_INIT(65536);
    kube_client_destroy(f->kube.client);
    struct kube_client_options options = {.loop = f->kube.loop,
                                          .transport = fake_transport(f->kube.fake),
                                          .config = f->kube.config,
                                          .random = &f->kube.random.source,
                                          .observe = observe,
                                          .observe_context = &observed};
    assert_int_equal(kube_client_create(&options, &f->kube.client, NULL), 0);
    fake_expect(f->kube.fake, "PATCH", NULL);
    fake_wait(f->kube.fake, 5);
    fake_reply_later(f->kube.fake, 429, 1000, "");
    fake_expect(f->kube.fake, "PATCH", NULL);
    fake_reply(f->kube.fake, 200, "{}");
    client_send(f, (struct kube_request){.verb = KUBE_PATCH,
                                         .resource = &jobs,
                                         .namespace_ = STR("ns"),
                                         .name = STR("j"),
                                         .subresource = "status",
                                         .body = STR("{}")});
    kube_fixture_run(&f->kube, 2000);
    assert_string_equal(buf_cstr(&observed),
                        "patch batch jobs/status 429 5\npatch batch jobs/status 200 0\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_check_retry),
        TEST(test_retry_after_an_hour_is_half_a_minute),
        TEST(test_max_retries),
        TEST(test_cancel_while_waiting_to_retry),
        TEST(test_cancel_under_way_and_before),
        TEST(test_unauthorized_twice_is_final),
        TEST(test_urgent_and_limits_reach_the_transport),
        TEST(test_observe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
