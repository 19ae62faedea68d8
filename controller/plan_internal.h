/* What the policies of plan*.c share. */
#pragma once

#include "controller/plan.h"

struct planning {
    struct arena *arena;
    const struct plan_input *in;
    const struct pyspyprofile *p;
    struct plan *plan;
};

/* A policy: true when it decided. */
typedef bool (*policy)(struct planning *g);

/* Ends the profile; deletes a Job that still runs. */
bool plan_fail(struct planning *g, enum profile_reason reason, struct str message);
bool plan_failf(struct planning *g, enum profile_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Stays Pending and says why; looks again soon. */
bool plan_waitf(struct planning *g, enum profile_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void plan_event(struct planning *g, enum plan_event type, const char *reason, const char *action,
                struct str note);
/* Milliseconds until startDeadlineSeconds have passed since the creation; 0 or less: over. */
int64_t plan_start_left(const struct planning *g);
struct str plan_printf(struct planning *g, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The policies about a Job and its Pod (plan_run.c). */
bool plan_finished_runner(struct planning *g);
bool plan_failed_job(struct planning *g);
bool plan_lost_job(struct planning *g);
bool plan_running(struct planning *g);
bool plan_starting(struct planning *g);

/* Building the status (plan_status.c). */
void plan_status_begin(struct planning *g, struct profile_status *s);
struct target_status *plan_status_target(struct planning *g, struct profile_status *s);
void plan_status_condition(struct planning *g, struct profile_status *s, const char *type,
                           bool is_true, const char *reason, struct str message);
/* Makes it the plan's status, unless it says what the resource says already. */
void plan_status_commit(struct planning *g, const struct profile_status *s);
/* What the runner's summary says, if it left one that can be read. */
bool plan_summary(struct planning *g, struct summary *ret);
void plan_status_summary(struct planning *g, struct profile_status *s, const struct summary *sum);
/* Where the results are; the status has its target already. */
void plan_status_results(struct planning *g, struct profile_status *s,
                         const struct receipt *receipt);
struct str plan_receipt_place(struct planning *g, const struct receipt *receipt);
