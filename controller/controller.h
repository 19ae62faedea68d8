/* The reconciler: caches, work queue and what is tracked for every profile. Everything here belongs
 * to the control thread. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "cache/reflector.h"
#include "controller/config.h"
#include "controller/identity.h"
#include "controller/plan.h"
#include "controller/telemetry.h"
#include "kube/events.h"
#include "queue/queue.h"

/* Jobs that run on one node. */
struct node_count {
    int64_t jobs;
    struct list waiting; /* tracked.turn: for one of them to end */
};

/* What is known of one profile, by UID: lives while there is a profile, a Job, a Pod or work. */
struct tracked {
    struct controller *controller;
    char *uid;
    struct kube_object *profile; /* NULL: gone, or finished */
    struct kube_object *job, *runner;
    char *job_node;    /* counted in live_jobs_on from its creation to its end */
    bool job_created;  /* its creation was answered; the cache does not show it yet */
    bool job_unsure;   /* one may exist that the cache does not show: ask before creating one */
    int64_t job_at_ms; /* job_created: since when, monotonic */
    char *written_rv;  /* resourceVersion that our last status write replaced: older than what is */
    int64_t written_ms;          /* written_rv: since when, monotonic */
    struct list turn;            /* in a list of those that wait for a Job to end, or alone */
    char *last_error;            /* of the last try to create the Job; for the status */
    struct reconcile *reconcile; /* under way; NULL: none */
};

struct controller {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct random_source *random;
    struct event_recorder *events;
    struct identity *identity; /* of the result endpoint */
    struct telemetry *telemetry;

    struct reflector **profiles; /* one for each watched namespace, or one for all */
    size_t n_profiles;
    struct reflector *jobs, *pods, *namespaces;

    struct map *tracked;   /* UID → struct tracked */
    struct map *node_jobs; /* node → struct node_count */
    int64_t live_jobs;
    struct list waiting; /* tracked.turn: for any Job to end */

    struct queue *queue;
    struct loop_timer queue_timer;
    struct loop_timer quiet_timer; /* armed by the last reconcile of many */
    int untrimmed;                 /* reconciles since memory was given back */
    int in_flight;
    bool active; /* leading: reconciles */
    bool synced;
    void (*on_synced)(void *context);
    void (*on_finished)(void *context, int64_t ttl_s);
    void *context;
};

struct controller_options {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct random_source *random;
    struct event_recorder *events;
    struct identity *identity;
    struct telemetry *telemetry;
    void (*on_synced)(void *context); /* all caches are filled */
    /* A profile with ttlSecondsAfterFinished has ended. */
    void (*on_finished)(void *context, int64_t ttl_s);
    void *context;
};

int controller_create(const struct controller_options *options, struct controller **ret,
                      struct err *err);
void controller_destroy(struct controller *c);
DEFINE_CLEANUP(struct controller *, controller_destroy);

/* Starts the caches. */
void controller_start(struct controller *c);
/* Begins to reconcile: everything known is looked at. */
void controller_activate(struct controller *c);
/* Takes no new work; what is under way ends on its own (see controller_busy()). */
void controller_deactivate(struct controller *c);
bool controller_busy(const struct controller *c);

struct tracked *controller_find(const struct controller *c, struct str profile_uid); /* or NULL */
/* A created Job that the cache does not show by then is asked for. */
#define JOB_UNSEEN_MS 5000

/* Has it looked at, now or when it leads. */
void controller_enqueue(struct controller *c, struct str profile_uid, enum queue_priority priority);

/* Counts a Job that is about to be created, so that a burst keeps the limits; released when it
 * comes to nothing. What is counted already stays so. */
void controller_reserve(struct tracked *t, struct str node);
void controller_release(struct tracked *t);
/* Has it looked at again as soon as a Job on that node has ended; empty: on any. First come, first
 * served. */
void controller_wait_turn(struct tracked *t, struct str node);

/* Resources that are used. */
extern const struct kube_resource resource_profiles, resource_jobs, resource_pods, resource_nodes,
    resource_namespaces, resource_config_maps, resource_secrets, resource_token_reviews;
