/* What the tests of pkg/profile share: recordings of tests/data/pyspy and short-hands. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "profile/profile.h"

#define MAX_OUT ((size_t)64 << 20)

static inline void load(const char *name, struct buf *text)
{
    char path[256];
    struct err err = ERR_INIT;

    *text = BUF_INIT(MAX_OUT);
    snprintf(path, sizeof(path), TEST_DATA "/pyspy/%s", name);
    if (buf_read_file(text, path, &err))
        fail_msg("%s", err.message);
}

/* By the end of the name: raw or speedscope. */
static inline void read_into(struct profile *p, const char *name)
{
    _cleanup_(buf_finish) struct buf text;
    struct err err = ERR_INIT;

    load(name, &text);
    int r = str_ends_with(str_of(name), STR(".raw"))
                ? profile_read_raw(p, buf_str(&text), &err)
                : profile_read_speedscope(p, buf_str(&text), &err);
    if (r)
        fail_msg("%s: %s", name, err.message);
}

static inline struct profile *from_raw(const char *text)
{
    struct profile *p = profile_create(NULL);
    struct err err = ERR_INIT;

    if (profile_read_raw(p, str_of(text), &err))
        fail_msg("%s", err.message);
    return p;
}

static inline void about(struct profile *p, const char *title, int64_t rate)
{
    profile_set_about(p, &(struct profile_about){.title = str_of(title),
                                                 .start_ms = 1767225599000,
                                                 .duration_ms = 30000,
                                                 .rate = rate});
}

typedef int (*writer)(const struct profile *p, struct buf *out, struct err *err);

static inline void write_with(writer w, const struct profile *p, struct buf *out)
{
    struct err err = ERR_INIT;

    *out = BUF_INIT(MAX_OUT);
    if (w(p, out, &err))
        fail_msg("%s", err.message);
}

static inline bool contains(const struct buf *b, const char *needle)
{
    return str_find(buf_str(b), str_of(needle)) >= 0;
}

static inline size_t count(const struct buf *b, const char *needle)
{
    struct str rest = buf_str(b);
    size_t n = 0;

    for (ssize_t at; (at = str_find(rest, str_of(needle))) >= 0; n++)
        rest = str_sub(rest, (size_t)at + strlen(needle), rest.len);
    return n;
}

#define assert_contains(b, needle)                                                                 \
    do {                                                                                           \
        if (!contains(b, needle))                                                                  \
            fail_msg("no \"%s\" in: %.600s", needle, buf_cstr(b));                                 \
    } while (0)
#define assert_contains_not(b, needle)                                                             \
    do {                                                                                           \
        if (contains(b, needle))                                                                   \
            fail_msg("\"%s\" in the output", needle);                                              \
    } while (0)
