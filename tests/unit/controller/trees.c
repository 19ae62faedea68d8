#include "trees.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TREE_MAX (4u << 20)

const struct json *tree_of(struct arena *arena, const char *yaml)
{
    const struct json *tree = NULL;
    struct err err = ERR_INIT;
    if (json_parse_yaml(arena, str_of(yaml), NULL, &tree, &err) < 0)
        fail_msg("%s in: %s", err.message, yaml);
    return tree;
}

static void put_merged(struct json_writer *w, const char *name, const struct json *base,
                       const struct json *patch)
{
    if (!patch || patch->type != JSON_OBJECT) {
        json_put_tree(w, name, patch ? patch : base);
        return;
    }
    json_begin_object(w, name);
    for (size_t i = 0; base && base->type == JSON_OBJECT && i < base->object.len; i++) {
        const struct json_member *m = &base->object.members[i];
        bool patched = false;
        for (size_t j = 0; j < patch->object.len; j++)
            patched = patched || str_eq(patch->object.members[j].name, m->name);
        if (!patched)
            json_put_tree(w, m->name.ptr, m->value);
    }
    for (size_t i = 0; i < patch->object.len; i++) {
        const struct json_member *m = &patch->object.members[i];
        if (m->value->type != JSON_NULL)
            put_merged(w, m->name.ptr, json_get_str(base, m->name), m->value);
    }
    json_end_object(w);
}

const struct json *tree_merge(struct arena *arena, const struct json *base,
                              const struct json *patch)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(TREE_MAX);
    struct json_writer w = JSON_WRITER(&text);
    const struct json *tree = NULL;
    put_merged(&w, NULL, base, patch);
    assert_false(text.failed);
    assert_int_equal(json_parse(arena, buf_str(&text), NULL, &tree, NULL), 0);
    return tree;
}

const struct json *tree_merged(struct arena *arena, const char *base, const char *patch)
{
    const struct json *tree = tree_of(arena, base);
    return patch ? tree_merge(arena, tree, tree_of(arena, patch)) : tree;
}

struct str tree_text(struct arena *arena, const struct json *tree)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(TREE_MAX);
    struct json_writer w = JSON_WRITER(&text);
    json_put_tree(&w, NULL, tree);
    assert_false(text.failed);
    return arena_str(arena, buf_str(&text));
}
