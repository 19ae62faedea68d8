/* Requests, answers and errors of the client, against a scripted transport. Named after client-go's
 * rest/request_test where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client_fixture.h"

static const struct kube_resource nodes = {"", "v1", "nodes"};

/* Requests */

static void test_requests(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct kube_request request;
        const char *method, *path, *accept, *content_type;
    } rows[] = {
        {{.verb = KUBE_GET,
          .resource = &pods,
          .namespace_ = STR("ns"),
          .name = STR("x"),
          .query = "resourceVersion=0"},
         "GET",
         "/api/v1/namespaces/ns/pods/x?resourceVersion=0",
         "application/json",
         ""},
        {{.verb = KUBE_GET, .resource = &nodes, .name = STR("system:node:1")},
         "GET",
         "/api/v1/nodes/system%3Anode%3A1",
         "application/json",
         ""},
        {{.verb = KUBE_LIST, .resource = &jobs, .metadata_only = true},
         "GET",
         "/apis/batch/v1/jobs",
         "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
         ""},
        {{.verb = KUBE_CREATE, .resource = &jobs, .namespace_ = STR("ns"), .body = STR("{}")},
         "POST",
         "/apis/batch/v1/namespaces/ns/jobs",
         "application/json",
         "application/json"},
        {{.verb = KUBE_CREATE,
          .resource = &pods,
          .namespace_ = STR("ns"),
          .name = STR("x"),
          .subresource = "eviction",
          .body = STR("{}")},
         "POST",
         "/api/v1/namespaces/ns/pods/x/eviction",
         "application/json",
         "application/json"},
        {{.verb = KUBE_UPDATE,
          .resource = &jobs,
          .namespace_ = STR("ns"),
          .name = STR("j"),
          .subresource = "status",
          .body = STR("{}")},
         "PUT",
         "/apis/batch/v1/namespaces/ns/jobs/j/status",
         "application/json",
         "application/json"},
        {{.verb = KUBE_PATCH,
          .resource = &jobs,
          .namespace_ = STR("ns"),
          .name = STR("j"),
          .patch = KUBE_PATCH_JSON,
          .body = STR("[]")},
         "PATCH",
         "/apis/batch/v1/namespaces/ns/jobs/j",
         "application/json",
         "application/json-patch+json"},
        {{.verb = KUBE_PATCH,
          .resource = &jobs,
          .namespace_ = STR("ns"),
          .name = STR("j"),
          .patch = KUBE_PATCH_MERGE,
          .body = STR("{}"),
          .discard_reply = true},
         "PATCH",
         "/apis/batch/v1/namespaces/ns/jobs/j",
         "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
         "application/merge-patch+json"},
        {{.verb = KUBE_PATCH,
          .resource = &jobs,
          .namespace_ = STR("ns"),
          .name = STR("j"),
          .patch = KUBE_PATCH_APPLY,
          .body = STR("{}"),
          .query = "fieldManager=m&force=true"},
         "PATCH",
         "/apis/batch/v1/namespaces/ns/jobs/j?fieldManager=m&force=true",
         "application/json",
         "application/apply-patch+yaml"},
        {{.verb = KUBE_DELETE, .resource = &jobs, .namespace_ = STR("ns"), .name = STR("j")},
         "DELETE",
         "/apis/batch/v1/namespaces/ns/jobs/j",
         "application/json",
         ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        fake_expect(f->kube.fake, rows[i].method, rows[i].path);
        fake_reply(f->kube.fake, 200, "{\"metadata\":{\"name\":\"x\"}}");
        client_send(f, rows[i].request);
        kube_fixture_run(&f->kube, 10);
        assert_int_equal(f->answers, (int)i + 1);
        assert_int_equal(f->err.code, 0);
        assert_int_equal(f->object == NULL, rows[i].request.discard_reply);
        assert_string_equal(fake_sent_header(f->kube.fake, "Accept"), rows[i].accept);
        assert_string_equal(fake_sent_header(f->kube.fake, "Content-Type"), rows[i].content_type);
        assert_string_equal(fake_sent_header(f->kube.fake, "Authorization"), "Bearer a-token");
        assert_true(str_is(rows[i].request.body, fake_sent(f->kube.fake)->body));
    }
}

