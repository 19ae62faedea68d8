/* Hands results in: one POST to the result endpoint, tried again with back-off until it says yes,
 * says never, or the deadline passes. */
#pragma once

#include "loop/loop.h"
#include "loop/transport.h"
#include "runner/upload/handover.h"

struct post {
    struct loop *loop;
    struct arena *arena; /* what the answer points into */
    const struct handover *handover;
    bool cancelled; /* SIGTERM came: set on the loop */
};

/* Digests and encodings included: the body of the request. ERR_TOO_LARGE. */
int post_body(const struct handover *h, struct buf *out, struct err *err);
void post_run(struct post *p, struct transport *transport, struct answer *ret);
