/* Removes finished profiles whose ttlSecondsAfterFinished has passed: a slow pass over pages of the
 * finished ones, by the leader only. Nothing is kept between two passes but the time of the next,
 * so history costs no memory. On the control thread. */
#pragma once

#include "controller/config.h"
#include "kube/client.h"

struct sweep;

struct sweep_options {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct random_source *random;
};

int sweep_create(const struct sweep_options *options, struct sweep **ret, struct err *err);
void sweep_destroy(struct sweep *s);
void sweep_start(struct sweep *s);
void sweep_stop(struct sweep *s);
/* A profile with a TTL has ended: the next pass is due no later than its end of life. */
void sweep_hint(struct sweep *s, int64_t ttl_s);
