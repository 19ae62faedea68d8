#include "kube/client.h"

#include "base/alloc.h"
#include "kube/kube_internal.h"

/* A proxy's maintenance page may ask for an hour: nobody here would wait so long for one answer. */
enum { MAX_RETRIES = 10, MAX_RETRY_AFTER_MS = 30 * 1000, MAX_HEADERS = 64 };

int kube_client_create(const struct kube_client_options *options, struct kube_client **ret,
                       struct err *err)
{
    if (!options->loop || !options->transport || !options->config || !options->random)
        return err_set(err, ERR_INVALID, "loop, transport, config and random are required");
    struct kube_client *c = xcalloc(1, sizeof(*c));
    c->options = *options;
    list_init(&c->calls);
    *ret = c;
    return 0;
}

void kube_client_destroy(struct kube_client *c)
{
    if (!c)
        return;
    while (!list_empty(&c->calls))
        kube_cancel(c, CONTAINER_OF(c->calls.next, struct kube_call, node));
    free(c);
}

void kube_call_free(struct kube_call *call)
{
    free(call->group);
    free(call->resource);
    free(call->url_path);
    buf_finish(&call->body);
    free(call);
}

/* Leaves the client; what still holds the call (the chunk on the stack) is told by `cancelled`. */
static void detach(struct kube_call *call)
{
    struct kube_client *c = call->client;
    list_remove(&call->node);
    loop_timer_disarm(c->options.loop, &call->timer);
    if (call->waits_credentials)
        kube_config_credentials_cancel(c->options.config, call);
    call->waits_credentials = false;
    if (call->http)
        c->options.transport->cancel(c->options.transport, call->http);
    call->http = NULL;
}

void kube_cancel(struct kube_client *c, struct kube_call *call)
{
    (void)c;
    if (!call)
        return;
    detach(call);
    call->cancelled = true;
    if (!call->busy)
        call->kind->free(call);
}

static void finish(struct kube_call *call, struct str body, struct err *err)
{
    detach(call);
    call->kind->end(call, body, err);
    call->kind->free(call);
}

static void observe(struct kube_call *call, int code)
{
    const struct kube_client_options *o = &call->client->options;
    if (call->observed || !o->observe)
        return;
    call->observed = true;
    o->observe(o->observe_context, call->verb, call->group, call->resource, code,
               clock_monotonic_ms(loop_clock(o->loop)) - call->started_ms);
}

static void ask_credentials(struct kube_call *call, bool renew);

static void fire(struct loop_timer *timer)
{
    struct kube_call *call = CONTAINER_OF(timer, struct kube_call, timer);
    struct err err = call->failure;
    if (err.code)
        finish(call, STR_NULL, &err);
    else
        ask_credentials(call, false);
}

static void fail_soon(struct kube_call *call, const struct err *err)
{
    call->failure = *err;
    loop_timer_arm(call->client->options.loop, &call->timer, 0);
}

/* The answer */

/* The error of an answer that is none of 2xx. */
static void read_error(const struct http_reply *reply, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *status = NULL;
    struct str body = reply->body;
    bool is_status = body.len && !json_parse(arena, body, NULL, &status, NULL) &&
                     str_is(json_text(json_get(status, "kind")), "Status");
    kube_status_error(is_status ? status : NULL, reply->status, err);
    if (!is_status && body.len) {
        /* Aggregated API servers and proxies answer in plain text. */
        struct str line = str_trim(body);
        line = str_trim(str_cut(&line, '\n'));
        if (line.len && str_is_utf8(line))
            err_wrap(err, "%.*s", (int)(line.len < 200 ? line.len : 200), line.ptr);
    }
    if (reply->retry_after_ms)
        err->retry_after_ms = reply->retry_after_ms;
    if (err->retry_after_ms > MAX_RETRY_AFTER_MS)
        err->retry_after_ms = MAX_RETRY_AFTER_MS;
    if (reply->status >= 500 && err->retry_after_ms)
        err->code = ERR_THROTTLED;
}

