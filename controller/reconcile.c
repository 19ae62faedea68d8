#include "controller/reconcile.h"

#include "base/alloc.h"
#include "base/log.h"
#include "controller/job.h"

#define STATUS_MAX       (256u << 10)
#define CONFLICT_LOOK_MS 1000
#define JOB_MAX          (256u << 10)

struct reconcile {
    struct tracked *tracked;
    struct arena *arena;
    struct pyspyprofile profile;
    struct job job;
    struct pod runner, target;
    struct node node;
    struct kube_object *profile_object, *job_object, *runner_object, *target_object, *node_object;
    bool target_fresh; /* read from the store, not from the API server's cache */
    struct plan_input in;
    struct plan plan;
    struct kube_call *call;
    int64_t started_ms;
    bool failed;
};

static void run_plan(struct reconcile *r);
static void next_step(struct reconcile *r);

static void reconcile_free(struct reconcile *r)
{
    kube_object_unref(r->profile_object);
    kube_object_unref(r->job_object);
    kube_object_unref(r->runner_object);
    kube_object_unref(r->target_object);
    kube_object_unref(r->node_object);
    arena_destroy(r->arena);
    free(r);
}

static void finish(struct reconcile *r)
{
    struct tracked *t = r->tracked;
    bool failed = r->failed;
    int64_t look_again_ms = r->plan.look_again_ms;
    int64_t duration_ms = loop_now(t->controller->loop) - r->started_ms;
    t->reconcile = NULL;
    if (r->plan.wait_turn)
        controller_wait_turn(t, r->plan.wait_node);
    reconcile_free(r);
    controller_reconciled(t, failed, look_again_ms, duration_ms);
}

void reconcile_abort(struct tracked *t)
{
    struct reconcile *r = t->reconcile;
    if (!r)
        return;
    kube_cancel(t->controller->client, r->call);
    t->reconcile = NULL;
    reconcile_free(r);
}

static void fail(struct reconcile *r, const char *what, const struct err *err)
{
    r->failed = true;
    log_warn(what, LOG_S("namespace", r->profile.meta.namespace_),
             LOG_S("name", r->profile.meta.name), LOG_C("uid", r->tracked->uid), LOG_ERR(err));
    finish(r);
}

static bool receipt_valid(void *context, struct str uid, const struct receipt *receipt)
{
    const struct controller *c = context;
    return identity_receipt_valid(c->identity, uid, receipt);
}

static int64_t live_jobs_on(void *context, struct str node)
{
    const struct controller *c = context;
    const struct node_count *count = map_get(c->node_jobs, node);
    return count ? count->jobs : 0;
}

static bool namespace_denied(const struct controller *c, struct str namespace_)
{
    return reflector_get(c->namespaces, namespace_) != NULL;
}

static void set_error(struct tracked *t, const char *message)
{
    free(t->last_error);
    t->last_error = message ? xstrdup(message) : NULL;
}

/* 3. After the writes: the Event. */
static void record_event(struct reconcile *r)
{
    const struct plan *plan = &r->plan;
    if (plan->event == PLAN_EVENT_NONE)
        return;
    const struct object_meta *meta = &r->profile.meta;
    event_record(r->tracked->controller->events,
                 &(struct event_regarding){.api_version = API_GROUP_VERSION,
                                           .kind = API_KIND,
                                           .namespace_ = meta->namespace_,
                                           .name = meta->name,
                                           .uid = meta->uid,
                                           .resource_version = meta->resource_version},
                 plan->event == PLAN_EVENT_WARNING ? EVENT_WARNING : EVENT_NORMAL,
                 plan->event_reason, plan->event_action, plan->event_note);
    log_info(plan->event_reason, LOG_S("namespace", meta->namespace_), LOG_S("name", meta->name),
             LOG_S("note", plan->event_note));
}

static void status_written(void *context, struct kube_object *object, struct err *err)
{
    struct reconcile *r = context;
    struct tracked *t = r->tracked;
    (void)object;
    r->call = NULL;
    if (err->code == ERR_NOT_FOUND) { /* deleted meanwhile; its watch event comes */
        finish(r);
        return;
    }
    if (err->code && err->code != ERR_CONFLICT) {
        fail(r, "cannot write the status", err);
        return;
    }
    /* What the cache shows is old, by our write or by another's: the watch brings the newer. */
    free(t->written_rv);
    t->written_rv = str_dup(r->profile.meta.resource_version);
    t->written_ms = loop_now(t->controller->loop);
    if (err->code == ERR_CONFLICT) {
        r->plan.look_again_ms = CONFLICT_LOOK_MS;
        finish(r);
        return;
    }
    telemetry_profile_status(t->controller->telemetry, &r->profile.status, &r->plan.status);
    if (profile_phase_is_final(r->plan.status.phase) && r->profile.spec.ttl_s >= 0)
        t->controller->on_finished(t->controller->context, r->profile.spec.ttl_s);
    record_event(r);
    finish(r);
}

