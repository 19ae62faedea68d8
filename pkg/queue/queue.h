/* Work queue of keys ("namespace/name") after client-go's util/workqueue: a key is in it at most
 * once, is never worked on twice at a time, and comes again when it was added meanwhile. Three
 * priorities, first in first out within each; delayed adds; exponential back-off per key. The queue
 * owns copies of its keys and has no timer of its own: the owner arms one for queue_next_ms().
 * One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

struct queue;

/* What comes first. A lower one waits for as long as there is a higher one: the work that ends a
 * profile is always less than the work that started it, so this cannot last. */
enum queue_priority {
    QUEUE_LOW,    /* seen at start-up, resync */
    QUEUE_NORMAL, /* new profiles */
    QUEUE_URGENT, /* running: can be finished, or must be stopped */
    QUEUE_PRIORITIES,
};

#define QUEUE_BACKOFF_FIRST_MS 5
#define QUEUE_BACKOFF_MAX_MS   1000000

struct queue *queue_create(const struct clock *clock); /* kept, not owned */
void queue_destroy(struct queue *q);                   /* NULL is fine */
DEFINE_CLEANUP(struct queue *, queue_destroy);

/* Nothing if the key is queued already, but a higher priority moves it up. A key being worked on is
 * queued when that is done. */
void queue_add(struct queue *q, struct str key, enum queue_priority priority);
/* As queue_add, delay_ms from now (at once, if that is not positive). Of two delays for one key the
 * earlier time and the higher priority stay; an add without a delay leaves them standing. */
void queue_add_after(struct queue *q, struct str key, enum queue_priority priority,
                     int64_t delay_ms);
/* As queue_add_after with 5 ms·2ⁿ for the n-th failure in a row (from 0), at most 1000 s. Returns
 * that delay. */
int64_t queue_add_rate_limited(struct queue *q, struct str key, enum queue_priority priority);
/* The work succeeded: the next failure starts at 5 ms again. Does not touch a delay under way. */
void queue_forget(struct queue *q, struct str key);
uint32_t queue_failures(const struct queue *q, struct str key); /* in a row (NumRequeues) */

/* Takes the next key that is ready; false when none is. The key is valid until queue_done().
 * ret_waited_ms (may be NULL): how long it was ready. */
bool queue_get(struct queue *q, struct str *ret_key, int64_t *ret_waited_ms);
/* The work on the key has ended; every key from queue_get() needs this once. Returns how long the
 * work took, in ms; 0 if the key was not worked on. `key` may be the one queue_get() gave. */
int64_t queue_done(struct queue *q, struct str key);

size_t queue_len(struct queue *q); /* keys that are ready */
/* Milliseconds until the next delayed key becomes ready (0: now), or -1 when none is delayed. */
int64_t queue_next_ms(const struct queue *q);

struct queue_stats {
    size_t depth[QUEUE_PRIORITIES]; /* ready */
    size_t delayed;
    size_t processing;
    size_t keys;                /* all that anything is remembered of, failures included */
    uint64_t adds;              /* keys that became ready or dirty; repeated adds do not count */
    uint64_t retries;           /* queue_add_rate_limited() */
    int64_t longest_running_ms; /* of the works under way; 0: none */
    int64_t unfinished_work_ms; /* sum over the works under way */
};

void queue_stats(struct queue *q, struct queue_stats *ret);
