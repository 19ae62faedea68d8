#include "json/decode.h"

#include <inttypes.h>
#include <stdarg.h>

#include "base/clock.h"

#define DEFAULT_TEXT_BYTES 4096
#define DEFAULT_ITEMS      1000
#define SHOWN_BYTES        64 /* of a value in a message */
#define NAME_BYTES         64 /* of a name that is compared for a suggestion */

/* Where we are, from the leaf to the root: only a failing decode turns it into text. */
struct place {
    const struct place *parent;
    struct str name; /* ptr NULL: an item of an array */
    size_t index;
    bool foreign; /* the name comes from the input */
};

struct decoder {
    struct arena *arena;
    const char *prefix;
    enum json_unknown unknown;
    struct err *err;
};

/* A fixed piece of a message that is cut, never overrun. */
struct text {
    char bytes[320];
    size_t len;
};

static void text_add(struct text *t, struct str s)
{
    size_t room = sizeof(t->bytes) - 1 - t->len;
    size_t n = s.len < room ? s.len : room;
    if (n > 0)
        memcpy(t->bytes + t->len, s.ptr, n);
    t->len += n;
    t->bytes[t->len] = '\0';
}

/* Input in quotes: control characters shown as '?', cut between characters. */
static void text_add_quoted(struct text *t, struct str s)
{
    struct str shown = str_sub(s, 0, SHOWN_BYTES);
    while (shown.len < s.len && shown.len > 0 && ((unsigned char)s.ptr[shown.len] & 0xC0) == 0x80)
        shown.len--;
    text_add(t, STR("\""));
    for (size_t i = 0; i < shown.len; i++) {
        unsigned char c = (unsigned char)shown.ptr[i];
        text_add(t, c < 0x20 || c == 0x7F ? STR("?") : str_sub(shown, i, 1));
    }
    text_add(t, shown.len < s.len ? STR("…\"") : STR("\""));
}

static void place_add(struct text *t, const struct decoder *d, const struct place *place)
{
    if (!place) {
        text_add(t, str_of(d->prefix));
        return;
    }
    place_add(t, d, place->parent);
    if (!place->name.ptr) {
        char index[32];
        int n = snprintf(index, sizeof(index), "[%zu]", place->index);
        text_add(t, (struct str){index, (size_t)n});
    } else if (place->foreign) {
        text_add(t, STR("["));
        text_add_quoted(t, place->name);
        text_add(t, STR("]"));
    } else {
        if (t->len > 0)
            text_add(t, STR("."));
        text_add(t, place->name);
    }
}

/* The value as a message shows it. */
static void value_add(struct text *t, const struct json *v)
{
    switch (v->type) {
    case JSON_STRING:
        text_add_quoted(t, v->text);
        break;
    case JSON_NUMBER:
        text_add(t, str_sub(v->text, 0, SHOWN_BYTES));
        break;
    case JSON_BOOL:
        text_add(t, v->boolean ? STR("true") : STR("false"));
        break;
    default:
        text_add(t, str_of(json_type_name(v->type)));
    }
}

__attribute__((format(printf, 3, 4))) static int
refuse(const struct decoder *d, const struct place *place, const char *format, ...)
{
    struct text where = {0}, what = {0};
    place_add(&where, d, place);
    va_list args;
    va_start(args, format);
    vsnprintf(what.bytes, sizeof(what.bytes), format, args);
    va_end(args);
    return err_set(d->err, ERR_INVALID, "%s%s%s", where.bytes, where.len ? ": " : "", what.bytes);
}

static int refuse_value(const struct decoder *d, const struct place *place, const struct json *v,
                        const char *what)
{
    struct text value = {0};
    value_add(&value, v);
    return refuse(d, place, "%s %s", value.bytes, what);
}

static size_t distance(struct str a, struct str b)
{
    size_t row[NAME_BYTES + 1];
    for (size_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t change = diagonal + ((a.ptr[i - 1] | 0x20) != (b.ptr[j - 1] | 0x20));
            size_t shift = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = change < shift ? change : shift;
        }
    }
    return row[b.len];
}

/* The row whose name is at most two letters off, and nearest; NULL when none is. */
static const char *suggestion(const struct json_field *table, struct str name)
{
    const char *best = NULL;
    size_t best_distance = 3;
    if (name.len > NAME_BYTES)
        return NULL;
    for (const struct json_field *f = table; f->name; f++) {
        struct str candidate = str_of(f->name);
        if (candidate.len > NAME_BYTES)
            continue;
        size_t n = distance(name, candidate);
        if (n < best_distance && n * 2 < candidate.len) {
            best_distance = n;
            best = f->name;
        }
    }
    return best;
}

static const struct json_field *field_find(const struct json_field *table, struct str name)
{
    for (const struct json_field *f = table; f->name; f++) {
        if (str_is(name, f->name))
            return f;
    }
    return NULL;
}

