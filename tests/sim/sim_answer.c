#include "base/alloc.h"
#include "sim_internal.h"
#include "sim_json.h"
#include "json/write.h"

bool sim_chance(struct sim_apiserver *s, unsigned per_mille)
{
    if (!per_mille || random_below(s->random, 1000) >= per_mille)
        return false;
    s->counts.faults++;
    return true;
}

void sim_answer_status(struct sim_answer *answer, int status, const char *reason,
                       const char *message, const char *cause)
{
    answer->status = status;
    buf_clear(&answer->body);
    struct json_writer w = JSON_WRITER(&answer->body);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "kind", "Status");
    json_put_cstr(&w, "apiVersion", "v1");
    json_put_cstr(&w, "status", status < 400 ? "Success" : "Failure");
    json_put_cstr(&w, "reason", reason);
    json_put_cstr(&w, "message", message);
    json_put_int(&w, "code", status);
    if (cause) {
        json_begin_object(&w, "details");
        json_begin_array(&w, "causes");
        json_begin_object(&w, NULL);
        json_put_cstr(&w, "reason", cause);
        json_end_object(&w);
        json_end_array(&w);
        json_end_object(&w);
    }
    json_end_object(&w);
}

static void answer_error(struct sim_answer *answer, const struct err *err)
{
    static const struct {
        int code, status;
        const char *reason;
    } rows[] = {
        {ERR_NOT_FOUND, 404, "NotFound"}, {ERR_EXISTS, 409, "AlreadyExists"},
        {ERR_CONFLICT, 409, "Conflict"},  {ERR_INVALID, 422, "Invalid"},
        {ERR_GONE, 410, "Expired"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].code == err->code)
            sim_answer_status(answer, rows[i].status, rows[i].reason, err->message, NULL);
}

static char *percent_decoded(struct str s)
{
    char *out = xcalloc(1, s.len + 1), *p = out;
    for (size_t i = 0; i < s.len; i++) {
        char hex[3] = {0};
        if (s.ptr[i] == '%' && i + 2 < s.len) {
            hex[0] = s.ptr[i + 1];
            hex[1] = s.ptr[i + 2];
            *p++ = (char)strtol(hex, NULL, 16);
            i += 2;
        } else {
            *p++ = s.ptr[i];
        }
    }
    return out;
}

char *sim_parameter(const char *query, const char *name)
{
    for (struct str rest = str_of(query); rest.ptr;) {
        struct str value = str_cut(&rest, '&'), key = str_cut(&value, '=');
        if (str_is(key, name))
            return percent_decoded(value);
    }
    return NULL;
}

/* /api/v1/… or /apis/GROUP/VERSION/…, then [namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]] */
int sim_find_target(const struct sim_apiserver *s, const char *path, struct sim_target *ret)
{
    struct str parts[8] = {0};
    size_t n = 0;
    for (struct str rest = str_of(path[0] == '/' ? path + 1 : path); rest.ptr && n < 8;)
        parts[n++] = str_cut(&rest, '/');
    bool is_core = str_is(parts[0], "api");
    struct str group = is_core ? STR("") : parts[1];
    struct str version = is_core ? parts[1] : parts[2];
    size_t i = is_core ? 2 : 3;
    struct sim_target target = {0};
    if (str_is(parts[i], "namespaces") && i + 2 < n) {
        target.namespace_ = parts[i + 1];
        i += 2;
    }
    for (size_t k = 0; k < s->n_kinds; k++)
        if (str_is(group, s->kinds[k]->group) && str_is(version, s->kinds[k]->version) &&
            str_is(parts[i], s->kinds[k]->plural))
            target.kind = s->kinds[k];
    if (!target.kind)
        return ERR_NOT_FOUND;
    if (i + 1 < n)
        target.name = parts[i + 1];
    if (i + 2 < n)
        target.subresource = parts[i + 2];
    *ret = target;
    return 0;
}

void sim_put_object(struct buf *out, const struct kube_object *object, bool metadata_only)
{
    struct json_writer w = JSON_WRITER(out);
    if (!metadata_only) {
        json_put_tree(&w, NULL, object->tree);
        return;
    }
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "kind", "PartialObjectMetadata");
    json_put_cstr(&w, "apiVersion", "meta.k8s.io/v1");
    json_put_tree(&w, "metadata", json_get(object->tree, "metadata"));
    json_end_object(&w);
}

