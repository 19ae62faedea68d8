/* Requests, answers, errors and retries of the client, against a scripted transport. Named after
 * client-go's rest/request_test where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kube_fixture.h"

struct fixture {
    struct kube_fixture kube;
    int answers;
    struct err err;
    struct kube_object *object; /* of the last answer */
    struct buf story;           /* of watches and lists */
    struct kube_call *call;     /* to be cancelled from inside */
    struct buf observed;
};

static const struct kube_resource pods = {"", "v1", "pods"};
static const struct kube_resource jobs = {"batch", "v1", "jobs"};
static const struct kube_resource nodes = {"", "v1", "nodes"};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    f->story = BUF_INIT(65536);
    f->observed = BUF_INIT(65536);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kube_fixture_finish(&f->kube);
    kube_object_unref(f->object);
    buf_finish(&f->story);
    buf_finish(&f->observed);
    free(f);
    return 0;
}

static void answered(void *context, struct kube_object *object, struct err *err)
{
    struct fixture *f = context;
    f->answers++;
    f->err = *err;
    kube_object_unref(f->object);
    f->object = object ? kube_object_ref(object) : NULL;
    assert_true(object == NULL || err->code == 0);
}

static struct kube_call *send(struct fixture *f, struct kube_request request)
{
    int before = f->answers;
    struct kube_call *call = kube_send(f->kube.client, &request, answered, f);
    assert_int_equal(f->answers, before); /* never before it returns */
    return call;
}

