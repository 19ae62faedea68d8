#include "json/json_internal.h"

#include <inttypes.h>
#include <yaml.h>

#include "base/buf.h"

#define TAG_PREFIX "tag:yaml.org,2002:"

struct reader {
    struct json_builder builder;
    yaml_parser_t parser;
    struct str text;
    struct err *err;
    bool seen_document;
};

static int line_of(const yaml_event_t *event)
{
    return (int)event->start_mark.line + 1;
}

static int refuse(struct reader *r, int line, const char *what)
{
    return err_set(r->err, ERR_INVALID, "line %d: %s", line, what);
}

static int built(struct reader *r, int code)
{
    return code == 0 ? 0 : err_set(r->err, code, "%s", r->builder.error.message);
}

static bool is_one_of(struct str s, const char *a, const char *b, const char *c)
{
    return str_is(s, a) || str_is(s, b) || str_is(s, c);
}

static size_t digits_count(struct str s, size_t from)
{
    size_t n = 0;
    while (from + n < s.len && s.ptr[from + n] >= '0' && s.ptr[from + n] <= '9')
        n++;
    return n;
}

/* Decimal integers and floats of the core schema, rewritten as JSON has them: no '+', no leading
 * zeros, digits on both sides of a point. False when s is neither. */
static bool decimal_rewrite(struct str s, struct buf *out)
{
    size_t at = s.len > 0 && (s.ptr[0] == '+' || s.ptr[0] == '-');
    bool negative = at && s.ptr[0] == '-';
    struct str whole = str_sub(s, at, digits_count(s, at)), fraction = STR_NULL;
    at += whole.len;
    bool point = at < s.len && s.ptr[at] == '.';
    if (point) {
        fraction = str_sub(s, at + 1, digits_count(s, at + 1));
        at += 1 + fraction.len;
    }
    if (whole.len + fraction.len == 0)
        return false;
    struct str exponent = str_sub(s, at, s.len);
    if (exponent.len > 0) {
        size_t sign = exponent.len > 1 && (exponent.ptr[1] == '+' || exponent.ptr[1] == '-');
        size_t n = digits_count(exponent, 1 + sign);
        if ((exponent.ptr[0] | 0x20) != 'e' || n == 0 || 1 + sign + n != exponent.len)
            return false;
    }
    while (whole.len > 1 && whole.ptr[0] == '0')
        whole = str_sub(whole, 1, whole.len);
    buf_append_cstr(out, negative ? "-" : "");
    buf_append_str(out, whole.len ? whole : STR("0"));
    if (point) {
        buf_append_char(out, '.');
        buf_append_str(out, fraction.len ? fraction : STR("0"));
    }
    buf_append_str(out, exponent);
    return true;
}

/* 0o17 and 0x1f. 1: rewritten, 0: not of that form, negative: too large. */
static int radix_rewrite(struct str s, struct buf *out)
{
    int base = str_starts_with(s, STR("0o")) ? 8 : str_starts_with(s, STR("0x")) ? 16 : 0;
    if (base == 0 || s.len == 2)
        return 0;
    uint64_t value = 0;
    bool too_large = false;
    for (size_t i = 2; i < s.len; i++) {
        int digit = json_hex_digit(s.ptr[i]);
        if (digit < 0 || digit >= base)
            return 0;
        too_large = too_large || value > (uint64_t)INT64_MAX / (uint64_t)base;
        value = value * (uint64_t)base + (uint64_t)digit;
    }
    if (too_large || value > INT64_MAX)
        return ERR_INVALID;
    buf_appendf(out, "%" PRIu64, value);
    return 1;
}

static bool is_not_finite(struct str s)
{
    if (is_one_of(s, ".nan", ".NaN", ".NAN"))
        return true;
    if (s.len > 0 && (s.ptr[0] == '+' || s.ptr[0] == '-'))
        s = str_sub(s, 1, s.len);
    return is_one_of(s, ".inf", ".Inf", ".INF");
}

/* A scalar without quotes. Source: YAML 1.2.2, 10.3.2 (tag resolution of the core schema). */
static int plain_take(struct reader *r, struct str s, int line)
{
    struct json_builder *b = &r->builder;
    if (s.len == 0 || str_is(s, "~") || is_one_of(s, "null", "Null", "NULL"))
        return built(r, json_builder_null(b, line));
    if (is_one_of(s, "true", "True", "TRUE"))
        return built(r, json_builder_bool(b, true, line));
    if (is_one_of(s, "false", "False", "FALSE"))
        return built(r, json_builder_bool(b, false, line));
    if (is_not_finite(s))
        return refuse(r, line, "a number that is not finite");
    struct buf number = BUF_INIT(s.len + 32);
    int radix = radix_rewrite(s, &number);
    int code;
    if (radix < 0)
        code = refuse(r, line, "a number that is too large");
    else if (radix > 0 || decimal_rewrite(s, &number))
        code = built(r, json_builder_text(b, JSON_NUMBER, buf_str(&number), line));
    else
        code = built(r, json_builder_text(b, JSON_STRING, s, line));
    buf_finish(&number);
    return code;
}

