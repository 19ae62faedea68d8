/* The decisions about a profile as rows: what is known, and what the plan then says. In the order
 * of the policies in controller/plan.c, which the comments between the rows name. */
#pragma once

#include "plan_world.h"

struct row {
    const char *name;
    struct world world;
    const char *plan;    /* plan_text() */
    const char *message; /* somewhere in status.message; NULL: not looked at */
};

struct rows {
    const struct row *items;
    size_t len;
};

extern const struct rows plan_rows_end;   /* from gone to lost_job */
extern const struct rows plan_rows_start; /* from running to create_job */

#define RUNNING_SINCE_2S                                                                           \
    "{status: {phase: Running, startTime: '2026-01-01T00:00:02Z', observedGeneration: 1}}"
#define ENDED_WITHOUT_WORDS(terminated)                                                            \
    "{status: {containerStatuses: [{name: runner, state: {terminated: {" terminated "}}}]}}"
#define WAITS_BECAUSE(state)                                                                       \
    "{status: {phase: Pending, containerStatuses: [{name: runner, state: {waiting: {" state "}}}]" \
    "}}"
#define JOB_FAILED(reason, at)                                                                     \
    "{status: {conditions: [{type: FailureTarget, status: 'True', reason: " reason                 \
    ", message: 'because of it', lastTransitionTime: '2026-01-01T00:" at "Z'}]}}"
#define JOB_COMPLETE(at)                                                                           \
    "{status: {conditions: [{type: Complete, status: 'True', "                                     \
    "lastTransitionTime: '2026-01-01T00:" at "Z'}]}}"
#define NODE_NOT_READY "{status: {conditions: [{type: Ready, status: Unknown}]}}"

#define ENDS(reason)                                                                               \
    "Running=False:" reason " Complete=False:" reason " Failed=True:" reason " Ready="             \
    "False:" reason
#define UNRESOLVED(reason) "TargetResolved=False:" reason
#define FAILS(reason)      "Failed/" reason " " ENDS(reason) " Warning:" reason
