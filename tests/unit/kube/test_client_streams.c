/* The client's watches and lists, whose objects are told one by one as they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kube_fixture.h"

struct fixture {
    struct kube_fixture kube;
    struct buf story;       /* what was told */
    struct kube_call *call; /* to be cancelled from inside */
};

static const struct kube_resource pods = {"", "v1", "pods"};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    f->story = BUF_INIT(65536);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kube_fixture_finish(&f->kube);
    buf_finish(&f->story);
    free(f);
    return 0;
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
