/* Intrusive binary min-heap on a 64-bit key (a deadline). The owner of the nodes' structures owns
 * their memory; the heap owns its array. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t key;
    size_t index; /* position + 1; 0 when in no heap */
};

struct heap {
    struct heap_node **nodes;
    size_t len, cap;
};

void heap_finish(struct heap *h);
/* Or moves it, if it is in. */
void heap_insert(struct heap *h, struct heap_node *node, int64_t key);
void heap_remove(struct heap *h, struct heap_node *node); /* nothing, if it is not in */
struct heap_node *heap_first(const struct heap *h);       /* NULL: empty */
