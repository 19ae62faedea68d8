/* The result endpoint: POST /v1/results/<namespace>/<name>/<uid>. A request arrives on the HTTP
 * server's thread, is carried to the control thread, proves itself (TokenReview), is checked and
 * rendered on the worker's thread, is stored by the control thread, and is answered with a receipt.
 * Every replica does this, leader or not. */
#pragma once

#include "controller/controller.h"
#include "controller/worker.h"
#include "http/server.h"

#define RESULTS_PATTERN  "/v1/results/{namespace}/{name}/{uid}"
#define RESULTS_MAX_BODY (3u << 20) /* base64 and JSON around what one object holds */

struct results;

struct results_options {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct controller *controller;
    struct identity *identity;
    struct worker *worker;
    struct telemetry *telemetry;
};

int results_create(const struct results_options *options, struct results **ret, struct err *err);
/* Requests under way are cancelled; their exchanges are answered with 503. After the server and the
 * worker have stopped and loop_flush_posts() has run what they posted. */
void results_destroy(struct results *r);

bool results_busy(const struct results *r);

/* For the router; context: the struct results. */
bool results_admit(void *context, struct http_exchange *exchange);
void results_handle(void *context, struct http_exchange *exchange);
