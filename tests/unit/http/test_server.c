/* The server as its clients see it, good and bad ones, over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "client.h"
#include "http/server.h"

/* ---- the server under test ---- */

enum { KEPT_MAX = 256 };

static struct {
    struct http_server *server;
    struct buf certificate, key;
    /* Exchanges that /keep does not answer. */
    pthread_mutex_t lock;
    pthread_cond_t kept_some;
    struct http_exchange *kept[KEPT_MAX];
    int n_kept;
    /* Of observe(): server's thread, read after it has ended or an answer came. */
    atomic_int observed[600];
    atomic_int observed_unknown; /* without a pattern */
    atomic_int admitted;
} t;

static void observe(void *context, const char *method, const char *pattern, int status,
                    int64_t duration_ms)
{
    assert_ptr_equal(context, &t);
    assert_true(duration_ms >= 0);
    assert_non_null(method);
    if (!*pattern)
        atomic_fetch_add(&t.observed_unknown, 1);
    atomic_fetch_add(&t.observed[status], 1);
}

static void on_hello(void *context, struct http_exchange *e)
{
    http_respond(e, 200, "text/plain", str_of(context));
}

static void on_item(void *context, struct http_exchange *e)
{
    (void)context;
    struct buf out = BUF_INIT(4096);
    buf_appendf(&out, "%.*s|%.*s|%.*s|%.*s|%.*s|%.*s", STR_ARG(http_exchange_param(e, "namespace")),
                STR_ARG(http_exchange_param(e, "name")), STR_ARG(http_exchange_query(e, "q")),
                STR_ARG(http_exchange_header(e, "x-thing")), STR_ARG(http_exchange_bearer(e)),
                STR_ARG(http_exchange_peer(e)));
    http_respond(e, 200, "text/plain", buf_str(&out));
    buf_finish(&out);
}

static void on_upload(void *context, struct http_exchange *e)
{
    (void)context;
    struct str body = http_exchange_body(e);
    char text[64];
    snprintf(text, sizeof(text), "%zu %016llx", body.len, (unsigned long long)str_hash(body));
    http_respond(e, 201, "text/plain", str_of(text));
}

static void on_keep(void *context, struct http_exchange *e)
{
    (void)context;
    pthread_mutex_lock(&t.lock);
    t.kept[t.n_kept++] = e;
    pthread_cond_signal(&t.kept_some);
    pthread_mutex_unlock(&t.lock);
}

static struct http_exchange *take_kept(void)
{
    pthread_mutex_lock(&t.lock);
    while (!t.n_kept)
        pthread_cond_wait(&t.kept_some, &t.lock);
    struct http_exchange *e = t.kept[--t.n_kept];
    pthread_mutex_unlock(&t.lock);
    return e;
}

static bool admit(void *context, struct http_exchange *e)
{
    (void)context;
    atomic_fetch_add(&t.admitted, 1);
    if (str_is(http_exchange_bearer(e), "sesame"))
        return true;
    http_respond_error(e, 401, "Unauthorized", "a token is needed");
    return false;
}

static char big[4 << 20];

static void on_big(void *context, struct http_exchange *e)
{
    (void)context;
    http_respond(e, 200, "application/octet-stream", (struct str){big, sizeof(big)});
}

static const struct http_route routes[] = {
    {.method = "GET", .pattern = "/hello", .handler = on_hello, .context = "hello"},
    {.method = "POST", .pattern = "/hello", .handler = on_hello, .context = "posted"},
    {.method = "GET", .pattern = "/items/{namespace}/{name}", .handler = on_item},
    {.method = "POST", .pattern = "/upload", .max_body = 1 << 20, .handler = on_upload},
    {.method = "POST", .pattern = "/huge", .max_body = 8 << 20, .handler = on_upload},
    {.method = "POST",
     .pattern = "/guarded",
     .max_body = 8 << 20,
     .handler = on_upload,
     .admit = admit},
    {.method = "GET", .pattern = "/keep", .handler = on_keep},
    {.method = "GET", .pattern = "/big", .handler = on_big},
    {.method = "GET", .pattern = "/secret", .handler = on_hello, .context = "s", .listener = "tls"},
};

