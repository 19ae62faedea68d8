#include "controller/plan_internal.h"

#include <inttypes.h>
#include <stdarg.h>

#include "controller/job.h"

struct str plan_printf(struct planning *g, const char *format, ...)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(8192);
    va_list args;
    va_start(args, format);
    buf_appendv(&text, format, args);
    va_end(args);
    return arena_str(g->arena, buf_str(&text));
}

void plan_event(struct planning *g, enum plan_event type, const char *reason, const char *action,
                struct str note)
{
    g->plan->event = type;
    g->plan->event_reason = reason;
    g->plan->event_action = action;
    g->plan->event_note = note;
}

int64_t plan_start_left(const struct planning *g)
{
    return g->p->meta.creation_ms + g->p->spec.start_deadline_s * 1000 - g->in->now_ms;
}

/* A Job that was created and is not in the cache must be stopped with the others: asks for it. */
static bool find_created(struct planning *g)
{
    if (g->in->job || !g->in->job_expected || g->in->job_lookup != LOOKUP_NOT_ASKED)
        return false;
    return g->plan->get_job = true;
}

bool plan_fail(struct planning *g, enum profile_reason reason, struct str message)
{
    const char *name = profile_reason_names[reason];
    bool cancelled = reason == REASON_CANCELLED;
    struct profile_status s;
    if (find_created(g))
        return true;
    plan_status_begin(g, &s);
    s.phase = cancelled ? PHASE_CANCELLED : PHASE_FAILED;
    s.reason = str_of(name);
    s.message = message;
    s.completion_ms = g->in->now_ms;
    struct summary sum;
    bool has_summary = plan_summary(g, &sum);
    if (s.targets.len || g->in->job || g->in->target) {
        struct target_status *t = plan_status_target(g, &s);
        t->phase = s.phase;
        t->reason = s.reason;
        t->message = message;
        s.summary = STR("0/1");
        if (has_summary)
            plan_status_summary(g, &s, &sum);
    }
    if (reason == REASON_TARGET_NOT_FOUND || reason == REASON_POD_UID_MISMATCH ||
        reason == REASON_POD_NOT_RUNNING || reason == REASON_CONTAINER_NOT_FOUND)
        plan_status_condition(g, &s, "TargetResolved", false, name, message);
    plan_status_condition(g, &s, "Running", false, name, STR(""));
    bool stored = has_summary && sum.receipt && g->in->receipts_known &&
                  g->in->receipt_valid(g->in->context, g->p->meta.uid, sum.receipt);
    if (stored) { /* a part of what was asked for: kept, and said where */
        plan_status_results(g, &s, sum.receipt);
        plan_status_condition(g, &s, "ResultsStored", true, "Stored",
                              plan_receipt_place(g, sum.receipt));
    } else if (reason == REASON_STORAGE_FORBIDDEN || reason == REASON_STORAGE_UNAVAILABLE ||
               reason == REASON_RESULT_TOO_LARGE)
        plan_status_condition(g, &s, "ResultsStored", false, name, message);
    plan_status_condition(g, &s, "Complete", false, name, message);
    plan_status_condition(g, &s, "Failed", true, name, message);
    plan_status_condition(g, &s, "Ready", false, name, message);
    plan_status_commit(g, &s);
    g->plan->delete_job = g->in->job && !job_finished(g->in->job) && !has_summary;
    plan_event(g, cancelled ? PLAN_EVENT_NORMAL : PLAN_EVENT_WARNING, name, "Profile", message);
    return true;
}

bool plan_failf(struct planning *g, enum profile_reason reason, const char *format, ...)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(8192);
    va_list args;
    va_start(args, format);
    buf_appendv(&text, format, args);
    va_end(args);
    return plan_fail(g, reason, arena_str(g->arena, buf_str(&text)));
}

bool plan_waitf(struct planning *g, enum profile_reason reason, const char *format, ...)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(8192);
    va_list args;
    va_start(args, format);
    buf_appendv(&text, format, args);
    va_end(args);
    struct str message = arena_str(g->arena, buf_str(&text));
    const char *name = profile_reason_names[reason];

    struct profile_status s;
    plan_status_begin(g, &s);
    s.phase = PHASE_PENDING;
    s.reason = str_of(name);
    s.message = message;
    if (g->in->job)
        plan_status_target(g, &s)->phase = PHASE_PENDING;
    bool target_is_why = !g->in->job && reason != REASON_LIMIT_REACHED;
    if (target_is_why || g->in->job || g->in->target)
        plan_status_condition(g, &s, "TargetResolved", !target_is_why,
                              target_is_why ? name : "TargetFound",
                              target_is_why ? message : STR(""));
    plan_status_commit(g, &s);

    /* Often at first, when it is likely to come; then ever less, to spare the API server. */
    int64_t waited = g->in->now_ms - g->p->meta.creation_ms;
    int64_t pause = waited / 4;
    pause = pause < PLAN_POLL_MIN_MS ? PLAN_POLL_MIN_MS : pause;
    pause = pause > PLAN_POLL_MAX_MS ? PLAN_POLL_MAX_MS : pause;
    int64_t left = plan_start_left(g);
    g->plan->look_again_ms = left < pause ? (left > 0 ? left : 0) : pause;
    if (g->plan->write_status)
        plan_event(g, PLAN_EVENT_WARNING, name, "Wait", message);
    return true;
}