/* 2. The status, whole, with the resourceVersion that it was decided from. */
static void write_status(struct reconcile *r)
{
    const struct controller *c = r->tracked->controller;
    const struct object_meta *meta = &r->profile.meta;
    _cleanup_(buf_finish) struct buf body = BUF_INIT(STATUS_MAX);
    struct json_writer w = JSON_WRITER(&body);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", API_GROUP_VERSION);
    json_put_cstr(&w, "kind", API_KIND);
    json_begin_object(&w, "metadata");
    json_put_str(&w, "name", meta->name);
    json_put_str(&w, "namespace", meta->namespace_);
    json_put_str(&w, "uid", meta->uid);
    json_put_str(&w, "resourceVersion", meta->resource_version);
    json_end_object(&w);
    profile_status_write(&w, "status", &r->plan.status);
    json_end_object(&w);
    struct err err = ERR_INIT;
    if (buf_error(&body, "the status", &err) < 0) {
        fail(r, "cannot write the status", &err);
        return;
    }
    r->call = kube_send(c->client,
                        &(struct kube_request){.verb = KUBE_UPDATE,
                                               .resource = &resource_profiles,
                                               .namespace_ = meta->namespace_,
                                               .name = meta->name,
                                               .subresource = "status",
                                               .body = buf_str(&body),
                                               .discard_reply = true},
                        status_written, r);
}

static void after_children(struct reconcile *r)
{
    if (r->plan.write_status) {
        write_status(r);
        return;
    }
    record_event(r);
    finish(r);
}

static void job_created(void *context, struct kube_object *object, struct err *err)
{
    struct reconcile *r = context;
    struct tracked *t = r->tracked;
    (void)object;
    r->call = NULL;
    /* The name is a digest of both UIDs: a Job that exists already is ours, from before a restart.
     */
    if (err->code && err->code != ERR_EXISTS) {
        set_error(t, err->message);
        if (err->http_status >= 400 && err->http_status < 500)
            controller_release(t);
        else
            t->job_unsure = !t->job; /* it may have been created all the same */
        fail(r, "cannot create the Job", err);
        return;
    }
    set_error(t, NULL);
    t->job_created = !t->job;
    t->job_at_ms = loop_now(t->controller->loop);
    after_children(r);
}

static void create_job(struct reconcile *r)
{
    const struct controller *c = r->tracked->controller;
    _cleanup_(buf_finish) struct buf body = BUF_INIT(JOB_MAX);
    struct err err = ERR_INIT;
    struct str ca = identity_ca(c->identity);
    if (!ca.len)
        err_set(&err, ERR_IO, "the result endpoint has no certificate yet");
    if (!ca.len || job_render(&body, c->config, &r->profile, &r->target, ca, &err) < 0) {
        fail(r, "cannot make the Job", &err);
        return;
    }
    controller_reserve(r->tracked, r->target.node_name);
    r->call = kube_send(c->client,
                        &(struct kube_request){.verb = KUBE_CREATE,
                                               .resource = &resource_jobs,
                                               .namespace_ = c->config->namespace_,
                                               .body = buf_str(&body),
                                               .discard_reply = true},
                        job_created, r);
}

static void job_deleted(void *context, struct kube_object *object, struct err *err)
{
    struct reconcile *r = context;
    (void)object;
    r->call = NULL;
    if (err->code && err->code != ERR_NOT_FOUND && err->code != ERR_CONFLICT) {
        fail(r, "cannot delete the Job", err);
        return;
    }
    after_children(r);
}

static void delete_job(struct reconcile *r)
{
    const struct controller *c = r->tracked->controller;
    _cleanup_(buf_finish) struct buf body = BUF_INIT(4096);
    kube_delete_options(&body, r->job.meta.uid);
    r->call = kube_send(c->client,
                        &(struct kube_request){.verb = KUBE_DELETE,
                                               .resource = &resource_jobs,
                                               .namespace_ = c->config->namespace_,
                                               .name = r->job.meta.name,
                                               .body = buf_str(&body),
                                               .discard_reply = true},
                        job_deleted, r);
}

static void target_read(void *context, struct kube_object *object, struct err *err)
{
    struct reconcile *r = context;
    r->call = NULL;
    if (err->code && err->code != ERR_NOT_FOUND) {
        fail(r, "cannot read the target Pod", err);
        return;
    }
    kube_object_unref(r->target_object);
    r->target_object = NULL;
    r->in.target = NULL;
    r->in.target_lookup = LOOKUP_MISSING;
    if (!err->code) {
        struct err decode = ERR_INIT;
        r->target_object = kube_object_ref(object);
        if (pod_decode(r->arena, object->tree, &r->target, &decode) < 0) {
            fail(r, "cannot understand the target Pod", &decode);
            return;
        }
        r->in.target = &r->target;
        r->in.target_lookup = LOOKUP_FOUND;
    }
    run_plan(r);
}

