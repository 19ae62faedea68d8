/* The result endpoint as a replica has it, around it a real HTTP server on loopback and a scripted
 * API server: a profile that runs, and its Job's Pod. Requests come from client.h; TokenReviews are
 * answered from a script. The test's thread is the control thread. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>

#include "client.h"
#include "controller/results.h"
#include "sim_apiserver.h"

enum stored_kind { STORED_CONFIG_MAP, STORED_SECRET };

/* What the API server says of a token; NULL is what is right. */
struct review {
    bool no;
    const char *audience, *user, *pod_uid;
    int status; /* instead of a review; 0: none */
};

struct world {
    struct random_seeded random;
    struct sim_time time;
    struct loop *loop;
    struct sim_apiserver *server;
    struct kube_config *kube_config;
    struct kube_client *client;
    struct config *config;
    struct telemetry *telemetry;
    struct event_recorder *recorder;
    struct identity *identity;
    struct controller *controller;
    struct worker *worker;
    struct results *results;
    struct http_server *http;
    struct review review;
    int reviews, creates, patches; /* requests that arrived */
    char *uid, *pod_uid;           /* of the profile; of its Pod */
    bool hang_after_review;        /* the API server hangs from then on */
    int refuse_create;             /* status of each create of a result; 0: none */
    bool vanish;                   /* the object goes between create and patch */
    bool time_stands;              /* while an answer is awaited */
    _Atomic int handled;           /* uploads that reached the handler */
    sem_t block;                   /* see world_block_worker() */
    struct worker_task blocker;
    bool tls; /* uploads come over it */
    bool stopped;
};

void world_set_up(struct world *w);
void world_tear_down(struct world *w);
/* As the program ends: with whatever is under way. */
void world_stop_endpoint(struct world *w);

void world_add_profile(struct world *w, enum stored_kind kind, const char *object_name);
void world_add_pod(struct world *w); /* of the profile's Job */

/* Turns the loop until the condition holds; fails the test after 10 s. */
void world_pump(struct world *w, bool (*holds)(struct world *w));
/* Keeps the worker busy until `block` is posted. */
void world_block_worker(struct world *w);

/* An upload of one raw file; path NULL: the profile's, token NULL: one. Does not wait. */
void upload_send(struct world *w, struct client *c, const char *path, const char *token,
                 const char *content);
/* Pumps until the answer is there; checks its status and that the body contains `text`. */
void upload_expect(struct world *w, struct client *c, int status, const char *text,
                   struct response *ret);
/* Both. */
void upload(struct world *w, int status, const char *text);
