#include "sim_store.h"

#include "base/alloc.h"
#include "sim_json.h"
#include "json/write.h"

enum { MAX_OBJECT = 4 * 1024 * 1024 };

void sim_store_init(struct sim_store *s, const struct clock *clock)
{
    *s = (struct sim_store){.clock = clock, .version = 100};
}

void sim_store_finish(struct sim_store *s)
{
    for (size_t i = 0; i < s->n_changes; i++) {
        kube_object_unref(s->changes[i].before);
        kube_object_unref(s->changes[i].after);
    }
    free(s->changes);
}

static bool is_it(const struct kube_object *o, struct str namespace_, struct str name)
{
    return str_eq(o->namespace_, namespace_) && str_eq(o->name, name);
}

struct kube_object *sim_store_get(const struct sim_store *s, const struct sim_kind *kind,
                                  struct str namespace_, struct str name)
{
    for (size_t i = s->n_changes; i-- > 0;) {
        const struct sim_change *c = &s->changes[i];
        const struct kube_object *o = c->after ? c->after : c->before;
        if (c->kind == kind && is_it(o, namespace_, name))
            return c->after;
    }
    return NULL;
}

static struct kube_object *make_object(const struct json *tree)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(MAX_OBJECT);
    struct json_writer w = JSON_WRITER(&text);
    json_put_tree(&w, NULL, tree);
    struct arena *arena = arena_create(0);
    const struct json *copy = NULL;
    if (json_parse(arena, buf_str(&text), NULL, &copy, NULL))
        abort(); /* what was written is read */
    return kube_object_create(arena, copy);
}

static const struct json *version_text(struct arena *a, int64_t n)
{
    return sim_json_text(a, str_of(arena_printf(a, "%lld", (long long)n)));
}

static const struct json *uid_text(struct arena *a, uint64_t n)
{
    return sim_json_text(
        a, str_of(arena_printf(a, "00000000-0000-4000-8000-%012llx", (unsigned long long)n)));
}

static const struct json *number(struct arena *a, int64_t n)
{
    struct json *v = arena_alloc(a, sizeof(*v));
    v->type = JSON_NUMBER;
    v->text = str_of(arena_printf(a, "%lld", (long long)n));
    return v;
}

static struct kube_object *record(struct sim_store *s, struct arena *a, const struct sim_kind *kind,
                                  struct kube_object *before, const struct json *tree,
                                  bool is_deletion)
{
    s->version++;
    tree = sim_json_set2(a, tree, "metadata", "resourceVersion", version_text(a, s->version));
    if (s->n_changes == s->cap_changes) {
        s->cap_changes = s->cap_changes ? 2 * s->cap_changes : 64;
        s->changes = xrealloc(s->changes, s->cap_changes, sizeof(*s->changes));
    }
    struct kube_object *object = is_deletion ? NULL : make_object(tree);
    s->changes[s->n_changes++] = (struct sim_change){
        .version = s->version,
        .kind = kind,
        .before = before ? kube_object_ref(before) : NULL,
        .after = object,
    };
    return object;
}

static const struct json *time_text(struct sim_store *s, struct arena *a)
{
    char now[TIME_RFC3339_MAX];
    time_format(clock_wall_ms(s->clock), now);
    return sim_json_text(a, str_of(now));
}

