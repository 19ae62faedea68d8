/* REST client of the Kubernetes API: requests with credentials, retries where the server asks for
 * them, and errors that carry status and reason. No global state; several clients may live side by
 * side. Everything on the loop's thread; call-backs never run before the call returns. */
#pragma once

#include "base/buf.h"
#include "base/random.h"
#include "kube/config.h"
#include "kube/object.h"
#include "loop/transport.h"

struct kube_client;

struct kube_client_options {
    struct loop *loop;
    struct transport *transport;
    struct kube_config *config; /* kept, not owned */
    struct random_source *random;
    /* Optional: called once for every request that the API server answered (code, or 0). For
     * metrics and for the test of RBAC rights. resource: e.g. "pyspyprofiles/status". */
    void (*observe)(void *context, const char *verb, const char *group, const char *resource,
                    int code, int64_t duration_ms);
    void *observe_context;
};

int kube_client_create(const struct kube_client_options *options, struct kube_client **ret,
                       struct err *err);
void kube_client_destroy(struct kube_client *c); /* cancels what is under way, calls nobody */
DEFINE_CLEANUP(struct kube_client *, kube_client_destroy);

/* Which resource: {"batch", "v1", "jobs"}; the core group is "". */
struct kube_resource {
    const char *group, *version, *plural;
};

enum kube_verb { KUBE_GET, KUBE_LIST, KUBE_CREATE, KUBE_UPDATE, KUBE_PATCH, KUBE_DELETE };

enum kube_patch { KUBE_PATCH_JSON, KUBE_PATCH_MERGE, KUBE_PATCH_APPLY };

struct kube_request {
    enum kube_verb verb;
    const struct kube_resource *resource;
    struct str namespace_;   /* empty: cluster-wide */
    struct str name;         /* empty for list and create */
    const char *subresource; /* "status", "token", … or NULL */
    const char *query;       /* already encoded, without '?', or NULL (see kube_query_*) */
    struct str body;         /* JSON; copied */
    enum kube_patch patch;   /* KUBE_PATCH */
    bool metadata_only;      /* ask for PartialObjectMetadata(List) */
    bool discard_reply;      /* ask for metadata only and do not parse what comes back */
    bool urgent;             /* never waits behind other requests */
    int64_t timeout_ms;      /* 0: 30 s */
    size_t max_response;     /* 0: 16 MiB */
};

/* object: the answer (a reference that the callee may take), NULL on failure or discard_reply.
 * err is never NULL; its code is 0 on success. On failure it says: code, http_status, reason,
 * retry_after_ms, message. */
typedef void (*kube_reply)(void *context, struct kube_object *object, struct err *err);

struct kube_call; /* a request under way */

/* Retried inside, up to 10 times, on 429 and 5xx that carry Retry-After, and once on 401 with
 * renewed credentials. */
struct kube_call *kube_send(struct kube_client *c, const struct kube_request *request,
                            kube_reply done, void *context);
/* No call-back will come. NULL is fine. Not after the call-back. */
void kube_cancel(struct kube_client *c, struct kube_call *call);

/* A list, whose items come one by one as they arrive, so that a page never is in memory as a whole.
 * Errors may come after items. */
struct kube_list_options {
    const struct kube_resource *resource;
    struct str namespace_;                                 /* empty: all */
    const char *label_selector, *field_selector;           /* not encoded; NULL: none */
    const char *resource_version, *resource_version_match; /* NULL or "": not sent */
    const char *continue_token;
    int64_t limit; /* items a page; 0: all */
    bool metadata_only;
    int64_t timeout_ms; /* 0: 120 s */
};

struct kube_list_handlers {
    void (*item)(void *context, struct kube_object *object); /* take a reference to keep */
    /* Once, at the end, unless cancelled: err NULL when the page is whole. */
    void (*end)(void *context, struct str resource_version, struct str continue_token,
                struct err *err);
    void *context;
};

struct kube_call *kube_list(struct kube_client *c, const struct kube_list_options *options,
                            const struct kube_list_handlers *handlers);

/* A watch: events one document at a time. */
enum kube_event_type { KUBE_ADDED, KUBE_MODIFIED, KUBE_DELETED, KUBE_BOOKMARK, KUBE_ERROR };

struct kube_watch_options {
    const struct kube_resource *resource;
    struct str namespace_;                       /* empty: all */
    const char *label_selector, *field_selector; /* not encoded; NULL: none */
    const char *resource_version;                /* NULL or "" as the semantics say */
    bool send_initial_events;                    /* WatchList */
    bool metadata_only;
    int64_t timeout_s; /* timeoutSeconds */
};

struct kube_watch_handlers {
    /* KUBE_ERROR: object is a Status (status_err filled from it). object: take a reference to keep.
     */
    void (*event)(void *context, enum kube_event_type type, struct kube_object *object,
                  struct err *status_err);
    /* Once, at the end, unless cancelled: err NULL for a clean end. */
    void (*end)(void *context, struct err *err);
    void *context;
};

struct kube_call *kube_watch(struct kube_client *c, const struct kube_watch_options *options,
                             const struct kube_watch_handlers *handlers);

/* Decodes one document of a watch stream. */
int kube_decode_event(struct str text, enum kube_event_type *ret_type,
                      struct kube_object **ret_object, struct err *err);

/* Fills err from a metav1.Status tree and HTTP status; returns err->code. */
int kube_status_error(const struct json *status, int http_status, struct err *err);

/* Body of a KUBE_DELETE: only the object of that UID, its dependants in the background. */
void kube_delete_options(struct buf *out, struct str uid);

/* Appends "name=value" with percent-encoding and '&' where needed. */
void kube_query_add(struct buf *query, const char *name, struct str value);
