/* What the files of this folder share. A connection belongs to the service thread, and
 * libwebsockets owns its memory. An exchange has two references: the connection's and the
 * handler's; whoever is last frees it, so an answer may come from any thread, after the client or
 * even the server is gone. Answers travel through the mailbox, which lives as long as the server or
 * any exchange does. */
#pragma once

#include <libwebsockets.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/list.h"
#include "crypto/tls.h"
#include "http/request.h"
#include "http/router.h"
#include "http/server.h"

enum {
    HTTP_RX_BYTES = 16 * 1024, /* libwebsockets' read buffer: one TLS record */
    HTTP_PIPELINED_MAX = REQUEST_HEAD_MAX + HTTP_RX_BYTES, /* bytes read ahead of an answer */
    HTTP_LINGER_MS = 2000,           /* after the last answer, for the client to read it */
    HTTP_LINGER_BYTES = 1024 * 1024, /* of an unwanted body that are read and dropped meanwhile */
    HTTP_CLIENT_GONE = 499,          /* observed where the client left before the answer */
};

/* Reference-counted. */
struct mailbox {
    atomic_uint refs;
    atomic_size_t buffered; /* bytes that bodies hold or were promised */
    struct router *router;
    pthread_mutex_t lock;        /* of what is below */
    struct list answered;        /* exchanges, by link */
    struct lws_context *context; /* to wake; NULL once the service thread has ended */
    pthread_t thread;
    bool has_thread;
};

struct mailbox *mailbox_create(struct router *router); /* takes the router */
void mailbox_unref(struct mailbox *m);

struct connection;

struct http_exchange {
    atomic_uint refs;
    struct mailbox *mailbox;
    /* The request: written before the handler runs, read-only from then on. */
    struct arena *arena;
    struct request request;
    struct router_match match;
    struct buf body;
    size_t charged; /* bytes counted in mailbox->buffered */
    char peer[48];
    int64_t started_ms;
    /* The answer: written by http_respond(), read by the service thread. */
    atomic_bool answered;
    int status;
    char *content_type; /* NULL: none */
    struct buf answer;
    struct list link; /* in mailbox->answered */
    /* Service thread only; NULL once the client is gone. */
    struct connection *connection;
};

struct http_exchange *exchange_create(struct mailbox *mailbox);
void exchange_unref(struct http_exchange *e);
/* The service thread takes what was answered meanwhile; NULL: nothing more. */
struct http_exchange *mailbox_take(struct mailbox *m);

enum connection_state {
    CONNECTION_HEAD,      /* reading a request's head */
    CONNECTION_BODY,      /* reading its body */
    CONNECTION_HANDLING,  /* the handler has it */
    CONNECTION_WRITING,   /* sending the answer */
    CONNECTION_LINGERING, /* nothing more is sent; reading until the client closes */
};

struct connection {
    struct http_server *server; /* NULL until it is adopted */
    struct listener *listener;
    struct lws *wsi;
    struct list link;             /* in server->connections */
    lws_sorted_usec_list_t timer; /* of the present state */
    enum connection_state state;
    struct buf in;  /* read and not yet used */
    size_t scanned; /* of `in`, for the end of the head */
    struct http_exchange *exchange;
    struct body_reader reader;
    bool send_continue;
    bool keep_alive; /* after the present answer */
    struct buf out;  /* LWS_PRE bytes of room, then the answer */
    size_t sent;     /* of out, the room included */
    size_t lingered; /* bytes dropped */
    int64_t started_ms;
    const char *method, *pattern; /* of the present answer, for observe() */
    int status;
};

void connection_open(struct connection *c, struct http_server *s, struct listener *l,
                     struct lws *wsi);
void connection_finish(struct connection *c);
/* These return 0, or -1: close it. */
int connection_read(struct connection *c, const void *bytes, size_t len);
int connection_writable(struct connection *c);
/* Sends what the handler answered. */
void connection_answer(struct connection *c, struct http_exchange *e);
/* Whether a request is under way, in or out. */
bool connection_is_busy(const struct connection *c);

struct listener {
    struct http_server *server;
    char *name;
    int fd; /* until libwebsockets has it */
    int port;
    bool tls;
    struct lws_vhost *vhost;
    struct lws *wsi;
    int connections;
};

/* Binds and listens. The texts of `options` are copied. */
int listener_open(struct listener *l, const struct http_listener *options, struct err *err);
void listener_finish(struct listener *l);
void listener_accept(struct listener *l);

struct http_server {
    struct mailbox *mailbox;
    struct lws_context *context;
    struct listener *listeners;
    size_t n_listeners;
    struct tls_identity *identity; /* NULL without TLS */
    void *ssl_context;             /* of the vhost that is being created */
    struct list connections;
    int max_connections;
    int header_timeout_s, body_timeout_s;
    size_t max_buffered;
    void (*observe)(void *context, const char *method, const char *pattern, int status,
                    int64_t duration_ms);
    void *observe_context;
    int spare_fd; /* given up to accept and close when descriptors run out */
    pthread_t thread;
    bool started;
    lws_sorted_usec_list_t grace;
    bool draining, grace_over; /* service thread */
    atomic_bool stopping;
    atomic_int grace_ms;
    _Atomic uint64_t accepted, refused, timed_out;
};
