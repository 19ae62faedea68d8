/* Identity of the result endpoint: its certificate authority, its certificate and the key of the
 * receipts, shared by all replicas through one Secret in the controller's namespace. Made at the
 * first start, renewed in time by whichever replica looks first; conflicts are settled by the
 * Secret's resourceVersion. On the control thread. */
#pragma once

#include "api/task.h"
#include "controller/config.h"
#include "http/server.h"
#include "kube/client.h"

#define IDENTITY_SECRET "pyspy-results-tls"

struct identity;

struct identity_options {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct random_source *random;
    /* Called when there is a certificate for the first time, and when it is another. */
    void (*changed)(void *context, struct str certificate, struct str key);
    void *context;
};

int identity_create(const struct identity_options *options, struct identity **ret, struct err *err);
void identity_destroy(struct identity *id); /* wipes the keys; NULL is fine */
DEFINE_CLEANUP(struct identity *, identity_destroy);
void identity_start(struct identity *id);
bool identity_ready(const struct identity *id);

/* PEM of the authorities that Jobs shall trust: the one in use, and the next one some time before
 * it signs. Empty before identity_ready(). Valid in this turn of the loop. */
struct str identity_ca(const struct identity *id);

/* Fills receipt->mac; the text goes to arena. */
void identity_sign(const struct identity *id, struct arena *arena, struct str profile_uid,
                   struct receipt *receipt);
bool identity_receipt_valid(const struct identity *id, struct str profile_uid,
                            const struct receipt *receipt);
