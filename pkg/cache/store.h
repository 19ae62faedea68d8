/* Objects by "namespace/name". Holds a reference to each. Private to pkg/cache; on the loop's
 * thread. */
#pragma once

#include "base/map.h"
#include "kube/object.h"

struct store {
    struct map *objects; /* struct kube_object */
};

void store_init(struct store *s);
void store_finish(struct store *s);
void store_swap(struct store *a, struct store *b);
struct kube_object *store_get(const struct store *s, const struct kube_object *like);
/* Puts it in by its own name, taking a reference over; returns the old one, to be unref'd. */
struct kube_object *store_set(struct store *s, struct kube_object *object);
struct kube_object *store_remove(struct store *s, const struct kube_object *like);
