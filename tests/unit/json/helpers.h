/* What the tests of pkg/json share: one arena a test, and a tree as text for comparison. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "json/json.h"
#include "json/write.h"

static inline int arena_setup(void **state)
{
    *state = arena_create(0);
    return 0;
}

static inline int arena_teardown(void **state)
{
    arena_destroy(*state);
    return 0;
}

/* The tree as JSON; lives in the arena. */
static inline const char *tree_text(struct arena *arena, const struct json *tree)
{
    struct buf out = BUF_INIT(1 << 20);
    struct json_writer w = JSON_WRITER(&out);
    json_put_tree(&w, NULL, tree);
    const char *text = arena_cstr(arena, buf_str(&out));
    buf_finish(&out);
    return text;
}
