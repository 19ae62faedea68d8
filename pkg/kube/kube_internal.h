/* What the client's files share: a call is one request of the API server with its retries; plain
 * requests, lists and watches each embed it. Private to pkg/kube; on the loop's thread. */
#pragma once

#include "base/list.h"
#include "kube/client.h"

struct kube_client {
    struct kube_client_options options;
    struct list calls;
};

/* What makes a plain request, a list or a watch of a call. */
struct kube_call_kind {
    /* Optional; the body of a 2xx answer in pieces. */
    int (*chunk)(struct kube_call *call, struct str bytes, struct err *err);
    /* The end. body: of a 2xx answer when it did not come in pieces. err->code is 0 on success.
     * Calls back; the call has left the client and is freed right after. */
    void (*end)(struct kube_call *call, struct str body, struct err *err);
    void (*free)(struct kube_call *call); /* its own parts, then the memory */
};

struct kube_call {
    struct list node;
    struct kube_client *client;
    const struct kube_call_kind *kind;
    /* The request. */
    const char *method;       /* static */
    const char *accept;       /* static */
    const char *content_type; /* static, or NULL */
    const char *verb;         /* static; for observe */
    char *group, *resource;   /* for observe; resource with its subresource */
    char *url_path;           /* behind the server, with query */
    struct buf body;
    int64_t timeout_ms;
    size_t max_response;
    bool urgent;
    /* Its way. */
    bool waits_credentials;
    bool cancelled, busy; /* busy: inside chunk() */
    bool observed, renewed;
    int retries;
    uint64_t generation; /* of the credentials sent */
    int64_t started_ms;
    struct http_call *http; /* NULL: not with the transport */
    struct loop_timer timer;
    struct err failure; /* what the timer brings, when it is no retry */
};

/* Takes over `call`, whose request is set; `failure`: what was wrong with it, to be told later. */
void kube_call_start(struct kube_client *c, struct kube_call *call, const struct err *failure);
void kube_call_free(struct kube_call *call); /* the common parts and the memory */

/* Path of a resource: "/apis/batch/v1/namespaces/x/jobs/y/status?…". Names are checked. */
int kube_path(struct buf *path, const struct kube_resource *resource, struct str namespace_,
              struct str name, const char *subresource, struct err *err);
void kube_call_describe(struct kube_call *call, const char *verb,
                        const struct kube_resource *resource, const char *subresource);

extern const char kube_accept_json[], kube_accept_metadata[], kube_accept_metadata_list[];

/* Splits a list answer: the items go to on_item as texts one by one, all else makes the envelope,
 * a document with "items": []. Linear; holds one item at a time. */
struct kube_list_split;
typedef int (*kube_list_item)(void *context, struct str text, struct err *err);
struct kube_list_split *kube_list_split_create(size_t max_item, kube_list_item on_item,
                                               void *context);
void kube_list_split_destroy(struct kube_list_split *s);
int kube_list_split_feed(struct kube_list_split *s, struct str bytes, struct err *err);
struct str kube_list_split_envelope(const struct kube_list_split *s);

/* A document of its own arena as an object. */
int kube_parse_object(struct str text, struct kube_object **ret, struct err *err);