/* Deleted, or finished and out of the selection: what still runs for it must stop. A finished Job
 * goes by its own ttlSecondsAfterFinished. */
static bool gone(struct planning *g)
{
    const struct plan_input *in = g->in;
    if (in->profile && !in->profile->meta.deletion_ms)
        return false;
    if (find_created(g))
        return true;
    struct summary sum;
    g->plan->delete_job =
        in->job && !job_finished(in->job) && !in->job->meta.deletion_ms && !plan_summary(g, &sum);
    return true;
}

static bool finished(struct planning *g)
{
    if (!profile_phase_is_final(g->p->status.phase))
        return false;
    struct summary sum;
    g->plan->delete_job = g->in->job && !job_finished(g->in->job) &&
                          !g->in->job->meta.deletion_ms && !plan_summary(g, &sum);
    return true;
}

static bool cancelled(struct planning *g)
{
    if (!g->p->spec.cancel)
        return false;
    if (!g->p->status.start_ms)
        return plan_failf(g, REASON_CANCELLED, "cancelled before sampling began");
    return plan_failf(g, REASON_CANCELLED,
                      "cancelled after %" PRId64 " s of sampling; nothing was kept of it",
                      (g->in->now_ms - g->p->status.start_ms) / 1000);
}

static bool has_job(struct planning *g)
{
    return g->in->job || g->in->job_expected;
}

static bool denied(struct planning *g)
{
    const struct config *c = g->in->config;
    const struct sampling_spec *sampling = &g->p->spec.sampling;
    if (has_job(g))
        return false;
    if (g->in->namespace_denied)
        return plan_failf(g, REASON_PROFILING_DENIED, "namespace %.*s carries the label %s=true",
                          STR_ARG(g->p->meta.namespace_), LABEL_DENY);
    if (sampling->duration_ms > c->limits.max_duration_ms)
        return plan_failf(g, REASON_PROFILING_DENIED,
                          "spec.sampling.duration is %" PRId64 " s; the operator's "
                          "limits.maxDuration allows %" PRId64 " s",
                          sampling->duration_ms / 1000, c->limits.max_duration_ms / 1000);
    if (sampling->native && !c->runner.join_namespaces)
        return plan_failf(g, REASON_PROFILING_DENIED,
                          "spec.sampling.native needs the operator's runner.joinNamespaces: true, "
                          "which gives its Jobs the capability SYS_ADMIN");
    return false;
}

/* At the start deadline the last thing it waited for is the reason. */
static bool start_deadline(struct planning *g)
{
    if (has_job(g) || plan_start_left(g) > 0)
        return false;
    int last = api_enum_find(profile_reason_names, g->p->status.reason);
    if (last <= REASON_NONE) {
        return plan_failf(g, REASON_JOB_START_TIMEOUT,
                          "did not start within startDeadlineSeconds (%" PRId64 " s)%s%.*s",
                          g->p->spec.start_deadline_s, g->in->last_error.len ? ": " : "",
                          STR_ARG(g->in->last_error));
    }
    return plan_failf(g, (enum profile_reason)last,
                      "%.*s; waited for startDeadlineSeconds (%" PRId64 " s)",
                      STR_ARG(g->p->status.message), g->p->spec.start_deadline_s);
}

static bool cluster_limit(struct planning *g)
{
    const struct plan_input *in = g->in;
    if (has_job(g) || in->live_jobs < in->config->limits.max_concurrent)
        return false;
    g->plan->wait_turn = true;
    return plan_waitf(g, REASON_LIMIT_REACHED,
                      "waiting its turn: limits.maxConcurrent (%" PRId64 ") profiles run",
                      in->config->limits.max_concurrent);
}

