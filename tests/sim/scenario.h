/* What happens around the controller in a scenario: the kubelet, the Job controller, the garbage
 * collector and users, all on the simulated loop's thread. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "controller/controller.h"
#include "sim_apiserver.h"

enum { PROFILES = 8, LIMIT = 3 };

/* What will happen to a profile. */
enum fate {
    FATE_DONE,
    FATE_PROCESS_NOT_FOUND,
    FATE_OUT_OF_MEMORY,
    FATE_NO_TARGET,
    FATE_TARGET_PENDING,
    FATE_OTHER_UID,
    FATE_NO_IMAGE,
    FATE_TOO_LONG,
    FATE_JOB_DELETED,
    FATE_CANCELLED,
    FATE_DELETED,
    FATE_TARGET_DELETED,
    FATE_COUNT
};

struct scenario {
    uint64_t seed;
    struct random_seeded random;
    struct sim_time time;
    struct loop *loop;
    struct sim_apiserver *server;
    struct kube_config *kube_config;
    struct config *config;
    struct telemetry *telemetry;
    /* The controller; a crash makes all of it anew. */
    struct kube_client *client;
    struct event_recorder *recorder;
    struct identity *identity;
    struct controller *controller;
    struct sim_faults faults;
    enum fate fates[PROFILES];
    bool created[PROFILES], deleted[PROFILES];
    int64_t jobs_created[PROFILES];
    bool crash; /* at the next chance */
    int64_t writes_until_crash;
    int crashes;
};

#define CHECK(s, condition)                                                                        \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %llu: %s", (unsigned long long)(s)->seed, #condition);                  \
    } while (0)

extern const struct sim_kind jobs, pods;

uint64_t below(struct scenario *s, uint64_t bound);

/* All that there are now. free() the array; objects borrowed. */
struct kube_object **scenario_list(struct scenario *s, const struct sim_kind *kind, size_t *ret_n);
void patch_object(struct scenario *s, const char *path, const char *body);
bool job_ended(const struct kube_object *job);
void create_target(struct scenario *s, size_t i);
void create_profile(struct scenario *s, size_t i);

/* One step of the cluster; of a user, or none. */
void cluster_step(struct scenario *s);
void user_step(struct scenario *s);
