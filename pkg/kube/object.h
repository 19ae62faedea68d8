/* A Kubernetes object as it came: an immutable tree with its arena, reference counted (atomically;
 * any thread). Never change what a cache or a reply returned. */
#pragma once

#include "json/json.h"

struct kube_object {
    const struct json *tree;
    struct arena *arena;
    struct str name, namespace_, uid, resource_version; /* views into the tree; "" when absent */
    int references;
};

/* Takes over the arena. */
struct kube_object *kube_object_create(struct arena *arena, const struct json *tree);
struct kube_object *kube_object_ref(struct kube_object *o);
void kube_object_unref(struct kube_object *o); /* NULL is fine */
DEFINE_CLEANUP(struct kube_object *, kube_object_unref);

struct str kube_object_label(const struct kube_object *o, const char *name); /* ptr NULL: none */
struct str kube_object_annotation(const struct kube_object *o,
                                  const char *name); /* ptr NULL: none */
