/* The objects of the simulated API server with their whole history, so that lists and watches can
 * be answered as of any version. Semantics of the API server: one version counter, optimistic
 * concurrency, a status subresource that is apart from the rest, generation, finalizers. */
#pragma once

#include "base/list.h"
#include "kube/object.h"
#include "sim_time.h"

struct sim_kind {
    const char *group, *version, *plural, *kind;
    bool status_subresource;
    const char *const *fields; /* selectable besides metadata.name and .namespace; NULL-ended */
};

/* One change. */
struct sim_change {
    int64_t version;
    const struct sim_kind *kind;
    struct kube_object *before, *after; /* before NULL: created; after NULL: deleted */
};

struct sim_store {
    const struct clock *clock;
    struct sim_change *changes;
    size_t n_changes, cap_changes;
    int64_t version, compacted; /* older than `compacted` is gone */
    uint64_t next_uid;
};

void sim_store_init(struct sim_store *s, const struct clock *clock);
void sim_store_finish(struct sim_store *s);

/* The latest state, or NULL. */
struct kube_object *sim_store_get(const struct sim_store *s, const struct sim_kind *kind,
                                  struct str namespace_, struct str name);

/* Each write takes and returns whole trees. status: the write goes to the status subresource.
 * ERR_EXISTS, ERR_NOT_FOUND, ERR_CONFLICT, ERR_INVALID. ret: borrowed. */
int sim_store_create(struct sim_store *s, const struct sim_kind *kind, struct str namespace_,
                     const struct json *tree, struct kube_object **ret, struct err *err);
int sim_store_update(struct sim_store *s, const struct sim_kind *kind, struct kube_object *old,
                     const struct json *tree, bool status, struct kube_object **ret,
                     struct err *err);
int sim_store_delete(struct sim_store *s, const struct sim_kind *kind, struct kube_object *old,
                     struct err *err);

struct sim_selector {
    const struct sim_kind *kind;
    struct str namespace_, labels, fields; /* empty: all */
};
/* ERR_INVALID where a selector names a field that cannot be selected. */
int sim_selector_check(const struct sim_selector *selector, struct err *err);
bool sim_selector_matches(const struct sim_selector *selector, const struct kube_object *object);

/* All that matches as of `version`, by namespace and name. free() the array; objects borrowed. */
struct kube_object **sim_store_list(const struct sim_store *s, const struct sim_selector *selector,
                                    int64_t version, size_t *ret_len);
