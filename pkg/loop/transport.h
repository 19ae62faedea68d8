/* HTTP client transport: the seam between those who speak HTTP (kube, the runner's upload) and how
 * it is carried. loop/http.h carries it with libcurl; simulations script it. All on the loop's
 * thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* How to trust and prove. All PEM in memory, never in temporary files. */
struct tls_config {
    struct str ca;           /* PEM bundle; empty: the system's */
    struct str client_cert;  /* PEM, with chain; empty: none */
    struct str client_key;   /* PEM */
    const char *server_name; /* name to check instead of the URL's host; NULL: the URL's */
    const char *proxy_url;   /* NULL: from the environment; "": none */
    bool insecure;           /* do not check the server */
};

struct http_header {
    struct str name, value;
};

struct http_request {
    const char *method;
    const char *url; /* absolute */
    const struct http_header *headers;
    size_t n_headers;
    struct str body;              /* copied by the transport */
    const struct tls_config *tls; /* may be NULL for the defaults; copied */
    int64_t connect_timeout_ms;   /* 0: 10 s */
    int64_t timeout_ms;           /* of the whole; 0: 30 s; for a watch its own time plus some */
    size_t max_response;          /* bytes; 0: 16 MiB; SIZE_MAX: no cap (streams are consumed) */
    bool fresh_connection;        /* do not reuse an idle connection */
    bool urgent; /* never waits behind other requests (a lease's renewal); streams never do */
};

struct http_reply {
    int status;
    int64_t retry_after_ms;   /* 0: not said */
    struct str body;          /* whole body, valid during the call; empty when it was streamed */
    const char *content_type; /* "" when not said */
};

struct http_handlers {
    /* Optional. The body arrives in pieces here instead of in reply.body. Only called for 2xx
     * answers; the body of others is collected. Non-zero ends the request with that error. */
    int (*on_chunk)(void *context, struct str bytes, struct err *err);
    /* Exactly once, unless cancelled. reply NULL: no whole answer; err says why. */
    void (*on_done)(void *context, const struct http_reply *reply, struct err *err);
    void *context;
};

struct http_call; /* a request under way */

struct transport {
    /* Never calls back before it returns. */
    struct http_call *(*start)(struct transport *self, const struct http_request *request,
                               const struct http_handlers *handlers);
    /* Ends it without calling back. Not after on_done. Safe inside call-backs of other calls and
     * of on_chunk of the same call. */
    void (*cancel)(struct transport *self, struct http_call *call);
};
