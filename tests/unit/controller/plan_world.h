/* A world for plan_profile(), described in YAML: what is known of one profile at one time, and what
 * the plan says as one line of text. One thread. */
#pragma once

#include "controller/plan.h"

/* Everything is a patch on a healthy object (plan_world.c) and NULL where there is none. "{}" is
 * the healthy object as it is. Times: seconds after the profile's creation. */
struct world {
    const char *profile, *job, *runner;
    const char *summary; /* the runner has ended and left this */
    const char *target, *node;
    bool target_missing, node_missing; /* asked for, and does not exist */
    bool asked_job, asked_runner; /* the Job, its Pod were asked for: they are as they are here */
    bool job_expected, denied, bad_mac, receipts_unknown;
    const char *error;           /* of the last try to create the Job */
    const char *config;          /* beside the image */
    int64_t jobs, jobs_on_node1; /* that live */
    double now_s;
};

struct planned {
    struct arena *arena; /* the caller's */
    struct config *config;
    struct plan_input in;
    struct plan plan;
    const struct json *profile_tree;
    struct pyspyprofile profile;
    struct job job;
    struct pod runner, target;
    struct node node;
    const struct world *world;
};

#define PLAN_EPOCH_MS 1767225600000 /* 2026-01-01T00:00:00Z, when the profile was created */

void world_plan(struct arena *arena, const struct world *world, struct planned *ret);
void world_finish(struct planned *p);
/* The status that the plan writes goes to the API server and comes back. */
void world_written(struct planned *p);

/* "create delete Failed/Reason TargetResolved=True:TargetFound … look=1000 Warning:Reason". */
struct str plan_text(struct arena *arena, const struct plan *plan);