/* Lists */

struct page {
    int64_t version;
    size_t from, limit;
};

/* Which version to list. Returns false when the answer is an error. */
static bool choose_version(struct sim_apiserver *s, const struct sim_request *request,
                           struct page *page, struct sim_answer *answer, bool with_faults)
{
    _cleanup_(freep) char *token = sim_parameter(request->query, "continue");
    _cleanup_(freep) char *version = sim_parameter(request->query, "resourceVersion");
    _cleanup_(freep) char *limit = sim_parameter(request->query, "limit");
    int64_t at = 0, from = 0, n = 0;
    if (limit && !str_to_i64(str_of(limit), 1, INT32_MAX, &n))
        page->limit = (size_t)n;
    if (token && token[0]) {
        struct str rest = str_of(token), first = str_cut(&rest, ':');
        if (str_to_i64(first, 0, INT64_MAX, &at) || str_to_i64(rest, 0, INT32_MAX, &from)) {
            sim_answer_status(answer, 400, "BadRequest", "continue key is not valid", NULL);
            return false;
        }
        if (version && version[0]) {
            sim_answer_status(answer, 400, "BadRequest",
                              "specifying resource version is not allowed when using continue",
                              NULL);
            return false;
        }
        if (at < s->store.compacted || (with_faults && sim_chance(s, s->faults.expired))) {
            sim_answer_status(answer, 410, "Expired", "The provided continue parameter is too old",
                              NULL);
            return false;
        }
        page->version = at;
        page->from = (size_t)from;
        return true;
    }
    page->version = s->store.version;
    if (!version || !version[0])
        return true;
    if (str_to_i64(str_of(version), 0, INT64_MAX, &at)) {
        sim_answer_status(answer, 400, "BadRequest", "invalid resource version", NULL);
        return false;
    }
    if (at > s->store.version || (at > 0 && with_faults && sim_chance(s, s->faults.too_large))) {
        sim_answer_status(answer, 504, "Timeout", "Too large resource version",
                          "ResourceVersionTooLarge");
        return false;
    }
    if (at == 0 && with_faults && sim_chance(s, s->faults.stale) &&
        s->store.version > s->store.compacted)
        page->version -=
            (int64_t)random_below(s->random, (uint64_t)(s->store.version - s->store.compacted) + 1);
    return true;
}

static void list(struct sim_apiserver *s, const struct sim_target *target,
                 const struct sim_request *request, struct sim_answer *answer, bool with_faults)
{
    s->counts.lists++;
    _cleanup_(freep) char *labels = sim_parameter(request->query, "labelSelector");
    _cleanup_(freep) char *fields = sim_parameter(request->query, "fieldSelector");
    struct sim_selector selector = {target->kind, target->namespace_, str_of(labels),
                                    str_of(fields)};
    struct page page = {0};
    struct err err = ERR_INIT;
    if (sim_selector_check(&selector, &err)) {
        sim_answer_status(answer, 400, "BadRequest", err.message, NULL);
        return;
    }
    if (!choose_version(s, request, &page, answer, with_faults))
        return;
    size_t n;
    struct kube_object **found = sim_store_list(&s->store, &selector, page.version, &n);
    size_t to = page.limit && page.from + page.limit < n ? page.from + page.limit : n;
    bool metadata_only = strstr(request->accept, "as=PartialObjectMetadataList");

    struct json_writer w = JSON_WRITER(&answer->body);
    json_begin_object(&w, NULL);
    json_putf(&w, "kind", "%sList", target->kind->kind);
    json_begin_object(&w, "metadata");
    json_putf(&w, "resourceVersion", "%lld", (long long)page.version);
    if (to < n)
        json_putf(&w, "continue", "%lld:%zu", (long long)page.version, to);
    json_end_object(&w);
    json_begin_array(&w, "items");
    for (size_t i = page.from; i < to; i++) {
        _cleanup_(buf_finish) struct buf item = BUF_INIT(SIM_MAX_TEXT);
        sim_put_object(&item, found[i], metadata_only);
        json_put_raw(&w, NULL, buf_str(&item));
    }
    json_end_array(&w);
    json_end_object(&w);
    answer->status = 200;
    free(found);
}

/* Single objects */

