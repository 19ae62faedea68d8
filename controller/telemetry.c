#include "controller/telemetry.h"

#include "base/alloc.h"

#define CONTROLLER "pyspyprofile"

struct telemetry {
    struct metrics_registry *registry;
    struct metrics_series *reconcile_success, *reconcile_error, *reconcile_requeue, *reconcile_time;
    struct metrics_series *active, *depth, *adds, *retries, *queue_wait, *work, *unfinished,
        *longest;
    struct metrics_family *leader, *client_requests, *requests, *request_time, *uploads, *http,
        *finished;
    struct metrics_series *live_jobs, *samples;
    int64_t seen_adds, seen_retries; /* of the queue; counters only grow by the difference */
};

static void create_queue_metrics(struct telemetry *t)
{
    struct metrics_registry *r = t->registry;
    t->depth = metrics_series(
        metrics_gauge(r, "workqueue_depth", "Profiles that wait to be looked at.", "name"),
        CONTROLLER);
    t->adds = metrics_series(
        metrics_counter(r, "workqueue_adds_total", "Profiles put into the queue.", "name"),
        CONTROLLER);
    t->retries = metrics_series(
        metrics_counter(r, "workqueue_retries_total", "Profiles tried again.", "name"), CONTROLLER);
    t->queue_wait = metrics_series(metrics_histogram(r, "workqueue_queue_duration_seconds",
                                                     "How long a profile waited.",
                                                     &metrics_buckets_work, "name"),
                                   CONTROLLER);
    t->work = metrics_series(metrics_histogram(r, "workqueue_work_duration_seconds",
                                               "How long the work on a profile took.",
                                               &metrics_buckets_work, "name"),
                             CONTROLLER);
    t->unfinished = metrics_series(metrics_gauge(r, "workqueue_unfinished_work_seconds",
                                                 "Sum over the work under way.", "name"),
                                   CONTROLLER);
    t->longest = metrics_series(metrics_gauge(r, "workqueue_longest_running_processor_seconds",
                                              "The longest work under way.", "name"),
                                CONTROLLER);
}

struct telemetry *telemetry_create(void)
{
    struct telemetry *t = xcalloc(1, sizeof(*t));
    struct metrics_registry *r = t->registry = metrics_registry_create();
    struct metrics_family *total = metrics_counter(r, "controller_runtime_reconcile_total",
                                                   "Reconciles by result.", "controller", "result");
    t->reconcile_success = metrics_series(total, CONTROLLER, "success");
    t->reconcile_error = metrics_series(total, CONTROLLER, "error");
    t->reconcile_requeue = metrics_series(total, CONTROLLER, "requeue_after");
    t->reconcile_time = metrics_series(
        metrics_histogram(r, "controller_runtime_reconcile_time_seconds",
                          "How long a reconcile took.", &metrics_buckets_requests, "controller"),
        CONTROLLER);
    t->active = metrics_series(metrics_gauge(r, "controller_runtime_active_workers",
                                             "Reconciles under way.", "controller"),
                               CONTROLLER);
    create_queue_metrics(t);
    t->leader = metrics_gauge(r, "leader_election_master_status", "1: this replica leads.", "name");
    t->client_requests = metrics_counter(r, "rest_client_requests_total",
                                         "Answers of the API server.", "code", "method", "host");
    t->request_time = metrics_histogram(r, "rest_client_request_duration_seconds",
                                        "How long the API server took, watches aside.",
                                        &metrics_buckets_requests, "verb");
    t->requests = metrics_counter(r, "pyspy_api_requests_total",
                                  "What was asked of the API server, as RBAC names it.", "verb",
                                  "group", "resource");
    t->uploads = metrics_counter(r, "pyspy_uploads_total", "Results handed in, by answer.", "code");
    t->http = metrics_counter(r, "pyspy_http_requests_total", "Requests to this process.", "method",
                              "path", "code");
    t->finished = metrics_counter(r, "pyspy_profiles_finished_total",
                                  "Profiles that ended, by phase and reason.", "phase", "reason");
    t->live_jobs = metrics_series(
        metrics_gauge(r, "pyspy_jobs_running", "Profiling Jobs that have not ended."));
    t->samples = metrics_series(
        metrics_counter(r, "pyspy_samples_total", "Samples of all completed profiles."));
    metrics_process(r);
    return t;
}

