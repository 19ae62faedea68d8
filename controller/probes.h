/* /healthz, /readyz and /metrics. Requests are answered on the control thread, so that an answer
 * also proves that it still turns. */
#pragma once

#include "base/buf.h"
#include "http/server.h"
#include "loop/loop.h"

struct probe {
    const char *name; /* "caches" */
    bool (*ok)(void *context);
    bool live, ready; /* which of the two it belongs to */
};

struct probes_options {
    struct loop *loop;
    const struct probe *probes;
    size_t n_probes;
    void (*write_metrics)(void *context, struct buf *out);
    void *context; /* of all call-backs */
};

struct probes;
struct probes *probes_create(const struct probes_options *options);
void probes_destroy(struct probes *p);

/* Handlers for the router; context: the struct probes. */
void probes_healthz(void *context, struct http_exchange *exchange);
void probes_readyz(void *context, struct http_exchange *exchange);
void probes_metrics(void *context, struct http_exchange *exchange);
