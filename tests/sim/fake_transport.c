#include "fake_transport.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/list.h"

enum step_type { STEP_WAIT, STEP_CHUNK, STEP_END, STEP_REPLY, STEP_FAIL };

struct step {
    struct list node;
    enum step_type type;
    int64_t ms; /* to wait; of Retry-After */
    int code;   /* HTTP status or error */
    char *text;
};

struct expectation {
    struct list node, steps;
    char *method, *path;
};

struct fake_transport {
    struct transport transport;
    struct loop *loop;
    struct list expected, calls;
    struct fake_sent sent;
    struct http_header *headers;
    size_t n_headers;
    char *joined;
};

struct http_call {
    struct list node, steps;
    struct fake_transport *owner;
    struct http_handlers handlers;
    struct loop_timer timer;
    bool busy, gone;
};

static void free_steps(struct list *steps)
{
    for (struct list *node; (node = list_pop(steps));) {
        struct step *s = CONTAINER_OF(node, struct step, node);
        free(s->text);
        free(s);
    }
}

static void expectation_free(struct expectation *e)
{
    list_remove(&e->node);
    free_steps(&e->steps);
    free(e->method);
    free(e->path);
    free(e);
}

static void call_free(struct http_call *call)
{
    loop_timer_disarm(call->owner->loop, &call->timer);
    list_remove(&call->node);
    call->gone = true;
    if (call->busy)
        return; /* play() frees */
    free_steps(&call->steps);
    free(call);
}

static void finish(struct http_call *call, const struct http_reply *reply, struct err *err)
{
    struct http_handlers handlers = call->handlers;
    call_free(call);
    handlers.on_done(handlers.context, reply, err);
}

static void chunk(struct http_call *call, struct str bytes)
{
    struct err err = ERR_INIT;
    call->busy = true;
    int failed = call->handlers.on_chunk(call->handlers.context, bytes, &err);
    call->busy = false;
    if (call->gone)
        call_free(call);
    else if (failed)
        finish(call, NULL, &err);
    else
        loop_timer_arm(call->owner->loop, &call->timer, 0);
}

static void play_step(struct http_call *call, struct step *s)
{
    struct err err = ERR_INIT;
    struct http_reply reply = {.status = s->code,
                               .retry_after_ms = s->ms,
                               .body = str_of(s->text),
                               .content_type = "application/json"};
    bool streamed = call->handlers.on_chunk && reply.status / 100 == 2;
    switch (s->type) {
    case STEP_WAIT:
        loop_timer_arm(call->owner->loop, &call->timer, s->ms);
        break;
    case STEP_CHUNK:
        assert_non_null(call->handlers.on_chunk);
        chunk(call, str_of(s->text));
        break;
    case STEP_REPLY:
        if (streamed && reply.body.len) {
            /* As a stream: the rest of this step is the end of one. */
            struct step *end = xcalloc(1, sizeof(*end));
            end->type = STEP_END;
            end->code = s->code;
            list_append(&call->steps, &end->node);
            chunk(call, reply.body);
        } else {
            finish(call, &reply, &err);
        }
        break;
    case STEP_END:
        reply.body = STR_NULL;
        finish(call, &reply, &err);
        break;
    case STEP_FAIL:
        err_set(&err, s->code, "%s", s->text);
        finish(call, NULL, &err);
        break;
    }
}

static void play(struct loop_timer *timer)
{
    struct http_call *call = CONTAINER_OF(timer, struct http_call, timer);
    struct list *node = list_pop(&call->steps);
    if (!node)
        return; /* stays open */
    struct step *s = CONTAINER_OF(node, struct step, node);
    play_step(call, s);
    free(s->text);
    free(s);
}