static const struct http_listener listeners[] = {
    {.name = "plain", .address = "127.0.0.1"},
    {.name = "tls", .address = "127.0.0.1", .tls = true},
};

static void start(struct http_server_options o)
{
    struct err err = ERR_INIT;
    o.listeners = listeners;
    o.n_listeners = ARRAY_SIZE(listeners);
    o.routes = routes;
    o.n_routes = ARRAY_SIZE(routes);
    o.certificate = buf_str(&t.certificate);
    o.private_key = buf_str(&t.key);
    o.observe = observe;
    o.observe_context = &t;
    for (size_t i = 0; i < ARRAY_SIZE(t.observed); i++)
        atomic_store(&t.observed[i], 0);
    atomic_store(&t.observed_unknown, 0);
    atomic_store(&t.admitted, 0);
    if (http_server_create(&o, &t.server, &err) || http_server_start(t.server, &err))
        fail_msg("%s", err.message);
}

static int stop(void **state)
{
    (void)state;
    http_server_destroy(t.server);
    t.server = NULL;
    return 0;
}

static int plain(void)
{
    return http_server_port(t.server, "plain");
}

static int tls(void)
{
    return http_server_port(t.server, "tls");
}

/* Sends a request on a fresh plain connection; returns the answer's status, 0 for none. */
static int ask(const char *request, struct response *ret)
{
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, request);
    bool got = client_receive(&c, &r, str_starts_with(str_of(request), STR("HEAD ")));
    int status = got ? r.status : 0;
    client_close(&c);
    if (ret)
        *ret = r;
    else
        response_finish(&r);
    return status;
}

static bool is_served(void)
{
    return ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", NULL) == 200;
}

static void assert_body(struct response *r, const char *body)
{
    assert_string_equal(buf_cstr(&r->body), body);
    response_finish(r);
}

/* Waits for another thread's doing, at most 20 s. */
#define assert_soon(condition)                                                                     \
    do {                                                                                           \
        int64_t until_ = clock_monotonic_ms(&clock_system) + 20000;                                \
        bool holds_;                                                                               \
        while (!(holds_ = (condition)) && clock_monotonic_ms(&clock_system) < until_)              \
            usleep(2000);                                                                          \
        if (!holds_)                                                                               \
            fail_msg("%s: not within 20 s", #condition);                                           \
    } while (0)

/* ---- good clients ---- */

static void test_answers_and_stays_open(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    for (int i = 0; i < 3; i++) {
        client_send_text(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&c, &r, false));
        assert_int_equal(r.status, 200);
        assert_true(response_has(&r, "\r\nContent-Type: text/plain\r\n"));
        assert_true(response_has(&r, "\r\nDate: "));
        assert_false(response_has(&r, "Connection: close"));
        assert_body(&r, "hello");
    }
    /* The headers of GET, and no body: what follows is the next answer. */
    client_send_text(&c, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&c, &r, true));
    assert_true(response_has(&r, "\r\nContent-Length: 5\r\n"));
    response_finish(&r);
    client_send_text(&c, "POST /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_true(response_has(&r, "\r\nConnection: close\r\n"));
    assert_body(&r, "posted");
    assert_true(client_sees_end(&c, 1000));
    client_close(&c);
    assert_int_equal(ask("GET /hello HTTP/1.0\r\n\r\n", &r), 200);
    assert_true(response_has(&r, "Connection: close"));
    assert_body(&r, "hello");
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                         "\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                         "POST /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 201);
    response_finish(&r);
    assert_true(client_receive(&c, &r, false));
    assert_body(&r, "hello");
    assert_true(client_receive(&c, &r, false));
    assert_body(&r, "posted");
    client_close(&c);
}

