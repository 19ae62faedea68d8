/* A transport that follows a script, for unit tests: requests are expected in order, each with what
 * comes back. What is not as expected fails the test (cmocka), naming both. Waiting is by the
 * loop's clock. One thread.
 *
 *     fake_expect(f, "GET", "/api/v1/pods?limit=500");
 *     fake_reply(f, 200, "{…}");
 *     fake_expect(f, "GET", "/api/v1/pods?watch=true…");
 *     fake_chunk(f, "{\"type\":…}");
 *     fake_wait(f, 1000);
 *     fake_fail(f, ERR_IO, "reset");
 */
#pragma once

#include "base/random.h"
#include "loop/loop.h"
#include "loop/transport.h"
#include "sim_time.h"

struct fake_transport;

struct fake_transport *fake_transport_create(struct loop *loop);
void fake_transport_destroy(struct fake_transport *f);
struct transport *fake_transport(struct fake_transport *f);

/* The next request. path: with query; a "*" at its end stands for anything; NULL: any. */
void fake_expect(struct fake_transport *f, const char *method, const char *path);
/* What the request expected last gets, in this order. Without an end it stays open. */
void fake_wait(struct fake_transport *f, int64_t ms);
void fake_chunk(struct fake_transport *f, const char *text); /* of a 200 that is streamed */
void fake_end(struct fake_transport *f);                     /* of the stream */
void fake_reply(struct fake_transport *f, int status, const char *body);
void fake_reply_later(struct fake_transport *f, int status, int64_t retry_after_ms,
                      const char *body);
void fake_fail(struct fake_transport *f, int code, const char *message);
/* A metav1.Status of that code and reason. */
void fake_status(struct fake_transport *f, int status, const char *reason);

size_t fake_expected(const struct fake_transport *f); /* still to come */
size_t fake_open(const struct fake_transport *f);     /* under way */
/* What was sent last. Valid until the next request. */
struct fake_sent {
    char *method, *url, *body;
    int64_t timeout_ms;
    bool urgent;
};
const struct fake_sent *fake_sent(const struct fake_transport *f);
/* The values of a header of it, joined by ", "; "" when there is none. */
const char *fake_sent_header(const struct fake_transport *f, const char *name);
