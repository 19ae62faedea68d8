#include "sim_time.h"

const int64_t sim_epoch_ms = 1767225600000; /* 2026-01-01T00:00:00Z */

static int64_t monotonic(const struct clock *self)
{
    return CONTAINER_OF(self, const struct sim_time, clock)->now_ms;
}

static int64_t wall(const struct clock *self)
{
    return sim_epoch_ms + monotonic(self);
}

void sim_time_init(struct sim_time *t)
{
    *t = (struct sim_time){.clock = {.monotonic_ms = monotonic, .wall_ms = wall}, .now_ms = 1000};
}

bool sim_run_until(struct sim_time *t, struct loop *l, int64_t ms, bool (*holds)(void *context),
                   void *context)
{
    int64_t end = t->now_ms + ms;
    for (;;) {
        struct err err = ERR_INIT;
        int ran = loop_step(l, 0, &err);
        if (holds && holds(context))
            return true;
        if (ran < 0)
            return false;
        if (ran > 0)
            continue;
        int64_t next = loop_next_timer(l);
        if (next < 0 || t->now_ms + next > end) {
            t->now_ms = end;
            return false;
        }
        t->now_ms += next;
    }
}

void sim_run(struct sim_time *t, struct loop *l, int64_t ms)
{
    sim_run_until(t, l, ms, NULL, NULL);
}
