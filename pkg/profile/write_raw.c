#include "profile/profile_internal.h"

#include <inttypes.h>

/* The stack that ends at `node`, root first. */
static void put_stack(const struct tree *t, uint32_t node, struct buf *out, uint32_t **path,
                      size_t *cap)
{
    size_t depth = 0;

    for (uint32_t n = node; n; n = t->nodes[n].key.a) {
        *path = grow(*path, cap, depth + 1, sizeof(**path));
        (*path)[depth++] = t->nodes[n].key.b;
    }
    while (depth-- > 0) {
        buf_append_str(out, t->labels.items[(*path)[depth]]);
        if (depth)
            buf_append_char(out, ';');
    }
    buf_appendf(out, " %" PRId64 "\n", t->nodes[node].self);
}

int profile_write_raw(const struct profile *p, struct buf *out, struct err *err)
{
    _cleanup_(tree_finish) struct tree t;
    _cleanup_(freep) uint32_t *path = NULL;
    size_t cap = 0;

    tree_build(&t, p);
    for (uint32_t n = t.nodes[0].first; n && !out->failed;) {
        if (t.nodes[n].self)
            put_stack(&t, n, out, &path, &cap);
        if (t.nodes[n].first) {
            n = t.nodes[n].first;
            continue;
        }
        while (n && !t.nodes[n].next)
            n = t.nodes[n].key.a;
        n = n ? t.nodes[n].next : 0;
    }
    return buf_error(out, "the raw profile", err);
}
