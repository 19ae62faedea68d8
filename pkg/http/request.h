/* The syntax of HTTP/1.1 requests (RFC 9112), strict: what two readers could understand differently
 * is refused, never repaired. Pure functions over complete heads and pieces of bodies; results are
 * views into the caller's text or copies in the caller's arena. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

enum {
    REQUEST_HEAD_MAX = 16 * 1024, /* bytes of request line and headers; more: 431 */
    REQUEST_HEADERS_MAX = 64,
    REQUEST_QUERY_MAX = 32, /* pairs */
    REQUEST_SEGMENTS_MAX = 16,
};

struct request_pair {
    struct str name, value;
};

struct request {
    struct str method;
    struct str path;                              /* as sent, without the query */
    struct str segments[REQUEST_SEGMENTS_MAX];    /* of the path, percent-decoded */
    size_t n_segments;                            /* "/" has one, empty */
    struct request_pair query[REQUEST_QUERY_MAX]; /* percent-decoded */
    size_t n_query;
    struct request_pair headers[REQUEST_HEADERS_MAX]; /* names in lower case */
    size_t n_headers;
    bool keep_alive;
    bool expects_continue;
    bool chunked;
    bool has_length;
    uint64_t length; /* Content-Length; 0 without */
};

/* Finds the end of the head: the offset behind its empty line, or 0 when it is not there yet.
 * *scanned: how far former calls came; begins at 0. */
size_t request_head_end(struct str in, size_t *scanned);

/* head: up to and with the empty line; must live as long as `ret`, as must the arena. Returns 0, or
 * the status to refuse with: 400, 414 (segments), 417, 431, 501, 505; then *ret_why says why. */
int request_parse(struct str head, struct arena *arena, struct request *ret, const char **ret_why);

/* The first header of that name; ptr NULL: none. */
struct str request_header(const struct request *r, const char *lower_case_name);

enum chunk_state {
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_BYTES,
    CHUNK_BYTES_CR,
    CHUNK_BYTES_LF,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LINE,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
};

/* Where the reading of one body stands. Zero, then `chunked` or `remaining` set, is the start. */
struct body_reader {
    bool chunked;
    uint64_t remaining; /* bytes of the body, or of the present chunk */
    enum chunk_state state;
    unsigned digits;   /* of the present chunk's size */
    unsigned overhead; /* bytes of chunk extensions and trailers so far */
};

/* Takes bytes from the front of *in and appends the body's own to `out` (whose maximum is the cap).
 * Returns 1 when the body is complete, 0 when it needs more, or -400 or -413. */
int body_read(struct body_reader *r, struct str *in, struct buf *out);
