#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/alloc.h"

void buf_finish(struct buf *b)
{
    free(b->ptr);
    *b = BUF_INIT(b->max);
}

void buf_clear(struct buf *b)
{
    b->failed = false;
    buf_truncate(b, 0);
}

char *buf_reserve(struct buf *b, size_t len)
{
    if (b->failed || b->len > b->max || len > b->max - b->len || b->max == SIZE_MAX) {
        b->failed = true;
        return NULL;
    }
    size_t needed = b->len + len + 1;
    if (needed > b->cap) {
        size_t cap = b->cap < 64 ? 64 : b->cap;
        while (cap < needed)
            cap = cap > b->max / 2 ? b->max + 1 : cap * 2;
        if (cap > b->max + 1)
            cap = b->max + 1;
        b->ptr = xrealloc(b->ptr, cap, 1);
        b->cap = cap;
        b->ptr[b->len] = '\0';
    }
    return b->ptr + b->len;
}

void buf_append(struct buf *b, const void *bytes, size_t len)
{
    char *to = buf_reserve(b, len);
    if (!to)
        return;
    if (len)
        memcpy(to, bytes, len);
    b->len += len;
    b->ptr[b->len] = '\0';
}

void buf_append_str(struct buf *b, struct str s)
{
    buf_append(b, s.ptr, s.len);
}

void buf_append_cstr(struct buf *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_append_char(struct buf *b, char c)
{
    buf_append(b, &c, 1);
}

void buf_appendv(struct buf *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    char *to = buf_reserve(b, 0);
    if (to) {
        /* What is already allocated is enough most of the time. */
        int n = vsnprintf(to, b->cap - b->len, format, args);
        if (n < 0) {
            b->failed = true;
        } else if (!buf_reserve(b, (size_t)n)) {
            b->ptr[b->len] = '\0';
        } else {
            vsnprintf(b->ptr + b->len, (size_t)n + 1, format, again);
            b->len += (size_t)n;
        }
    }
    va_end(again);
}

void buf_appendf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buf_appendv(b, format, args);
    va_end(args);
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void buf_append_rune(struct buf *b, uint32_t rune)
{
    if (rune > 0x10ffff || (rune >= 0xd800 && rune < 0xe000))
        rune = 0xfffd;
    if (rune < 0x80) {
        buf_append_char(b, (char)rune);
        return;
    }
    unsigned more = rune < 0x800 ? 1 : rune < 0x10000 ? 2 : 3; /* bytes behind the first */
    buf_append_char(b, (char)((0xff00u >> (more + 1) & 0xff) | rune >> 6 * more));
    while (more-- > 0)
        buf_append_char(b, (char)(0x80 | (rune >> 6 * more & 0x3f)));
}

void buf_append_percent(struct buf *b, struct str s)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (is_unreserved(s.ptr[i]))
            buf_append_char(b, s.ptr[i]);
        else
            buf_append(b, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    }
}

void buf_truncate(struct buf *b, size_t len)
{
    if (len < b->len)
        b->len = len;
    if (b->ptr)
        b->ptr[b->len] = '\0';
}

void buf_consume(struct buf *b, size_t len)
{
    if (len > b->len)
        len = b->len;
    if (len == 0)
        return;
    memmove(b->ptr, b->ptr + len, b->len - len);
    buf_truncate(b, b->len - len);
}

int buf_error(const struct buf *b, const char *what, struct err *err)
{
    if (!b->failed)
        return 0;
    return err_set(err, ERR_TOO_LARGE, "%s is larger than %zu bytes", what, b->max);
}

struct str buf_str(const struct buf *b)
{
    return (struct str){b->ptr, b->len};
}

const char *buf_cstr(const struct buf *b)
{
    if (!b->ptr)
        return "";
    b->ptr[b->len] = '\0'; /* who filled buf_reserve()'s room by hand did not end it */
    return b->ptr;
}

char *buf_take(struct buf *b)
{
    buf_reserve(b, 0);
    char *bytes = b->ptr ? b->ptr : xcalloc(1, 1);
    bytes[b->len] = '\0';
    *b = BUF_INIT(b->max);
    return bytes;
}

/* A full buffer is told from a too large file by trying for one byte more. */
static int read_some(struct buf *b, int fd, size_t *ret_n)
{
    enum { STEP = 4096 };
    char probe;
    size_t room = b->max - b->len < STEP ? b->max - b->len : STEP;
    if (room && b->cap > b->len + 1 + room)
        room = b->cap - b->len - 1;
    char *to = room ? buf_reserve(b, room) : &probe;
    ssize_t n;
    do {
        n = read(fd, to, room ? room : 1);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *ret_n = (size_t)n;
    if (room)
        b->len += (size_t)n;
    else if (n > 0)
        b->failed = true;
    return 0;
}

int buf_read_file_at(struct buf *b, int dirfd, const char *path, struct err *err)
{
    buf_clear(b);
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_set_errno(err, errno, "open %s", path);
    int errnum = 0;
    size_t n = 1;
    while (errnum == 0 && n > 0 && !b->failed)
        errnum = -read_some(b, fd, &n);
    close(fd);
    int code = errnum ? err_set_errno(err, errnum, "read %s", path) : buf_error(b, path, err);
    buf_truncate(b, code < 0 ? 0 : b->len);
    b->failed = false;
    return code;
}

int buf_read_file(struct buf *b, const char *path, struct err *err)
{
    return buf_read_file_at(b, AT_FDCWD, path, err);
}
