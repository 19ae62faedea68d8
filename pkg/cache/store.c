#include "cache/store.h"

#include "base/buf.h"

/* Names and namespaces have at most 253 bytes; the cap leaves room for what is not valid. */
enum { MAX_KEY = 4096 };

static void key_of(struct buf *key, const struct kube_object *o)
{
    if (o->namespace_.len) {
        buf_append_str(key, o->namespace_);
        buf_append_char(key, '/');
    }
    buf_append_str(key, o->name);
}

void store_init(struct store *s)
{
    s->objects = map_create();
}

void store_finish(struct store *s)
{
    if (!s->objects)
        return;
    for (struct map_iter it = {0}; map_next(s->objects, &it);)
        kube_object_unref(it.value);
    map_destroy(s->objects);
    s->objects = NULL;
}

void store_swap(struct store *a, struct store *b)
{
    struct store was = *a;
    *a = *b;
    *b = was;
}

struct kube_object *store_get(const struct store *s, const struct kube_object *like)
{
    _cleanup_(buf_finish) struct buf key = BUF_INIT(MAX_KEY);
    key_of(&key, like);
    return map_get(s->objects, buf_str(&key));
}

struct kube_object *store_set(struct store *s, struct kube_object *object)
{
    _cleanup_(buf_finish) struct buf key = BUF_INIT(MAX_KEY);
    key_of(&key, object);
    return map_set(s->objects, buf_str(&key), object);
}

struct kube_object *store_remove(struct store *s, const struct kube_object *like)
{
    _cleanup_(buf_finish) struct buf key = BUF_INIT(MAX_KEY);
    key_of(&key, like);
    return map_remove(s->objects, buf_str(&key));
}