int sim_store_create(struct sim_store *s, const struct sim_kind *kind, struct str namespace_,
                     const struct json *tree, struct kube_object **ret, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    const struct json *metadata = json_get(tree, "metadata");
    struct str name = json_text(json_get(metadata, "name"));
    struct str prefix = json_text(json_get(metadata, "generateName"));
    if (!name.len && prefix.len)
        name =
            str_of(arena_printf(a, "%.*s%05llx", STR_ARG(prefix), (unsigned long long)s->next_uid));
    if (!name.len)
        return err_set(err, ERR_INVALID, "metadata.name: Required value");
    if (sim_store_get(s, kind, namespace_, name))
        return err_set(err, ERR_EXISTS, "%s \"%.*s\" already exists", kind->plural, STR_ARG(name));

    metadata = sim_json_set(a, metadata, STR("name"), sim_json_text(a, name));
    if (namespace_.len)
        metadata = sim_json_set(a, metadata, STR("namespace"), sim_json_text(a, namespace_));
    metadata = sim_json_set(a, metadata, STR("uid"), uid_text(a, ++s->next_uid));
    metadata = sim_json_set(a, metadata, STR("creationTimestamp"), time_text(s, a));
    metadata = sim_json_set(a, metadata, STR("generation"), number(a, 1));
    tree = sim_json_set(a, tree, STR("metadata"), metadata);
    if (kind->status_subresource)
        tree = sim_json_set(a, tree, STR("status"), NULL);
    *ret = record(s, a, kind, NULL, tree, false);
    return 0;
}

/* What a client may not change comes from the old object. */
static const struct json *keep_system_fields(struct arena *a, const struct json *tree,
                                             const struct kube_object *old)
{
    static const char *const kept[] = {
        "name",       "namespace",   "uid", "creationTimestamp", "deletionTimestamp",
        "generation", "generateName"};
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        tree = sim_json_set2(a, tree, "metadata", kept[i],
                             json_at(old->tree, "metadata", kept[i], NULL));
    return tree;
}

static bool is_same_but(struct arena *a, const struct json *x, const struct json *y,
                        const char *without1, const char *without2)
{
    x = sim_json_set(a, sim_json_set(a, x, str_of(without1), NULL), str_of(without2), NULL);
    y = sim_json_set(a, sim_json_set(a, y, str_of(without1), NULL), str_of(without2), NULL);
    return sim_json_equal(x, y);
}

int sim_store_update(struct sim_store *s, const struct sim_kind *kind, struct kube_object *old,
                     const struct json *tree, bool status, struct kube_object **ret,
                     struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    struct str version = json_text(json_at(tree, "metadata", "resourceVersion", NULL));
    struct str uid = json_text(json_at(tree, "metadata", "uid", NULL));
    if (version.len && !str_eq(version, old->resource_version))
        return err_set(err, ERR_CONFLICT, "%s \"%.*s\": the object has been modified", kind->plural,
                       STR_ARG(old->name));
    if (uid.len && !str_eq(uid, old->uid) && !status)
        return err_set(err, ERR_CONFLICT, "Precondition failed: UID in precondition: %.*s",
                       STR_ARG(uid));
    if (kind->status_subresource && status)
        tree = sim_json_set(a, old->tree, STR("status"), json_get(tree, "status"));
    else if (kind->status_subresource)
        tree = sim_json_set(a, tree, STR("status"), json_get(old->tree, "status"));
    tree = keep_system_fields(a, tree, old);
    tree = sim_json_set2(a, tree, "metadata", "resourceVersion",
                         sim_json_text(a, old->resource_version));
    if (sim_json_equal(tree, old->tree)) {
        *ret = old; /* a write that changes nothing makes no version */
        return 0;
    }
    if (!is_same_but(a, tree, old->tree, "metadata", "status"))
        tree = sim_json_set2(
            a, tree, "metadata", "generation",
            number(a, json_int(json_at(old->tree, "metadata", "generation", NULL), 0) + 1));
    bool is_going = json_at(tree, "metadata", "deletionTimestamp", NULL);
    bool is_held = json_len(json_at(tree, "metadata", "finalizers", NULL));
    struct kube_object *after = record(s, a, kind, old, tree, is_going && !is_held);
    *ret = after ? after : old;
    return 0;
}

int sim_store_delete(struct sim_store *s, const struct sim_kind *kind, struct kube_object *old,
                     struct err *err)
{
    (void)err;
    _cleanup_(arena_destroyp) struct arena *a = arena_create(0);
    if (!json_len(json_at(old->tree, "metadata", "finalizers", NULL))) {
        record(s, a, kind, old, old->tree, true);
        return 0;
    }
    if (json_at(old->tree, "metadata", "deletionTimestamp", NULL))
        return 0;
    const struct json *tree =
        sim_json_set2(a, old->tree, "metadata", "deletionTimestamp", time_text(s, a));
    record(s, a, kind, old, tree, false);
    return 0;
}