static void test_parameters(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct response r;
    assert_int_equal(ask("GET /items/shop/a%20b?x=1&q=%C3%A4+z HTTP/1.1\r\nHost: a\r\n"
                         "X-Thing: v\r\nAuthorization: bearer  tok.en \r\n\r\n",
                         &r),
                     200);
    assert_body(&r, "shop|a b|\xc3\xa4 z|v|tok.en|127.0.0.1");
    assert_int_equal(
        ask("GET /items/a/b HTTP/1.1\r\nHost: a\r\nAuthorization: Basic x\r\n\r\n", &r), 200);
    assert_body(&r, "a|b||||127.0.0.1");
}

static void test_unknown_paths_and_methods(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
    } rows[] = {
        {"GET /", 404},          {"GET /hello/", 404},   {"GET //hello", 404},
        {"GET /items/a", 404},   {"GET /items//b", 404}, {"GET /items/a/b/c", 404},
        {"GET /secret", 404},    {"DELETE /hello", 405}, {"BREW /hello", 405},
        {"OPTIONS /hello", 405}, {"HEAD /upload", 405},  {"GET /items/../hello", 400},
        {"GET /%2e%2e/x", 400},  {"GET /hello%00", 400},
    };
    start((struct http_server_options){0});
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char request[256];
        struct response r;
        snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].line);
        int status = ask(request, &r);
        if (status != rows[i].status)
            fail_msg("%s: %d", rows[i].line, status);
        if (status == 405 && strstr(rows[i].line, "hello"))
            assert_true(response_has(&r, "\r\nAllow: GET, HEAD, POST\r\n"));
        response_finish(&r);
    }
    assert_soon(atomic_load(&t.observed_unknown) == ARRAY_SIZE(rows));
    assert_int_equal(atomic_load(&t.observed[404]), 7);
    assert_int_equal(atomic_load(&t.observed[405]), 4);
    assert_int_equal(atomic_load(&t.observed[400]), 3);
}

static void test_body_with_length_and_in_chunks(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    static char bytes[300000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 7919 >> 3);
    char expected[64];
    snprintf(expected, sizeof(expected), "%zu %016llx", sizeof(bytes),
             (unsigned long long)str_hash((struct str){bytes, sizeof(bytes)}));
    struct client c;
    struct response r;
    for (int secure = 0; secure < 2; secure++) {
        assert_true(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()));
        client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
        assert_true(client_send(&c, bytes, sizeof(bytes)));
        assert_true(client_receive(&c, &r, false));
        assert_body(&r, expected);
        client_send_text(&c,
                         "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0, n = 1; at < sizeof(bytes); at += n, n = n * 3 + 1) {
            char size[16];
            if (n > sizeof(bytes) - at)
                n = sizeof(bytes) - at;
            snprintf(size, sizeof(size), "%zx\r\n", n);
            client_send_text(&c, size);
            client_send(&c, bytes + at, n);
            client_send_text(&c, "\r\n");
        }
        client_send_text(&c, "0\r\n\r\n");
        assert_true(client_receive(&c, &r, false));
        assert_body(&r, expected);
        client_close(&c);
    }
}

static void test_expect_continue(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                         "Content-Length: 3\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 100);
    response_finish(&r);
    client_send_text(&c, "abc");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 201);
    response_finish(&r);
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                         "Content-Length: 3000000\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 413);
    response_finish(&r);
    client_close(&c);
}

static void test_large_answer_to_slow_reader(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    for (int secure = 0; secure < 2; secure++) {
        struct client c;
        struct response r;
        assert_true(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()));
        client_send_text(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        usleep(100000);
        assert_true(is_served());
        assert_true(client_receive(&c, &r, false));
        assert_int_equal(r.body.len, sizeof(big));
        assert_memory_equal(r.body.ptr, big, sizeof(big));
        response_finish(&r);
        client_close(&c);
    }
}

