/* Exponential back-off with jitter, reset after a healthy while. Plain state; one thread. */
#pragma once

#include <stdint.h>

#include "base/random.h"

struct backoff {
    int64_t first_ms, max_ms;
    double factor, jitter;
    int64_t reset_after_ms; /* a pause this long since the last failure starts anew; 0: never */
    int64_t current_ms;     /* state: 0 before the first failure */
    int64_t last_ms;        /* state: monotonic time of the last call */
};

/* The delay before the next try, in ms. */
int64_t backoff_next(struct backoff *b, int64_t now_ms, struct random_source *random);
void backoff_reset(struct backoff *b);
