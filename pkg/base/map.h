/* Hash map from strings to pointers, keyed with SipHash and a random key, so that hostile names
 * cannot make it slow. Copies its keys; does not own the values. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct map;

struct map *map_create(void);
void map_destroy(struct map *m); /* values are the caller's; NULL is fine */
DEFINE_CLEANUP(struct map *, map_destroy);

size_t map_size(const struct map *m);
void *map_get(const struct map *m, struct str key);        /* NULL: none */
void *map_set(struct map *m, struct str key, void *value); /* value not NULL; returns the old one */
void *map_remove(struct map *m, struct str key);           /* the value, or NULL */

/* Goes through all entries, in no order: start with a zeroed iterator. Removing the entry just
 * returned is allowed, setting new keys is not. */
struct map_iter {
    size_t position;
    struct str key;
    void *value;
};
bool map_next(const struct map *m, struct map_iter *it);

/* The map's hash, SipHash-1-3, for tables of another shape. */
uint64_t map_siphash13(const uint64_t key[2], struct str s);
