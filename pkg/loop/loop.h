/* The control thread's loop. Everything of one loop runs on the thread that calls loop_run(); only
 * loop_post() and loop_stop() may be called from other threads. It waits in one place only,
 * poll(2), or curl_multi_poll() once there is an HTTP transport, so idle means no wake-ups. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/heap.h"

struct loop;

/* clock: usually &clock_system; with another clock (simulations) waiting is skipped by
 * loop_step(). Kept, not owned. */
int loop_create(const struct clock *clock, struct loop **ret, struct err *err);
void loop_destroy(struct loop *l); /* cancels what is under way without calling back */
DEFINE_CLEANUP(struct loop *, loop_destroy);

const struct clock *loop_clock(const struct loop *l);
int64_t loop_now(const struct loop *l); /* monotonic ms, as of this turn */

/* Runs until loop_stop(). */
int loop_run(struct loop *l, struct err *err);
/* One turn: waits at most max_wait_ms (0: not at all; -1: until something happens), then runs what
 * is due. Returns how many call-backs ran, or a negative error. */
int loop_step(struct loop *l, int max_wait_ms, struct err *err);
/* Milliseconds until the next timer is due (0: now), or -1 when none is armed. */
int64_t loop_next_timer(const struct loop *l);
void loop_stop(struct loop *l);

/* Runs fn(arg) on the loop's thread, soon, in order. Any thread. */
void loop_post(struct loop *l, void (*fn)(void *arg), void *arg);
/* Runs what was posted, and nothing else: for the end, when those who post have stopped and what
 * they sent is not to be lost. */
void loop_flush_posts(struct loop *l);

/* A timer in its owner's structure. Zero it, set `fire`; the owner disarms it before its memory
 * goes. Fires once for each arming. */
struct loop_timer {
    struct heap_node node;
    void (*fire)(struct loop_timer *timer);
};
void loop_timer_arm(struct loop *l, struct loop_timer *t, int64_t delay_ms); /* again: moves it */
void loop_timer_disarm(struct loop *l, struct loop_timer *t);
bool loop_timer_armed(const struct loop_timer *t);

/* Calls fn when fd is readable, until removed. Not owned. */
struct loop_watch {
    int fd;
    void (*ready)(struct loop_watch *watch);
    void *context;
    struct loop_watch *next;
};
void loop_watch_add(struct loop *l, struct loop_watch *w);
void loop_watch_remove(struct loop *l, struct loop_watch *w);

/* Blocks the given signals (0-ended list) in this thread, and so in threads started later, and
 * calls fn on the loop for each that arrives. Once per loop. */
int loop_signals(struct loop *l, const int *signals, void (*fn)(void *context, int signo),
                 void *context, struct err *err);