void telemetry_destroy(struct telemetry *t)
{
    if (!t)
        return;
    metrics_registry_destroy(t->registry);
    free(t);
}

void telemetry_write(struct telemetry *t, struct buf *out)
{
    metrics_write(t->registry, out);
}

void telemetry_set_refresh(struct telemetry *t, void (*refresh)(void *context), void *context)
{
    metrics_before_write(t->registry, refresh, context);
}

void telemetry_reconcile(struct telemetry *t, bool failed, bool requeued, int64_t duration_ms)
{
    metrics_add(failed     ? t->reconcile_error
                : requeued ? t->reconcile_requeue
                           : t->reconcile_success,
                1);
    metrics_observe(t->reconcile_time, (double)duration_ms / 1000);
    metrics_observe(t->work, (double)duration_ms / 1000);
}

void telemetry_queue_wait(struct telemetry *t, int64_t waited_ms)
{
    metrics_observe(t->queue_wait, (double)waited_ms / 1000);
}

void telemetry_queue(struct telemetry *t, int64_t depth, int64_t adds, int64_t retries,
                     int64_t active, double unfinished_s, double longest_s)
{
    metrics_set(t->depth, (double)depth);
    metrics_add(t->adds, (double)(adds - t->seen_adds));
    metrics_add(t->retries, (double)(retries - t->seen_retries));
    t->seen_adds = adds;
    t->seen_retries = retries;
    metrics_set(t->active, (double)active);
    metrics_set(t->unfinished, unfinished_s);
    metrics_set(t->longest, longest_s);
}

void telemetry_live_jobs(struct telemetry *t, int64_t jobs)
{
    metrics_set(t->live_jobs, (double)jobs);
}

void telemetry_leader(struct telemetry *t, const char *name, bool leads)
{
    metrics_set(metrics_series(t->leader, name), leads ? 1 : 0);
}

/* The method as client-go labels it. */
static const char *method_of(const char *verb)
{
    static const struct {
        const char *verb, *method;
    } methods[] = {{"create", "POST"}, {"update", "PUT"}, {"patch", "PATCH"}, {"delete", "DELETE"}};
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        if (!strcmp(verb, methods[i].verb))
            return methods[i].method;
    return "GET";
}

void telemetry_request(struct telemetry *t, const char *host, const char *verb, const char *group,
                       const char *resource, int code, int64_t duration_ms)
{
    char status[16] = "<error>";
    if (code)
        snprintf(status, sizeof(status), "%d", code);
    metrics_add(metrics_series(t->client_requests, status, method_of(verb), host), 1);
    metrics_add(metrics_series(t->requests, verb, group, resource), 1);
    if (strcmp(verb, "watch") != 0)
        metrics_observe(metrics_series(t->request_time, verb), (double)duration_ms / 1000);
}

void telemetry_upload(struct telemetry *t, int status)
{
    char code[16];
    snprintf(code, sizeof(code), "%d", status);
    metrics_add(metrics_series(t->uploads, code), 1);
}

void telemetry_http(struct telemetry *t, const char *method, const char *pattern, int status,
                    int64_t duration_ms)
{
    (void)duration_ms;
    char code[16];
    snprintf(code, sizeof(code), "%d", status);
    metrics_add(metrics_series(t->http, method, pattern, code), 1);
}

void telemetry_profile_status(struct telemetry *t, const struct profile_status *before,
                              const struct profile_status *now)
{
    if (profile_phase_is_final(before->phase) || !profile_phase_is_final(now->phase))
        return;
    int reason = now->reason.len ? api_enum_find(profile_reason_names, now->reason) : REASON_NONE;
    metrics_add(metrics_series(t->finished, profile_phase_names[now->phase],
                               reason < 0 ? "" : profile_reason_names[reason]),
                1);
    if (now->samples > 0)
        metrics_add(t->samples, (double)now->samples);
}