/* ---- answers from other threads ---- */

static void *answer_kept(void *argument)
{
    int n = *(int *)argument;
    for (int i = 0; i < n; i++)
        http_respond_error(take_kept(), 503, "Later", "not \"now\"");
    return NULL;
}

static void test_answer_from_another_thread(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    pthread_t thread;
    int n = 50;
    pthread_create(&thread, NULL, answer_kept, &n);
    struct client c;
    struct response r;
    assert_true(client_open_tls(&c, tls(), 0));
    for (int i = 0; i < n; i++) {
        client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&c, &r, false));
        assert_int_equal(r.status, 503);
        assert_true(response_has(&r, "\r\nRetry-After: 1\r\n"));
        assert_body(&r, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\","
                        "\"message\":\"not \\\"now\\\"\",\"reason\":\"Later\",\"code\":503}");
    }
    pthread_join(thread, NULL);
    client_close(&c);
}

static void test_client_is_gone_before_the_answer(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    for (int secure = 0; secure < 2; secure++) {
        struct client c;
        assert_true(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()));
        client_send_text(&c, "GET /keep?q=still HTTP/1.1\r\nHost: a\r\n\r\n");
        struct http_exchange *e = take_kept();
        client_close(&c);
        assert_soon(atomic_load(&t.observed[499]) == secure + 1);
        assert_true(str_is(http_exchange_query(e, "q"), "still"));
        http_respond(e, 200, "text/plain", STR("nobody hears it"));
        assert_true(is_served());
    }
    assert_soon(atomic_load(&t.observed[200]) == 2);
}

static void test_server_is_gone_before_the_answer(void **state)
{
    start((struct http_server_options){0});
    struct client c;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep?q=still HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    stop(state);
    assert_true(client_sees_end(&c, 5000));
    assert_true(str_is(http_exchange_query(e, "q"), "still"));
    http_respond(e, 200, "text/plain", STR("nobody hears it"));
    client_close(&c);
}

