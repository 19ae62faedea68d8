#include "json/json_internal.h"

#include "base/alloc.h"
#include "base/buf.h"

/* Frames by brackets and quotes alone, without yajl: one pass over the bytes, and the document is
 * parsed once, by whoever gets it, instead of twice. It is right because
 *  - in well-formed JSON, brackets outside strings nest, and a string ends at the first quote that
 *    no backslash escapes; so the bracket that brings the depth back to 0 ends the document;
 *  - between documents only white space is let through, so the frames together are the stream: if
 *    json_parse() accepts each frame, then the stream is a sequence of these documents; if it is
 *    not, then some frame is refused there. Mixed-up brackets need no look here.
 * Documents that are neither object nor array have no end of their own, and no watch sends them. */

#define KEEP_BYTES                                                                                 \
    65536 /* of the buffer between documents; a rare big one gives its memory back                 \
           */

struct json_stream {
    struct json_limits limits;
    json_stream_document on_document;
    void *context;
    struct buf partial; /* the front of a document whose end has not come */
    int depth;
    bool in_string, escaped;
    int failed; /* sticky */
};

struct json_stream *json_stream_create(const struct json_limits *limits,
                                       json_stream_document on_document, void *context)
{
    struct json_stream *s = xcalloc(1, sizeof(*s));
    s->limits = json_limits_effective(limits);
    s->on_document = on_document;
    s->context = context;
    s->partial = BUF_INIT(s->limits.max_bytes);
    return s;
}

void json_stream_destroy(struct json_stream *s)
{
    if (!s)
        return;
    buf_finish(&s->partial);
    free(s);
}

/* The byte behind the string that p is in, or end. */
static const char *string_skip(struct json_stream *s, const char *p, const char *end)
{
    while (p < end) {
        char c = *p++;
        if (s->escaped) {
            s->escaped = false;
        } else if (c == '\\') {
            s->escaped = true;
        } else if (c == '"') {
            s->in_string = false;
            return p;
        }
    }
    return end;
}

/* Scans on inside a document: *ret is behind its last byte with depth 0, or end. */
static int document_scan(struct json_stream *s, const char *p, const char *end, const char **ret,
                         struct err *err)
{
    while (p < end) {
        if (s->in_string) {
            p = string_skip(s, p, end);
            continue;
        }
        switch (*p++) {
        case '"':
            s->in_string = true;
            break;
        case '{':
        case '[':
            if (++s->depth > s->limits.max_depth)
                return err_set(err, ERR_TOO_LARGE, "a document nested deeper than %d levels",
                               s->limits.max_depth);
            break;
        case '}':
        case ']':
            if (--s->depth == 0) {
                *ret = p;
                return 0;
            }
            break;
        default:
            break;
        }
    }
    *ret = end;
    return 0;
}

static int too_large(const struct json_stream *s, struct err *err)
{
    return err_set(err, ERR_TOO_LARGE, "a document is larger than %zu bytes", s->limits.max_bytes);
}

/* A part of a document, or its end when the depth is 0. What lies whole in the caller's bytes is
 * handed on without a copy. */
static int part_take(struct json_stream *s, struct str part, struct err *err)
{
    if (part.len > s->limits.max_bytes - s->partial.len)
        return too_large(s, err);
    bool whole = s->depth == 0;
    if (whole && s->partial.len == 0)
        return s->on_document(s->context, part, err);
    buf_append_str(&s->partial, part);
    if (!whole)
        return 0;
    int code = s->on_document(s->context, buf_str(&s->partial), err);
    if (s->partial.cap > KEEP_BYTES) {
        buf_finish(&s->partial);
        s->partial = BUF_INIT(s->limits.max_bytes);
    } else {
        buf_clear(&s->partial);
    }
    return code;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static int bytes_take(struct json_stream *s, struct str bytes, struct err *err)
{
    const char *p = bytes.ptr, *end = p + bytes.len;
    while (p < end) {
        if (s->depth == 0) {
            while (p < end && is_space(*p))
                p++;
            if (p == end)
                break;
            if (*p != '{' && *p != '[')
                return err_set(err, ERR_PROTOCOL, "byte 0x%02x where a document should begin",
                               (unsigned char)*p);
        }
        const char *part = p;
        int code = document_scan(s, p, end, &p, err);
        if (code != 0)
            return code;
        code = part_take(s, (struct str){part, (size_t)(p - part)}, err);
        if (code != 0)
            return code;
    }
    return 0;
}

int json_stream_feed(struct json_stream *s, struct str bytes, struct err *err)
{
    if (s->failed)
        return err_set(err, s->failed, "the stream has failed before");
    if (bytes.len == 0)
        return 0;
    s->failed = bytes_take(s, bytes, err);
    return s->failed;
}

int json_stream_end(struct json_stream *s, struct err *err)
{
    if (s->failed)
        return err_set(err, s->failed, "the stream has failed before");
    if (s->depth > 0)
        return err_set(err, ERR_PROTOCOL,
                       "the stream ends inside a document, after %zu bytes of it", s->partial.len);
    return 0;
}
