#include "json/json_internal.h"

#include <math.h>
#include <stdarg.h>
#include <yajl/yajl_parse.h>

#include "base/alloc.h"
#include "base/cleanup.h"

struct reader {
    struct json_builder builder;
    yajl_handle yajl;
    struct str text;
    size_t counted; /* bytes whose line ends are in `line` */
    int line;
};

static int lines_between(const char *from, const char *to)
{
    int n = 0;
    while ((from = memchr(from, '\n', (size_t)(to - from))) != NULL) {
        n++;
        from++;
    }
    return n;
}

/* The line of the token that yajl has just read: no token spans lines. */
static int reader_line(struct reader *r)
{
    size_t consumed = yajl_get_bytes_consumed(r->yajl);
    if (consumed > r->counted && consumed <= r->text.len) {
        r->line += lines_between(r->text.ptr + r->counted, r->text.ptr + consumed);
        r->counted = consumed;
    }
    return r->line;
}

static struct str text_of(const void *bytes, size_t len)
{
    return (struct str){bytes, len};
}

static int on_null(void *context)
{
    struct reader *r = context;
    return json_builder_null(&r->builder, reader_line(r)) == 0;
}

static int on_bool(void *context, int value)
{
    struct reader *r = context;
    return json_builder_bool(&r->builder, value != 0, reader_line(r)) == 0;
}

static int on_number(void *context, const char *text, size_t len)
{
    struct reader *r = context;
    return json_builder_text(&r->builder, JSON_NUMBER, text_of(text, len), reader_line(r)) == 0;
}

static int on_string(void *context, const unsigned char *text, size_t len)
{
    struct reader *r = context;
    return json_builder_text(&r->builder, JSON_STRING, text_of(text, len), reader_line(r)) == 0;
}

static int on_name(void *context, const unsigned char *text, size_t len)
{
    struct reader *r = context;
    return json_builder_name(&r->builder, text_of(text, len), reader_line(r)) == 0;
}

static int on_object(void *context)
{
    struct reader *r = context;
    return json_builder_begin(&r->builder, JSON_OBJECT, reader_line(r)) == 0;
}

static int on_array(void *context)
{
    struct reader *r = context;
    return json_builder_begin(&r->builder, JSON_ARRAY, reader_line(r)) == 0;
}

static int on_end(void *context)
{
    struct reader *r = context;
    return json_builder_end(&r->builder) == 0;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_bool,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_object,
    .yajl_map_key = on_name,
    .yajl_end_map = on_end,
    .yajl_start_array = on_array,
    .yajl_end_array = on_end,
};

/* yajl itself does not look at what malloc returns. */
static void *alloc_malloc(void *context, size_t size)
{
    (void)context;
    return xcalloc(1, size);
}

static void *alloc_realloc(void *context, void *p, size_t size)
{
    (void)context;
    return xrealloc(p, 1, size);
}

static void alloc_free(void *context, void *p)
{
    (void)context;
    free(p);
}

static yajl_alloc_funcs allocator = {alloc_malloc, alloc_realloc, alloc_free, NULL};

