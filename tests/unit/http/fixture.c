#include "fixture.h"

#include <stdio.h>

#include "base/clock.h"

struct fixture t;

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

struct http_exchange *take_kept(void)
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

char big[BIG];

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

void start(struct http_server_options o)
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

int stop(void **state)
{
    (void)state;
    http_server_destroy(t.server);
    t.server = NULL;
    return 0;
}

int plain(void)
{
    return http_server_port(t.server, "plain");
}

int tls(void)
{
    return http_server_port(t.server, "tls");
}

int ask(const char *request, struct response *ret)
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

bool is_served(void)
{
    return ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", NULL) == 200;
}

void assert_body(struct response *r, const char *body)
{
    assert_string_equal(buf_cstr(&r->body), body);
    response_finish(r);
}

void *answer_kept(void *argument)
{
    int n = *(int *)argument;
    for (int i = 0; i < n; i++)
        http_respond_error(take_kept(), 503, "Later", "not \"now\"");
    return NULL;
}

int set_up(void **state)
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

int tear_down(void **state)
{
    (void)state;
    buf_finish(&t.certificate);
    buf_finish(&t.key);
    return 0;
}
