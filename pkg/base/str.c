#include "base/str.h"

#include "base/alloc.h"

struct str str_of(const char *cstr)
{
    return cstr ? (struct str){cstr, strlen(cstr)} : STR_NULL;
}

bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool str_is(struct str a, const char *cstr)
{
    return str_eq(a, str_of(cstr));
}

int str_cmp(struct str a, struct str b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

struct str str_sub(struct str s, size_t from, size_t len)
{
    if (from >= s.len)
        return (struct str){s.len ? s.ptr + s.len : s.ptr, 0};
    size_t rest = s.len - from;
    return (struct str){s.ptr + from, len < rest ? len : rest};
}

bool str_starts_with(struct str s, struct str prefix)
{
    return s.len >= prefix.len && str_eq(str_sub(s, 0, prefix.len), prefix);
}

bool str_ends_with(struct str s, struct str suffix)
{
    return s.len >= suffix.len && str_eq(str_sub(s, s.len - suffix.len, suffix.len), suffix);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.len && is_space(s.ptr[s.len - 1]))
        s.len--;
    while (s.len && is_space(*s.ptr)) {
        s.ptr++;
        s.len--;
    }
    return s;
}

ssize_t str_find_char(struct str s, char c)
{
    const char *at = s.len ? memchr(s.ptr, c, s.len) : NULL;
    return at ? at - s.ptr : -1;
}

ssize_t str_rfind_char(struct str s, char c)
{
    const char *at = s.len ? memrchr(s.ptr, c, s.len) : NULL;
    return at ? at - s.ptr : -1;
}

ssize_t str_find(struct str s, struct str needle)
{
    if (needle.len == 0)
        return 0;
    const char *at = s.len ? memmem(s.ptr, s.len, needle.ptr, needle.len) : NULL;
    return at ? at - s.ptr : -1;
}

struct str str_cut(struct str *rest, char separator)
{
    struct str all = *rest;
    ssize_t at = str_find_char(all, separator);
    if (at < 0) {
        *rest = STR_NULL;
        return all;
    }
    size_t len = (size_t)at;
    *rest = (struct str){all.ptr + len + 1, all.len - len - 1};
    return (struct str){all.ptr, len};
}

char *str_dup(struct str s)
{
    char *copy = xrealloc(NULL, 1, s.len + 1);
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

int str_to_u64(struct str s, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    if (s.len == 0)
        return ERR_INVALID;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(s.ptr[i] - '0'), &value))
            return ERR_INVALID;
    }
    if (value > max)
        return ERR_INVALID;
    *ret = value;
    return 0;
}

int str_to_i64(struct str s, int64_t min, int64_t max, int64_t *ret)
{
    bool negative = s.len && *s.ptr == '-';
    uint64_t magnitude;
    if (str_to_u64(negative ? str_sub(s, 1, s.len) : s, (uint64_t)INT64_MAX + negative,
                   &magnitude) < 0)
        return ERR_INVALID;
    /* Two's complement: negating before the conversion reaches INT64_MIN without overflow. */
    int64_t value = (int64_t)(negative ? 0 - magnitude : magnitude);
    if (value < min || value > max)
        return ERR_INVALID;
    *ret = value;
    return 0;
}

/* RFC 3629; over-long forms, surrogates and what is past U+10FFFF are excluded by the ranges of
 * the second byte, as in table 3-7 of the Unicode standard. */
size_t str_utf8_next(struct str s, uint32_t *ret_rune)
{
    if (s.len == 0)
        return 0;
    const unsigned char *b = (const unsigned char *)s.ptr;
    size_t len;
    uint32_t rune;
    unsigned char low = 0x80, high = 0xbf;
    if (b[0] < 0x80) {
        len = 1;
        rune = b[0];
    } else if (b[0] >= 0xc2 && b[0] <= 0xdf) {
        len = 2;
        rune = b[0] & 0x1fu;
    } else if (b[0] >= 0xe0 && b[0] <= 0xef) {
        len = 3;
        rune = b[0] & 0x0fu;
        low = b[0] == 0xe0 ? 0xa0 : 0x80;
        high = b[0] == 0xed ? 0x9f : 0xbf;
    } else if (b[0] >= 0xf0 && b[0] <= 0xf4) {
        len = 4;
        rune = b[0] & 0x07u;
        low = b[0] == 0xf0 ? 0x90 : 0x80;
        high = b[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (s.len < len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (b[i] < low || b[i] > high)
            return 0;
        rune = rune << 6 | (b[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    if (ret_rune)
        *ret_rune = rune;
    return len;
}

bool str_is_utf8(struct str s)
{
    while (s.len) {
        size_t n = str_utf8_next(s, NULL);
        if (n == 0)
            return false;
        s.ptr += n;
        s.len -= n;
    }
    return true;
}

bool rune_is_control(uint32_t rune)
{
    return rune < 0x20 || (rune >= 0x7f && rune < 0xa0) || rune == 0x2028 || rune == 0x2029;
}

bool rune_is_bidi(uint32_t rune)
{
    return rune == 0x061c || rune == 0x200e || rune == 0x200f ||
           (rune >= 0x202a && rune <= 0x202e) || (rune >= 0x2066 && rune <= 0x2069);
}

size_t str_show(struct str s, char *to, size_t size)
{
    size_t len = 0;
    while (s.len) {
        char escape[8];
        uint32_t rune = (unsigned char)s.ptr[0];
        size_t n = str_utf8_next(s, &rune), taken = n ? n : 1;
        struct str piece = str_sub(s, 0, taken);
        if (rune == '\n' || rune == '\r' || rune == '\t')
            piece = rune == '\n' ? STR("\\n") : rune == '\r' ? STR("\\r") : STR("\\t");
        else if (!n || rune_is_control(rune) || rune_is_bidi(rune))
            piece = (struct str){escape, (size_t)snprintf(escape, sizeof(escape),
                                                          !n || rune < 0x80 ? "\\x%02x" : "\\u%04x",
                                                          (unsigned)(rune & 0xffff))};
        if (piece.len >= size - len)
            break;
        memcpy(to + len, piece.ptr, piece.len);
        len += piece.len;
        s = str_sub(s, taken, s.len);
    }
    if (size)
        to[len] = '\0';
    return len;
}

uint64_t str_hash(struct str s)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.len; i++)
        hash = (hash ^ (unsigned char)s.ptr[i]) * 0x100000001b3u;
    return hash;
}