/* The code unit of the \uXXXX at the front of s, or -1. */
static int escape_unit(struct str s)
{
    if (s.len < 6 || s.ptr[0] != '\\' || s.ptr[1] != 'u')
        return -1;
    int unit = 0;
    for (size_t i = 2; i < 6; i++) {
        int digit = json_hex_digit(s.ptr[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* yajl turns half a surrogate pair into "?" or into bytes that are no UTF-8, so the escapes are
 * looked at beforehand. Well-formed JSON has backslashes in strings only; in what is not
 * well-formed, this at most gives another reason to refuse it. */
static int escapes_check(struct str text, struct err *err)
{
    size_t at = 0;
    while (at < text.len) {
        const char *backslash = memchr(text.ptr + at, '\\', text.len - at);
        if (!backslash)
            return 0;
        at = (size_t)(backslash - text.ptr);
        int unit = escape_unit(str_sub(text, at, 6));
        if (unit < 0) {
            at += 2;
            continue;
        }
        int low = -1;
        if (unit >= 0xD800 && unit <= 0xDBFF)
            low = escape_unit(str_sub(text, at + 6, 6));
        bool pair = low >= 0xDC00 && low <= 0xDFFF;
        if (unit >= 0xD800 && unit <= 0xDFFF && !pair)
            return err_set(err, ERR_INVALID, "line %d: half of a surrogate pair in a string",
                           1 + lines_between(text.ptr, backslash));
        at += pair ? 12 : 6;
    }
    return 0;
}

/* yajl's own words, as "line 3: object key and value must be separated by a colon (':')". */
static int syntax_error(yajl_handle yajl, int line, struct err *err)
{
    unsigned char *said = yajl_get_error(yajl, 0, NULL, 0);
    struct str message = str_trim(str_of((const char *)said));
    ssize_t colon = str_find(message, STR(": "));
    if (colon >= 0)
        message = str_sub(message, (size_t)colon + 2, message.len);
    if (str_is(message, "premature EOF"))
        message = STR("the document ends too early");
    err_set(err, ERR_INVALID, "line %d: %.*s", line, STR_ARG(message));
    yajl_free_error(yajl, said);
    return ERR_INVALID;
}

static int reader_run(struct reader *r, struct err *err)
{
    yajl_status status = yajl_parse(r->yajl, (const unsigned char *)r->text.ptr, r->text.len);
    int line = 0;
    if (status == yajl_status_ok) {
        line = r->line + lines_between(r->text.ptr + r->counted, r->text.ptr + r->text.len);
        r->line = line;
        r->counted = r->text.len; /* yajl counts anew while it finishes */
        status = yajl_complete_parse(r->yajl);
    } else {
        line = reader_line(r);
    }
    if (status == yajl_status_ok)
        return 0;
    if (status == yajl_status_client_canceled)
        return err_set(err, r->builder.error.code, "%s", r->builder.error.message);
    return syntax_error(r->yajl, line, err);
}

int json_parse(struct arena *arena, struct str text, const struct json_limits *limits,
               const struct json **ret, struct err *err)
{
    struct json_limits l = json_limits_effective(limits);
    if (text.len > l.max_bytes)
        return err_set(err, ERR_TOO_LARGE, "the document is larger than %zu bytes", l.max_bytes);
    if (text.len == 0)
        return err_set(err, ERR_INVALID, "the document is empty");
    int code = escapes_check(text, err);
    if (code != 0)
        return code;
    struct reader r = {.text = text, .line = 1};
    json_builder_init(&r.builder, arena, &l);
    r.yajl = yajl_alloc(&callbacks, &allocator, &r);
    yajl_config(r.yajl, yajl_dont_validate_strings, 1); /* the builder does, and more strictly */
    code = reader_run(&r, err);
    yajl_free(r.yajl);
    if (code == 0)
        *ret = r.builder.root;
    json_builder_finish(&r.builder);
    return code;
}

const struct json *json_get_str(const struct json *v, struct str name)
{
    if (!v || v->type != JSON_OBJECT)
        return NULL;
    for (size_t i = 0; i < v->object.len; i++) {
        const struct json_member *m = &v->object.members[i];
        if (str_eq(m->name, name))
            return m->value->type == JSON_NULL ? NULL : m->value;
    }
    return NULL;
}

const struct json *json_get(const struct json *v, const char *name)
{
    return json_get_str(v, str_of(name));
}

const struct json *json_at(const struct json *v, ...)
{
    va_list names;
    va_start(names, v);
    const char *name;
    while (v && (name = va_arg(names, const char *)) != NULL)
        v = json_get(v, name);
    va_end(names);
    return v;
}

struct str json_text(const struct json *v)
{
    return v && v->type == JSON_STRING ? v->text : STR_NULL;
}

bool json_is_true(const struct json *v)
{
    return v && v->type == JSON_BOOL && v->boolean;
}

int json_number_int(const struct json *v, int64_t *ret)
{
    if (!v || v->type != JSON_NUMBER)
        return ERR_INVALID;
    if (str_to_i64(v->text, INT64_MIN, INT64_MAX, ret) == 0)
        return 0;
    double real;
    if (json_number_double(v, &real) != 0 || !(real >= -0x1p53 && real <= 0x1p53) ||
        real != (double)(int64_t)real)
        return ERR_INVALID;
    *ret = (int64_t)real;
    return 0;
}

int json_number_double(const struct json *v, double *ret)
{
    if (!v || v->type != JSON_NUMBER)
        return ERR_INVALID;
    double real = strtod(v->text.ptr, NULL); /* texts of the tree end with NUL */
    if (!isfinite(real))
        return ERR_INVALID;
    *ret = real;
    return 0;
}

int64_t json_int(const struct json *v, int64_t fallback)
{
    int64_t value = fallback;
    return json_number_int(v, &value) == 0 ? value : fallback;
}

size_t json_len(const struct json *v)
{
    if (!v)
        return 0;
    if (v->type == JSON_ARRAY)
        return v->array.len;
    return v->type == JSON_OBJECT ? v->object.len : 0;
}

const struct json *json_item(const struct json *v, size_t index)
{
    return v && v->type == JSON_ARRAY && index < v->array.len ? v->array.items[index] : NULL;
}

const char *json_type_name(enum json_type type)
{
    switch (type) {
    case JSON_NULL:
        return "null";
    case JSON_BOOL:
        return "true or false";
    case JSON_NUMBER:
        return "a number";
    case JSON_STRING:
        return "a string";
    case JSON_ARRAY:
        return "an array";
    case JSON_OBJECT:
        return "an object";
    }
    return "an unknown type";
}
