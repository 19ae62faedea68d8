#include "profile/profile_internal.h"

#include "base/alloc.h"

struct order {
    const struct tree *t;
    const uint32_t *rank;
};

static int by_text(const void *a, const void *b, void *context)
{
    const struct str *labels = context;

    return str_cmp(labels[*(const uint32_t *)a], labels[*(const uint32_t *)b]);
}

/* By parent, then by label: siblings stand together, in order. */
static int by_parent(const void *a, const void *b, void *context)
{
    const struct order *o = context;
    const struct tree_node *x = &o->t->nodes[*(const uint32_t *)a];
    const struct tree_node *y = &o->t->nodes[*(const uint32_t *)b];

    if (x->key.a != y->key.a)
        return x->key.a < y->key.a ? -1 : 1;
    return o->rank[x->key.b] < o->rank[y->key.b] ? -1 : 1;
}

/* 0 is neutral, 1 to 5 are warm, 6 to 10 cool. A package keeps its hue in every profile: the part
 * of the file that names it, "multiprocessing" of "multiprocessing/process.py", is hashed. */
static uint8_t hue_of(const struct labels *l, const struct profile_frame *f)
{
    enum label_origin origin = label_origin(f->file);
    struct str file = label_short_file(l, f->file);
    ssize_t slash = str_find_char(file, '/');
    uint64_t hash;

    if (slash > 0)
        file.len = (size_t)slash;
    hash = str_hash(file);
    hash ^= hash >> 32; /* FNV-1a's last bits alone are poor */
    switch (origin) {
    case LABEL_NATIVE:
        return 0;
    case LABEL_APPLICATION:
        return (uint8_t)(1 + hash % 5);
    case LABEL_LIBRARY:
        return (uint8_t)(6 + hash % 5);
    case LABEL_UNKNOWN:
        break;
    }
    return (uint8_t)(1 + hash % 10);
}

static uint32_t *label_frames(struct tree *t, const struct profile *p)
{
    struct labels l;
    uint32_t *of = xcalloc(p->n_frames + 1, sizeof(*of));

    labels_init(&l, p);
    t->hues = xcalloc(p->n_frames + 1, sizeof(*t->hues));
    for (size_t i = 0; i < p->n_frames; i++) {
        struct profile_frame f = profile_frame_at(p, i);
        /* U+FFFD takes three bytes in place of one */
        _cleanup_(buf_finish) struct buf text = BUF_INIT((f.function.len + f.file.len) * 3 + 32);
        size_t known = t->labels.len;

        label_append(&l, &f, &text);
        of[i] = texts_add(&t->labels, buf_str(&text));
        if (t->labels.len > known) {
            t->hues[of[i]] = hue_of(&l, &f);
            t->origins |= label_origin(f.file) == LABEL_APPLICATION;
        }
    }
    return of;
}

static void add_nodes(struct tree *t, const struct profile *p, const uint32_t *label)
{
    _cleanup_(freep) uint32_t *of = xcalloc(p->n_nodes, sizeof(*of));
    _cleanup_(pairs_finish) struct pairs index;

    pairs_init(&index);
    t->nodes = xcalloc(p->n_nodes, sizeof(*t->nodes));
    t->nodes[0] = (struct tree_node){.key = {NODE_NONE, NODE_NONE}};
    t->len = 1;
    for (size_t i = 1; i < p->n_nodes; i++) {
        const struct node *n = &p->nodes[i];
        uint32_t parent = of[n->key.a], l = label[n->key.b];
        uint32_t at = pairs_find(&index, t->nodes, sizeof(*t->nodes), parent, l);

        if (at == NODE_NONE) {
            at = (uint32_t)t->len++;
            t->nodes[at] = (struct tree_node){.key = {parent, l}};
            pairs_add(&index, t->nodes, sizeof(*t->nodes), at);
        }
        t->nodes[at].self += n->self;
        of[i] = at;
    }
    for (size_t i = t->len; i-- > 0;) {
        t->nodes[i].total += t->nodes[i].self;
        if (i)
            t->nodes[t->nodes[i].key.a].total += t->nodes[i].total;
    }
}

static void link_siblings(struct tree *t)
{
    size_t n_labels = t->labels.len, most = t->len > n_labels ? t->len : n_labels;
    _cleanup_(freep) uint32_t *items = xcalloc(most + 1, sizeof(*items));
    _cleanup_(freep) uint32_t *rank = xcalloc(n_labels + 1, sizeof(*rank));

    for (size_t i = 0; i < n_labels; i++)
        items[i] = (uint32_t)i;
    qsort_r(items, n_labels, sizeof(*items), by_text, t->labels.items);
    for (size_t i = 0; i < n_labels; i++)
        rank[items[i]] = (uint32_t)i;
    for (size_t i = 1; i < t->len; i++)
        items[i - 1] = (uint32_t)i;
    qsort_r(items, t->len - 1, sizeof(*items), by_parent, &(struct order){t, rank});
    for (size_t i = t->len - 1; i-- > 0;) { /* from the back: the first sibling is linked last */
        struct tree_node *n = &t->nodes[items[i]], *parent = &t->nodes[n->key.a];
        n->next = parent->first;
        parent->first = items[i];
    }
}

void tree_build(struct tree *t, const struct profile *p)
{
    *t = (struct tree){0};
    texts_init(&t->labels);
    _cleanup_(freep) uint32_t *label = label_frames(t, p);
    add_nodes(t, p, label);
    link_siblings(t);
}

void tree_finish(struct tree *t)
{
    texts_finish(&t->labels);
    free(t->hues);
    free(t->nodes);
    *t = (struct tree){0};
}