/* Retry only where the server asks for it; whatever else may have had its effect. */
static bool retry(struct kube_call *call, const struct http_reply *reply, const struct err *err)
{
    if (reply->status == 401 && !call->renewed &&
        kube_config_renewable(call->client->options.config)) {
        call->renewed = true;
        /* Somebody else's renewal since then serves us as well. */
        ask_credentials(call,
                        kube_config_generation(call->client->options.config) == call->generation);
        return true;
    }
    bool asked = (reply->status == 429 || reply->status >= 500) && reply->retry_after_ms > 0;
    if (!asked || call->retries >= MAX_RETRIES)
        return false;
    call->retries++;
    loop_timer_arm(call->client->options.loop, &call->timer, err->retry_after_ms);
    return true;
}

static void on_done(void *context, const struct http_reply *reply, struct err *err)
{
    struct kube_call *call = context;
    call->http = NULL;
    observe(call, reply ? reply->status : err->http_status);
    if (!reply) {
        finish(call, STR_NULL, err);
        return;
    }
    if (reply->status >= 200 && reply->status < 300) {
        struct err none = ERR_INIT;
        finish(call, reply->body, &none);
        return;
    }
    struct err failure = ERR_INIT;
    read_error(reply, &failure);
    if (!retry(call, reply, &failure))
        finish(call, STR_NULL, &failure);
}

static int on_chunk(void *context, struct str bytes, struct err *err)
{
    struct kube_call *call = context;
    observe(call, 200);
    call->busy = true;
    int failed = call->kind->chunk(call, bytes, err);
    call->busy = false;
    if (call->cancelled) {
        call->kind->free(call);
        return ERR_CANCELLED;
    }
    return failed;
}

/* The request */

static void send_with(struct kube_call *call, const struct kube_credentials *credentials)
{
    const struct kube_client_options *o = &call->client->options;
    struct http_header headers[MAX_HEADERS];
    size_t n = 0;
    headers[n++] = (struct http_header){STR("Accept"), str_of(call->accept)};
    if (call->content_type)
        headers[n++] = (struct http_header){STR("Content-Type"), str_of(call->content_type)};
    if (credentials->n_headers > MAX_HEADERS - n) {
        struct err err = ERR_INIT;
        err_set(&err, ERR_INVALID, "more than %zu headers of credentials", MAX_HEADERS - n);
        fail_soon(call, &err);
        return;
    }
    for (size_t i = 0; i < credentials->n_headers; i++)
        headers[n++] = credentials->headers[i];

    _cleanup_(freep) char *url = xasprintf("%s%s", kube_config_server(o->config), call->url_path);
    struct http_request request = {
        .method = call->method,
        .url = url,
        .headers = headers,
        .n_headers = n,
        .body = buf_str(&call->body),
        .tls = credentials->tls,
        .timeout_ms = call->timeout_ms,
        .max_response = call->max_response,
        .urgent = call->urgent,
    };
    struct http_handlers handlers = {
        .on_chunk = call->kind->chunk ? on_chunk : NULL,
        .on_done = on_done,
        .context = call,
    };
    call->generation = credentials->generation;
    call->observed = false;
    call->started_ms = clock_monotonic_ms(loop_clock(o->loop));
    call->http = o->transport->start(o->transport, &request, &handlers);
}

static void on_credentials(void *context, const struct kube_credentials *credentials,
                           struct err *err)
{
    struct kube_call *call = context;
    call->waits_credentials = false;
    if (credentials) {
        send_with(call, credentials);
        return;
    }
    err_wrap(err, "credentials");
    fail_soon(call, err);
}

static void ask_credentials(struct kube_call *call, bool renew)
{
    call->waits_credentials = true; /* first: it may call back at once */
    kube_config_credentials(call->client->options.config, call->client->options.loop, renew,
                            on_credentials, call);
}

void kube_call_start(struct kube_client *c, struct kube_call *call, const struct err *failure)
{
    call->client = c;
    call->timer.fire = fire;
    list_append(&c->calls, &call->node);
    if (failure->code)
        fail_soon(call, failure);
    else
        ask_credentials(call, false);
}
