#include "base/heap.h"

#include "base/alloc.h"
#include "base/poison.h"

void heap_finish(struct heap *h)
{
    for (size_t i = 0; i < h->len; i++)
        h->nodes[i]->index = 0;
    free(h->nodes);
    *h = (struct heap){0};
}

static void place(struct heap *h, size_t i, struct heap_node *node)
{
    h->nodes[i] = node;
    node->index = i + 1;
}

static void sift_up(struct heap *h, size_t i, struct heap_node *node)
{
    while (i > 0 && h->nodes[(i - 1) / 2]->key > node->key) {
        place(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, node);
}

static void sift_down(struct heap *h, size_t i, struct heap_node *node)
{
    for (size_t child; (child = 2 * i + 1) < h->len; i = child) {
        if (child + 1 < h->len && h->nodes[child + 1]->key < h->nodes[child]->key)
            child++;
        if (h->nodes[child]->key >= node->key)
            break;
        place(h, i, h->nodes[child]);
    }
    place(h, i, node);
}

/* Finds the place of a node whose slot `i` is free to be written. */
static void sift(struct heap *h, size_t i, struct heap_node *node)
{
    if (i > 0 && h->nodes[(i - 1) / 2]->key > node->key)
        sift_up(h, i, node);
    else
        sift_down(h, i, node);
}

void heap_insert(struct heap *h, struct heap_node *node, int64_t key)
{
    node->key = key;
    if (node->index) {
        sift(h, node->index - 1, node);
        return;
    }
    if (h->len == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 16;
        h->nodes = xrealloc(h->nodes, h->cap, sizeof(struct heap_node *));
    }
    sift_up(h, h->len++, node);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    if (!node->index)
        return;
    size_t i = node->index - 1;
    struct heap_node *last = h->nodes[--h->len];
    if (last != node)
        sift(h, i, last);
    node->index = 0;
}

struct heap_node *heap_first(const struct heap *h)
{
    return h->len ? h->nodes[0] : NULL;
}
