/* What to do about one profile, decided from what is known: a pure function without I/O, clock or
 * locks. It is a chain of policies, read top to bottom; the first that has something to say
 * decides. Everything returned points into the arena or into the inputs. */
#pragma once

#include "api/task.h"
#include "api/workload.h"
#include "controller/config.h"

/* What is known of an object that is read when it is needed. */
enum lookup { LOOKUP_NOT_ASKED, LOOKUP_FOUND, LOOKUP_MISSING };

struct plan_input {
    const struct config *config;
    int64_t now_ms; /* wall */

    const struct pyspyprofile *profile; /* NULL: gone, or finished and no longer watched */
    const struct job *job;              /* NULL: none */
    bool job_expected;        /* it was created a moment ago and is not in the cache yet */
    const struct pod *runner; /* the Job's Pod; NULL: none yet */
    /* Whether the two above were asked for: the caches, filled by watches of their own, may be
     * behind what the status was written from. */
    enum lookup job_lookup, runner_lookup;
    struct str last_error; /* why the Job could not be created so far; "" none */
    bool namespace_denied; /* the namespace carries the label profiling…/deny=true */

    enum lookup target_lookup;
    const struct pod *target; /* LOOKUP_FOUND */
    enum lookup node_lookup;
    const struct node *node; /* LOOKUP_FOUND */

    int64_t live_jobs; /* of all profiles */
    int64_t (*live_jobs_on)(void *context, struct str node);
    void *context;

    /* Whether the receipt's MAC is right for this profile; nobody can tell before the key of the
     * receipts was read. */
    bool receipts_known;
    bool (*receipt_valid)(void *context, struct str profile_uid, const struct receipt *receipt);
};

enum plan_event { PLAN_EVENT_NONE, PLAN_EVENT_NORMAL, PLAN_EVENT_WARNING };

struct plan {
    bool get_target; /* read the target Pod, then plan again */
    bool get_node;   /* read the node, then plan again */
    bool get_job;    /* look for the Job, then plan again */
    bool get_runner; /* look for the Job's Pod, then plan again */
    bool create_job; /* for plan_input.target */
    bool delete_job;
    bool write_status;
    struct profile_status status; /* write_status */
    bool wait_turn;               /* for a Job to end: */
    struct str wait_node;         /* on this node; empty: on any */
    int64_t look_again_ms;        /* from now; -1: when something changes */
    enum plan_event event;        /* recorded once the writes are done */
    const char *event_reason, *event_action;
    struct str event_note;
};

void plan_profile(struct arena *arena, const struct plan_input *in, struct plan *ret);

/* When a policy would wait for its target or its Job, at most so long between two looks. */
#define PLAN_POLL_MIN_MS 1000
#define PLAN_POLL_MAX_MS 10000