static int unknown_refuse(const struct decoder *d, const struct place *parent, const struct json *v,
                          const struct json_field *table)
{
    for (size_t i = 0; i < v->object.len; i++) {
        const struct json_member *m = &v->object.members[i];
        if (field_find(table, m->name))
            continue;
        struct text where = {0}, hint = {0}, shown = {0};
        place_add(&where, d, parent);
        text_add_quoted(&shown, m->name);
        if (where.len > 0)
            text_add(&where, STR("."));
        text_add(&where, (struct str){shown.bytes + 1, shown.len - 2}); /* without the quotes */
        const char *near = suggestion(table, m->name);
        if (near) {
            text_add(&hint, STR(" (did you mean \""));
            text_add(&hint, str_of(near));
            text_add(&hint, STR("\"?)"));
        }
        if (m->value->line == 0)
            return err_set(d->err, ERR_INVALID, "%s: unknown key%s", where.bytes, hint.bytes);
        return err_set(d->err, ERR_INVALID, "line %d: %s: unknown key%s", m->value->line,
                       where.bytes, hint.bytes);
    }
    return 0;
}

/* One of f->names, where the field has them. */
static int name_find(const struct decoder *d, const struct place *place, const struct json_field *f,
                     const struct json *v, int *ret)
{
    struct text expected = {0};
    bool first = true;
    text_add(&expected, STR("is not one of "));
    for (int i = 0; f->names[i]; i++) {
        if (v->type == JSON_STRING && str_is(v->text, f->names[i])) {
            *ret = i;
            return 0;
        }
        if (f->names[i][0] == '\0')
            continue;
        if (!first)
            text_add(&expected, STR(", "));
        first = false;
        text_add(&expected, str_of(f->names[i]));
    }
    return refuse_value(d, place, v, expected.bytes);
}

static int text_decode(const struct decoder *d, const struct place *place,
                       const struct json_field *f, const struct json *v, size_t max,
                       struct str *ret)
{
    int ignored;
    if (v->type != JSON_STRING)
        return refuse_value(d, place, v, "is not a string");
    if (v->text.len > max)
        return refuse(d, place, "%zu bytes are more than %zu", v->text.len, max);
    if (f->names && name_find(d, place, f, v, &ignored) != 0)
        return ERR_INVALID;
    *ret = v->text;
    return 0;
}

static bool is_bounded(const struct json_field *f)
{
    return f->min != 0 || f->max != 0;
}

static int int_decode(const struct decoder *d, const struct place *place,
                      const struct json_field *f, const struct json *v, int64_t *ret)
{
    int64_t value;
    struct text shown = {0};
    value_add(&shown, v);
    if (json_number_int(v, &value) != 0)
        return refuse_value(d, place, v, "is not a whole number");
    if (is_bounded(f) && value < f->min)
        return refuse(d, place, "%s is less than %" PRId64, shown.bytes, f->min);
    if (f->max != 0 && value > f->max)
        return refuse(d, place, "%s is more than %" PRId64, shown.bytes, f->max);
    *ret = value;
    return 0;
}

static int duration_decode(const struct decoder *d, const struct place *place,
                           const struct json_field *f, const struct json *v, int64_t *ret)
{
    int64_t value;
    char bound[TIME_RFC3339_MAX];
    if (v->type != JSON_STRING || duration_parse(v->text, &value) != 0)
        return refuse_value(d, place, v, "is not a duration such as \"30s\" or \"1h30m\"");
    if (is_bounded(f) && value < f->min) {
        duration_format(f->min, bound);
        return refuse(d, place, "%.*s is less than %s", STR_ARG(str_sub(v->text, 0, SHOWN_BYTES)),
                      bound);
    }
    if (f->max != 0 && value > f->max) {
        duration_format(f->max, bound);
        return refuse(d, place, "%.*s is more than %s", STR_ARG(str_sub(v->text, 0, SHOWN_BYTES)),
                      bound);
    }
    *ret = value;
    return 0;
}

static int object_decode(const struct decoder *d, const struct place *place, const struct json *v,
                         const struct json_field *table, void *target);

static int object_ptr_decode(const struct decoder *d, const struct place *place,
                             const struct json_field *f, const struct json *v, void **ret)
{
    void *inner = arena_alloc(d->arena, f->size);
    if (object_decode(d, place, v, f->table, inner) != 0)
        return ERR_INVALID;
    *ret = inner;
    return 0;
}

/* Checks type and length of an array or map. */
static int len_check(const struct decoder *d, const struct place *place, const struct json_field *f,
                     const struct json *v, enum json_type type)
{
    size_t max = f->max_len ? f->max_len : DEFAULT_ITEMS;
    if (v->type != type)
        return refuse_value(d, place, v,
                            type == JSON_ARRAY ? "is not an array" : "is not an object");
    if (json_len(v) > max)
        return refuse(d, place, "%zu items are more than %zu", json_len(v), max);
    return 0;
}

static int array_decode(const struct decoder *d, const struct place *place,
                        const struct json_field *f, const struct json *v, struct json_array *ret)
{
    if (len_check(d, place, f, v, JSON_ARRAY) != 0)
        return ERR_INVALID;
    struct json_array array = {.len = v->array.len};
    if (array.len > 0)
        array.items = arena_array(d->arena, array.len, f->size);
    for (size_t i = 0; i < array.len; i++) {
        struct place item = {.parent = place, .index = i};
        char *target = (char *)array.items + i * f->size;
        if (object_decode(d, &item, v->array.items[i], f->table, target) != 0)
            return ERR_INVALID;
    }
    *ret = array;
    return 0;
}

