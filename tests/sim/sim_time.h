/* Simulated time: the clock moves from timer to timer, so that minutes of a scenario take
 * microseconds. Used by simulation tests; one thread. */
#pragma once

#include <stdbool.h>

#include "base/clock.h"
#include "loop/loop.h"

struct sim_time {
    struct clock clock;
    int64_t now_ms; /* monotonic */
};

extern const int64_t sim_epoch_ms; /* wall time when now_ms is 0 */

void sim_time_init(struct sim_time *t);
/* Runs the loop for `ms` of simulated time. */
void sim_run(struct sim_time *t, struct loop *l, int64_t ms);
/* Runs it until the condition holds, for `ms` at most; returns whether it does. */
bool sim_run_until(struct sim_time *t, struct loop *l, int64_t ms, bool (*holds)(void *context),
                   void *context);
