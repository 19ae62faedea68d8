/* Reflector: keeps a local store equal to a list-watch of the API server; client-go's
 * tools/cache/reflector as an explicit state machine (list, watch, bookmark, relist, WatchList).
 * Everything on the loop's thread; what the store returns is immutable. */
#pragma once

#include "base/backoff.h"
#include "kube/client.h"

struct reflector;

enum cache_change { CACHE_ADDED, CACHE_UPDATED, CACHE_DELETED };

struct reflector_options {
    const char *name; /* for metrics and logs */
    struct kube_client *client;
    struct loop *loop;
    struct random_source *random;
    const struct kube_resource *resource;
    const char *namespace_; /* "" or NULL: all */
    const char *label_selector, *field_selector;
    bool metadata_only;
    bool field_selector_optional; /* refused (400) by an old API server: go on without it */
    int64_t page_items;           /* of a list; 0: 500 */
    bool no_watch_list;           /* start with a list even where WatchList is offered */
    /* What is kept of an object: returns a new reference (often a smaller object), or NULL to leave
     * it out. NULL: keep all. Runs before the store changes. */
    struct kube_object *(*transform)(void *context, struct kube_object *object);
    /* Once per change, after the store changed. old is NULL for CACHE_ADDED; for CACHE_DELETED
     * `now` is NULL and old the last known state. */
    void (*changed)(void *context, enum cache_change change, struct kube_object *old,
                    struct kube_object *now);
    void (*synced)(void *context); /* the first whole list is in; may be NULL */
    void (*failed)(void *context,
                   const struct err *err); /* will be tried again; for logs; may be NULL */
    void *context;
};

int reflector_create(const struct reflector_options *options, struct reflector **ret,
                     struct err *err);
void reflector_destroy(struct reflector *r);
DEFINE_CLEANUP(struct reflector *, reflector_destroy);
void reflector_start(struct reflector *r);
bool reflector_synced(const struct reflector *r);

/* key: "namespace/name", or "name". Borrowed; take a reference to keep it past this turn. */
struct kube_object *reflector_get(const struct reflector *r, struct str key);
size_t reflector_size(const struct reflector *r);
/* Goes through all objects, in no order; start with a zeroed iterator. */
struct reflector_iter {
    size_t position;
};
struct kube_object *reflector_next(const struct reflector *r, struct reflector_iter *it);

struct reflector_stats {
    int64_t lists, watches, relists, events, bookmarks, errors;
};
void reflector_stats(const struct reflector *r, struct reflector_stats *ret);