static int str_array_decode(const struct decoder *d, const struct place *place,
                            const struct json_field *f, const struct json *v,
                            struct json_str_array *ret)
{
    if (len_check(d, place, f, v, JSON_ARRAY) != 0)
        return ERR_INVALID;
    struct json_str_array array = {.len = v->array.len};
    if (array.len > 0)
        array.items = arena_array(d->arena, array.len, sizeof(*array.items));
    for (size_t i = 0; i < array.len; i++) {
        struct place item = {.parent = place, .index = i};
        if (text_decode(d, &item, f, v->array.items[i], DEFAULT_TEXT_BYTES, &array.items[i]) != 0)
            return ERR_INVALID;
    }
    *ret = array;
    return 0;
}

static int str_map_decode(const struct decoder *d, const struct place *place,
                          const struct json_field *f, const struct json *v,
                          struct json_str_map *ret)
{
    if (len_check(d, place, f, v, JSON_OBJECT) != 0)
        return ERR_INVALID;
    struct json_str_map map = {.len = v->object.len};
    if (map.len > 0)
        map.items = arena_array(d->arena, map.len, sizeof(*map.items));
    for (size_t i = 0; i < map.len; i++) {
        const struct json_member *m = &v->object.members[i];
        struct place item = {.parent = place, .name = m->name, .foreign = true};
        map.items[i].name = m->name;
        /* No cap of its own: an annotation may fill the whole document, which has one. */
        if (text_decode(d, &item, f, m->value, SIZE_MAX, &map.items[i].value) != 0)
            return ERR_INVALID;
    }
    *ret = map;
    return 0;
}

static int value_decode(const struct decoder *d, const struct place *place,
                        const struct json_field *f, const struct json *v, void *slot)
{
    switch (f->kind) {
    case JSON_F_STR:
        return text_decode(d, place, f, v, f->max_len ? f->max_len : DEFAULT_TEXT_BYTES, slot);
    case JSON_F_BOOL:
        if (v->type != JSON_BOOL)
            return refuse_value(d, place, v, "is not true or false");
        *(bool *)slot = v->boolean;
        return 0;
    case JSON_F_INT:
        return int_decode(d, place, f, v, slot);
    case JSON_F_DOUBLE:
        if (json_number_double(v, slot) != 0)
            return refuse_value(d, place, v, "is not a number");
        return 0;
    case JSON_F_DURATION:
        return duration_decode(d, place, f, v, slot);
    case JSON_F_TIME:
        if (v->type != JSON_STRING || time_parse(v->text, slot) != 0)
            return refuse_value(d, place, v, "is not a time such as \"2026-01-31T23:59:59Z\"");
        return 0;
    case JSON_F_ENUM:
        return name_find(d, place, f, v, slot);
    case JSON_F_OBJECT:
        return object_decode(d, place, v, f->table, slot);
    case JSON_F_OBJECT_PTR:
        return object_ptr_decode(d, place, f, v, slot);
    case JSON_F_ARRAY:
        return array_decode(d, place, f, v, slot);
    case JSON_F_STR_ARRAY:
        return str_array_decode(d, place, f, v, slot);
    case JSON_F_STR_MAP:
        return str_map_decode(d, place, f, v, slot);
    case JSON_F_RAW:
        *(const struct json **)slot = v;
        return 0;
    }
    return refuse(d, place, "the table holds kind %d, which does not exist", (int)f->kind);
}

static int object_decode(const struct decoder *d, const struct place *place, const struct json *v,
                         const struct json_field *table, void *target)
{
    if (v && v->type != JSON_OBJECT)
        return refuse_value(d, place, v, "is not an object");
    if (v && d->unknown == JSON_UNKNOWN_REFUSE && unknown_refuse(d, place, v, table) != 0)
        return ERR_INVALID;
    for (const struct json_field *f = table; f->name; f++) {
        struct place field = {.parent = place, .name = str_of(f->name)};
        const struct json *value = json_get(v, f->name);
        if (!value) {
            if (f->flags & JSON_REQUIRED)
                return refuse(d, &field, "is required");
            continue;
        }
        if (value_decode(d, &field, f, value, (char *)target + f->offset) != 0)
            return ERR_INVALID;
        if (f->present)
            *(bool *)((char *)target + f->present) = true;
    }
    return 0;
}

int json_decode(struct arena *arena, const struct json *v, const struct json_field *table,
                const char *path, enum json_unknown unknown, void *target, struct err *err)
{
    struct decoder d = {.arena = arena, .prefix = path, .unknown = unknown, .err = err};
    if (v && v->type == JSON_NULL)
        v = NULL;
    return object_decode(&d, NULL, v, table, target);
}

struct str json_str_map_get(const struct json_str_map *m, struct str name)
{
    for (size_t i = 0; i < m->len; i++) {
        if (str_eq(m->items[i].name, name))
            return m->items[i].value;
    }
    return STR_NULL;
}