static int parse_body(struct arena *a, const struct sim_request *request, const struct json **ret,
                      struct err *err)
{
    int failed = json_parse(a, request->body, NULL, ret, err);
    if (!failed && (*ret)->type != JSON_OBJECT && (*ret)->type != JSON_ARRAY)
        failed = err_set(err, ERR_INVALID, "not an object");
    return failed;
}

static int patch(struct sim_apiserver *s, const struct sim_target *target, struct kube_object *old,
                 const struct sim_request *request, struct arena *a, struct kube_object **ret,
                 struct err *err)
{
    const struct json *body, *tree = NULL;
    bool status = str_is(target->subresource, "status");
    int failed = parse_body(a, request, &body, err);
    if (failed)
        return failed;
    bool is_apply = strcmp(request->content_type, "application/apply-patch+yaml") == 0;
    if (!old && is_apply && !status)
        return sim_store_create(&s->store, target->kind, target->namespace_, body, ret, err);
    if (!old)
        return err_set(err, ERR_NOT_FOUND, "%s \"%.*s\" not found", target->kind->plural,
                       STR_ARG(target->name));
    if (strcmp(request->content_type, "application/json-patch+json") == 0)
        failed = sim_json_patch(a, old->tree, body, &tree, err);
    else
        tree = sim_json_merge(a, old->tree, body);
    if (failed)
        return failed;
    return sim_store_update(&s->store, target->kind, old, tree, status, ret, err);
}

static int delete_one(struct sim_apiserver *s, const struct sim_target *target,
                      struct kube_object *old, const struct sim_request *request, struct arena *a,
                      struct err *err)
{
    const struct json *options = NULL;
    if (request->body.len)
        parse_body(a, request, &options, NULL);
    struct str uid = json_text(json_at(options, "preconditions", "uid", NULL));
    if (uid.len && !str_eq(uid, old->uid))
        return err_set(err, ERR_CONFLICT, "the UID in the precondition does not match");
    return sim_store_delete(&s->store, target->kind, old, err);
}

static void answer_one(struct sim_apiserver *s, const struct sim_target *target,
                       const struct sim_request *request, struct sim_answer *answer)
{
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    struct kube_object *old =
        sim_store_get(&s->store, target->kind, target->namespace_, target->name);
    struct kube_object *object = NULL;
    const struct json *body = NULL;
    struct err err = ERR_INIT;
    bool is_post = strcmp(request->method, "POST") == 0;
    int64_t before = s->store.version;

    if (is_post) {
        if (!parse_body(a, request, &body, &err))
            sim_store_create(&s->store, target->kind, target->namespace_, body, &object, &err);
    } else if (strcmp(request->method, "PATCH") == 0) {
        patch(s, target, old, request, a, &object, &err);
    } else if (!old) {
        err_set(&err, ERR_NOT_FOUND, "%s \"%.*s\" not found", target->kind->plural,
                STR_ARG(target->name));
    } else if (strcmp(request->method, "GET") == 0) {
        object = old;
    } else if (strcmp(request->method, "PUT") == 0) {
        if (!parse_body(a, request, &body, &err))
            sim_store_update(&s->store, target->kind, old, body,
                             str_is(target->subresource, "status"), &object, &err);
    } else if (strcmp(request->method, "DELETE") == 0) {
        if (!delete_one(s, target, old, request, a, &err))
            sim_answer_status(answer, 200, "", "", NULL);
    } else {
        sim_answer_status(answer, 405, "MethodNotAllowed", request->method, NULL);
    }
    if (object) {
        answer->status = is_post ? 201 : 200;
        sim_put_object(&answer->body, object, strstr(request->accept, "as=Partial"));
    } else if (err.code) {
        answer_error(answer, &err);
    }
    if (s->store.version != before)
        sim_watch_poke(s);
}

void sim_answer(struct sim_apiserver *s, const struct sim_request *request,
                struct sim_answer *answer, bool with_faults)
{
    struct sim_target target;
    answer->body = BUF_INIT(SIM_MAX_TEXT);
    if (s->hook && s->hook(s->hook_context, request, answer, false))
        return;
    if (sim_find_target(s, request->path, &target))
        sim_answer_status(answer, 404, "NotFound", "the server could not find the resource", NULL);
    else if (!target.name.len && strcmp(request->method, "GET") == 0)
        list(s, &target, request, answer, with_faults);
    else
        answer_one(s, &target, request, answer);
    if (s->hook)
        s->hook(s->hook_context, request, answer, true);
}
