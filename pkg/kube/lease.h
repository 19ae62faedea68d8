/* Leader election by a coordination.k8s.io Lease, as client-go's tools/leaderelection: expiry is
 * judged by the local time at which a changed record was seen, never by its timestamps. On the
 * loop's thread. */
#pragma once

#include "kube/client.h"

struct lease_options {
    struct kube_client *client;
    struct loop *loop;
    struct random_source *random;
    const char *namespace_, *name, *identity;              /* copied */
    int64_t duration_ms, renew_deadline_ms, retry_ms;      /* 15, 10, 2 s */
    void (*on_started)(void *context);                     /* we lead */
    void (*on_stopped)(void *context, const char *why);    /* we led and must exit at once */
    void (*on_leader)(void *context, struct str identity); /* somebody new leads; may be NULL */
    void *context;
};

struct lease;
int lease_create(const struct lease_options *options, struct lease **ret, struct err *err);
void lease_destroy(struct lease *l);
void lease_start(struct lease *l);
bool lease_is_leader(const struct lease *l);
/* Seconds since the last successful renewal while leading are within bounds (liveness). */
bool lease_is_healthy(const struct lease *l);
/* Gives the lease up (empty holder), if held, then calls done. Only after the reconcilers stopped.
 */
void lease_release(struct lease *l, void (*done)(void *context), void *context);
