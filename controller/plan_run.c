/* Policies about a Job that exists and its Pod. */
#include "controller/plan_internal.h"

#include <inttypes.h>

#include "controller/job.h"

#define NODE_LOOK_MS 15000 /* a Job that is late to start or to end by that: is the node well? */
#define POD_NEWS_MS  10000 /* how far the watch of Pods may be behind that of Jobs */
#define IDENTITY_MS  1000

static const struct container_status *runner_container(const struct planning *g)
{
    return g->in->runner ? pod_container(g->in->runner, STR("runner")) : NULL;
}

static bool complete(struct planning *g, const struct summary *sum)
{
    struct profile_status s;
    plan_status_begin(g, &s);
    s.phase = PHASE_COMPLETED;
    s.reason = str_of(profile_reason_names[sum->reason]); /* ProcessExited, or none */
    s.message = sum->message;
    s.completion_ms = g->in->now_ms;
    s.summary = STR("1/1");
    struct target_status *t = plan_status_target(g, &s);
    t->phase = PHASE_COMPLETED;
    t->reason = s.reason;
    t->message = sum->message;
    plan_status_summary(g, &s, sum);
    plan_status_results(g, &s, sum->receipt);
    const char *why = sum->reason ? profile_reason_names[sum->reason] : "Completed";
    struct str where = plan_receipt_place(g, sum->receipt);
    plan_status_condition(g, &s, "TargetResolved", true, "TargetFound", STR(""));
    plan_status_condition(g, &s, "Running", false, why, STR(""));
    plan_status_condition(g, &s, "ResultsStored", true, "Stored", where);
    plan_status_condition(g, &s, "Complete", true, why, s.message);
    plan_status_condition(g, &s, "Failed", false, why, STR(""));
    plan_status_condition(g, &s, "Ready", true, why, STR(""));
    plan_status_commit(g, &s);
    plan_event(g, PLAN_EVENT_NORMAL, "Completed", "Profile",
               plan_printf(g, "%" PRId64 " samples; %.*s", sum->samples, STR_ARG(where)));
    return true;
}

static bool past_deadline(const struct job *job)
{
    return job && job->failed && str_is(job->reason, "DeadlineExceeded");
}

static bool stopped_by_cluster(const struct planning *g)
{
    return g->in->runner->disrupted || past_deadline(g->in->job);
}

/* The runner has ended and left its summary: done, or failed with its own reason. */
bool plan_finished_runner(struct planning *g)
{
    struct summary sum;
    if (!plan_summary(g, &sum))
        return false;
    if (sum.receipt && !g->in->receipts_known) {
        g->plan->look_again_ms = IDENTITY_MS;
        return true;
    }
    if (sum.reason == REASON_NONE || (sum.reason == REASON_PROCESS_EXITED && sum.receipt)) {
        if (sum.receipt && g->in->receipt_valid(g->in->context, g->p->meta.uid, sum.receipt))
            return complete(g, &sum);
        return plan_failf(g, REASON_STORAGE_UNAVAILABLE,
                          "the profiling Job ended without a valid receipt for its results");
    }
    if (sum.reason == REASON_CANCELLED && !g->p->spec.cancel && stopped_by_cluster(g))
        return false; /* plan_failed_job() knows why */
    if (sum.reason == REASON_CANCELLED && !g->p->spec.cancel)
        return plan_failf(g, REASON_PROFILER_FAILED,
                          "the profiling Job was stopped from outside: "
                          "%.*s",
                          STR_ARG(sum.message));
    return plan_fail(g, (enum profile_reason)sum.reason, sum.message);
}

static bool node_gone(struct planning *g)
{
    return g->in->node_lookup == LOOKUP_MISSING ||
           (g->in->node_lookup == LOOKUP_FOUND && !g->in->node->ready);
}

static struct str node_name(const struct planning *g)
{
    return g->in->job ? g->in->job->node_name : STR("");
}

/* What the cache does not show may be there all the same. */
static bool ask_job(struct planning *g)
{
    if (g->in->job_lookup != LOOKUP_NOT_ASKED)
        return false;
    return g->plan->get_job = true;
}

static bool ask_runner(struct planning *g)
{
    if (g->in->runner_lookup != LOOKUP_NOT_ASKED)
        return false;
    return g->plan->get_runner = true;
}