/* A GET of pod x, answered once within the time. */
static void get_x(struct fixture *f, int64_t ms)
{
    send(f, (struct kube_request){
                .verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")});
    kube_fixture_run(&f->kube, ms);
    assert_int_equal(f->answers, 1);
}

static void expect_x(struct fixture *f)
{
    fake_expect(f->kube.fake, "GET", "/api/v1/namespaces/ns/pods/x");
}

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
        send(f, rows[i].request);
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
        send(f, rows[i]); /* and the transport, which expects nothing, is never asked */
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

/* Retries */

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
        send(f,
             (struct kube_request){
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
    struct kube_call *call = send(
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
    kube_cancel(f->kube.client, send(f, request));
    expect_x(f);
    struct kube_call *call = send(f, request);
    kube_fixture_run(&f->kube, 10);
    kube_cancel(f->kube.client, call);
    kube_cancel(f->kube.client, NULL);
    request.name = STR("..");
    kube_cancel(f->kube.client, send(f, request)); /* a failure that is still to be told */
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
    send(f, (struct kube_request){.verb = KUBE_GET,
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
    struct fixture *f = context;
    buf_appendf(&f->observed, "%s %s %s %d %lld\n", verb, group, resource, code,
                (long long)duration_ms);
}

static void test_observe(void **state)
{
    struct fixture *f = *state;
    kube_client_destroy(f->kube.client);
    struct kube_client_options options = {.loop = f->kube.loop,
                                          .transport = fake_transport(f->kube.fake),
                                          .config = f->kube.config,
                                          .random = &f->kube.random.source,
                                          .observe = observe,
                                          .observe_context = f};
    assert_int_equal(kube_client_create(&options, &f->kube.client, NULL), 0);
    fake_expect(f->kube.fake, "PATCH", NULL);
    fake_wait(f->kube.fake, 5);
    fake_reply_later(f->kube.fake, 429, 1000, "");
    fake_expect(f->kube.fake, "PATCH", NULL);
    fake_reply(f->kube.fake, 200, "{}");
    send(f, (struct kube_request){.verb = KUBE_PATCH,
                                  .resource = &jobs,
                                  .namespace_ = STR("ns"),
                                  .name = STR("j"),
                                  .subresource = "status",
                                  .body = STR("{}")});
    kube_fixture_run(&f->kube, 2000);
    assert_string_equal(buf_cstr(&f->observed),
                        "patch batch jobs/status 429 5\npatch batch jobs/status 200 0\n");
}

/* Watches */

static void event(void *context, enum kube_event_type type, struct kube_object *object,
                  struct err *status_err)
{
    struct fixture *f = context;
    buf_appendf(&f->story, "%c%.*s", "AMDBE"[type], STR_ARG(object->name));
    if (type == KUBE_ERROR)
        buf_appendf(&f->story, "(%d %s %d)", status_err->http_status, status_err->reason,
                    status_err->code);
    buf_append_char(&f->story, ' ');
    if (str_is(object->name, "stop")) {
        kube_cancel(f->kube.client, f->call);
        f->call = NULL;
    }
    if (str_is(object->name, "destroy")) {
        kube_client_destroy(f->kube.client);
        f->kube.client = NULL;
    }
}

static void ended(void *context, struct err *err)
{
    struct fixture *f = context;
    buf_appendf(&f->story, "end(%d)", err ? err->code : 0);
}

static void watch(struct fixture *f)
{
    struct kube_watch_options options = {
        .resource = &pods, .namespace_ = STR("ns"), .resource_version = "5", .timeout_s = 290};
    struct kube_watch_handlers handlers = {.event = event, .end = ended, .context = f};
    fake_expect(f->kube.fake, "GET",
                "/api/v1/namespaces/ns/pods?watch=true&allowWatchBookmarks=true&resourceVersion=5"
                "&timeoutSeconds=290");
    f->call = kube_watch(f->kube.client, &options, &handlers);
}

#define NAMED(type, name)                                                                          \
    "{\"type\":\"" type "\",\"object\":{\"metadata\":{\"name\":\"" name "\"}}}"

static struct fake_transport *watch_with(struct fixture *f)
{
    /* The script must be there before the request. */
    fake_expect(f->kube.fake, "GET", NULL);
    return f->kube.fake;
}

static void start_watch(struct fixture *f)
{
    struct kube_watch_options options = {.resource = &pods, .timeout_s = 290};
    struct kube_watch_handlers handlers = {.event = event, .end = ended, .context = f};
    f->call = kube_watch(f->kube.client, &options, &handlers);
    kube_fixture_run(&f->kube, 1000);
}

static void test_watch_stays_open(void **state)
{
    struct fixture *f = *state;
    watch(f);
    kube_fixture_run(&f->kube, 1000);
    assert_int_equal(fake_open(f->kube.fake), 1);
    kube_cancel(f->kube.client, f->call);
    assert_int_equal(fake_open(f->kube.fake), 0);
    assert_int_equal(f->story.len, 0);
}

static void test_watch_events(void **state)
{
    struct fixture *f = *state;
    struct fake_transport *fake = watch_with(f);
    fake_chunk(fake, NAMED("ADDED", "a") "\n" NAMED("MODIFIED", "b"));
    fake_chunk(fake, "\n\n" NAMED("DELETED", "c") NAMED("BOOKMARK", ""));
    fake_chunk(fake, "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,"
                     "\"reason\":\"Expired\"}}");
    fake_end(fake);
    start_watch(f);
    assert_string_equal(buf_cstr(&f->story), "Aa Mb Dc B E(410 Expired -4) end(0)");
}

static void test_watch_event_split_at_every_byte(void **state)
{
    struct fixture *f = *state;
    struct fake_transport *fake = watch_with(f);
    static const char text[] = NAMED("ADDED", "a\\\"}{") NAMED("DELETED", "a\\u00e9");
    for (const char *p = text; *p; p++)
        fake_chunk(fake, (const char[]){*p, 0});
    fake_end(fake);
    start_watch(f);
    assert_string_equal(buf_cstr(&f->story), "Aa\"}{ Da\xc3\xa9 end(0)");
}

static void test_watch_cut_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct fake_transport *fake = watch_with(f);
    fake_chunk(fake, NAMED("ADDED", "a") "{\"type\":");
    fake_end(fake);
    start_watch(f);
    assert_string_equal(buf_cstr(&f->story), "Aa end(-10)");
}

static void test_watch_of_garbage(void **state)
{
    struct fixture *f = *state;
    static const char *const rows[] = {
        "nonsense",
        "[1]",
        "{\"type\":\"ADDED\"}",
        "{\"type\":\"ADDED\",\"object\":7}",
        "{\"type\":\"WHAT\",\"object\":{}}",
        "{\"object\":{}}",
        "{\"type\":\"ADDED\",\"object\":{}]}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fake_transport *fake = watch_with(f);
        fake_chunk(fake, rows[i]);
        fake_end(fake);
        start_watch(f);
        assert_string_equal(buf_cstr(&f->story), "end(-10)");
        buf_clear(&f->story);
    }
}

static void test_watch_refused(void **state)
{
    struct fixture *f = *state;
    struct fake_transport *fake = watch_with(f);
    fake_status(fake, 403, "Forbidden");
    start_watch(f);
    assert_string_equal(buf_cstr(&f->story), "end(-7)");
}

static void test_watch_cancelled_in_its_event(void **state)
{
    struct fixture *f = *state;
    struct fake_transport *fake = watch_with(f);
    fake_chunk(fake, NAMED("ADDED", "a") NAMED("ADDED", "stop") NAMED("ADDED", "b"));
    fake_end(fake);
    start_watch(f);
    assert_string_equal(buf_cstr(&f->story), "Aa Astop ");
    assert_int_equal(fake_open(fake), 0);
}

static void test_client_destroyed_in_an_event(void **state)
{
    struct fixture *f = *state;
    struct fake_transport *fake = watch_with(f);
    fake_chunk(fake, NAMED("ADDED", "destroy") NAMED("ADDED", "b"));
    start_watch(f);
    assert_string_equal(buf_cstr(&f->story), "Adestroy ");
    assert_int_equal(fake_open(fake), 0);
}

/* Lists */

static void item(void *context, struct kube_object *object)
{
    struct fixture *f = context;
    buf_appendf(&f->story, "%.*s ", STR_ARG(object->name));
    if (str_is(object->name, "stop"))
        kube_cancel(f->kube.client, f->call);
}

static void list_ended(void *context, struct str version, struct str next, struct err *err)
{
    struct fixture *f = context;
    buf_appendf(&f->story, "%.*s %.*s %d", STR_ARG(version), STR_ARG(next), err ? err->code : 0);
}

static void list_of(struct fixture *f, const char *body)
{
    struct kube_list_options options = {.resource = &pods, .limit = 2, .continue_token = "t"};
    struct kube_list_handlers handlers = {.item = item, .end = list_ended, .context = f};
    fake_expect(f->kube.fake, "GET", "/api/v1/pods?limit=2&continue=t");
    fake_reply(f->kube.fake, 200, body);
    buf_clear(&f->story);
    f->call = kube_list(f->kube.client, &options, &handlers);
    kube_fixture_run(&f->kube, 10);
}

static void test_list(void **state)
{
    struct fixture *f = *state;
    list_of(f, "{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"n\"},\"items\":["
               "{\"metadata\":{\"name\":\"a\"}},{\"metadata\":{\"name\":\"b\"}}]}");
    assert_string_equal(buf_cstr(&f->story), "a b 7 n 0");
    list_of(f, "{\"items\":null,\"metadata\":{\"resourceVersion\":\"7\"}}");
    assert_string_equal(buf_cstr(&f->story), "7  0");
    list_of(f, "{\"items\":[{\"metadata\":{\"name\":\"a\"}}");
    assert_string_equal(buf_cstr(&f->story), "a   -10"); /* cut */
    list_of(f, "{\"items\":[{\"metadata\":{\"name\":\"a\"]}],\"metadata\":{}}");
    assert_string_equal(buf_cstr(&f->story), "  -10");
    list_of(f, "{\"kind\":\"Pod\"}");
    assert_string_equal(buf_cstr(&f->story), "  -10");
    list_of(f, "{\"items\":[{\"metadata\":{\"name\":\"stop\"}},{}],\"metadata\":{}}");
    assert_string_equal(buf_cstr(&f->story), "stop ");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_requests),
        TEST(test_bad_names_never_become_paths),
        TEST(test_query),
        TEST(test_object),
        TEST(test_answers_that_are_no_objects),
        TEST(test_errors),
        TEST(test_transport_errors),
        TEST(test_check_retry),
        TEST(test_retry_after_an_hour_is_half_a_minute),
        TEST(test_max_retries),
        TEST(test_cancel_while_waiting_to_retry),
        TEST(test_cancel_under_way_and_before),
        TEST(test_unauthorized_twice_is_final),
        TEST(test_urgent_and_limits_reach_the_transport),
        TEST(test_observe),
        TEST(test_watch_stays_open),
        TEST(test_watch_events),
        TEST(test_watch_event_split_at_every_byte),
        TEST(test_watch_cut_in_the_middle),
        TEST(test_watch_of_garbage),
        TEST(test_watch_refused),
        TEST(test_watch_cancelled_in_its_event),
        TEST(test_client_destroyed_in_an_event),
        TEST(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
