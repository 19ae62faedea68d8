#include "base/backoff.h"

int64_t backoff_next(struct backoff *b, int64_t now_ms, struct random_source *random)
{
    if (b->current_ms > 0 && b->reset_after_ms > 0 && now_ms - b->last_ms >= b->reset_after_ms)
        backoff_reset(b);
    if (b->current_ms == 0) {
        b->current_ms = b->first_ms;
    } else {
        double next = (double)b->current_ms * b->factor;
        b->current_ms = next < (double)b->max_ms ? (int64_t)next : b->max_ms;
    }
    b->last_ms = now_ms;
    return random_jitter(random, b->current_ms, b->jitter);
}

void backoff_reset(struct backoff *b)
{
    b->current_ms = 0;
}
