#include "sim_json.h"

bool sim_json_equal(const struct json *a, const struct json *b)
{
    if (!a || !b || a->type != b->type)
        return a == b;
    switch (a->type) {
    case JSON_NULL:
        return true;
    case JSON_BOOL:
        return a->boolean == b->boolean;
    case JSON_NUMBER:
    case JSON_STRING:
        return str_eq(a->text, b->text);
    case JSON_ARRAY:
        if (a->array.len != b->array.len)
            return false;
        for (size_t i = 0; i < a->array.len; i++)
            if (!sim_json_equal(a->array.items[i], b->array.items[i]))
                return false;
        return true;
    case JSON_OBJECT:
        if (a->object.len != b->object.len)
            return false;
        for (size_t i = 0; i < a->object.len; i++)
            if (!sim_json_equal(a->object.members[i].value,
                                json_get_str(b, a->object.members[i].name)))
                return false;
        return true;
    }
    return false;
}

const struct json *sim_json_text(struct arena *a, struct str text)
{
    struct json *v = arena_alloc(a, sizeof(*v));
    v->type = JSON_STRING;
    v->text = arena_str(a, text);
    return v;
}

static const struct json *make_object(struct arena *a, const struct json_member *members,
                                      size_t len)
{
    struct json *v = arena_alloc(a, sizeof(*v));
    v->type = JSON_OBJECT;
    v->object.members = members;
    v->object.len = len;
    return v;
}

const struct json *sim_json_set(struct arena *a, const struct json *v, struct str name,
                                const struct json *value)
{
    size_t len = v && v->type == JSON_OBJECT ? v->object.len : 0, n = 0;
    struct json_member *members = arena_array(a, len + 1, sizeof(*members));
    bool placed = !value;
    for (size_t i = 0; i < len; i++) {
        if (!str_eq(v->object.members[i].name, name)) {
            members[n++] = v->object.members[i];
        } else if (!placed) {
            members[n++] = (struct json_member){name, value};
            placed = true;
        }
    }
    if (!placed)
        members[n++] = (struct json_member){arena_str(a, name), value};
    return make_object(a, members, n);
}

const struct json *sim_json_set2(struct arena *a, const struct json *v, const char *first,
                                 const char *second, const struct json *value)
{
    return sim_json_set(a, v, str_of(first),
                        sim_json_set(a, json_get(v, first), str_of(second), value));
}

const struct json *sim_json_merge(struct arena *a, const struct json *v, const struct json *patch)
{
    if (patch->type != JSON_OBJECT)
        return patch;
    const struct json *result = v && v->type == JSON_OBJECT ? v : make_object(a, NULL, 0);
    for (size_t i = 0; i < patch->object.len; i++) {
        const struct json_member *m = &patch->object.members[i];
        const struct json *value = m->value->type == JSON_NULL
                                       ? NULL
                                       : sim_json_merge(a, json_get_str(result, m->name), m->value);
        result = sim_json_set(a, result, m->name, value);
    }
    return result;
}

/* One part of a JSON pointer, with ~1 and ~0 resolved. */
static struct str pointer_part(struct arena *a, struct str part)
{
    char *out = arena_alloc(a, part.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < part.len; i++) {
        if (part.ptr[i] == '~' && i + 1 < part.len)
            out[n++] = part.ptr[++i] == '1' ? '/' : '~';
        else
            out[n++] = part.ptr[i];
    }
    return (struct str){out, n};
}

enum op { OP_ADD, OP_REPLACE, OP_REMOVE };

static int change_array(struct arena *a, const struct json *v, size_t index, enum op op,
                        const struct json *value, const struct json **ret)
{
    const struct json **items = arena_array(a, v->array.len + 1, sizeof(*items));
    size_t n = 0;
    for (size_t i = 0; i < v->array.len; i++) {
        if (i == index && op == OP_ADD)
            items[n++] = value;
        if (i != index || op == OP_ADD)
            items[n++] = v->array.items[i];
        else if (op == OP_REPLACE)
            items[n++] = value;
    }
    if (index == v->array.len)
        items[n++] = value;
    struct json *result = arena_alloc(a, sizeof(*result));
    result->type = JSON_ARRAY;
    result->array.items = items;
    result->array.len = n;
    *ret = result;
    return 0;
}

/* v with `op` done at the pointer `rest` below it. */
static int change(struct arena *a, const struct json *v, struct str rest, enum op op,
                  const struct json *value, const struct json **ret, struct err *err)
{
    struct str raw = str_cut(&rest, '/');
    struct str part = pointer_part(a, raw);
    bool last = !rest.ptr;
    if (v && v->type == JSON_ARRAY) {
        int64_t index = (int64_t)v->array.len;
        bool at_end = str_is(part, "-");
        int64_t most = (int64_t)v->array.len - (last && op == OP_ADD ? 0 : 1);
        if ((!at_end && str_to_i64(part, 0, most, &index)) || (at_end && (!last || op != OP_ADD)))
            return err_set(err, ERR_INVALID, "no element %.*s", STR_ARG(part));
        const struct json *inner = value;
        int failed = last ? 0 : change(a, v->array.items[index], rest, op, value, &inner, err);
        return failed ? failed
                      : change_array(a, v, (size_t)index, last ? op : OP_REPLACE, inner, ret);
    }
    if (!v || v->type != JSON_OBJECT)
        return err_set(err, ERR_INVALID, "nothing above %.*s", STR_ARG(part));
    const struct json *old = json_get_str(v, part), *inner = op == OP_REMOVE ? NULL : value;
    if ((!last || op != OP_ADD) && !old)
        return err_set(err, ERR_INVALID, "no member %.*s", STR_ARG(part));
    int failed = last ? 0 : change(a, old, rest, op, value, &inner, err);
    if (!failed)
        *ret = sim_json_set(a, v, part, inner);
    return failed;
}

static const struct json *find(struct arena *a, const struct json *v, struct str pointer)
{
    for (struct str rest = pointer; v && rest.ptr;) {
        struct str part = pointer_part(a, str_cut(&rest, '/'));
        int64_t index;
        if (v->type == JSON_ARRAY)
            v = str_to_i64(part, 0, INT32_MAX, &index) ? NULL : json_item(v, (size_t)index);
        else
            v = json_get_str(v, part);
    }
    return v;
}

int sim_json_patch(struct arena *a, const struct json *v, const struct json *patch,
                   const struct json **ret, struct err *err)
{
    for (size_t i = 0; i < json_len(patch); i++) {
        const struct json *step = json_item(patch, i), *value = json_get(step, "value");
        struct str op = json_text(json_get(step, "op")), path = json_text(json_get(step, "path"));
        if (!str_starts_with(path, STR("/")))
            return err_set(err, ERR_INVALID, "path %.*s", STR_ARG(path));
        path = str_sub(path, 1, path.len);
        int failed = 0;
        if (str_is(op, "test")) {
            if (!sim_json_equal(find(a, v, path), value))
                failed = err_set(err, ERR_INVALID, "testing value %.*s failed", STR_ARG(path));
        } else if (str_is(op, "add")) {
            failed = change(a, v, path, OP_ADD, value, &v, err);
        } else if (str_is(op, "replace")) {
            failed = change(a, v, path, OP_REPLACE, value, &v, err);
        } else if (str_is(op, "remove")) {
            failed = change(a, v, path, OP_REMOVE, NULL, &v, err);
        } else {
            failed = err_set(err, ERR_INVALID, "operation %.*s", STR_ARG(op));
        }
        if (failed)
            return failed;
    }
    *ret = v;
    return 0;
}
