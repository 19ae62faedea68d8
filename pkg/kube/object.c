#include "kube/object.h"

struct kube_object *kube_object_create(struct arena *arena, const struct json *tree)
{
    struct kube_object *o = arena_alloc(arena, sizeof(*o));
    const struct json *metadata = json_get(tree, "metadata");
    o->tree = tree;
    o->arena = arena;
    o->name = json_text(json_get(metadata, "name"));
    o->namespace_ = json_text(json_get(metadata, "namespace"));
    o->uid = json_text(json_get(metadata, "uid"));
    o->resource_version = json_text(json_get(metadata, "resourceVersion"));
    o->references = 1;
    return o;
}

struct kube_object *kube_object_ref(struct kube_object *o)
{
    __atomic_add_fetch(&o->references, 1, __ATOMIC_RELAXED);
    return o;
}

void kube_object_unref(struct kube_object *o)
{
    if (o && __atomic_sub_fetch(&o->references, 1, __ATOMIC_ACQ_REL) == 0)
        arena_destroy(o->arena); /* the object lives in it */
}

struct str kube_object_label(const struct kube_object *o, const char *name)
{
    return json_text(json_get(json_at(o->tree, "metadata", "labels", NULL), name));
}

struct str kube_object_annotation(const struct kube_object *o, const char *name)
{
    return json_text(json_get(json_at(o->tree, "metadata", "annotations", NULL), name));
}