static void test_request_read_ahead_waits_for_its_turn(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    client_send_text(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    usleep(50000);
    http_respond(take_kept(), 200, NULL, STR(""));
    assert_true(client_receive(&c, &r, false));
    assert_false(response_has(&r, "\r\nContent-Type:"));
    assert_body(&r, "");
    assert_true(client_receive(&c, &r, false));
    assert_body(&r, "hello");
    client_close(&c);
}

/* ---- limits ---- */

static void test_head_too_large(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct buf request = BUF_INIT(1 << 20);
    buf_append_cstr(&request, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ");
    for (int i = 0; i < 40000; i++)
        buf_append_char(&request, 'x');
    struct response r;
    assert_int_equal(ask(buf_cstr(&request), &r), 431);
    assert_true(response_has(&r, "Connection: close"));
    response_finish(&r);
    buf_finish(&request);
    assert_true(is_served());
}

static void test_body_too_large(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    /* By Content-Length: before a byte of it was sent. */
    assert_int_equal(
        ask("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", NULL), 413);
    assert_int_equal(ask("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", NULL),
                     413);
    assert_int_equal(
        ask("POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", NULL), 413);
    /* In chunks; the client goes on sending, and has its answer nevertheless. */
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    char size[16];
    snprintf(size, sizeof(size), "%zx\r\n", sizeof(big) / 2);
    client_send_text(&c, size);
    client_send(&c, big, sizeof(big) * 3 / 8);
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 413);
    assert_true(response_has(&r, "Connection: close"));
    response_finish(&r);
    client_close(&c);
    struct http_server_stats stats;
    assert_soon((http_server_stats(t.server, &stats), stats.buffered == 0));
}

static void test_too_much_at_once(void **state)
{
    (void)state;
    start((struct http_server_options){.max_buffered = 6 << 20});
    struct client first;
    struct response r;
    struct http_server_stats stats;
    assert_true(client_open(&first, plain()));
    client_send_text(&first, "POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n");
    assert_soon((http_server_stats(t.server, &stats), stats.buffered == sizeof(big)));
    assert_int_equal(ask("POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n", &r),
                     503);
    assert_true(response_has(&r, "\r\nRetry-After: 1\r\n"));
    response_finish(&r);
    struct client chunked;
    assert_true(client_open(&chunked, plain()));
    client_send_text(&chunked,
                     "POST /huge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                     "400000\r\n");
    client_send(&chunked, big, sizeof(big) * 5 / 8);
    assert_true(client_receive(&chunked, &r, false));
    assert_int_equal(r.status, 503);
    response_finish(&r);
    client_close(&chunked);
    assert_int_equal(ask("POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", NULL),
                     201);
    /* The one that was let in ends well. */
    assert_true(client_send(&first, big, sizeof(big)));
    assert_true(client_receive(&first, &r, false));
    assert_int_equal(r.status, 201);
    response_finish(&r);
    client_close(&first);
    assert_soon((http_server_stats(t.server, &stats), stats.buffered == 0));
}

static void test_admit_comes_before_the_body(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /guarded HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 401);
    assert_true(response_has(&r, "\r\nWWW-Authenticate: Bearer\r\n"));
    assert_true(response_has(&r, "\r\nConnection: close\r\n"));
    response_finish(&r);
    client_close(&c);
    assert_int_equal(ask("POST /guarded HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sesame\r\n"
                         "Content-Length: 2\r\n\r\nok",
                         NULL),
                     201);
    assert_int_equal(atomic_load(&t.admitted), 2);
}

static void test_too_many_connections_on_one_listener(void **state)
{
    (void)state;
    enum { MAX = 5 };
    start((struct http_server_options){.max_connections = MAX});
    struct client idle[MAX], more, other;
    struct response r;
    struct http_server_stats stats;
    for (int i = 0; i < MAX; i++)
        assert_true(client_open(&idle[i], plain()));
    assert_soon((http_server_stats(t.server, &stats), stats.accepted == MAX));
    assert_true(client_open(&more, plain()));
    assert_true(client_sees_end(&more, 5000));
    client_close(&more);
    assert_true(client_open_tls(&other, tls(), 0));
    client_send_text(&other, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&other, &r, false));
    assert_body(&r, "hello");
    client_close(&other);
    client_close(&idle[0]);
    assert_soon(is_served());
    for (int i = 1; i < MAX; i++)
        client_close(&idle[i]);
    http_server_stats(t.server, &stats);
    assert_true(stats.refused >= 1);
}

