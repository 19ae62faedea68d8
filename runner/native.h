/* Our own sampler at one process, on a thread of its own: the loop must not wait for looks, nor
 * looks for the loop. The thread owns the profile until the loop was told that it has ended. */
#pragma once

#include "runner/run.h"
#include "sample/record.h"

struct native;

/* The engine to begin with, ENGINE_NATIVE or ENGINE_PYSPY, and why: ours wherever it can. */
int native_or_not(const struct sampling_spec *sampling, enum engine_reason *ret_why);
/* Why py-spy takes over from ours, which failed to start with that code; ENGINE_REASON_NONE: it
 * must not, or would fail in the same way. */
enum engine_reason native_takeover(const struct sampling_spec *sampling, int code);
/* Full, GILOnly or IdleCounted. */
const char *native_accuracy(const struct sampling_spec *sampling);
/* Called on the loop. */
struct native_events {
    /* The process is open and is sampled from now on. Below 0: it could not be opened, code and
     * error as of target_open(), and this is the end; n may be destroyed. */
    void (*opened)(void *context, int code, const struct err *err);
    /* Sampling has ended, by itself or stopped. */
    void (*done)(void *context);
    void *context;
};

/* Starts the thread, which opens the process first: that reads its memory as well. */
int native_start(struct run *run, pid_t pid, bool subprocesses, struct profile *profile,
                 const struct native_events *events, struct native **ret, struct err *err);
void native_stop(struct native *n); /* what is not open yet is sampled for no time */
/* It does not come back: reading a page that never comes ends with this process, or the other one.
 * The profile is its own from then on; nothing is called any more.
 * To be destroyed only when reading has come to its end all the same. */
void native_abandon(struct native *n);
/* Once it has ended; of what was never open, nothing. */
struct record_result native_result(const struct native *n);
void native_destroy(struct native *n); /* stops first; NULL is fine */

/* Whether py-spy shall try for the rest of the time. */
bool native_gives_up(const struct sampling_spec *sampling, const struct record_result *result);

/* What the way it ended means. */
struct native_facts {
    const struct record_result *result;
    int64_t samples;
    bool gil, cancelled, timed_out, target_stopped, target_exited;
};
void native_judge(const struct native_facts *facts, struct outcome *ret);
