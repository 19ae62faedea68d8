#include "base/alloc.h"
#include "kube/kube_internal.h"
#include "json/write.h"

const char kube_accept_json[] = "application/json";
const char kube_accept_metadata[] =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const char kube_accept_metadata_list[] =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/* The largest body that an API server takes is 3 MiB. */
enum { MAX_BODY = 4 * 1024 * 1024, MAX_PATH = 64 * 1024 };

struct request_call {
    struct kube_call call; /* first */
    kube_reply done;
    void *context;
    bool discard_reply;
};

void kube_delete_options(struct buf *out, struct str uid)
{
    struct json_writer w = JSON_WRITER(out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "v1");
    json_put_cstr(&w, "kind", "DeleteOptions");
    json_put_cstr(&w, "propagationPolicy", "Background");
    json_begin_object(&w, "preconditions");
    json_put_str(&w, "uid", uid);
    json_end_object(&w);
    json_end_object(&w);
}

void kube_query_add(struct buf *query, const char *name, struct str value)
{
    if (query->len)
        buf_append_char(query, '&');
    buf_append_percent(query, str_of(name));
    buf_append_char(query, '=');
    buf_append_percent(query, value);
}

/* What IsValidPathSegmentName of apimachinery refuses, and nothing else. */
static int add_segment(struct buf *path, struct str segment, struct err *err)
{
    if (!segment.len || str_is(segment, ".") || str_is(segment, "..") ||
        str_find_char(segment, '/') >= 0 || str_find_char(segment, '%') >= 0)
        return err_set(err, ERR_INVALID, "\"%.*s\" cannot be a part of a path", STR_ARG(segment));
    buf_append_char(path, '/');
    buf_append_percent(path, segment);
    return 0;
}

int kube_path(struct buf *path, const struct kube_resource *resource, struct str namespace_,
              struct str name, const char *subresource, struct err *err)
{
    int failed = 0;
    buf_append_cstr(path, resource->group[0] ? "/apis" : "/api");
    if (resource->group[0])
        failed = add_segment(path, str_of(resource->group), err);
    if (!failed)
        failed = add_segment(path, str_of(resource->version), err);
    if (!failed && namespace_.len) {
        buf_append_cstr(path, "/namespaces");
        failed = add_segment(path, namespace_, err);
    }
    if (!failed)
        failed = add_segment(path, str_of(resource->plural), err);
    if (!failed && name.len)
        failed = add_segment(path, name, err);
    if (!failed && subresource)
        failed = add_segment(path, str_of(subresource), err);
    return failed;
}

void kube_call_describe(struct kube_call *call, const char *verb,
                        const struct kube_resource *resource, const char *subresource)
{
    call->verb = verb;
    call->group = xstrdup(resource->group);
    call->resource =
        subresource ? xasprintf("%s/%s", resource->plural, subresource) : xstrdup(resource->plural);
}

int kube_parse_object(struct str text, struct kube_object **ret, struct err *err)
{
    /* The tree of Kubernetes' JSON takes about twice its text. */
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(2 * text.len);
    const struct json *tree;
    int failed = json_parse(arena, text, NULL, &tree, err);
    if (!failed && tree->type != JSON_OBJECT)
        failed = err_set(err, ERR_PROTOCOL, "the API server sent %s, not an object",
                         json_type_name(tree->type));
    if (failed) {
        if (err)
            err->code = ERR_PROTOCOL;
        return ERR_PROTOCOL;
    }
    *ret = kube_object_create(TAKE(arena), tree);
    return 0;
}

static void request_end(struct kube_call *call, struct str body, struct err *err)
{
    struct request_call *r = CONTAINER_OF(call, struct request_call, call);
    _cleanup_(kube_object_unrefp) struct kube_object *object = NULL;
    if (!err->code && !r->discard_reply && kube_parse_object(body, &object, err))
        err_wrap(err, "%s %s", call->method, call->url_path);
    r->done(r->context, object, err);
}

static void request_free(struct kube_call *call)
{
    kube_call_free(call);
}

static const struct kube_call_kind request_kind = {.end = request_end, .free = request_free};

static const struct {
    const char *method, *verb;
    bool named;
} verbs[] = {
    [KUBE_GET] = {"GET", "get", true},         [KUBE_LIST] = {"GET", "list", false},
    [KUBE_CREATE] = {"POST", "create", false}, [KUBE_UPDATE] = {"PUT", "update", true},
    [KUBE_PATCH] = {"PATCH", "patch", true},   [KUBE_DELETE] = {"DELETE", "delete", true},
};

static const char *const patch_types[] = {
    [KUBE_PATCH_JSON] = "application/json-patch+json",
    [KUBE_PATCH_MERGE] = "application/merge-patch+json",
    [KUBE_PATCH_APPLY] = "application/apply-patch+yaml",
};

static const char *accept_for(const struct kube_request *request)
{
    if (!request->metadata_only && !request->discard_reply)
        return kube_accept_json;
    return request->verb == KUBE_LIST ? kube_accept_metadata_list : kube_accept_metadata;
}

static int set_request(struct kube_call *call, const struct kube_request *request, struct err *err)
{
    _cleanup_(buf_finish) struct buf path = BUF_INIT(MAX_PATH);
    /* A create with a name is one of a subresource (pods/x/eviction, serviceaccounts/x/token). */
    bool may_be_named =
        verbs[request->verb].named || (request->verb == KUBE_CREATE && request->subresource);
    if (may_be_named != (request->name.len > 0))
        return err_set(err, ERR_INVALID, "%s of %s %s a name", verbs[request->verb].verb,
                       request->resource->plural, may_be_named ? "needs" : "takes no");
    int failed = kube_path(&path, request->resource, request->namespace_, request->name,
                           request->subresource, err);
    if (!failed && request->query && request->query[0])
        buf_appendf(&path, "?%s", request->query);
    if (!failed)
        failed = buf_error(&path, "the path", err);
    if (failed)
        return failed;
    call->url_path = buf_take(&path);
    buf_append_str(&call->body, request->body);
    return buf_error(&call->body, "the body", err);
}

struct kube_call *kube_send(struct kube_client *c, const struct kube_request *request,
                            kube_reply done, void *context)
{
    struct request_call *r = xcalloc(1, sizeof(*r));
    r->done = done;
    r->context = context;
    r->discard_reply = request->discard_reply;
    struct kube_call *call = &r->call;
    call->kind = &request_kind;
    call->method = verbs[request->verb].method;
    call->accept = accept_for(request);
    call->body = BUF_INIT(MAX_BODY);
    call->timeout_ms = request->timeout_ms;
    call->max_response = request->max_response;
    call->urgent = request->urgent;
    if (request->verb == KUBE_PATCH)
        call->content_type = patch_types[request->patch];
    else if (request->body.len)
        call->content_type = "application/json";
    kube_call_describe(call, verbs[request->verb].verb, request->resource, request->subresource);

    struct err failure = ERR_INIT;
    set_request(call, request, &failure);
    kube_call_start(c, call, &failure);
    return call;
}