static void test_slow_clients_are_closed(void **state)
{
    (void)state;
    start((struct http_server_options){.header_timeout_s = 1, .body_timeout_s = 1});
    struct client silent, silent_tls, dripping, body;
    struct response r;
    assert_true(client_open(&silent, plain()));
    assert_true(client_open(&silent_tls, tls()));
    assert_true(client_open(&body, plain()));
    client_send_text(&body, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab");
    assert_true(client_open(&dripping, plain()));
    client_send_text(&dripping, "GET /hello HTTP/1.1\r\nX: ");
    int64_t begin = clock_monotonic_ms(&clock_system);
    while (clock_monotonic_ms(&clock_system) < begin + 1500) {
        client_send_text(&dripping, "x");
        client_send_text(&body, "x");
        usleep(50000);
    }
    assert_true(client_receive(&dripping, &r, false));
    assert_int_equal(r.status, 408);
    response_finish(&r);
    assert_true(client_receive(&body, &r, false));
    assert_int_equal(r.status, 408);
    response_finish(&r);
    assert_true(client_sees_end(&silent, 3000));
    assert_true(client_sees_end(&silent_tls, 3000));
    assert_true(client_sees_end(&dripping, 4000));
    assert_true(client_sees_end(&body, 4000));
    assert_true(clock_monotonic_ms(&clock_system) < begin + 8000);
    struct http_server_stats stats;
    http_server_stats(t.server, &stats);
    assert_int_equal(stats.timed_out, 2);
    client_close(&silent);
    client_close(&silent_tls);
    client_close(&dripping);
    client_close(&body);
    assert_true(is_served());
}

static void test_reader_that_does_not_read_is_closed(void **state)
{
    (void)state;
    start((struct http_server_options){.body_timeout_s = 1});
    struct client c;
    assert_true(client_open(&c, plain()));
    /* Far more than the sockets' buffers hold. */
    for (int i = 0; i < 8; i++)
        client_send_text(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_server_stats stats;
    assert_soon((http_server_stats(t.server, &stats), stats.timed_out == 1));
    client_close(&c);
    assert_true(is_served());
}

/* ---- bad clients ---- */

static void test_garbage_disturbs_nobody(void **state)
{
    (void)state;
    static const char garbage[][64] = {
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not quite a hello",
        "\x16\x03\x01\x00\x05hello there, this is no handshake",
        "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x80\x2e\x01\x00\x02 an old one",
        "\0\0\0\0\0\0\0\0\0\0\r\n\r\n\0\0\0\0",
        "\r\n\r\n\r\n\r\n\n\n\n\n\r\r\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /upload HTTP/1.1\r\nHost:a\r\nContent-Length: 9\r\n\r\nab",
    };
    start((struct http_server_options){.header_timeout_s = 1});
    struct client good, good_tls;
    struct response r;
    assert_true(client_open(&good, plain()));
    assert_true(client_open_tls(&good_tls, tls(), 0));
    for (size_t i = 0; i < ARRAY_SIZE(garbage) * 2; i++) {
        struct client bad;
        assert_true(client_open(&bad, i % 2 ? plain() : tls()));
        client_send(&bad, garbage[i / 2], sizeof(garbage[0]));
        if (i % 3)
            usleep(2000);
        client_close(&bad);
        client_send_text(&good, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&good, &r, false));
        assert_body(&r, "hello");
        client_send_text(&good_tls, "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&good_tls, &r, false));
        assert_body(&r, "s");
    }
    client_close(&good);
    client_close(&good_tls);
}

static void test_too_much_ahead_of_an_answer(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    for (int i = 0; i < 64; i++)
        client_send(&c, big, 16384);
    assert_true(client_sees_end(&c, 5000));
    client_close(&c);
    http_respond(e, 200, NULL, STR(""));
    assert_true(is_served());
}

/* ---- many ---- */

static atomic_int failures;

static void *load(void *argument)
{
    int seed = *(int *)argument;
    struct client c;
    struct response r;
    bool secure = seed % 2;
    if (!(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()))) {
        atomic_fetch_add(&failures, 1);
        return NULL;
    }
    for (int i = 0; i < 5; i++) {
        client_send_text(&c, (seed + i) % 3 ? "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                                            : "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
        bool got = client_receive(&c, &r, false);
        if (!got || r.status != ((seed + i) % 3 ? 200 : 503))
            atomic_fetch_add(&failures, 1);
        response_finish(&r);
    }
    client_close(&c);
    return NULL;
}

enum { MANY = 200 };

static void test_many_at_once(void **state)
{
    (void)state;
    static pthread_t threads[MANY];
    static int seeds[MANY];
    start((struct http_server_options){0});
    atomic_store(&failures, 0);
    int n = 0;
    for (int seed = 0; seed < MANY; seed++)
        for (int i = 0; i < 5; i++)
            n += (seed + i) % 3 == 0;
    pthread_t answering;
    pthread_create(&answering, NULL, answer_kept, &n);
    for (int i = 0; i < MANY; i++) {
        seeds[i] = i;
        pthread_create(&threads[i], NULL, load, &seeds[i]);
    }
    for (int i = 0; i < MANY; i++)
        pthread_join(threads[i], NULL);
    pthread_join(answering, NULL);
    assert_int_equal(atomic_load(&failures), 0);
}

/* ---- TLS ---- */

static void test_tls_versions(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    assert_false(client_open_tls(&c, tls(), TLS1_1_VERSION));
    assert_true(client_open_tls(&c, tls(), TLS1_2_VERSION));
    client_close(&c);
    assert_true(client_open_tls(&c, tls(), TLS1_3_VERSION));
    const unsigned char *protocol;
    unsigned len;
    SSL_get0_alpn_selected(c.ssl, &protocol, &len);
    assert_int_equal(len, 8);
    assert_memory_equal(protocol, "http/1.1", 8);
    client_close(&c);
}

static atomic_bool rotating;

static void *rotate_load(void *argument)
{
    (void)argument;
    while (atomic_load(&rotating)) {
        struct client c;
        struct response r;
        if (!client_open_tls(&c, tls(), 0)) {
            atomic_fetch_add(&failures, 1);
            continue;
        }
        client_send_text(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        if (!client_receive(&c, &r, false))
            atomic_fetch_add(&failures, 1);
        response_finish(&r);
        client_close(&c);
    }
    return NULL;
}

static void test_certificate_is_replaced_under_load(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct buf certificate = BUF_INIT(65536), key = BUF_INIT(65536);
    make_certificate("second", &certificate, &key);
    struct client before, after;
    struct response r;
    char name[64];
    pthread_t threads[4];
    atomic_store(&failures, 0);
    atomic_store(&rotating, true);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_create(&threads[i], NULL, rotate_load, NULL);
    assert_true(client_open_tls(&before, tls(), 0));
    client_peer_name(&before, name, sizeof(name));
    assert_string_equal(name, "first");

    struct err err = ERR_INIT;
    for (int i = 0; i < 51; i++) {
        bool second = i % 2 == 0;
        assert_int_equal(
            http_server_set_certificate(t.server, buf_str(second ? &certificate : &t.certificate),
                                        buf_str(second ? &key : &t.key), &err),
            0);
        usleep(1000);
    }
    /* What does not fit together changes nothing. */
    assert_int_equal(
        http_server_set_certificate(t.server, buf_str(&t.certificate), buf_str(&key), &err),
        ERR_INVALID);
    assert_int_equal(http_server_set_certificate(t.server, STR("no PEM"), buf_str(&key), &err),
                     ERR_INVALID);
    assert_true(client_open_tls(&after, tls(), 0));
    client_peer_name(&after, name, sizeof(name));
    assert_string_equal(name, "second");
    client_send_text(&before, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&before, &r, false));
    assert_body(&r, "hello");
    atomic_store(&rotating, false);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&failures), 0);
    client_close(&before);
    client_close(&after);
    buf_finish(&certificate);
    buf_finish(&key);
}

