#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

enum {
    LINE_MAX_BYTES = 8192,
    TAIL = 32, /* room kept for the mark of a cut line and its end */
};

static struct {
    int fd;
    enum log_level level;
    enum log_format format;
} logger = {STDERR_FILENO, LOG_INFO, LOG_LOGFMT};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const format_names[] = {"logfmt", "json"};

void log_setup(int fd, enum log_level level, enum log_format format)
{
    logger.fd = fd;
    logger.level = level;
    logger.format = format;
}

bool log_enabled(enum log_level level)
{
    return level >= logger.level;
}

int log_level_parse(struct str s, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
        if (str_is(s, level_names[i])) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return ERR_INVALID;
}

int log_format_parse(struct str s, enum log_format *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(format_names); i++) {
        if (str_is(s, format_names[i])) {
            *ret = (enum log_format)i;
            return 0;
        }
    }
    return ERR_INVALID;
}

struct line {
    char bytes[LINE_MAX_BYTES];
    size_t len;
    bool cut;
};

/* All or nothing, so that a line is cut only between characters and stays well-formed. */
static bool put(struct line *l, const char *bytes, size_t len, size_t keep)
{
    if (l->cut || len > sizeof(l->bytes) - keep - l->len) {
        l->cut = true;
        return false;
    }
    memcpy(l->bytes + l->len, bytes, len);
    l->len += len;
    return true;
}

static bool put_cstr(struct line *l, const char *s)
{
    return put(l, s, strlen(s), TAIL);
}

/* One character of a quoted value. Control characters would reach a terminal; what is no UTF-8
 * would break readers of JSON. */
static bool put_escaped(struct line *l, struct str *rest)
{
    uint32_t rune = 0xfffd;
    size_t n = str_utf8_next(*rest, &rune);
    const char *from = n ? rest->ptr : "\xef\xbf\xbd";
    size_t len = n ? n : 3;
    char text[8];
    if (rune == '"' || rune == '\\') {
        len = (size_t)snprintf(text, sizeof(text), "\\%c", (char)rune);
        from = text;
    } else if (rune == '\n' || rune == '\r' || rune == '\t') {
        len = (size_t)snprintf(text, sizeof(text), "\\%c",
                               rune == '\n' ? 'n' : (rune == '\r' ? 'r' : 't'));
        from = text;
    } else if (rune_is_control(rune) || rune_is_bidi(rune)) {
        len = (size_t)snprintf(text, sizeof(text), "\\u%04x", (unsigned)(rune & 0xffff));
        from = text;
    }
    if (!put(l, from, len, TAIL + 1))
        return false;
    *rest = str_sub(*rest, n ? n : 1, rest->len);
    return true;
}

static void put_quoted(struct line *l, struct str s)
{
    if (!put(l, "\"", 1, TAIL + 1))
        return;
    while (s.len && put_escaped(l, &s))
        ;
    l->bytes[l->len++] = '"'; /* TAIL + 1 kept the room for it */
}

static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
            return false;
    }
    return s.len > 0;
}

static void put_text(struct line *l, struct str s)
{
    if (logger.format == LOG_LOGFMT && is_plain(s) && s.len < sizeof(l->bytes) - TAIL - l->len)
        put(l, s.ptr, s.len, TAIL);
    else
        put_quoted(l, s);
}

static bool put_key(struct line *l, const char *key)
{
    bool json = logger.format == LOG_JSON;
    size_t before = l->len;
    if ((json ? put_cstr(l, l->len ? ",\"" : "{\"") : (l->len == 0 || put_cstr(l, " "))) &&
        put_cstr(l, key) && put_cstr(l, json ? "\":" : "=") && l->len + 2 < sizeof(l->bytes) - TAIL)
        return true;
    l->cut = true;
    l->len = before;
    return false;
}

static void put_value(struct line *l, const struct log_field *field)
{
    char number[40];
    switch (field->type) {
    case LOG_TYPE_STR:
        put_text(l, field->text);
        return;
    case LOG_TYPE_BOOL:
        snprintf(number, sizeof(number), "%s", field->number ? "true" : "false");
        break;
    case LOG_TYPE_INT:
        snprintf(number, sizeof(number), "%lld", (long long)field->number);
        break;
    case LOG_TYPE_DOUBLE:
        if (isfinite(field->real))
            snprintf(number, sizeof(number), "%.9g", field->real);
        else
            snprintf(number, sizeof(number), "null"); /* JSON has no other word for it */
        break;
    }
    put_cstr(l, number);
}

static void put_field(struct line *l, const struct log_field *field)
{
    size_t before = l->len;
    if (!put_key(l, field->key))
        return;
    size_t value = l->len;
    put_value(l, field);
    if (l->len == value)
        l->len = before; /* not even a part of it fitted */
}

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nowhere left to say so */
        bytes += n;
        len -= (size_t)n;
    }
}

void log_write_fields(enum log_level level, const char *message, const struct log_field *fields)
{
    if (!log_enabled(level))
        return;
    int errnum = errno;
    struct line l;
    l.len = 0;
    l.cut = false;
    int64_t now = clock_wall_ms(&clock_system);
    char time[TIME_RFC3339_MAX];
    time_format_micro(now, time);
    memcpy(time + strlen("2026-01-31T23:59:59.123"), "Z", 2); /* milliseconds are what is known */
    put_field(&l, &LOG_C("time", time));
    put_field(&l, &LOG_C("level", level_names[level]));
    put_field(&l, &LOG_C("msg", message));
    for (const struct log_field *f = fields; f->key && !l.cut; f++)
        put_field(&l, f);
    bool json = logger.format == LOG_JSON;
    const char *tail =
        l.cut ? (json ? ",\"truncated\":true}\n" : " truncated=true\n") : (json ? "}\n" : "\n");
    memcpy(l.bytes + l.len, tail, strlen(tail));
    l.len += strlen(tail);
    write_all(logger.fd, l.bytes, l.len);
    errno = errnum;
}
