/* HTTP/1.1 server on its own thread (libwebsockets), several listeners, plain or TLS (1.2 and up),
 * a router by method and path pattern. Handlers run on the server's thread and either answer at
 * once or keep the request and answer later from any thread (http_respond() wakes the server); an
 * exchange stays valid until it is answered, even if the client or the server is gone by then.
 * Requests are capped in headers, body, number and time. SIGPIPE becomes ignored in the process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct http_server;
struct http_exchange; /* one request and its answer */

typedef void (*http_handler)(void *context, struct http_exchange *exchange);

struct http_route {
    const char *method;  /* "GET", "POST", … ; GET serves HEAD too */
    const char *pattern; /* "/v1/results/{namespace}/{name}": segments in braces are parameters */
    size_t max_body;     /* bytes; 0: no body allowed; larger: 413 */
    http_handler handler;
    void *context;
    const char *listener; /* name of the listener that has it; NULL: all */
    /* Optional: called when the headers are in and before the body is read, on the server's thread;
     * false: the exchange was answered (e.g. 401 without a token), and the body is not read; true:
     * it was not answered, and the handler follows once the body is there. */
    bool (*admit)(void *context, struct http_exchange *exchange);
};

struct http_listener {
    const char *name;
    const char *address; /* "0.0.0.0", "::" (IPv4 too, as the system has it), "127.0.0.1" */
    int port;            /* 0: any; see http_server_port() */
    bool tls;
};

struct http_server_options {
    const struct http_listener *listeners;
    size_t n_listeners;
    const struct http_route *routes; /* copied */
    size_t n_routes;
    /* Per listener, so that a flood on one does not starve the probes of another; 0: 256; more are
     * closed at once. */
    int max_connections;
    int header_timeout_s; /* 0: 10: of handshake and headers; also of idling between requests */
    int body_timeout_s;   /* 0: 30: from the headers to the body's end, and for the answer's way */
    size_t max_buffered;  /* bytes of all bodies at once; 0: 64 MiB; over it: 503, Retry-After */
    /* PEM; needed when a listener has tls; see http_server_set_certificate(). */
    struct str certificate, private_key;
    /* Optional; on the server's thread after each answer (for metrics). method is "other" and
     * pattern "" where they are not among the known ones; status 499: the client left before. */
    void (*observe)(void *context, const char *method, const char *pattern, int status,
                    int64_t duration_ms);
    void *observe_context;
};

int http_server_create(const struct http_server_options *options, struct http_server **ret,
                       struct err *err);
/* Starts the thread. */
int http_server_start(struct http_server *s, struct err *err);
/* Stops accepting, waits up to grace_ms for exchanges under way, ends the thread. The listeners are
 * closed and cannot be started again. Not from a handler. */
void http_server_stop(struct http_server *s, int grace_ms);
/* Stops without grace. Exchanges that are not answered yet stay valid. NULL is fine. */
void http_server_destroy(struct http_server *s);
/* -1: no such listener. */
int http_server_port(const struct http_server *s, const char *listener);
/* New connections get it, those under way keep theirs; any thread. PEM: the certificate and its
 * chain; the key. ERR_INVALID: not that, or the key is another's; the former pair then stays. */
int http_server_set_certificate(struct http_server *s, struct str certificate, struct str key,
                                struct err *err);

struct http_server_stats {
    uint64_t accepted;  /* connections, since the creation */
    uint64_t refused;   /* connections, over a limit */
    uint64_t timed_out; /* requests or answers that were too slow */
    size_t buffered;    /* bytes of bodies, now */
};
/* Any thread. */
void http_server_stats(const struct http_server *s, struct http_server_stats *ret);

/* Of a request; valid until it is answered. Texts given twice (parameters): the first. */
struct str http_exchange_method(const struct http_exchange *e);
struct str http_exchange_path(const struct http_exchange *e);
struct str http_exchange_param(const struct http_exchange *e,
                               const char *name); /* percent-decoded */
struct str http_exchange_query(const struct http_exchange *e,
                               const char *name); /* ptr NULL: none */
struct str http_exchange_header(const struct http_exchange *e, const char *lower_case_name);
struct str http_exchange_body(const struct http_exchange *e);
struct str http_exchange_peer(const struct http_exchange *e); /* address, for logs */
/* The token of "Authorization: Bearer …"; empty when none. */
struct str http_exchange_bearer(const struct http_exchange *e);

/* Answers, once; any thread. Everything is copied. After it the exchange must not be touched. Adds
 * WWW-Authenticate to 401 and Retry-After to 429 and 503. */
void http_respond(struct http_exchange *e, int status, const char *content_type, struct str body);
/* {"kind":"Status",…} with code, reason and message, as the Kubernetes API does. */
void http_respond_error(struct http_exchange *e, int status, const char *reason,
                        const char *message);
