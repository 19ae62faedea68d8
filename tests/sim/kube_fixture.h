/* What unit tests of clients need: a loop with simulated time, a scripted transport, and a client
 * whose API server is https://10.0.0.1:443 with the token "a-token". */
#pragma once

#include "fake_transport.h"
#include "kube/client.h"

struct kube_fixture {
    struct sim_time time;
    struct random_seeded random;
    struct loop *loop;
    struct fake_transport *fake;
    struct kube_config *config;
    struct kube_client *client;
};

void kube_fixture_init(struct kube_fixture *f);
/* Fails the test when something expected has not come, or something is still under way. */
void kube_fixture_finish(struct kube_fixture *f);
void kube_fixture_run(struct kube_fixture *f, int64_t ms);
