/* Events (events.k8s.io/v1) for people: series by regarding, reason and action; a bounded queue,
 * dropped when full; never blocks and never fails its caller. On the loop's thread. */
#pragma once

#include "kube/client.h"

struct event_recorder;

struct event_recorder_options {
    struct kube_client *client;
    struct loop *loop;
    struct random_source *random;
    const char *controller; /* reportingController, e.g. "profiling.pyspy.dev/pyspy-controller" */
    const char *instance;   /* reportingInstance: the Pod's name */
    size_t max_queued;      /* 0: 1000 */
};

int event_recorder_create(const struct event_recorder_options *options, struct event_recorder **ret,
                          struct err *err);
void event_recorder_destroy(struct event_recorder *r);

struct event_regarding {
    const char *api_version, *kind;
    struct str namespace_, name, uid, resource_version;
};

enum event_type { EVENT_NORMAL, EVENT_WARNING };

/* All texts are copied; note is cut at 1024 bytes. */
void event_record(struct event_recorder *r, const struct event_regarding *regarding,
                  enum event_type type, const char *reason, const char *action, struct str note);
int64_t event_recorder_dropped(const struct event_recorder *r);
