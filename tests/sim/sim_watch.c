#include "base/alloc.h"
#include "sim_internal.h"
#include "sim_json.h"
#include "json/write.h"

enum { BOOKMARK_MS = 60 * 1000 };

bool sim_is_watch(const struct http_call *call)
{
    _cleanup_(freep) char *watch = sim_parameter(call->query, "watch");
    return watch && (strcmp(watch, "true") == 0 || strcmp(watch, "1") == 0);
}

static int64_t now_ms(const struct http_call *call)
{
    return clock_monotonic_ms(loop_clock(call->server->loop));
}

static void put_event(struct http_call *call, const char *type, struct str object)
{
    struct json_writer w = JSON_WRITER(&call->out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "type", type);
    json_put_raw(&w, "object", object);
    json_end_object(&w);
    buf_append_char(&call->out, '\n');
}

static void put_object_event(struct http_call *call, const char *type,
                             const struct kube_object *object)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(SIM_MAX_TEXT);
    sim_put_object(&text, object, call->metadata_only);
    put_event(call, type, buf_str(&text));
}

static void put_bookmark(struct http_call *call, bool ends_initial)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(SIM_MAX_TEXT);
    struct json_writer w = JSON_WRITER(&text);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "kind", call->selector.kind->kind);
    json_begin_object(&w, "metadata");
    json_putf(&w, "resourceVersion", "%lld", (long long)call->position);
    if (ends_initial) {
        json_begin_object(&w, "annotations");
        json_put_cstr(&w, "k8s.io/initial-events-end", "true");
        json_end_object(&w);
    }
    json_end_object(&w);
    json_end_object(&w);
    put_event(call, "BOOKMARK", buf_str(&text));
    call->bookmark_ms = now_ms(call) + BOOKMARK_MS;
}

static void put_error(struct http_call *call, int code, const char *reason)
{
    struct sim_answer status = {.body = BUF_INIT(SIM_MAX_TEXT)};
    sim_answer_status(&status, code, reason, "of the watch", NULL);
    put_event(call, "ERROR", buf_str(&status.body));
    buf_finish(&status.body);
}

/* The last state that was selected, with the version of the change that took it away. */
static void put_gone(struct http_call *call, const struct sim_change *c)
{
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    char version[24];
    snprintf(version, sizeof(version), "%lld", (long long)c->version);
    struct kube_object last = *c->before;
    last.tree = sim_json_set2(a, last.tree, "metadata", "resourceVersion",
                              sim_json_text(a, str_of(version)));
    put_object_event(call, "DELETED", &last);
}

/* A change as this watch sees it: what enters or leaves its selection is added or deleted. */
static void put_change(struct http_call *call, const struct sim_change *c)
{
    bool was = c->before && sim_selector_matches(&call->selector, c->before);
    bool is = c->after && sim_selector_matches(&call->selector, c->after);
    if (is)
        put_object_event(call, was ? "MODIFIED" : "ADDED", c->after);
    else if (was)
        put_gone(call, c);
}

static void put_initial(struct http_call *call, bool with_end)
{
    struct sim_store *store = &call->server->store;
    size_t n;
    struct kube_object **found = sim_store_list(store, &call->selector, store->version, &n);
    for (size_t i = 0; i < n; i++)
        put_object_event(call, "ADDED", found[i]);
    free(found);
    call->position = store->version;
    if (with_end)
        put_bookmark(call, true);
}

/* Begins the stream by its parameters. Returns false when it was answered with an error. */
static bool choose_start(struct http_call *call)
{
    struct sim_apiserver *s = call->server;
    _cleanup_(freep) char *version = sim_parameter(call->query, "resourceVersion");
    _cleanup_(freep) char *initial = sim_parameter(call->query, "sendInitialEvents");
    int64_t at = 0;
    if (version && version[0] && str_to_i64(str_of(version), 0, INT64_MAX, &at)) {
        sim_answer_status(&call->answer, 400, "BadRequest", "invalid resource version", NULL);
        return false;
    }
    if (initial && s->no_watch_list) {
        sim_answer_status(&call->answer, 422, "Invalid",
                          "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch "
                          "unless the WatchList feature gate is enabled",
                          NULL);
        return false;
    }
    if (at > s->store.version) {
        sim_answer_status(&call->answer, 504, "Timeout", "Too large resource version",
                          "ResourceVersionTooLarge");
        return false;
    }
    if (initial || at == 0) {
        put_initial(call, initial != NULL);
        return true;
    }
    call->position = at;
    if (at >= s->store.compacted && !sim_chance(s, s->faults.expired))
        return true;
    if (random_below(s->random, 2)) {
        sim_answer_status(&call->answer, 410, "Expired", "too old resource version", NULL);
        return false;
    }
    put_error(call, 410, "Expired");
    call->end_ms = now_ms(call);
    return true;
}

