#include "json/write.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>

#include "base/clock.h"

static void text_put(struct buf *out, struct str text);

static void value_begin(struct json_writer *w, const char *name)
{
    if (w->need_comma)
        buf_append_char(w->out, ',');
    w->need_comma = true;
    if (name) {
        text_put(w->out, str_of(name));
        buf_append_char(w->out, ':');
    }
}

static void container_begin(struct json_writer *w, const char *name, char bracket)
{
    value_begin(w, name);
    buf_append_char(w->out, bracket);
    w->need_comma = false;
    w->depth++;
}

static void container_end(struct json_writer *w, char bracket)
{
    assert(w->depth > 0);
    w->depth--;
    buf_append_char(w->out, bracket);
    w->need_comma = true;
}

void json_begin_object(struct json_writer *w, const char *name)
{
    container_begin(w, name, '{');
}

void json_end_object(struct json_writer *w)
{
    container_end(w, '}');
}

void json_begin_array(struct json_writer *w, const char *name)
{
    container_begin(w, name, '[');
}

void json_end_array(struct json_writer *w)
{
    container_end(w, ']');
}

/* Length of the well-formed UTF-8 sequence at the front of s, or 0. Unicode 15, table 3-7. */
static size_t sequence_len(const unsigned char *s, size_t len)
{
    unsigned char c = s[0];
    size_t need = c < 0x80                 ? 1
                  : c >= 0xC2 && c <= 0xDF ? 2
                  : c >= 0xE0 && c <= 0xEF ? 3
                  : c >= 0xF0 && c <= 0xF4 ? 4
                                           : 0;
    if (need == 0 || need > len)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) ||
        (c == 0xF4 && s[1] > 0x8F))
        return 0;
    return need;
}

static void escape_put(struct buf *out, unsigned char c)
{
    switch (c) {
    case '"':
        buf_append_cstr(out, "\\\"");
        break;
    case '\\':
        buf_append_cstr(out, "\\\\");
        break;
    case '\n':
        buf_append_cstr(out, "\\n");
        break;
    case '\r':
        buf_append_cstr(out, "\\r");
        break;
    case '\t':
        buf_append_cstr(out, "\\t");
        break;
    default:
        buf_appendf(out, "\\u%04x", c);
    }
}

static void text_put(struct buf *out, struct str text)
{
    const unsigned char *s = (const unsigned char *)text.ptr;
    size_t done = 0, i = 0; /* bytes before `done` are written */
    buf_append_char(out, '"');
    while (i < text.len) {
        size_t n = 1;
        if (s[i] >= 0x80) {
            n = sequence_len(s + i, text.len - i);
        } else if (s[i] < 0x20 || s[i] == '"' || s[i] == '\\') {
            buf_append(out, s + done, i - done);
            escape_put(out, s[i]);
            done = i + 1;
        }
        if (n == 0) {
            buf_append(out, s + done, i - done);
            buf_append_cstr(out, "\xEF\xBF\xBD");
            done = i + 1;
            n = 1;
        }
        i += n;
    }
    if (i > done)
        buf_append(out, s + done, i - done);
    buf_append_char(out, '"');
}

void json_put_str(struct json_writer *w, const char *name, struct str value)
{
    value_begin(w, name);
    text_put(w->out, value);
}

void json_put_cstr(struct json_writer *w, const char *name, const char *value)
{
    json_put_str(w, name, str_of(value));
}

void json_putf(struct json_writer *w, const char *name, const char *format, ...)
{
    struct buf text = BUF_INIT(w->out->max);
    va_list args;
    va_start(args, format);
    buf_appendv(&text, format, args);
    va_end(args);
    if (text.failed)
        w->out->failed = true;
    json_put_str(w, name, buf_str(&text));
    buf_finish(&text);
}

void json_put_int(struct json_writer *w, const char *name, int64_t value)
{
    value_begin(w, name);
    buf_appendf(w->out, "%" PRId64, value);
}

void json_put_double(struct json_writer *w, const char *name, double value)
{
    if (!isfinite(value)) {
        json_put_null(w, name);
        return;
    }
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        double back = strtod(text, NULL);
        if (!(back < value) && !(back > value))
            break;
    }
    value_begin(w, name);
    buf_append_cstr(w->out, text);
}

void json_put_bool(struct json_writer *w, const char *name, bool value)
{
    value_begin(w, name);
    buf_append_cstr(w->out, value ? "true" : "false");
}

void json_put_null(struct json_writer *w, const char *name)
{
    value_begin(w, name);
    buf_append_cstr(w->out, "null");
}

void json_put_time(struct json_writer *w, const char *name, int64_t wall_ms)
{
    char text[TIME_RFC3339_MAX];
    time_format(wall_ms, text);
    json_put_cstr(w, name, text);
}

void json_put_pair(struct json_writer *w, struct str name, struct str value)
{
    value_begin(w, NULL);
    text_put(w->out, name);
    buf_append_char(w->out, ':');
    text_put(w->out, value);
}

void json_put_raw(struct json_writer *w, const char *name, struct str json)
{
    value_begin(w, name);
    buf_append_str(w->out, json);
}

/* The depth of a tree is capped when it is parsed. */
static void tree_put(struct buf *out, const struct json *v)
{
    switch (v->type) {
    case JSON_NULL:
        buf_append_cstr(out, "null");
        break;
    case JSON_BOOL:
        buf_append_cstr(out, v->boolean ? "true" : "false");
        break;
    case JSON_NUMBER:
        buf_append_str(out, v->text);
        break;
    case JSON_STRING:
        text_put(out, v->text);
        break;
    case JSON_ARRAY:
        buf_append_char(out, '[');
        for (size_t i = 0; i < v->array.len; i++) {
            if (i > 0)
                buf_append_char(out, ',');
            tree_put(out, v->array.items[i]);
        }
        buf_append_char(out, ']');
        break;
    case JSON_OBJECT:
        buf_append_char(out, '{');
        for (size_t i = 0; i < v->object.len; i++) {
            if (i > 0)
                buf_append_char(out, ',');
            text_put(out, v->object.members[i].name);
            buf_append_char(out, ':');
            tree_put(out, v->object.members[i].value);
        }
        buf_append_char(out, '}');
        break;
    }
}

void json_put_tree(struct json_writer *w, const char *name, const struct json *value)
{
    if (!value) {
        json_put_null(w, name);
        return;
    }
    value_begin(w, name);
    tree_put(w->out, value);
}
