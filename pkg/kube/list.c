#include "base/alloc.h"
#include "kube/kube_internal.h"

enum { MAX_PATH = 64 * 1024, MAX_ITEM = 4 * 1024 * 1024 };
static const size_t max_list = 1024 * 1024 * 1024;

struct list_call {
    struct kube_call call; /* first */
    struct kube_list_handlers handlers;
    struct kube_list_split *split;
};

static int on_item(void *context, struct str text, struct err *err)
{
    struct list_call *l = context;
    _cleanup_(kube_object_unrefp) struct kube_object *object = NULL;
    int failed = kube_parse_object(text, &object, err);
    if (failed)
        return failed;
    l->handlers.item(l->handlers.context, object);
    return l->call.cancelled ? ERR_CANCELLED : 0;
}

static int list_chunk(struct kube_call *call, struct str bytes, struct err *err)
{
    struct list_call *l = CONTAINER_OF(call, struct list_call, call);
    return kube_list_split_feed(l->split, bytes, err);
}

static void list_end(struct kube_call *call, struct str body, struct err *err)
{
    struct list_call *l = CONTAINER_OF(call, struct list_call, call);
    (void)body;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *envelope = NULL;
    if (!err->code && json_parse(arena, kube_list_split_envelope(l->split), NULL, &envelope, err))
        err->code = ERR_PROTOCOL;
    const struct json *metadata = json_get(envelope, "metadata");
    if (!err->code && !metadata)
        err_set(err, ERR_PROTOCOL, "the API server sent no list");
    l->handlers.end(l->handlers.context, json_text(json_get(metadata, "resourceVersion")),
                    json_text(json_get(metadata, "continue")), err->code ? err : NULL);
}

static void list_free(struct kube_call *call)
{
    struct list_call *l = CONTAINER_OF(call, struct list_call, call);
    kube_list_split_destroy(l->split);
    kube_call_free(call);
}

static const struct kube_call_kind list_kind = {
    .chunk = list_chunk, .end = list_end, .free = list_free};

static void add_if(struct buf *query, const char *name, const char *value)
{
    if (value && value[0])
        kube_query_add(query, name, str_of(value));
}

static int set_list(struct kube_call *call, const struct kube_list_options *o, struct err *err)
{
    _cleanup_(buf_finish) struct buf path = BUF_INIT(MAX_PATH);
    _cleanup_(buf_finish) struct buf query = BUF_INIT(MAX_PATH);
    char limit[24] = "";
    if (o->limit > 0)
        snprintf(limit, sizeof(limit), "%lld", (long long)o->limit);
    add_if(&query, "limit", limit);
    add_if(&query, "continue", o->continue_token);
    add_if(&query, "resourceVersion", o->resource_version);
    add_if(&query, "resourceVersionMatch", o->resource_version_match);
    add_if(&query, "labelSelector", o->label_selector);
    add_if(&query, "fieldSelector", o->field_selector);
    int failed = kube_path(&path, o->resource, o->namespace_, STR_NULL, NULL, err);
    if (failed)
        return failed;
    if (query.len)
        buf_appendf(&path, "?%s", buf_cstr(&query));
    if (buf_error(&query, "the query", err) || buf_error(&path, "the path", err))
        return ERR_TOO_LARGE;
    call->url_path = buf_take(&path);
    return 0;
}

struct kube_call *kube_list(struct kube_client *c, const struct kube_list_options *options,
                            const struct kube_list_handlers *handlers)
{
    struct list_call *l = xcalloc(1, sizeof(*l));
    l->handlers = *handlers;
    l->split = kube_list_split_create(MAX_ITEM, on_item, l);
    struct kube_call *call = &l->call;
    call->kind = &list_kind;
    call->method = "GET";
    call->accept = options->metadata_only ? kube_accept_metadata_list : kube_accept_json;
    call->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : 120 * 1000;
    call->max_response = max_list;
    kube_call_describe(call, "list", options->resource, NULL);

    struct err failure = ERR_INIT;
    set_list(call, options, &failure);
    kube_call_start(c, call, &failure);
    return call;
}
