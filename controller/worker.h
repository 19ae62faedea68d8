/* One background thread for work that would hold up the control thread: run() on the worker, then
 * done() on the loop's thread. A bounded queue. */
#pragma once

#include "base/err.h"
#include "loop/loop.h"

struct worker;

struct worker_task {
    void (*run)(struct worker_task *task);  /* on the worker's thread */
    void (*done)(struct worker_task *task); /* on the loop's thread; owns the task again */
    struct worker *worker;                  /* set by worker_submit() */
    struct worker_task *next;
};

int worker_create(struct loop *loop, size_t max_queued, struct worker **ret, struct err *err);
/* Waits for the task under way; those not begun are dropped without a call. */
void worker_destroy(struct worker *w);
/* ERR_THROTTLED when max_queued wait already. */
int worker_submit(struct worker *w, struct worker_task *task, struct err *err);