/* Asks for the node once; true when the caller has to wait for the answer. */
static bool ask_node(struct planning *g)
{
    if (g->in->node_lookup != LOOKUP_NOT_ASKED)
        return false;
    return g->plan->get_node = true;
}

static bool killed_runner(struct planning *g, const struct container_status *c)
{
    if (str_is(c->reason, "OOMKilled"))
        return plan_failf(g, REASON_PROFILER_FAILED,
                          "the runner used more memory than runner.resources.limits.memory "
                          "(OOMKilled)");
    return plan_failf(g, REASON_PROFILER_FAILED,
                      "the runner ended without a summary: %.*s, exit code %" PRId64 ", %.*s",
                      STR_ARG(c->reason), c->exit_code, STR_ARG(str_sub(c->message, 0, 512)));
}

/* The Job or its Pod failed without the runner's own words. */
bool plan_failed_job(struct planning *g)
{
    const struct plan_input *in = g->in;
    const struct container_status *c = runner_container(g);
    if (in->runner && in->runner->disrupted)
        return plan_failf(g, REASON_NODE_LOST, "the profiling Pod was removed from node %.*s: %.*s",
                          STR_ARG(node_name(g)),
                          STR_ARG(str_sub(in->runner->disruption_message, 0, 512)));
    if (past_deadline(in->job))
        return plan_failf(g, REASON_DEADLINE_EXCEEDED,
                          "the profiling Job did not end within its %" PRId64 " s",
                          job_active_deadline_s(&g->p->spec));
    if (c && c->state == CONTAINER_TERMINATED)
        return killed_runner(g, c);
    if (in->runner && str_is(in->runner->phase, "Failed"))
        return plan_failf(g, REASON_PROFILER_FAILED,
                          "node %.*s refused the profiling Pod: %.*s: %.*s", STR_ARG(node_name(g)),
                          STR_ARG(in->runner->reason),
                          STR_ARG(str_sub(in->runner->message, 0, 512)));
    if (!in->job || !job_finished(in->job))
        return false;
    /* The runner's own words come by another watch, perhaps later. */
    int64_t since = in->now_ms - in->job->finished_ms;
    if (since < POD_NEWS_MS) {
        g->plan->look_again_ms = since < 0 ? POD_NEWS_MS : POD_NEWS_MS - since;
        return true;
    }
    if (ask_runner(g) || ask_node(g))
        return true;
    if (node_gone(g))
        return plan_failf(g, REASON_NODE_LOST, "node %.*s was lost while its profile ran",
                          STR_ARG(node_name(g)));
    if (in->job->complete)
        return plan_failf(g, REASON_PROFILER_FAILED,
                          "the profiling Job ended, but its Pod is gone with what it had to say");
    return plan_failf(g, REASON_PROFILER_FAILED, "the profiling Job failed: %.*s: %.*s",
                      STR_ARG(in->job->reason), STR_ARG(str_sub(in->job->message, 0, 512)));
}

/* Sampling had begun and the Job is gone: nobody will finish it. */
bool plan_lost_job(struct planning *g)
{
    if (g->in->job || g->in->job_expected || g->p->status.phase != PHASE_RUNNING)
        return false;
    if (ask_job(g))
        return true;
    return plan_failf(g, REASON_PROFILER_FAILED, "the profiling Job was deleted by someone else");
}

static int64_t run_deadline_ms(const struct planning *g, int64_t started_ms)
{
    return started_ms + (job_active_deadline_s(&g->p->spec) - g->p->spec.start_deadline_s) * 1000;
}

