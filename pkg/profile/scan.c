#include "profile/scan.h"

#include <math.h>

#define MAX_DEPTH 64

static void skip_space(struct scan *s)
{
    while (s->pos < s->text.len) {
        char c = s->text.ptr[s->pos];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
            break;
        s->pos++;
    }
}

static int peek(struct scan *s)
{
    skip_space(s);
    return s->pos < s->text.len ? (unsigned char)s->text.ptr[s->pos] : -1;
}

static int fail(struct scan *s, const char *expected, struct err *err)
{
    size_t line = 1;

    if (s->pos >= s->text.len)
        return err_set(err, ERR_INVALID, "cut off, %s expected", expected);
    for (size_t i = 0; i < s->pos; i++)
        line += s->text.ptr[i] == '\n';
    return err_set(err, ERR_INVALID, "line %zu, byte %zu: %s expected", line, s->pos, expected);
}

static int skip_string(struct scan *s, struct err *err)
{
    if (peek(s) != '"')
        return fail(s, "a string", err);
    for (s->pos++; s->pos < s->text.len; s->pos++) {
        if (s->text.ptr[s->pos] == '\\') {
            s->pos++;
        } else if (s->text.ptr[s->pos] == '"') {
            s->pos++;
            return 0;
        }
    }
    s->pos = s->text.len;
    return fail(s, "the end of a string", err);
}

static bool is_scalar(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '+' || c == '.';
}

/* Bytes that cannot change the nesting. */
static bool is_filler(int c)
{
    return is_scalar(c) || c == ',' || c == ':' || c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* What stands inside is checked by whoever reads it; here only brackets and strings count. */
int scan_value(struct scan *s, struct str *ret, struct err *err)
{
    char close[MAX_DEPTH];
    int depth = 0, c = peek(s);
    size_t start = s->pos;

    if (is_scalar(c)) {
        while (s->pos < s->text.len && is_scalar((unsigned char)s->text.ptr[s->pos]))
            s->pos++;
    } else if (c == '"') {
        if (skip_string(s, err))
            return ERR_INVALID;
    } else if (c != '{' && c != '[') {
        return fail(s, "a value", err);
    } else {
        do {
            while (s->pos < s->text.len && is_filler((unsigned char)s->text.ptr[s->pos]))
                s->pos++;
            c = peek(s);
            if (c == '"') {
                if (skip_string(s, err))
                    return ERR_INVALID;
            } else if (c == '{' || c == '[') {
                if (depth == MAX_DEPTH)
                    return fail(s, "no more than 64 levels", err);
                close[depth++] = c == '{' ? '}' : ']';
                s->pos++;
            } else if (c == '}' || c == ']') {
                if (!depth || c != close[--depth])
                    return fail(s, "the other bracket", err);
                s->pos++;
            } else {
                return fail(s, "a value", err);
            }
        } while (depth);
    }
    *ret = str_sub(s->text, start, s->pos - start);
    return 0;
}

int scan_enter(struct scan *s, char bracket, struct err *err)
{
    if (peek(s) != bracket)
        return fail(s, bracket == '{' ? "an object" : "an array", err);
    s->pos++;
    return 0;
}

int scan_next(struct scan *s, char close, bool *first, struct err *err)
{
    int c = peek(s);

    if (c == close) {
        s->pos++;
        return 0;
    }
    if (!*first) {
        if (c != ',')
            return fail(s, "a comma", err);
        s->pos++;
    }
    *first = false;
    return 1;
}

int scan_name(struct scan *s, struct str *ret, struct err *err)
{
    peek(s);
    size_t start = s->pos;

    if (skip_string(s, err))
        return ERR_INVALID;
    *ret = str_sub(s->text, start, s->pos - start);
    if (peek(s) != ':')
        return fail(s, "a colon", err);
    s->pos++;
    return 0;
}

int scan_index(struct scan *s, uint32_t *ret, struct err *err)
{
    uint64_t n = 0;
    int c = peek(s);
    size_t start = s->pos;

    while (c >= '0' && c <= '9' && n <= UINT32_MAX) {
        n = n * 10 + (uint64_t)(c - '0');
        s->pos++;
        c = s->pos < s->text.len ? (unsigned char)s->text.ptr[s->pos] : -1;
    }
    if (s->pos == start || n >= UINT32_MAX || is_scalar(c)) {
        s->pos = start;
        return fail(s, "an index", err);
    }
    *ret = (uint32_t)n;
    return 0;
}

int scan_number(struct scan *s, double *ret, struct err *err)
{
    char text[40], *end;
    struct str v = STR_NULL;
    size_t start;

    peek(s);
    start = s->pos;
    if (scan_value(s, &v, err))
        return ERR_INVALID;
    if (v.len && v.len < sizeof(text) &&
        (v.ptr[0] == '-' || (v.ptr[0] >= '0' && v.ptr[0] <= '9'))) {
        memcpy(text, v.ptr, v.len);
        text[v.len] = '\0';
        double d = strtod(text, &end);
        if (!*end && isfinite(d)) {
            *ret = d;
            return 0;
        }
    }
    s->pos = start;
    return fail(s, "a number", err);
}

int scan_end(struct scan *s, struct err *err)
{
    return peek(s) < 0 ? 0 : fail(s, "the end of the text", err);
}
