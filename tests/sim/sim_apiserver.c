#include "sim_apiserver.h"

#include "base/alloc.h"
#include "sim_internal.h"

static void call_free(struct http_call *call)
{
    struct loop *l = call->server->loop;
    loop_timer_disarm(l, &call->timer);
    loop_timer_disarm(l, &call->deadline);
    list_remove(&call->node);
    call->gone = true;
    if (call->busy)
        return; /* the handler on the stack is ours; deliver() frees */
    free(call->method);
    free(call->path);
    free(call->query);
    free(call->accept);
    free(call->content_type);
    free(call->labels);
    free(call->fields);
    free(call->namespace_);
    buf_finish(&call->body);
    buf_finish(&call->answer.body);
    buf_finish(&call->out);
    free(call);
}

void sim_call_fail(struct http_call *call, int code, const char *message)
{
    struct http_handlers handlers = call->handlers;
    struct err err = ERR_INIT;
    err_set(&err, code, "%s", message);
    call_free(call);
    handlers.on_done(handlers.context, NULL, &err);
}

bool sim_call_deliver(struct http_call *call, struct str bytes)
{
    struct err err = ERR_INIT;
    call->busy = true;
    int failed = call->handlers.on_chunk(call->handlers.context, bytes, &err);
    call->busy = false;
    if (call->gone) {
        call_free(call);
        return false;
    }
    if (failed)
        sim_call_fail(call, failed, err.message);
    return !failed;
}

void sim_call_go(struct http_call *call, enum sim_call_state state)
{
    struct sim_apiserver *s = call->server;
    call->state = state;
    int64_t most = s->faults.max_latency_ms;
    loop_timer_arm(s->loop, &call->timer,
                   most > 0 ? (int64_t)random_below(s->random, (uint64_t)most + 1) : 0);
}

static void break_later(struct http_call *call, const char *message)
{
    err_set(&call->failure, ERR_IO, "%s", message);
    sim_call_go(call, SIM_ANSWERING);
}

static void arrived(struct http_call *call)
{
    struct sim_apiserver *s = call->server;
    s->counts.requests++;
    if (clock_monotonic_ms(loop_clock(s->loop)) < s->down_until_ms) {
        break_later(call, "Failed to connect: Connection refused");
    } else if (sim_chance(s, s->faults.lost)) {
        break_later(call, "Connection reset by peer");
    } else if (sim_chance(s, s->faults.hung)) {
        call->state = SIM_HANGING; /* the deadline ends it */
    } else if (sim_chance(s, s->faults.throttled)) {
        call->answer = (struct sim_answer){.retry_after_ms = 1000, .body = BUF_INIT(SIM_MAX_TEXT)};
        sim_answer_status(&call->answer, 429, "TooManyRequests", "slow down", NULL);
        sim_call_go(call, SIM_ANSWERING);
    } else if (sim_chance(s, s->faults.failed)) {
        call->answer.body = BUF_INIT(SIM_MAX_TEXT);
        sim_answer_status(&call->answer, 500, "InternalError", "etcd is away", NULL);
        sim_call_go(call, SIM_ANSWERING);
    } else if (sim_is_watch(call)) {
        sim_watch_begin(call);
    } else {
        struct sim_request request = {call->method, call->path,         call->query,
                                      call->accept, call->content_type, buf_str(&call->body)};
        sim_answer(s, &request, &call->answer, true);
        if (sim_chance(s, s->faults.answer_lost))
            err_set(&call->failure, ERR_IO, "Connection reset by peer");
        sim_call_go(call, SIM_ANSWERING);
    }
}

static void answered(struct http_call *call)
{
    if (call->failure.code) {
        sim_call_fail(call, call->failure.code, call->failure.message);
        return;
    }
    struct http_reply reply = {
        .status = call->answer.status,
        .retry_after_ms = call->answer.retry_after_ms,
        .body = buf_str(&call->answer.body),
        .content_type = "application/json",
    };
    if (call->handlers.on_chunk && reply.status / 100 == 2) {
        size_t half = reply.body.len / 2; /* so that no reader counts on one piece */
        if (half && !sim_call_deliver(call, str_sub(reply.body, 0, half)))
            return;
        if (!sim_call_deliver(call, str_sub(reply.body, half, reply.body.len)))
            return;
        reply.body = STR_NULL;
    }
    struct http_handlers handlers = call->handlers;
    struct buf body = call->answer.body;
    call->answer.body = (struct buf){0};
    call_free(call);
    struct err err = ERR_INIT;
    handlers.on_done(handlers.context, &reply, &err);
    buf_finish(&body);
}

static void ended(struct http_call *call)
{
    struct http_handlers handlers = call->handlers;
    call_free(call);
    struct http_reply reply = {.status = 200, .content_type = "application/json"};
    struct err err = ERR_INIT;
    handlers.on_done(handlers.context, &reply, &err);
}

