/* The controller's metrics, under the names that dashboards for controller-runtime know, and our
 * own pyspy_*. Updates from any thread. */
#pragma once

#include "api/pyspyprofile.h"
#include "metrics/metrics.h"

struct telemetry;

struct telemetry *telemetry_create(void);
void telemetry_destroy(struct telemetry *t);
void telemetry_write(struct telemetry *t, struct buf *out);
/* Called at the start of each telemetry_write(), on its thread. */
void telemetry_set_refresh(struct telemetry *t, void (*refresh)(void *context), void *context);

void telemetry_reconcile(struct telemetry *t, bool failed, bool requeued, int64_t duration_ms);
void telemetry_queue_wait(struct telemetry *t, int64_t waited_ms);
void telemetry_queue(struct telemetry *t, int64_t depth, int64_t adds, int64_t retries,
                     int64_t active, double unfinished_s, double longest_s);
void telemetry_live_jobs(struct telemetry *t, int64_t jobs);
void telemetry_leader(struct telemetry *t, const char *name, bool leads);
/* An answer of the API server; code 0: none. */
void telemetry_request(struct telemetry *t, const char *host, const char *verb, const char *group,
                       const char *resource, int code, int64_t duration_ms);
void telemetry_upload(struct telemetry *t, int status);
void telemetry_http(struct telemetry *t, const char *method, const char *pattern, int status,
                    int64_t duration_ms);
void telemetry_profile_status(struct telemetry *t, const struct profile_status *before,
                              const struct profile_status *now);