/* Tags that say no more than what stands there anyway, and !!str, are all that is understood. */
static int tag_check(struct reader *r, const yaml_char_t *tag, const char *allowed, int line)
{
    if (!tag || strcmp((const char *)tag, allowed) == 0)
        return 0;
    return err_set(r->err, ERR_INVALID, "line %d: the tag %.60s is not supported", line,
                   (const char *)tag);
}

static int scalar_take(struct reader *r, const yaml_event_t *event)
{
    int line = line_of(event);
    struct str s = {(const char *)event->data.scalar.value, event->data.scalar.length};
    const char *tag = (const char *)event->data.scalar.tag;
    if (event->data.scalar.anchor)
        return refuse(r, line, "anchors are not supported");
    bool non_specific = tag && strcmp(tag, "!") == 0;
    if (!non_specific && tag_check(r, event->data.scalar.tag, TAG_PREFIX "str", line) != 0)
        return ERR_INVALID;
    if (json_builder_wants_name(&r->builder))
        return built(r, json_builder_name(&r->builder, s, line));
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !tag)
        return plain_take(r, s, line);
    return built(r, json_builder_text(&r->builder, JSON_STRING, s, line));
}

static int container_take(struct reader *r, const yaml_event_t *event)
{
    int line = line_of(event);
    bool map = event->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *anchor =
        map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    const yaml_char_t *tag = map ? event->data.mapping_start.tag : event->data.sequence_start.tag;
    if (anchor)
        return refuse(r, line, "anchors are not supported");
    if (tag_check(r, tag, map ? TAG_PREFIX "map" : TAG_PREFIX "seq", line) != 0)
        return ERR_INVALID;
    if (json_builder_wants_name(&r->builder))
        return refuse(r, line, "a key that is a mapping or a sequence");
    return built(r, json_builder_begin(&r->builder, map ? JSON_OBJECT : JSON_ARRAY, line));
}

static int event_take(struct reader *r, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (r->seen_document)
            return refuse(r, line_of(event), "a second document");
        r->seen_document = true;
        return 0;
    case YAML_ALIAS_EVENT:
        return refuse(r, line_of(event), "aliases are not supported");
    case YAML_SCALAR_EVENT:
        return scalar_take(r, event);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return container_take(r, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return built(r, json_builder_end(&r->builder));
    default:
        return 0;
    }
}

static int syntax_error(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR)
        abort();
    const char *problem = p->problem ? p->problem : "malformed";
    int line = (int)p->problem_mark.line + 1;
    if (p->error == YAML_READER_ERROR) { /* knows its byte only */
        line = 1;
        for (size_t i = 0; i < p->problem_offset && i < r->text.len; i++)
            line += r->text.ptr[i] == '\n';
    }
    if (p->context)
        return err_set(r->err, ERR_INVALID, "line %d: %s, %s", line, p->context, problem);
    return err_set(r->err, ERR_INVALID, "line %d: %s", line, problem);
}

static int events_run(struct reader *r)
{
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&r->parser, &event))
            return syntax_error(r);
        bool end = event.type == YAML_STREAM_END_EVENT;
        int code = event_take(r, &event);
        yaml_event_delete(&event);
        if (code != 0 || end)
            return code;
    }
}

int json_parse_yaml(struct arena *arena, struct str text, const struct json_limits *limits,
                    const struct json **ret, struct err *err)
{
    struct json_limits l = json_limits_effective(limits);
    if (text.len > l.max_bytes)
        return err_set(err, ERR_TOO_LARGE, "the document is larger than %zu bytes", l.max_bytes);
    struct reader r = {.text = text, .err = err};
    if (!yaml_parser_initialize(&r.parser))
        abort();
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.ptr ? text.ptr : ""),
                                 text.len);
    json_builder_init(&r.builder, arena, &l);
    r.builder.refuse_repeated = true;
    int code = events_run(&r);
    if (code == 0 && !r.builder.root)
        code = built(&r, json_builder_null(&r.builder, 1));
    yaml_parser_delete(&r.parser);
    if (code == 0)
        *ret = r.builder.root;
    json_builder_finish(&r.builder);
    return code;
}
