/* The state of the HTTP transport and of one call. Private to pkg/loop; on the loop's thread. */
#pragma once

#include <curl/curl.h>

#include "base/buf.h"
#include "base/list.h"
#include "loop/http.h"
#include "loop/loop_internal.h"

enum {
    HTTP_PARALLEL = 16, /* requests under way at once, streams and urgent ones aside */
    HTTP_SPARE = 8,     /* easy handles kept for the next requests */
    HTTP_MAX_ERROR_BODY = 1024 * 1024,
};

/* One for each loop, so that there is one place to wait in. */
struct http_multi {
    struct loop_io io;
    CURLM *curl;
    bool inside; /* curl is on the stack: neither it nor its handles may be touched */
    struct list transports;
    struct curl_waitfd *waitfds;
    size_t waitfds_cap;
};
/* Made at the first call, and the loop's. */
int http_multi_get(struct loop *l, struct http_multi **ret, struct err *err);

struct http_transport {
    struct transport transport;
    struct list node; /* of the multi */
    struct loop *loop;
    struct http_multi *multi;
    CURLSH *share; /* TLS sessions: a new connection resumes instead of a whole handshake */
    char *user_agent;
    struct list pending;  /* struct http_call: not yet with curl */
    struct list active;   /* with curl */
    struct list finished; /* waiting to be reaped: failed to start, or cancelled inside curl */
    size_t n_parallel;
    CURL *spare[HTTP_SPARE];
    size_t n_spare;
};

struct http_call {
    struct list node;
    struct http_transport *owner;
    struct http_handlers handlers;
    CURL *easy;
    struct curl_slist *headers, *connect_to;
    struct buf request_body, response;
    size_t max_response, received;
    bool parallel; /* counts against HTTP_PARALLEL */
    bool with_curl;
    bool cancelled;
    int status;         /* of the answer under way; 0: not yet known */
    struct err failure; /* of our own: a cap, a handler's refusal, a bad request */
    char curl_message[CURL_ERROR_SIZE];
};

/* What the multi tells: before each wait, of a transfer that ended, and after curl ran. */
void http_begin_pending(struct http_transport *t);
void http_ended(CURL *easy, CURLcode result);
int http_reap_finished(struct http_transport *t); /* call-backs made */

/* Sets everything of the request on call->easy. ERR_INVALID when the request cannot be sent. */
int http_setup(struct http_call *call, const struct http_request *request, struct err *err);
size_t http_on_body(char *bytes, size_t size, size_t n, void *context);
