#include "base/alloc.h"
#include "kube/kube_internal.h"

/* How much longer than its timeoutSeconds a watch may last here: then the server, or what is
 * between us, has forgotten it. */
enum { GRACE_MS = 10000, MAX_PATH = 64 * 1024 };

struct watch_call {
    struct kube_call call; /* first */
    struct kube_watch_handlers handlers;
    struct json_stream *stream;
};

static const struct {
    const char *name;
    enum kube_event_type type;
} event_types[] = {
    {"ADDED", KUBE_ADDED},       {"MODIFIED", KUBE_MODIFIED}, {"DELETED", KUBE_DELETED},
    {"BOOKMARK", KUBE_BOOKMARK}, {"ERROR", KUBE_ERROR},
};

int kube_decode_event(struct str text, enum kube_event_type *ret_type,
                      struct kube_object **ret_object, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(2 * text.len);
    const struct json *tree;
    if (json_parse(arena, text, NULL, &tree, err)) {
        if (err)
            err->code = ERR_PROTOCOL;
        return ERR_PROTOCOL;
    }
    const struct json *object = json_get(tree, "object");
    if (!object || object->type != JSON_OBJECT)
        return err_set(err, ERR_PROTOCOL, "a watch event without an object");
    struct str name = json_text(json_get(tree, "type"));
    for (size_t i = 0; i < ARRAY_SIZE(event_types); i++) {
        if (!str_is(name, event_types[i].name))
            continue;
        *ret_type = event_types[i].type;
        *ret_object = kube_object_create(TAKE(arena), object);
        return 0;
    }
    return err_set(err, ERR_PROTOCOL, "a watch event of type \"%.*s\"", STR_ARG(name));
}

static int on_document(void *context, struct str text, struct err *err)
{
    struct watch_call *w = context;
    enum kube_event_type type;
    _cleanup_(kube_object_unrefp) struct kube_object *object = NULL;
    int failed = kube_decode_event(text, &type, &object, err);
    if (!object)
        return failed;
    struct err status_err = ERR_INIT;
    if (type == KUBE_ERROR)
        kube_status_error(object->tree, 0, &status_err);
    w->handlers.event(w->handlers.context, type, object, &status_err);
    return w->call.cancelled ? ERR_CANCELLED : 0;
}

static int watch_chunk(struct kube_call *call, struct str bytes, struct err *err)
{
    struct watch_call *w = CONTAINER_OF(call, struct watch_call, call);
    return json_stream_feed(w->stream, bytes, err);
}

static void watch_end(struct kube_call *call, struct str body, struct err *err)
{
    struct watch_call *w = CONTAINER_OF(call, struct watch_call, call);
    (void)body;
    if (!err->code)
        json_stream_end(w->stream, err);
    w->handlers.end(w->handlers.context, err->code ? err : NULL);
}

static void watch_free(struct kube_call *call)
{
    struct watch_call *w = CONTAINER_OF(call, struct watch_call, call);
    json_stream_destroy(w->stream);
    kube_call_free(call);
}

static const struct kube_call_kind watch_kind = {
    .chunk = watch_chunk, .end = watch_end, .free = watch_free};

static int set_watch(struct kube_call *call, const struct kube_watch_options *o, struct err *err)
{
    _cleanup_(buf_finish) struct buf path = BUF_INIT(MAX_PATH);
    _cleanup_(buf_finish) struct buf query = BUF_INIT(MAX_PATH);
    char seconds[24];
    snprintf(seconds, sizeof(seconds), "%lld", (long long)o->timeout_s);
    kube_query_add(&query, "watch", STR("true"));
    kube_query_add(&query, "allowWatchBookmarks", STR("true"));
    if (o->send_initial_events) {
        kube_query_add(&query, "sendInitialEvents", STR("true"));
        kube_query_add(&query, "resourceVersionMatch", STR("NotOlderThan"));
    }
    if (o->resource_version && o->resource_version[0])
        kube_query_add(&query, "resourceVersion", str_of(o->resource_version));
    if (o->label_selector && o->label_selector[0])
        kube_query_add(&query, "labelSelector", str_of(o->label_selector));
    if (o->field_selector && o->field_selector[0])
        kube_query_add(&query, "fieldSelector", str_of(o->field_selector));
    kube_query_add(&query, "timeoutSeconds", str_of(seconds));
    int failed = kube_path(&path, o->resource, o->namespace_, STR_NULL, NULL, err);
    if (failed)
        return failed;
    buf_appendf(&path, "?%s", buf_cstr(&query));
    if (buf_error(&query, "the query", err) || buf_error(&path, "the path", err))
        return ERR_TOO_LARGE;
    call->url_path = buf_take(&path);
    return 0;
}

struct kube_call *kube_watch(struct kube_client *c, const struct kube_watch_options *options,
                             const struct kube_watch_handlers *handlers)
{
    struct watch_call *w = xcalloc(1, sizeof(*w));
    w->handlers = *handlers;
    w->stream = json_stream_create(NULL, on_document, w);
    struct kube_call *call = &w->call;
    call->kind = &watch_kind;
    call->method = "GET";
    call->accept = options->metadata_only ? kube_accept_metadata : kube_accept_json;
    call->timeout_ms = options->timeout_s * 1000 + GRACE_MS;
    call->max_response = SIZE_MAX; /* each document has its cap */
    kube_call_describe(call, "watch", options->resource, NULL);

    struct err failure = ERR_INIT;
    if (options->timeout_s <= 0)
        err_set(&failure, ERR_INVALID, "a watch needs its timeout");
    else
        set_watch(call, options, &failure);
    kube_call_start(c, call, &failure);
    return call;
}