static bool is_expected(const struct expectation *e, const struct http_request *request)
{
    const char *host = strstr(request->url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    struct str want = str_of(e->path);
    if (strcmp(e->method, request->method) != 0)
        return false;
    if (!e->path)
        return true;
    if (str_ends_with(want, STR("*")))
        return str_starts_with(str_of(path), str_sub(want, 0, want.len - 1));
    return path && strcmp(path, e->path) == 0;
}

static void forget_sent(struct fake_transport *f)
{
    free(f->sent.method);
    free(f->sent.url);
    free(f->sent.body);
    for (size_t i = 0; i < f->n_headers; i++) {
        free((char *)f->headers[i].name.ptr);
        free((char *)f->headers[i].value.ptr);
    }
    free(f->headers);
    f->headers = NULL;
    f->n_headers = 0;
}

static struct str copy(struct str s)
{
    return (struct str){str_dup(s), s.len};
}

static void remember(struct fake_transport *f, const struct http_request *request)
{
    forget_sent(f);
    f->sent = (struct fake_sent){xstrdup(request->method), xstrdup(request->url),
                                 str_dup(request->body), request->timeout_ms, request->urgent};
    f->headers = xcalloc(request->n_headers + 1, sizeof(*f->headers));
    for (; f->n_headers < request->n_headers; f->n_headers++) {
        const struct http_header *h = &request->headers[f->n_headers];
        f->headers[f->n_headers] = (struct http_header){copy(h->name), copy(h->value)};
    }
}

static struct http_call *call_start(struct transport *self, const struct http_request *request,
                                    const struct http_handlers *handlers)
{
    struct fake_transport *f = CONTAINER_OF(self, struct fake_transport, transport);
    if (list_empty(&f->expected))
        fail_msg("no request is expected, but: %s %s", request->method, request->url);
    struct expectation *e = CONTAINER_OF(f->expected.next, struct expectation, node);
    if (!is_expected(e, request))
        fail_msg("expected: %s %s\n       got: %s %s", e->method, e->path ? e->path : "(any)",
                 request->method, request->url);
    remember(f, request);
    struct http_call *call = xcalloc(1, sizeof(*call));
    call->owner = f;
    call->handlers = *handlers;
    call->timer.fire = play;
    list_init(&call->steps);
    for (struct list *node; (node = list_pop(&e->steps));)
        list_append(&call->steps, node);
    expectation_free(e);
    list_append(&f->calls, &call->node);
    loop_timer_arm(f->loop, &call->timer, 0);
    return call;
}

static void call_cancel(struct transport *self, struct http_call *call)
{
    (void)self;
    call_free(call);
}

struct fake_transport *fake_transport_create(struct loop *loop)
{
    struct fake_transport *f = xcalloc(1, sizeof(*f));
    f->transport = (struct transport){.start = call_start, .cancel = call_cancel};
    f->loop = loop;
    list_init(&f->expected);
    list_init(&f->calls);
    return f;
}

void fake_transport_destroy(struct fake_transport *f)
{
    while (!list_empty(&f->expected))
        expectation_free(CONTAINER_OF(f->expected.next, struct expectation, node));
    while (!list_empty(&f->calls))
        call_free(CONTAINER_OF(f->calls.next, struct http_call, node));
    forget_sent(f);
    free(f->joined);
    free(f);
}

struct transport *fake_transport(struct fake_transport *f)
{
    return &f->transport;
}

void fake_expect(struct fake_transport *f, const char *method, const char *path)
{
    struct expectation *e = xcalloc(1, sizeof(*e));
    e->method = xstrdup(method);
    e->path = path ? xstrdup(path) : NULL;
    list_init(&e->steps);
    list_append(&f->expected, &e->node);
}

static void add_step(struct fake_transport *f, enum step_type type, int code, int64_t ms,
                     const char *text)
{
    assert_false(list_empty(&f->expected)); /* expect first */
    struct expectation *e = CONTAINER_OF(f->expected.prev, struct expectation, node);
    struct step *s = xcalloc(1, sizeof(*s));
    s->type = type;
    s->code = code;
    s->ms = ms;
    s->text = xstrdup(text);
    list_append(&e->steps, &s->node);
}

void fake_wait(struct fake_transport *f, int64_t ms)
{
    add_step(f, STEP_WAIT, 0, ms, "");
}

void fake_chunk(struct fake_transport *f, const char *text)
{
    add_step(f, STEP_CHUNK, 200, 0, text);
}

void fake_end(struct fake_transport *f)
{
    add_step(f, STEP_END, 200, 0, "");
}

void fake_reply(struct fake_transport *f, int status, const char *body)
{
    add_step(f, STEP_REPLY, status, 0, body);
}

void fake_reply_later(struct fake_transport *f, int status, int64_t retry_after_ms,
                      const char *body)
{
    add_step(f, STEP_REPLY, status, retry_after_ms, body);
}

void fake_fail(struct fake_transport *f, int code, const char *message)
{
    add_step(f, STEP_FAIL, code, 0, message);
}

void fake_status(struct fake_transport *f, int status, const char *reason)
{
    _cleanup_(freep) char *body = xasprintf(
        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"reason\":\"%s\","
        "\"message\":\"because of %s\",\"code\":%d}",
        reason, reason, status);
    fake_reply(f, status, body);
}

static size_t count(const struct list *l)
{
    size_t n = 0;
    for (const struct list *node = l->next; node != l; node = node->next)
        n++;
    return n;
}

size_t fake_expected(const struct fake_transport *f)
{
    return count(&f->expected);
}

size_t fake_open(const struct fake_transport *f)
{
    return count(&f->calls);
}

const struct fake_sent *fake_sent(const struct fake_transport *f)
{
    return &f->sent;
}

const char *fake_sent_header(const struct fake_transport *f, const char *name)
{
    struct fake_transport *own = (struct fake_transport *)f;
    _cleanup_(buf_finish) struct buf joined = BUF_INIT(1024 * 1024);
    for (size_t i = 0; i < f->n_headers; i++) {
        if (!str_is(f->headers[i].name, name))
            continue;
        if (joined.len)
            buf_append_cstr(&joined, ", ");
        buf_append_str(&joined, f->headers[i].value);
    }
    free(own->joined);
    own->joined = xstrdup(buf_cstr(&joined));
    return own->joined;
}