void sim_watch_begin(struct http_call *call)
{
    struct sim_apiserver *s = call->server;
    struct sim_target target;
    struct err err = ERR_INIT;
    s->counts.watches++;
    call->answer.body = BUF_INIT(SIM_MAX_TEXT);
    if (sim_find_target(s, call->path, &target)) {
        sim_answer_status(&call->answer, 404, "NotFound", "the server could not find the resource",
                          NULL);
        sim_call_go(call, SIM_ANSWERING);
        return;
    }
    call->labels = sim_parameter(call->query, "labelSelector");
    call->fields = sim_parameter(call->query, "fieldSelector");
    call->namespace_ = str_dup(target.namespace_);
    call->selector = (struct sim_selector){target.kind, str_of(call->namespace_),
                                           str_of(call->labels), str_of(call->fields)};
    call->metadata_only = strstr(call->accept, "as=PartialObjectMetadata");
    call->out = BUF_INIT(SIM_MAX_TEXT);
    _cleanup_(freep) char *seconds = sim_parameter(call->query, "timeoutSeconds");
    int64_t timeout_s = 1800;
    if (seconds)
        str_to_i64(str_of(seconds), 0, INT32_MAX, &timeout_s);
    call->end_ms = now_ms(call) + timeout_s * 1000;
    call->bookmark_ms = now_ms(call) + BOOKMARK_MS;
    if (sim_selector_check(&call->selector, &err)) {
        sim_answer_status(&call->answer, 400, "BadRequest", err.message, NULL);
        sim_call_go(call, SIM_ANSWERING);
    } else if (sim_chance(s, s->faults.short_watch)) {
        sim_call_go(call, SIM_ENDING);
    } else {
        sim_call_go(call, choose_start(call) ? SIM_WATCHING : SIM_ANSWERING);
    }
}

void sim_watch_poke(struct sim_apiserver *s)
{
    if (sim_chance(s, s->faults.compacted))
        s->store.compacted = s->store.version;
    LIST_FOREACH(&s->calls, node)
    {
        struct http_call *call = CONTAINER_OF(node, struct http_call, node);
        if (call->state == SIM_WATCHING)
            sim_call_go(call, SIM_WATCHING);
    }
}

/* Puts what happened since into `out`. */
static void collect(struct http_call *call)
{
    struct sim_apiserver *s = call->server;
    for (size_t i = 0; i < s->store.n_changes; i++) {
        const struct sim_change *c = &s->store.changes[i];
        if (c->version <= call->position)
            continue;
        call->position = c->version;
        if (c->kind != call->selector.kind)
            continue;
        if (sim_chance(s, s->faults.error_event)) {
            put_error(call, 500, "InternalError");
            call->end_ms = now_ms(call);
            return;
        }
        put_change(call, c);
    }
    if (now_ms(call) >= call->bookmark_ms)
        put_bookmark(call, false);
}

/* In pieces that end anywhere, as TCP's do. */
static bool deliver(struct http_call *call)
{
    struct sim_apiserver *s = call->server;
    bool cut = call->out.len && sim_chance(s, s->faults.cut);
    _cleanup_(freep) char *bytes = NULL;
    size_t len = call->out.len, at = 0;
    if (cut)
        len = random_below(s->random, len);
    bytes = buf_take(&call->out);
    while (at < len) {
        size_t piece = 1 + random_below(s->random, 2 * (len - at));
        if (piece > len - at)
            piece = len - at;
        if (!sim_call_deliver(call, (struct str){bytes + at, piece}))
            return false;
        at += piece;
    }
    if (!cut)
        return true;
    sim_call_fail(call, ERR_IO, "transfer closed with outstanding read data remaining");
    return false;
}

void sim_watch_pump(struct http_call *call)
{
    if (now_ms(call) < call->end_ms)
        collect(call);
    if (!deliver(call))
        return;
    if (now_ms(call) >= call->end_ms) {
        sim_call_go(call, SIM_ENDING);
        return;
    }
    int64_t next = call->end_ms < call->bookmark_ms ? call->end_ms : call->bookmark_ms;
    loop_timer_arm(call->server->loop, &call->timer, next - now_ms(call));
}