bool plan_running(struct planning *g)
{
    const struct container_status *c = runner_container(g);
    if (!g->in->job || !c || c->state != CONTAINER_RUNNING)
        return false;
    int64_t started = c->started_ms ? c->started_ms : g->in->now_ms;
    int64_t left = run_deadline_ms(g, started) - g->in->now_ms;
    int64_t late = g->in->now_ms - started - g->p->spec.sampling.duration_ms;
    if (left <= 0 || late >= NODE_LOOK_MS) {
        if (ask_node(g))
            return true;
        if (node_gone(g))
            return plan_failf(g, REASON_NODE_LOST, "node %.*s was lost while its profile ran",
                              STR_ARG(node_name(g)));
    }
    if (left <= 0)
        return plan_failf(g, REASON_DEADLINE_EXCEEDED,
                          "the profiling Job handed nothing in within %" PRId64 " s of its start",
                          (g->in->now_ms - started) / 1000);
    int64_t look = late < NODE_LOOK_MS ? NODE_LOOK_MS - late : NODE_LOOK_MS;
    g->plan->look_again_ms = look < left ? look : left;
    if (g->p->status.phase == PHASE_RUNNING)
        return true;
    struct profile_status s;
    plan_status_begin(g, &s);
    s.phase = PHASE_RUNNING;
    s.start_ms = started;
    s.summary = STR("0/1");
    plan_status_target(g, &s)->phase = PHASE_RUNNING;
    plan_status_condition(g, &s, "TargetResolved", true, "TargetFound", STR(""));
    plan_status_condition(g, &s, "Running", true, "Sampling", STR(""));
    plan_status_commit(g, &s);
    plan_event(g, PLAN_EVENT_NORMAL, "Running", "Profile",
               plan_printf(g, "Sampling for %" PRId64 " s at %" PRId64 " Hz on node %.*s",
                           g->p->spec.sampling.duration_ms / 1000, g->p->spec.sampling.rate,
                           STR_ARG(node_name(g))));
    return true;
}

static bool image_trouble(const struct container_status *c)
{
    static const char *const reasons[] = {"ErrImagePull",      "ImagePullBackOff",
                                          "InvalidImageName",  "ErrImageNeverPull",
                                          "ImageInspectError", "RegistryUnavailable"};
    for (size_t i = 0; c && c->state == CONTAINER_WAITING && i < ARRAY_SIZE(reasons); i++)
        if (str_is(c->reason, reasons[i]))
            return true;
    return false;
}

/* The Job is there and its container does not run yet. */
bool plan_starting(struct planning *g)
{
    if (!g->in->job)
        return g->in->job_expected;
    const struct container_status *c = runner_container(g);
    int64_t left = plan_start_left(g);
    bool image = image_trouble(c);
    if (image) {
        /* The kubelet alternates between the error and "Back-off pulling": the first tells more. */
        const struct profile_status *old = &g->p->status;
        bool known = str_is(old->reason, profile_reason_names[REASON_IMAGE_PULL_FAILED]);
        struct str message = known ? old->message
                                   : plan_printf(g, "%.*s: %.*s", STR_ARG(c->reason),
                                                 STR_ARG(str_sub(c->message, 0, 512)));
        if (left > 0)
            return plan_waitf(g, REASON_IMAGE_PULL_FAILED, "%.*s", STR_ARG(message));
        return plan_fail(g, REASON_IMAGE_PULL_FAILED, message);
    }
    if (g->p->status.phase == PHASE_RUNNING && !g->in->runner) {
        if (ask_runner(g) || ask_node(g))
            return true;
        return plan_failf(g, node_gone(g) ? REASON_NODE_LOST : REASON_PROFILER_FAILED,
                          "the profiling Pod on node %.*s is gone", STR_ARG(node_name(g)));
    }
    int64_t waited = g->in->now_ms - g->in->job->meta.creation_ms;
    if (left > 0 && waited < NODE_LOOK_MS) {
        g->plan->look_again_ms = left < NODE_LOOK_MS - waited ? left : NODE_LOOK_MS - waited;
        return true;
    }
    if (ask_node(g))
        return true;
    const char *what = g->in->node_lookup == LOOKUP_MISSING ? "does not exist" : "is not ready";
    if (node_gone(g) && left > 0)
        return plan_waitf(g, REASON_NODE_NOT_READY, "node %.*s %s", STR_ARG(node_name(g)), what);
    if (node_gone(g))
        return plan_failf(g, REASON_NODE_NOT_READY,
                          "node %.*s %s; waited for startDeadlineSeconds (%" PRId64 " s)",
                          STR_ARG(node_name(g)), what, g->p->spec.start_deadline_s);
    if (left > 0)
        return plan_waitf(
            g, REASON_JOB_START_TIMEOUT, "the profiling Pod has not started yet on node %.*s: %.*s",
            STR_ARG(node_name(g)), STR_ARG(c && c->reason.len ? c->reason : STR("no state yet")));
    return plan_failf(g, REASON_JOB_START_TIMEOUT,
                      "the profiling Pod did not start on node %.*s within startDeadlineSeconds "
                      "(%" PRId64 " s)",
                      STR_ARG(node_name(g)), g->p->spec.start_deadline_s);
}