static void timer_fired(struct loop_timer *timer)
{
    struct http_call *call = CONTAINER_OF(timer, struct http_call, timer);
    switch (call->state) {
    case SIM_ARRIVING:
        arrived(call);
        break;
    case SIM_ANSWERING:
        answered(call);
        break;
    case SIM_WATCHING:
        sim_watch_pump(call);
        break;
    case SIM_ENDING:
        ended(call);
        break;
    case SIM_HANGING:
        break;
    }
}

static void deadline_passed(struct loop_timer *timer)
{
    struct http_call *call = CONTAINER_OF(timer, struct http_call, deadline);
    sim_call_fail(call, ERR_TIMEOUT, "Operation timed out");
}

/* The path and query behind scheme and host. */
static void split_url(struct http_call *call, const char *url)
{
    const char *host = strstr(url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    struct str rest = str_of(path ? path : "/");
    call->path = str_dup(str_cut(&rest, '?'));
    call->query = str_dup(rest);
}

static char *header(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->n_headers; i++)
        if (str_is(request->headers[i].name, name))
            return str_dup(request->headers[i].value);
    return xstrdup("");
}

static struct http_call *call_start(struct transport *self, const struct http_request *request,
                                    const struct http_handlers *handlers)
{
    struct sim_apiserver *s = CONTAINER_OF(self, struct sim_apiserver, transport);
    struct http_call *call = xcalloc(1, sizeof(*call));
    call->server = s;
    call->handlers = *handlers;
    call->timer.fire = timer_fired;
    call->deadline.fire = deadline_passed;
    call->method = xstrdup(request->method);
    split_url(call, request->url);
    call->accept = header(request, "Accept");
    call->content_type = header(request, "Content-Type");
    call->body = BUF_INIT(SIM_MAX_TEXT);
    buf_append_str(&call->body, request->body);
    list_append(&s->calls, &call->node);
    loop_timer_arm(s->loop, &call->deadline, request->timeout_ms ? request->timeout_ms : 30000);
    sim_call_go(call, SIM_ARRIVING);
    return call;
}

static void call_cancel(struct transport *self, struct http_call *call)
{
    (void)self;
    call_free(call);
}

struct sim_apiserver *sim_apiserver_create(struct loop *loop, struct random_source *random)
{
    struct sim_apiserver *s = xcalloc(1, sizeof(*s));
    s->transport = (struct transport){.start = call_start, .cancel = call_cancel};
    s->loop = loop;
    s->random = random;
    list_init(&s->calls);
    sim_store_init(&s->store, loop_clock(loop));
    return s;
}

void sim_apiserver_destroy(struct sim_apiserver *s)
{
    if (!s)
        return;
    while (!list_empty(&s->calls))
        call_free(CONTAINER_OF(s->calls.next, struct http_call, node));
    sim_store_finish(&s->store);
    free(s);
}

struct transport *sim_apiserver_transport(struct sim_apiserver *s)
{
    return &s->transport;
}

void sim_apiserver_add_kind(struct sim_apiserver *s, const struct sim_kind *kind)
{
    if (s->n_kinds == SIM_MAX_KINDS)
        abort(); /* a mistake of the test */
    s->kinds[s->n_kinds++] = kind;
}

void sim_apiserver_set_faults(struct sim_apiserver *s, const struct sim_faults *faults)
{
    s->faults = *faults;
}

void sim_apiserver_set_watch_list(struct sim_apiserver *s, bool offered)
{
    s->no_watch_list = !offered;
}

struct sim_store *sim_apiserver_store(struct sim_apiserver *s)
{
    return &s->store;
}

void sim_apiserver_restart(struct sim_apiserver *s, int64_t down_ms)
{
    s->down_until_ms = clock_monotonic_ms(loop_clock(s->loop)) + down_ms;
    LIST_FOREACH(&s->calls, node)
    {
        struct http_call *call = CONTAINER_OF(node, struct http_call, node);
        if (call->state != SIM_ARRIVING)
            break_later(call, "Connection reset by peer");
    }
}

void sim_apiserver_compact(struct sim_apiserver *s)
{
    s->store.compacted = s->store.version;
}

void sim_apiserver_set_hook(struct sim_apiserver *s, sim_hook hook, void *context)
{
    s->hook = hook;
    s->hook_context = context;
}

int sim_do(struct sim_apiserver *s, const char *method, const char *path, const char *content_type,
           const char *body, struct buf *reply)
{
    struct str query = str_of(path), bare = str_cut(&query, '?');
    _cleanup_(freep) char *only_path = str_dup(bare);
    _cleanup_(freep) char *only_query = str_dup(query);
    struct sim_request request = {method,       only_path,   only_query, "application/json",
                                  content_type, str_of(body)};
    struct sim_answer answer = {0};
    sim_hook hook = s->hook; /* it is for the program under test */
    s->hook = NULL;
    sim_answer(s, &request, &answer, false);
    s->hook = hook;
    if (reply)
        buf_append_str(reply, buf_str(&answer.body));
    buf_finish(&answer.body);
    return answer.status;
}

struct sim_counts sim_apiserver_counts(const struct sim_apiserver *s)
{
    struct sim_counts counts = s->counts;
    counts.open = 0;
    LIST_FOREACH(&s->calls, node) counts.open++;
    return counts;
}