static void test_bad_names_never_become_paths(void **state)
{
    struct fixture *f = *state;
    static const struct kube_request rows[] = {
        {.verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("..")},
        {.verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR(".")},
        {.verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("a/b")},
        {.verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("a%2fb")},
        {.verb = KUBE_DELETE, .resource = &pods, .namespace_ = STR("a/.."), .name = STR("x")},
        {.verb = KUBE_DELETE, .resource = &pods, .namespace_ = STR("ns"), .name = STR("")},
        {.verb = KUBE_CREATE, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")},
        {.verb = KUBE_LIST, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        client_send(f, rows[i]); /* and the transport, which expects nothing, is never asked */
        kube_fixture_run(&f->kube, 10);
        assert_int_equal(f->answers, (int)i + 1);
        assert_int_equal(f->err.code, ERR_INVALID);
    }
}

static void test_query(void **state)
{
    (void)state;
    _cleanup_(buf_finish) struct buf q = BUF_INIT(1000);
    kube_query_add(&q, "labelSelector", STR("a=b,c in (d e)"));
    kube_query_add(&q, "limit", STR("1"));
    assert_string_equal(buf_cstr(&q), "labelSelector=a%3Db%2Cc%20in%20%28d%20e%29&limit=1");
}

/* Answers */

static void test_object(void **state)
{
    struct fixture *f = *state;
    expect_x(f);
    fake_reply(
        f->kube.fake, 200,
        "{\"metadata\":{\"name\":\"x\",\"namespace\":\"ns\",\"uid\":\"u\","
        "\"resourceVersion\":\"7\",\"labels\":{\"a\":\"b\"},\"annotations\":{\"c\":\"d\"}}}");
    get_x(f, 10);
    assert_true(str_is(f->object->name, "x"));
    assert_true(str_is(f->object->namespace_, "ns"));
    assert_true(str_is(f->object->uid, "u"));
    assert_true(str_is(f->object->resource_version, "7"));
    assert_true(str_is(kube_object_label(f->object, "a"), "b"));
    assert_true(str_is(kube_object_annotation(f->object, "c"), "d"));
    assert_null(kube_object_label(f->object, "c").ptr);
}

static void test_answers_that_are_no_objects(void **state)
{
    struct fixture *f = *state;
    static const char *const rows[] = {"", "[]", "\"x\"", "{\"metadata\":", "{}{}", "<html>"};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        f->answers = 0;
        expect_x(f);
        fake_reply(f->kube.fake, 200, rows[i]);
        get_x(f, 10);
        assert_int_equal(f->err.code, ERR_PROTOCOL);
    }
}

/* As apimachinery's errors: branch on the reason first, then on the status. */
static void test_errors(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int status;
        const char *reason; /* NULL: not a Status but text */
        int code;
    } rows[] = {
        {404, "NotFound", ERR_NOT_FOUND},
        {409, "Conflict", ERR_CONFLICT},
        {409, "AlreadyExists", ERR_EXISTS},
        {410, "Gone", ERR_GONE},
        {410, "Expired", ERR_GONE},
        {401, "Unauthorized", ERR_UNAUTHORIZED},
        {403, "Forbidden", ERR_FORBIDDEN},
        {422, "Invalid", ERR_INVALID},
        {400, "BadRequest", ERR_INVALID},
        {405, "MethodNotAllowed", ERR_INVALID},
        {413, "RequestEntityTooLarge", ERR_TOO_LARGE},
        {429, "TooManyRequests", ERR_THROTTLED},
        {504, "Timeout", ERR_TIMEOUT},
        {500, "ServerTimeout", ERR_TIMEOUT},
        {500, "InternalError", ERR_IO},
        {503, "ServiceUnavailable", ERR_IO},
        {404, NULL, ERR_NOT_FOUND},
        {409, NULL, ERR_CONFLICT},
        {403, NULL, ERR_FORBIDDEN},
        {502, NULL, ERR_IO},
        {418, NULL, ERR_INVALID},
        {302, NULL, ERR_PROTOCOL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        f->answers = 0;
        bool again = rows[i].status == 401; /* with the token as read again */
        for (int n = 0; n <= again; n++) {
            expect_x(f);
            if (rows[i].reason)
                fake_status(f->kube.fake, rows[i].status, rows[i].reason);
            else
                fake_reply(f->kube.fake, rows[i].status, "what went wrong\n<more>");
        }
        get_x(f, 10);
        assert_int_equal(f->err.code, rows[i].code);
        assert_int_equal(f->err.http_status, rows[i].status);
        assert_string_equal(f->err.reason, rows[i].reason ? rows[i].reason : "");
        assert_non_null(strstr(f->err.message, rows[i].reason ? "because of" : "what went wrong"));
    }
}

static void test_transport_errors(void **state)
{
    struct fixture *f = *state;
    expect_x(f);
    fake_fail(f->kube.fake, ERR_TIMEOUT, "Operation timed out");
    get_x(f, 10);
    assert_int_equal(f->err.code, ERR_TIMEOUT);
    assert_int_equal(f->err.http_status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_requests),         TEST(test_bad_names_never_become_paths), TEST(test_query),
        TEST(test_object),           TEST(test_answers_that_are_no_objects),  TEST(test_errors),
        TEST(test_transport_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
