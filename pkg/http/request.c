#include "http/request.h"

#include <string.h>

enum { CHUNK_DIGITS_MAX = 8, CHUNK_OVERHEAD_MAX = 4096 };

size_t request_head_end(struct str in, size_t *scanned)
{
    size_t from = *scanned > 3 ? *scanned - 3 : 0;
    ssize_t at = str_find(str_sub(in, from, in.len), STR("\r\n\r\n"));
    *scanned = in.len;
    return at < 0 ? 0 : from + (size_t)at + 4;
}

/* RFC 9110, 5.6.2. */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool alphanumeric =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alphanumeric && (!c || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return s.len > 0;
}

static bool is_field_text(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_word(struct str s, const char *lower_case)
{
    if (s.len != strlen(lower_case))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (lower(s.ptr[i]) != lower_case[i])
            return false;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Control characters and what is not UTF-8 are refused: decoded text ends up in names and logs. */
static bool percent_decode(struct str s, bool plus_is_space, struct arena *arena, struct str *ret)
{
    char *out = arena_alloc(arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '%') {
            if (s.len - i < 3)
                return false;
            int high = hex_digit(s.ptr[i + 1]), low = hex_digit(s.ptr[i + 2]);
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            if ((unsigned char)c < 0x20 || c == 0x7f)
                return false;
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        out[n++] = c;
    }
    *ret = (struct str){out, n};
    return str_is_utf8(*ret);
}

static int parse_path(struct request *r, struct arena *arena, const char **ret_why)
{
    struct str rest = str_sub(r->path, 1, r->path.len);
    do {
        struct str segment = str_cut(&rest, '/');
        if (r->n_segments == REQUEST_SEGMENTS_MAX) {
            *ret_why = "path has too many segments";
            return 414;
        }
        struct str *decoded = &r->segments[r->n_segments++];
        if (!percent_decode(segment, false, arena, decoded)) {
            *ret_why = "path is not well percent-encoded";
            return 400;
        }
        if (str_is(*decoded, ".") || str_is(*decoded, "..") || str_find_char(*decoded, '/') >= 0 ||
            str_find_char(*decoded, '\\') >= 0) {
            *ret_why = "path has a segment that is not a plain name";
            return 400;
        }
    } while (rest.ptr);
    return 0;
}

static int parse_query(struct request *r, struct str query, struct arena *arena,
                       const char **ret_why)
{
    while (query.ptr) {
        struct str value = str_cut(&query, '&');
        if (!value.len)
            continue;
        if (r->n_query == REQUEST_QUERY_MAX) {
            *ret_why = "too many query parameters";
            return 400;
        }
        struct request_pair *pair = &r->query[r->n_query++];
        struct str name = str_cut(&value, '=');
        if (!percent_decode(name, true, arena, &pair->name) ||
            !percent_decode(value, true, arena, &pair->value)) {
            *ret_why = "query is not well percent-encoded";
            return 400;
        }
    }
    return 0;
}

static int parse_target(struct request *r, struct str target, struct arena *arena,
                        const char **ret_why)
{
    /* The absolute form, which every server must accept (RFC 9112, 3.2.2). */
    if (str_starts_with(target, STR("http://")) || str_starts_with(target, STR("https://"))) {
        target = str_sub(target, (size_t)str_find(target, STR("://")) + 3, target.len);
        ssize_t slash = str_find_char(target, '/');
        target = slash < 0 ? STR("/") : str_sub(target, (size_t)slash, target.len);
    }
    *ret_why = "request target is not a path";
    if (!str_starts_with(target, STR("/")))
        return 400;
    for (size_t i = 0; i < target.len; i++)
        if (target.ptr[i] <= 0x20 || target.ptr[i] >= 0x7f || target.ptr[i] == '#')
            return 400;
    r->path = str_cut(&target, '?');
    int status = parse_path(r, arena, ret_why);
    return status ? status : parse_query(r, target, arena, ret_why);
}

static bool is_version(struct str s)
{
    return s.len == 8 && str_starts_with(s, STR("HTTP/")) && s.ptr[5] >= '0' && s.ptr[5] <= '9' &&
           s.ptr[6] == '.' && s.ptr[7] >= '0' && s.ptr[7] <= '9';
}

static int parse_request_line(struct request *r, struct str line, struct arena *arena,
                              const char **ret_why)
{
    *ret_why = "malformed request line";
    r->method = str_cut(&line, ' ');
    struct str target = str_cut(&line, ' ');
    struct str version = line;
    if (!is_token(r->method) || r->method.len > 16 || !target.len)
        return 400;
    if (!str_is(version, "HTTP/1.1") && !str_is(version, "HTTP/1.0")) {
        *ret_why = "only HTTP/1.1 and HTTP/1.0 are spoken here";
        return is_version(version) ? 505 : 400;
    }
    r->keep_alive = str_is(version, "HTTP/1.1");
    return parse_target(r, target, arena, ret_why);
}

static int parse_header(struct request *r, struct str line, struct arena *arena,
                        const char **ret_why)
{
    if (r->n_headers == REQUEST_HEADERS_MAX) {
        *ret_why = "too many headers";
        return 431;
    }
    *ret_why = "malformed header";
    struct str value = line;
    struct str name = str_cut(&value, ':');
    if (!value.ptr || !is_token(name) || !is_field_text(value))
        return 400;
    char *lower_name = arena_cstr(arena, name);
    for (size_t i = 0; i < name.len; i++)
        lower_name[i] = lower(lower_name[i]);
    r->headers[r->n_headers++] = (struct request_pair){{lower_name, name.len}, str_trim(value)};
    return 0;
}

static size_t count_headers(const struct request *r, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_headers; i++)
        n += str_is(r->headers[i].name, name);
    return n;
}

/* How long the body is: the place where request smuggling lives (RFC 9112, 6.3). */
static int parse_framing(struct request *r, bool is_1_1, const char **ret_why)
{
    struct str length = request_header(r, "content-length");
    struct str encoding = request_header(r, "transfer-encoding");
    *ret_why = "ambiguous length of the body";
    if (count_headers(r, "content-length") > 1 || count_headers(r, "transfer-encoding") > 1 ||
        (length.ptr && encoding.ptr) || (encoding.ptr && !is_1_1))
        return 400;
    if (encoding.ptr && !is_word(encoding, "chunked")) {
        *ret_why = "transfer encoding is not known";
        return 501;
    }
    r->chunked = encoding.ptr != NULL;
    r->has_length = length.ptr != NULL;
    return length.ptr && str_to_u64(length, UINT64_MAX / 2, &r->length) ? 400 : 0;
}

static int parse_connection(struct request *r, bool is_1_1, const char **ret_why)
{
    /* Twice the same header is how two readers come to trust different ones. */
    *ret_why = "Host or Authorization is missing or given twice";
    if (count_headers(r, "host") > 1 || (is_1_1 && !count_headers(r, "host")) ||
        count_headers(r, "authorization") > 1)
        return 400;
    for (size_t i = 0; i < r->n_headers; i++) {
        if (!str_is(r->headers[i].name, "connection"))
            continue;
        struct str rest = r->headers[i].value;
        while (rest.ptr)
            if (is_word(str_trim(str_cut(&rest, ',')), "close"))
                r->keep_alive = false;
    }
    struct str expect = request_header(r, "expect");
    if (expect.ptr && !is_word(expect, "100-continue")) {
        *ret_why = "expectation is not known";
        return 417;
    }
    r->expects_continue = expect.ptr && is_1_1;
    return 0;
}

int request_parse(struct str head, struct arena *arena, struct request *ret, const char **ret_why)
{
    struct request r = {0};
    struct str rest = head;
    bool first = true;
    int status = 0;
    *ret_why = "malformed request";
    while (!status && rest.len) {
        ssize_t end = str_find(rest, STR("\r\n"));
        if (end < 0)
            return 400;
        struct str line = str_sub(rest, 0, (size_t)end);
        rest = str_sub(rest, (size_t)end + 2, rest.len);
        if (first)
            status = parse_request_line(&r, line, arena, ret_why);
        else if (line.len)
            status = parse_header(&r, line, arena, ret_why);
        else
            break;
        first = false;
    }
    bool is_1_1 = r.keep_alive;
    if (!status)
        status = parse_framing(&r, is_1_1, ret_why);
    if (!status)
        status = parse_connection(&r, is_1_1, ret_why);
    *ret = r;
    return status;
}

struct str request_header(const struct request *r, const char *lower_case_name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (str_is(r->headers[i].name, lower_case_name))
            return r->headers[i].value.ptr ? r->headers[i].value : STR("");
    return STR_NULL;
}

static int take_bytes(struct body_reader *r, struct str *in, struct buf *out)
{
    size_t n = r->remaining < in->len ? (size_t)r->remaining : in->len;
    buf_append(out, in->ptr, n);
    if (out->failed)
        return -413;
    *in = str_sub(*in, n, in->len);
    r->remaining -= n;
    return 0;
}

/* One byte of what is around a chunk's bytes. Returns 1 at the body's end, 0, or -400. */
static int chunk_byte(struct body_reader *r, char c)
{
    switch (r->state) {
    case CHUNK_SIZE:
        if (hex_digit(c) >= 0 && r->digits < CHUNK_DIGITS_MAX) {
            r->remaining = r->remaining * 16 + (uint64_t)hex_digit(c);
            r->digits++;
            return 0;
        }
        r->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
        return r->digits && (c == '\r' || c == ';') ? 0 : -400;
    case CHUNK_EXTENSION:
        if (c == '\r')
            r->state = CHUNK_SIZE_LF;
        return c == '\n' || ++r->overhead > CHUNK_OVERHEAD_MAX ? -400 : 0;
    case CHUNK_SIZE_LF:
        r->state = r->remaining ? CHUNK_BYTES : CHUNK_TRAILER;
        r->digits = 0;
        return c == '\n' ? 0 : -400;
    case CHUNK_BYTES_CR:
        r->state = CHUNK_BYTES_LF;
        return c == '\r' ? 0 : -400;
    case CHUNK_BYTES_LF:
        r->state = CHUNK_SIZE;
        return c == '\n' ? 0 : -400;
    case CHUNK_TRAILER: /* at the start of a line; trailers are skipped */
        r->state = c == '\r' ? CHUNK_END_LF : CHUNK_TRAILER_LINE;
        return c == '\n' || ++r->overhead > CHUNK_OVERHEAD_MAX ? -400 : 0;
    case CHUNK_TRAILER_LINE:
        if (c == '\r')
            r->state = CHUNK_TRAILER_LF;
        return c == '\n' || ++r->overhead > CHUNK_OVERHEAD_MAX ? -400 : 0;
    case CHUNK_TRAILER_LF:
        r->state = CHUNK_TRAILER;
        return c == '\n' ? 0 : -400;
    case CHUNK_END_LF:
        return c == '\n' ? 1 : -400;
    case CHUNK_BYTES:
        break;
    }
    return -400;
}

int body_read(struct body_reader *r, struct str *in, struct buf *out)
{
    if (!r->chunked) {
        int status = take_bytes(r, in, out);
        return status ? status : r->remaining == 0;
    }
    while (in->len) {
        int status;
        if (r->state == CHUNK_BYTES) {
            status = take_bytes(r, in, out);
            if (!r->remaining)
                r->state = CHUNK_BYTES_CR;
        } else {
            status = chunk_byte(r, in->ptr[0]);
            *in = str_sub(*in, 1, in->len);
        }
        if (status)
            return status;
    }
    return 0;
}