/* Selectors */

static struct str field_value(const struct kube_object *o, struct str path)
{
    const struct json *v = o->tree;
    for (struct str rest = path; rest.ptr;)
        v = json_get_str(v, str_cut(&rest, '.'));
    return json_text(v);
}

/* Splits "a=b", "a==b", "a!=b", "a" or "!a". */
struct requirement {
    struct str name, value;
    bool negated, exists_only;
};

static struct requirement parse_requirement(struct str text)
{
    struct requirement r = {0};
    text = str_trim(text);
    ssize_t equals = str_find_char(text, '=');
    if (equals < 0) {
        r.exists_only = true;
        r.negated = str_starts_with(text, STR("!"));
        r.name = str_sub(text, r.negated, text.len);
        return r;
    }
    size_t at = (size_t)equals;
    r.negated = at > 0 && text.ptr[at - 1] == '!';
    r.name = str_sub(text, 0, at - r.negated);
    r.value = str_sub(text, at + 1, text.len);
    if (str_starts_with(r.value, STR("=")))
        r.value = str_sub(r.value, 1, r.value.len);
    return r;
}

static bool is_selectable(const struct sim_kind *kind, struct str name)
{
    if (str_is(name, "metadata.name") || str_is(name, "metadata.namespace"))
        return true;
    for (const char *const *f = kind->fields; f && *f; f++)
        if (str_is(name, *f))
            return true;
    return false;
}

int sim_selector_check(const struct sim_selector *selector, struct err *err)
{
    for (struct str rest = selector->fields; rest.ptr && selector->fields.len;) {
        struct requirement r = parse_requirement(str_cut(&rest, ','));
        if (r.exists_only || !is_selectable(selector->kind, r.name))
            return err_set(err, ERR_INVALID, "field label not supported: %.*s", STR_ARG(r.name));
    }
    return 0;
}

bool sim_selector_matches(const struct sim_selector *selector, const struct kube_object *o)
{
    if (selector->namespace_.len && !str_eq(o->namespace_, selector->namespace_))
        return false;
    for (struct str rest = selector->labels; rest.ptr && selector->labels.len;) {
        struct requirement r = parse_requirement(str_cut(&rest, ','));
        const struct json *label =
            json_get_str(json_at(o->tree, "metadata", "labels", NULL), r.name);
        bool holds = r.exists_only ? label != NULL : label && str_eq(json_text(label), r.value);
        if (holds == r.negated)
            return false;
    }
    for (struct str rest = selector->fields; rest.ptr && selector->fields.len;) {
        struct requirement r = parse_requirement(str_cut(&rest, ','));
        if (str_eq(field_value(o, r.name), r.value) == r.negated)
            return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct kube_object *x = *(struct kube_object *const *)a;
    const struct kube_object *y = *(struct kube_object *const *)b;
    int order = str_cmp(x->namespace_, y->namespace_);
    return order ? order : str_cmp(x->name, y->name);
}

struct kube_object **sim_store_list(const struct sim_store *s, const struct sim_selector *selector,
                                    int64_t version, size_t *ret_len)
{
    struct kube_object **found = xcalloc(s->n_changes + 1, sizeof(struct kube_object *));
    size_t n = 0;
    for (size_t i = 0; i < s->n_changes && s->changes[i].version <= version; i++) {
        const struct sim_change *c = &s->changes[i];
        if (c->kind != selector->kind)
            continue;
        for (size_t k = 0; c->before && k < n; k++)
            if (found[k] == c->before)
                found[k] = found[--n];
        if (c->after)
            found[n++] = c->after;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (sim_selector_matches(selector, found[i]))
            found[kept++] = found[i];
    qsort(found, kept, sizeof(*found), by_name);
    *ret_len = kept;
    return found;
}