/* First from the API server's own cache, which costs its store nothing. */
static void get_target(struct reconcile *r)
{
    const struct controller *c = r->tracked->controller;
    r->call =
        kube_send(c->client,
                  &(struct kube_request){.verb = KUBE_GET,
                                         .resource = &resource_pods,
                                         .namespace_ = r->profile.meta.namespace_,
                                         .name = r->profile.spec.target.pod_name,
                                         .query = r->target_fresh ? NULL : "resourceVersion=0"},
                  target_read, r);
}

static void node_read(void *context, struct kube_object *object, struct err *err)
{
    struct reconcile *r = context;
    r->call = NULL;
    if (err->code && err->code != ERR_NOT_FOUND) {
        fail(r, "cannot read the node", err);
        return;
    }
    r->in.node_lookup = LOOKUP_MISSING;
    if (!err->code) {
        struct err decode = ERR_INIT;
        r->node_object = kube_object_ref(object);
        if (node_decode(r->arena, object->tree, &r->node, &decode) < 0) {
            fail(r, "cannot understand the node", &decode);
            return;
        }
        r->in.node = &r->node;
        r->in.node_lookup = LOOKUP_FOUND;
    }
    run_plan(r);
}

static void get_node(struct reconcile *r)
{
    const struct controller *c = r->tracked->controller;
    r->call =
        kube_send(c->client,
                  &(struct kube_request){
                      .verb = KUBE_GET, .resource = &resource_nodes, .name = r->job.node_name},
                  node_read, r);
}

static void job_item(void *context, struct kube_object *object)
{
    struct reconcile *r = context;
    if (!r->job_object)
        r->job_object = kube_object_ref(object);
}

static void jobs_listed(void *context, struct str resource_version, struct str continue_token,
                        struct err *err)
{
    struct reconcile *r = context;
    struct tracked *t = r->tracked;
    (void)resource_version;
    (void)continue_token;
    r->call = NULL;
    if (err) {
        fail(r, "cannot look for the Job", err);
        return;
    }
    struct err decode = ERR_INIT;
    if (r->job_object && job_decode(r->arena, r->job_object->tree, &r->job, &decode) < 0) {
        fail(r, "cannot understand the Job", &decode);
        return;
    }
    t->job_unsure = false;
    t->job_created = r->job_object && !t->job;
    t->job_at_ms = loop_now(t->controller->loop);
    if (r->job_object)
        r->in.job = &r->job;
    else if (!t->job)
        controller_release(t);
    r->in.job_expected = t->job_created;
    r->in.job_lookup = r->in.job ? LOOKUP_FOUND : LOOKUP_MISSING;
    run_plan(r);
}

/* Of this profile, whatever the cache shows: read from the store. */
static void find(struct reconcile *r, const struct kube_resource *resource,
                 const struct kube_list_handlers *handlers)
{
    const struct controller *c = r->tracked->controller;
    const char *selector = arena_printf(r->arena, LABEL_PROFILE_UID "=%s", r->tracked->uid);
    r->call = kube_list(c->client,
                        &(struct kube_list_options){.resource = resource,
                                                    .namespace_ = c->config->namespace_,
                                                    .label_selector = selector},
                        handlers);
}

/* For whatever target: a created one never came by the watch, or nobody knows whether it was
 * created, or it seems to be gone. */
static void find_job(struct reconcile *r)
{
    find(r, &resource_jobs,
         &(struct kube_list_handlers){.item = job_item, .end = jobs_listed, .context = r});
}

static void runner_item(void *context, struct kube_object *object)
{
    struct reconcile *r = context;
    kube_object_unref(r->runner_object);
    r->runner_object = kube_object_ref(object);
}

static void runners_listed(void *context, struct str resource_version, struct str continue_token,
                           struct err *err)
{
    struct reconcile *r = context;
    (void)resource_version;
    (void)continue_token;
    r->call = NULL;
    if (err) {
        fail(r, "cannot look for the Job's Pod", err);
        return;
    }
    struct err decode = ERR_INIT;
    if (r->runner_object && pod_decode(r->arena, r->runner_object->tree, &r->runner, &decode) < 0) {
        fail(r, "cannot understand the Job's Pod", &decode);
        return;
    }
    r->in.runner = r->runner_object ? &r->runner : NULL;
    r->in.runner_lookup = r->runner_object ? LOOKUP_FOUND : LOOKUP_MISSING;
    run_plan(r);
}

static void find_runner(struct reconcile *r)
{
    kube_object_unref(r->runner_object); /* the cache's */
    r->runner_object = NULL;
    r->in.runner = NULL;
    find(r, &resource_pods,
         &(struct kube_list_handlers){.item = runner_item, .end = runners_listed, .context = r});
}

