/* The libcurl transport and a small server on loopback: a thread that takes one connection after
 * another and answers as it is told. The test's thread is the loop's. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "loop/http.h"

/* Serves all its connections by poll() on one thread. */
struct server {
    int listener, stop_fds[2];
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock;
    char *answer;        /* whole bytes; what each request gets */
    bool close_after;    /* the connection ends with the answer */
    struct buf requests; /* all that came */
    atomic_int n_connections, n_requests, n_open, most_open;
    atomic_bool hold; /* do not answer yet */
};

struct fixture {
    struct server server;
    struct loop *loop;
    struct transport *transport;
    char *url;
    int done, status, cancelled_at;
    int64_t retry_after_ms;
    struct err err;
    struct buf body, chunks;
    char content_type[64];
    struct http_call *call;
    size_t refuse_after; /* on_chunk fails when it has this much; 0: never */
    size_t cancel_after;
};

/* For cmocka; the state is a struct fixture. */
int set_up(void **state);
int tear_down(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

void server_answers(struct server *s, const char *bytes);

/* Method and URL: GET of the fixture's, where there is none. */
struct http_call *start(struct fixture *f, struct http_request request, bool streamed);
void run_for(struct fixture *f, int64_t ms);
void run_until_done(struct fixture *f, int done);
/* Until the server has seen so many requests; then some time for those that should not come. */
void run_until_requests(struct fixture *f, int n);
/* Starts it and waits for its end. */
void get(struct fixture *f, struct http_request request);
/* Of what the server was sent since server_answers(). */
void check_request(struct fixture *f, const char *part, bool there);