static bool find_target(struct planning *g)
{
    const struct plan_input *in = g->in;
    const struct target_spec *want = &g->p->spec.target;
    if (has_job(g))
        return false;
    if (in->target_lookup == LOOKUP_NOT_ASKED)
        return g->plan->get_target = true;
    if (in->target_lookup == LOOKUP_MISSING)
        return plan_waitf(g, REASON_TARGET_NOT_FOUND, "Pod %.*s does not exist in namespace %.*s",
                          STR_ARG(want->pod_name), STR_ARG(g->p->meta.namespace_));
    const struct pod *pod = in->target;
    if (want->pod_uid.len && !str_eq(want->pod_uid, pod->meta.uid))
        return plan_failf(g, REASON_POD_UID_MISMATCH,
                          "Pod %.*s has UID %.*s; spec.target.podUID says %.*s",
                          STR_ARG(want->pod_name), STR_ARG(pod->meta.uid), STR_ARG(want->pod_uid));
    if (pod->node_name.len && want->node_name.len && !str_eq(want->node_name, pod->node_name))
        return plan_failf(g, REASON_TARGET_NOT_FOUND,
                          "Pod %.*s runs on node %.*s; spec.target.nodeName says %.*s",
                          STR_ARG(want->pod_name), STR_ARG(pod->node_name),
                          STR_ARG(want->node_name));
    return false;
}

static bool target_denied(struct planning *g)
{
    if (has_job(g))
        return false;
    const struct object_meta *meta = &g->in->target->meta;
    if (!str_is(json_str_map_get(&meta->labels, STR(LABEL_DENY)), "true") &&
        !str_is(json_str_map_get(&meta->annotations, STR(LABEL_DENY)), "true"))
        return false;
    return plan_failf(g, REASON_PROFILING_DENIED, "Pod %.*s carries %s: \"true\"",
                      STR_ARG(meta->name), LABEL_DENY);
}

static bool target_running(struct planning *g)
{
    if (has_job(g))
        return false;
    const struct pod *pod = g->in->target;
    if (str_is(pod->phase, "Succeeded") || str_is(pod->phase, "Failed"))
        return plan_failf(g, REASON_POD_NOT_RUNNING, "Pod %.*s has ended: phase %.*s",
                          STR_ARG(pod->meta.name), STR_ARG(pod->phase));
    struct json_array containers;
    struct str runtime;
    struct err err = ERR_INIT;
    int r = job_containers(g->arena, &g->p->spec.target, pod, &containers, &runtime, &err);
    if (r == ERR_NOT_FOUND)
        return plan_failf(g, REASON_CONTAINER_NOT_FOUND, "%s", err.message);
    if (!str_is(pod->phase, "Running") || !pod->node_name.len)
        return plan_waitf(g, REASON_POD_NOT_RUNNING, "Pod %.*s is in phase %.*s, not Running",
                          STR_ARG(pod->meta.name), STR_ARG(pod->phase));
    if (r < 0)
        return plan_waitf(g, REASON_POD_NOT_RUNNING, "%s", err.message);
    return false;
}

static bool node_limit(struct planning *g)
{
    const struct plan_input *in = g->in;
    if (has_job(g) || in->live_jobs_on(in->context, in->target->node_name) <
                          in->config->limits.max_concurrent_per_node)
        return false;
    g->plan->wait_turn = true;
    g->plan->wait_node = in->target->node_name;
    return plan_waitf(g, REASON_LIMIT_REACHED,
                      "waiting its turn: limits.maxConcurrentPerNode (%" PRId64
                      ") profiles run on node %.*s",
                      in->config->limits.max_concurrent_per_node, STR_ARG(in->target->node_name));
}

static bool create_job(struct planning *g)
{
    if (has_job(g))
        return false;
    g->plan->create_job = true;
    plan_event(g, PLAN_EVENT_NORMAL, "JobCreated", "CreateJob",
               plan_printf(g, "Created a profiling Job on node %.*s for Pod %.*s",
                           STR_ARG(g->in->target->node_name), STR_ARG(g->in->target->meta.name)));
    /* Also ends it when the Job never starts. */
    g->plan->look_again_ms = plan_start_left(g);
    return true;
}

static const policy policies[] = {
    gone,           finished,        plan_finished_runner, /* before cancelled: what is done is done
                                                            */
    cancelled,      plan_failed_job, plan_lost_job,        plan_running, plan_starting,
    denied,         start_deadline,  cluster_limit,        find_target,  target_denied,
    target_running, node_limit,      create_job,
};

void plan_profile(struct arena *arena, const struct plan_input *in, struct plan *ret)
{
    *ret = (struct plan){.look_again_ms = -1};
    struct planning g = {.arena = arena, .in = in, .p = in->profile, .plan = ret};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
        if (policies[i](&g))
            return;
}