/* 1. What the plan asks for first. */
static void next_step(struct reconcile *r)
{
    if (r->plan.get_target)
        get_target(r);
    else if (r->plan.get_node)
        get_node(r);
    else if (r->plan.get_job)
        find_job(r);
    else if (r->plan.get_runner)
        find_runner(r);
    else if (r->plan.create_job)
        create_job(r);
    else if (r->plan.delete_job)
        delete_job(r);
    else
        after_children(r);
}

static void run_plan(struct reconcile *r)
{
    r->in.live_jobs = r->tracked->controller->live_jobs;
    plan_profile(r->arena, &r->in, &r->plan);
    /* A cached answer may be old: it is good for going on, not for giving up or waiting. */
    if (r->in.target_lookup != LOOKUP_NOT_ASKED && !r->target_fresh && !r->plan.create_job) {
        r->target_fresh = true;
        r->in.target_lookup = LOOKUP_NOT_ASKED;
        r->in.target = NULL;
        get_target(r);
        return;
    }
    next_step(r);
}

static int decode_known(struct reconcile *r, struct err *err)
{
    struct tracked *t = r->tracked;
    if (t->job) {
        r->job_object = kube_object_ref(t->job);
        if (job_decode(r->arena, t->job->tree, &r->job, err) < 0)
            return err_wrap(err, "Job");
        r->in.job = &r->job;
    }
    if (t->runner) {
        r->runner_object = kube_object_ref(t->runner);
        if (pod_decode(r->arena, t->runner->tree, &r->runner, err) < 0)
            return err_wrap(err, "the Job's Pod");
        r->in.runner = &r->runner;
    }
    if (t->profile) {
        r->profile_object = kube_object_ref(t->profile);
        if (pyspyprofile_decode(r->arena, t->profile->tree, &r->profile, err) < 0)
            return err_wrap(err, "PySpyProfile");
        r->in.profile = &r->profile;
        r->in.namespace_denied = namespace_denied(t->controller, r->profile.meta.namespace_);
    }
    return 0;
}

/* A resource that the CRD would have refused: say so on it, with the little that can be read. */
static void refuse(struct reconcile *r, const struct err *why)
{
    struct arena *arena = r->arena;
    const struct kube_object *o = r->tracked->profile;
    if (!o || json_at(o->tree, "status", "completionTime", NULL)) {
        log_error("cannot read an object", LOG_C("uid", r->tracked->uid), LOG_ERR(why));
        finish(r);
        return;
    }
    r->profile.meta = (struct object_meta){.name = o->name,
                                           .namespace_ = o->namespace_,
                                           .uid = o->uid,
                                           .resource_version = o->resource_version};
    r->profile.spec.ttl_s = -1;
    struct condition *failed = arena_array(arena, 1, sizeof(*failed));
    struct str message = arena_str(arena, str_of(why->message));
    *failed = (struct condition){.type = STR("Failed"),
                                 .status = STR("True"),
                                 .reason = str_of(profile_reason_names[REASON_INVALID]),
                                 .message = message,
                                 .last_transition_ms = r->in.now_ms};
    r->plan = (struct plan){.write_status = true,
                            .look_again_ms = -1,
                            .status = {.phase = PHASE_FAILED,
                                       .reason = failed->reason,
                                       .message = message,
                                       .samples = -1,
                                       .completion_ms = r->in.now_ms,
                                       .conditions = {failed, 1}},
                            .event = PLAN_EVENT_WARNING,
                            .event_reason = profile_reason_names[REASON_INVALID],
                            .event_action = "Profile",
                            .event_note = message};
    next_step(r);
}

void reconcile_start(struct tracked *t)
{
    struct controller *c = t->controller;
    struct reconcile *r = xcalloc(1, sizeof(*r));
    list_remove(&t->turn); /* it is looked at now; may have to wait again */
    *r = (struct reconcile){
        .tracked = t,
        .arena = arena_create(0),
        .started_ms = loop_now(c->loop),
        .plan = {.look_again_ms = -1},
        .in = {.config = c->config,
               .now_ms = clock_wall_ms(loop_clock(c->loop)),
               .job_expected = t->job_created,
               .last_error = str_of(t->last_error),
               .live_jobs_on = live_jobs_on,
               .context = c,
               .receipts_known = identity_ready(c->identity),
               .receipt_valid = receipt_valid},
    };
    t->reconcile = r;
    struct err err = ERR_INIT;
    if (decode_known(r, &err) < 0)
        refuse(r, &err);
    else if (!t->job && (t->job_unsure ||
                         (t->job_created && loop_now(c->loop) - t->job_at_ms >= JOB_UNSEEN_MS)))
        find_job(r);
    else
        run_plan(r);
}
