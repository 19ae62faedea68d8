/* struct buf: bytes that grow up to a maximum given at init. Failure is sticky: after an append
 * that would pass the maximum, further ones do nothing and buf_error() tells once at the end. The
 * content is always followed by a NUL byte. The caller owns it. One thread at a time. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

struct buf {
    char *ptr;
    size_t len; /* bytes, without the NUL */
    size_t cap;
    size_t max;  /* bytes that it may hold */
    bool failed; /* an append did not fit */
};

#define BUF_INIT(max_) ((struct buf){.max = (max_)})

void buf_finish(struct buf *b); /* frees; the buffer is then empty and may be used again */
void buf_clear(struct buf *b);  /* empties, keeps the memory, forgets a failure */

void buf_append(struct buf *b, const void *bytes, size_t len);
void buf_append_str(struct buf *b, struct str s);
void buf_append_cstr(struct buf *b, const char *s);
void buf_append_char(struct buf *b, char c);
void buf_appendf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_appendv(struct buf *b, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
/* One code point as UTF-8; U+FFFD for what is none. */
void buf_append_rune(struct buf *b, uint32_t rune);
/* Percent-encodes everything but RFC 3986's unreserved characters. */
void buf_append_percent(struct buf *b, struct str s);

/* Makes room for `len` more bytes and returns where they go (then add to b->len), or NULL. */
char *buf_reserve(struct buf *b, size_t len);
void buf_consume(struct buf *b, size_t len); /* drops bytes from the front */
void buf_truncate(struct buf *b, size_t len);

/* 0, or ERR_TOO_LARGE with "<what> is larger than <max> bytes". */
int buf_error(const struct buf *b, const char *what, struct err *err);
struct str buf_str(const struct buf *b);
const char *buf_cstr(const struct buf *b); /* never NULL */
char *buf_take(struct buf *b); /* the bytes, NUL-ended, to free(); the buffer is empty */

/* Replaces the content by a whole file of at most b->max bytes; on failure it is empty.
 * ERR_NOT_FOUND, ERR_FORBIDDEN, ERR_TOO_LARGE, ERR_IO. */
int buf_read_file(struct buf *b, const char *path, struct err *err);
int buf_read_file_at(struct buf *b, int dirfd, const char *path, struct err *err);
