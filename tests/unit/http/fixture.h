/* A server with routes for tests, on a plain and a TLS listener of their own ports; one at a time.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "client.h"
#include "http/server.h"

enum { KEPT_MAX = 256, BIG = 4 << 20 };

struct fixture {
    struct http_server *server;
    struct buf certificate, key;
    /* Exchanges that /keep does not answer. */
    pthread_mutex_t lock;
    pthread_cond_t kept_some;
    struct http_exchange *kept[KEPT_MAX];
    int n_kept;
    /* Of observe(): server's thread, read after it has ended or an answer came. */
    atomic_int observed[600];
    atomic_int observed_unknown; /* without a pattern */
    atomic_int admitted;
};

extern struct fixture t;
extern char big[BIG]; /* what /big answers */

/* Group set-up and tear-down. */
int set_up(void **state);
int tear_down(void **state);

/* Starts the server with the limits of `o`; stop() is the tear-down of a test. */
void start(struct http_server_options o);
int stop(void **state);
int plain(void); /* ports */
int tls(void);

/* Sends a request on a fresh plain connection; returns the answer's status, 0 for none. */
int ask(const char *request, struct response *ret);
bool is_served(void);
void assert_body(struct response *r, const char *body); /* and frees the response */

/* Waits for a request to /keep. */
struct http_exchange *take_kept(void);
/* A thread that answers as many of them as the int says that it is given. */
void *answer_kept(void *n);

/* Waits for another thread's doing, at most 20 s. */
#define assert_soon(condition)                                                                     \
    do {                                                                                           \
        int64_t until_ = clock_monotonic_ms(&clock_system) + 20000;                                \
        bool holds_;                                                                               \
        while (!(holds_ = (condition)) && clock_monotonic_ms(&clock_system) < until_)              \
            usleep(2000);                                                                          \
        if (!holds_)                                                                               \
            fail_msg("%s: not within 20 s", #condition);                                           \
    } while (0)