/* ---- the end ---- */

static void *stop_soon(void *argument)
{
    http_server_stop(t.server, *(int *)argument);
    return NULL;
}

static void test_stop_lets_requests_end(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client idle, busy, late;
    struct response r;
    int port = plain(), grace_ms = 15000;
    assert_true(client_open(&idle, port));
    assert_true(client_open(&busy, port));
    client_send_text(&busy, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    int64_t begin = clock_monotonic_ms(&clock_system);
    pthread_t thread;
    pthread_create(&thread, NULL, stop_soon, &grace_ms);
    assert_true(client_sees_end(&idle, 5000));
    assert_false(client_open(&late, port));
    http_respond(e, 200, "text/plain", STR("in time"));
    assert_true(client_receive(&busy, &r, false));
    assert_true(response_has(&r, "Connection: close"));
    assert_body(&r, "in time");
    client_close(&busy);
    client_close(&idle);
    pthread_join(thread, NULL);
    assert_true(clock_monotonic_ms(&clock_system) < begin + 10000);
}

static void test_stop_does_not_wait_for_ever(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    int64_t begin = clock_monotonic_ms(&clock_system);
    http_server_stop(t.server, 300);
    int64_t took = clock_monotonic_ms(&clock_system) - begin;
    if (took < 290 || took > 10000)
        fail_msg("%d ms", (int)took);
    assert_true(client_sees_end(&c, 1000));
    http_respond(e, 200, NULL, STR("too late"));
    client_close(&c);
}

static void test_wrong_options_are_told(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct err err = ERR_INIT;
    struct http_server *s = NULL;
    struct http_listener taken = {.name = "x", .address = "127.0.0.1", .port = plain()};
    struct http_server_options o = {.listeners = &taken, .n_listeners = 1};
    assert_int_equal(http_server_create(&o, &s, &err), ERR_IO);
    assert_non_null(strstr(err.message, "Address already in use"));
    taken.address = "localhost";
    assert_int_equal(http_server_create(&o, &s, &err), ERR_INVALID);
    taken = (struct http_listener){.name = "x", .address = "127.0.0.1", .tls = true};
    assert_int_equal(http_server_create(&o, &s, &err), ERR_INVALID);
    struct http_route route = {.method = "GET", .pattern = "no-slash", .handler = on_hello};
    o = (struct http_server_options){.routes = &route, .n_routes = 1};
    assert_int_equal(http_server_create(&o, &s, &err), ERR_INVALID);
    assert_null(s);
}

/* Times the service thread came back from its wait within a second in which nothing happens. */
static void test_idle_means_no_wakeups(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    assert_true(is_served());
    sleep(4); /* past the lingering of that client */
    long switches[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        char path[64], line[256];
        snprintf(path, sizeof(path), "/proc/self/task");
        long total = 0;
        for (int tid = getpid() + 1; tid < getpid() + 4096; tid++) {
            snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
            FILE *f = fopen(path, "re");
            if (!f)
                continue;
            bool is_http = false;
            long n;
            while (fgets(line, sizeof(line), f)) {
                if (!strcmp(line, "Name:\thttp\n"))
                    is_http = true;
                if (is_http && sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
                    total += n;
            }
            fclose(f);
        }
        switches[i] = total;
        if (!i)
            sleep(2);
    }
    assert_true(switches[0] > 0);
    assert_int_equal(switches[1], switches[0]);
}

static int set_up(void **state)
{
    (void)state;
    t.certificate = BUF_INIT(65536);
    t.key = BUF_INIT(65536);
    make_certificate("first", &t.certificate, &t.key);
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.kept_some, NULL);
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 31 >> 4);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    buf_finish(&t.certificate);
    buf_finish(&t.key);
    return 0;
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, stop)
    const struct CMUnitTest tests[] = {
        CASE(test_answers_and_stays_open),
        CASE(test_pipelined_requests_are_answered_in_order),
        CASE(test_parameters),
        CASE(test_unknown_paths_and_methods),
        CASE(test_body_with_length_and_in_chunks),
        CASE(test_expect_continue),
        CASE(test_large_answer_to_slow_reader),
        CASE(test_answer_from_another_thread),
        CASE(test_client_is_gone_before_the_answer),
        CASE(test_server_is_gone_before_the_answer),
        CASE(test_request_read_ahead_waits_for_its_turn),
        CASE(test_head_too_large),
        CASE(test_body_too_large),
        CASE(test_too_much_at_once),
        CASE(test_admit_comes_before_the_body),
        CASE(test_too_many_connections_on_one_listener),
        CASE(test_slow_clients_are_closed),
        CASE(test_reader_that_does_not_read_is_closed),
        CASE(test_garbage_disturbs_nobody),
        CASE(test_too_much_ahead_of_an_answer),
        CASE(test_many_at_once),
        CASE(test_tls_versions),
        CASE(test_certificate_is_replaced_under_load),
        CASE(test_stop_lets_requests_end),
        CASE(test_stop_does_not_wait_for_ever),
        CASE(test_wrong_options_are_told),
        CASE(test_idle_means_no_wakeups),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
