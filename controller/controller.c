#include "controller/controller.h"

#include <malloc.h>

#include "base/alloc.h"
#include "base/log.h"
#include "controller/reconcile.h"

#define MAX_IN_FLIGHT  32
#define STATUS_BACK_MS 5000  /* for a status that was written to come back through the watch */
#define RETRY_CAP_MS   15000 /* back-off of one profile is cut here: a person waits for it */
#define TRIM_AFTER     64 /* reconciles, after which a quiet moment is used to give memory back */
#define QUIET_MS       3000
#define UNFINISHED     "status.phase!=Completed,status.phase!=Failed,status.phase!=Cancelled"

const struct kube_resource resource_profiles = {API_GROUP, API_VERSION, API_PLURAL};
const struct kube_resource resource_jobs = {"batch", "v1", "jobs"};
const struct kube_resource resource_pods = {"", "v1", "pods"};
const struct kube_resource resource_nodes = {"", "v1", "nodes"};
const struct kube_resource resource_namespaces = {"", "v1", "namespaces"};
const struct kube_resource resource_config_maps = {"", "v1", "configmaps"};
const struct kube_resource resource_secrets = {"", "v1", "secrets"};
const struct kube_resource resource_token_reviews = {"authentication.k8s.io", "v1", "tokenreviews"};

static void pump(struct controller *c);

static void queue_due(struct loop_timer *timer)
{
    pump(CONTAINER_OF(timer, struct controller, queue_timer));
}

static void arm(struct controller *c)
{
    int64_t next = queue_next_ms(c->queue);
    if (queue_len(c->queue) && c->in_flight < MAX_IN_FLIGHT)
        next = 0;
    if (next < 0 || !c->active)
        loop_timer_disarm(c->loop, &c->queue_timer);
    else
        loop_timer_arm(c->loop, &c->queue_timer, next);
}

struct tracked *controller_find(const struct controller *c, struct str profile_uid)
{
    return map_get(c->tracked, profile_uid);
}

void controller_enqueue(struct controller *c, struct str profile_uid, enum queue_priority priority)
{
    queue_add(c->queue, profile_uid, priority);
    arm(c);
}

static struct tracked *track(struct controller *c, struct str uid)
{
    struct tracked *t = map_get(c->tracked, uid);
    if (t)
        return t;
    t = xcalloc(1, sizeof(*t));
    t->controller = c;
    t->uid = str_dup(uid);
    list_init(&t->turn);
    map_set(c->tracked, uid, t);
    return t;
}

static void tracked_free(struct tracked *t)
{
    list_remove(&t->turn);
    kube_object_unref(t->profile);
    kube_object_unref(t->job);
    kube_object_unref(t->runner);
    free(t->uid);
    free(t->job_node);
    free(t->written_rv);
    free(t->last_error);
    free(t);
}

static void untrack_if_idle(struct tracked *t)
{
    if (t->profile || t->job || t->runner || t->reconcile || t->job_created || t->job_unsure)
        return;
    controller_release(t); /* should its Job appear after all, it is counted then */
    queue_forget(t->controller->queue, str_of(t->uid));
    map_remove(t->controller->tracked, str_of(t->uid));
    tracked_free(t);
}

/* The status that we wrote has not come back through the watch: what the cache shows is old. Not
 * for ever: a write that changed nothing does not come back. */
static bool is_stale(struct tracked *t)
{
    if (!t->written_rv)
        return false;
    int64_t left = t->written_ms + STATUS_BACK_MS - loop_now(t->controller->loop);
    if (left > 0 && t->profile && str_is(t->profile->resource_version, t->written_rv)) {
        queue_add_after(t->controller->queue, str_of(t->uid), QUEUE_NORMAL, left);
        return true;
    }
    free(t->written_rv);
    t->written_rv = NULL;
    return false;
}

static void pump(struct controller *c)
{
    struct str key;
    int64_t waited_ms;
    while (c->active && c->in_flight < MAX_IN_FLIGHT && queue_get(c->queue, &key, &waited_ms)) {
        telemetry_queue_wait(c->telemetry, waited_ms);
        struct tracked *t = map_get(c->tracked, key);
        if (!t || is_stale(t)) {
            queue_done(c->queue, key);
            continue;
        }
        c->in_flight++;
        reconcile_start(t); /* may end before it returns */
    }
    arm(c);
}

void controller_reconciled(struct tracked *t, bool failed, int64_t look_again_ms,
                           int64_t duration_ms)
{
    struct controller *c = t->controller;
    struct str key = str_of(t->uid);
    c->in_flight--;
    if (++c->untrimmed >= TRIM_AFTER)
        loop_timer_arm(c->loop, &c->quiet_timer, QUIET_MS);
    telemetry_reconcile(c->telemetry, failed, look_again_ms >= 0, duration_ms);
    queue_done(c->queue, key);
    enum queue_priority priority = t->job ? QUEUE_URGENT : QUEUE_NORMAL;
    if (failed) {
        queue_add_rate_limited(c->queue, key, priority);
        queue_add_after(c->queue, key, priority, RETRY_CAP_MS);
    } else {
        queue_forget(c->queue, key);
        if (t->job_created && !t->job) {
            int64_t left = t->job_at_ms + JOB_UNSEEN_MS - loop_now(c->loop);
            queue_add_after(c->queue, key, QUEUE_NORMAL, left);
        }
        if (look_again_ms >= 0)
            queue_add_after(c->queue, key, priority, look_again_ms);
    }
    untrack_if_idle(t);
    arm(c); /* the timer, not a call: reconciles that end at once must not nest */
}

/* A burst leaves the heap in pieces, among which libc keeps the free ones. */
static void quiet(struct loop_timer *timer)
{
    struct controller *c = CONTAINER_OF(timer, struct controller, quiet_timer);
    c->untrimmed = 0;
    malloc_trim(0);
}

static void set_object(struct kube_object **slot, struct kube_object *now)
{
    kube_object_unref(*slot);
    *slot = now ? kube_object_ref(now) : NULL;
}

static void profile_changed(void *context, enum cache_change change, struct kube_object *old,
                            struct kube_object *now)
{
    struct controller *c = context;
    /* Deleted and made again under the same name between two looks: two resources. */
    if (change == CACHE_UPDATED && !str_eq(old->uid, now->uid)) {
        profile_changed(context, CACHE_DELETED, old, NULL);
        old = NULL;
        change = CACHE_ADDED;
    }
    struct tracked *t = track(c, now ? now->uid : old->uid);
    set_object(&t->profile, now);
    enum queue_priority priority = !c->synced              ? QUEUE_LOW
                                   : change == CACHE_ADDED ? QUEUE_NORMAL
                                                           : QUEUE_URGENT;
    controller_enqueue(c, str_of(t->uid), priority);
    untrack_if_idle(t);
}

static struct str profile_uid_of(const struct kube_object *o)
{
    return kube_object_label(o, LABEL_PROFILE_UID);
}

static void wake_first(struct controller *c, struct list *waiting)
{
    struct list *first = list_pop(waiting);
    if (first)
        queue_add(c->queue, str_of(CONTAINER_OF(first, struct tracked, turn)->uid), QUEUE_NORMAL);
}

static void count_job(struct controller *c, struct tracked *t)
{
    struct str node = str_of(t->job_node);
    struct node_count *count = map_get(c->node_jobs, node);
    if (!count) {
        count = xcalloc(1, sizeof(*count));
        list_init(&count->waiting);
        map_set(c->node_jobs, node, count);
    }
    count->jobs++;
    c->live_jobs++;
    telemetry_live_jobs(c->telemetry, c->live_jobs);
}

static void uncount_job(struct controller *c, struct tracked *t)
{
    struct str node = str_of(t->job_node);
    struct node_count *count = map_get(c->node_jobs, node);
    count->jobs--;
    c->live_jobs--;
    telemetry_live_jobs(c->telemetry, c->live_jobs);
    wake_first(c, &c->waiting);
    wake_first(c, &count->waiting);
    if (count->jobs)
        return;
    while (!list_empty(&count->waiting))
        wake_first(c, &count->waiting);
    free(map_remove(c->node_jobs, node));
}

void controller_wait_turn(struct tracked *t, struct str node)
{
    struct controller *c = t->controller;
    struct node_count *count = node.len ? map_get(c->node_jobs, node) : NULL;
    list_remove(&t->turn);
    list_append(count ? &count->waiting : &c->waiting, &t->turn);
    /* It leaves the place that it was woken for to the next. */
    if (count && c->live_jobs < c->config->limits.max_concurrent)
        wake_first(c, &c->waiting);
}

void controller_reserve(struct tracked *t, struct str node)
{
    if (t->job_node)
        return;
    t->job_node = str_dup(node);
    count_job(t->controller, t);
}

void controller_release(struct tracked *t)
{
    if (!t->job_node)
        return;
    uncount_job(t->controller, t);
    free(TAKE(t->job_node));
    arm(t->controller);
}

static void account_job(struct tracked *t)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(4096);
    struct job job;
    if (t->job && job_decode(arena, t->job->tree, &job, NULL) == 0 && !job_finished(&job))
        controller_reserve(t, job.node_name);
    else
        controller_release(t);
}

static void job_changed(void *context, enum cache_change change, struct kube_object *old,
                        struct kube_object *now)
{
    struct controller *c = context;
    (void)change;
    struct str uid = profile_uid_of(now ? now : old);
    if (!uid.len)
        return;
    struct tracked *t = track(c, uid);
    set_object(&t->job, now);
    t->job_created = t->job_unsure = false;
    account_job(t);
    controller_enqueue(c, uid, c->synced ? QUEUE_URGENT : QUEUE_LOW);
    untrack_if_idle(t);
}

static void pod_changed(void *context, enum cache_change change, struct kube_object *old,
                        struct kube_object *now)
{
    struct controller *c = context;
    (void)change;
    struct str uid = profile_uid_of(now ? now : old);
    if (!uid.len)
        return;
    struct tracked *t = track(c, uid);
    set_object(&t->runner, now);
    controller_enqueue(c, uid, c->synced ? QUEUE_URGENT : QUEUE_LOW);
    untrack_if_idle(t);
}

static void namespace_changed(void *context, enum cache_change change, struct kube_object *old,
                              struct kube_object *now)
{
    (void)context;
    (void)change;
    (void)old;
    (void)now; /* read when a profile is planned */
}

static void cache_synced(void *context)
{
    struct controller *c = context;
    if (c->synced || !reflector_synced(c->jobs) || !reflector_synced(c->pods) ||
        !reflector_synced(c->namespaces))
        return;
    for (size_t i = 0; i < c->n_profiles; i++)
        if (!reflector_synced(c->profiles[i]))
            return;
    c->synced = true;
    c->on_synced(c->context);
}

static void cache_failed(void *context, const struct err *err)
{
    (void)context;
    log_warn("list or watch failed; trying again", LOG_ERR(err));
}

static void put_if(struct json_writer *w, const char *name, const struct json *value)
{
    if (value)
        json_put_tree(w, name, value);
}

/* Keeps the parts that are read of an object, which is a tenth of it. `ours`: made by us, so that
 * its annotations are few; users' may have 256 KiB of them on each. */
static struct kube_object *slim(struct kube_object *o, bool ours,
                                void (*write)(struct json_writer *w, const struct json *tree))
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 20);
    struct json_writer w = JSON_WRITER(&text);
    json_begin_object(&w, NULL);
    json_begin_object(&w, "metadata");
    static const char *const kept[] = {"name",
                                       "namespace",
                                       "uid",
                                       "generation",
                                       "resourceVersion",
                                       "creationTimestamp",
                                       "deletionTimestamp"};
    const struct json *meta = json_get(o->tree, "metadata");
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        put_if(&w, kept[i], json_get(meta, kept[i]));
    if (ours) {
        put_if(&w, "annotations", json_get(meta, "annotations"));
        json_begin_object(&w, "labels");
        json_put_str(&w, LABEL_PROFILE_UID, profile_uid_of(o));
        json_end_object(&w);
    }
    json_end_object(&w);
    write(&w, o->tree);
    json_end_object(&w);
    const struct json *tree;
    /* In one piece: these stay until the Job's ttlSecondsAfterFinished, thousands after a burst. */
    struct arena *arena = arena_create(text.len * 3);
    if (text.failed || json_parse(arena, buf_str(&text), NULL, &tree, NULL) < 0) {
        arena_destroy(arena);
        return kube_object_ref(o);
    }
    return kube_object_create(arena, tree);
}

static void write_job(struct json_writer *w, const struct json *tree)
{
    json_begin_object(w, "spec");
    json_begin_object(w, "template");
    json_begin_object(w, "spec");
    put_if(w, "nodeName", json_at(tree, "spec", "template", "spec", "nodeName", NULL));
    json_end_object(w);
    json_end_object(w);
    json_end_object(w);
    json_begin_object(w, "status");
    put_if(w, "conditions", json_at(tree, "status", "conditions", NULL));
    json_end_object(w);
}

static void write_statuses(struct json_writer *w, const struct json *statuses)
{
    json_begin_array(w, "containerStatuses");
    for (size_t i = 0; i < json_len(statuses); i++) {
        json_begin_object(w, NULL);
        put_if(w, "name", json_get(json_item(statuses, i), "name"));
        put_if(w, "state", json_get(json_item(statuses, i), "state"));
        json_end_object(w);
    }
    json_end_array(w);
}

static void write_disruption(struct json_writer *w, const struct json *conditions)
{
    json_begin_array(w, "conditions");
    for (size_t i = 0; i < json_len(conditions); i++)
        if (str_is(json_text(json_get(json_item(conditions, i), "type")), "DisruptionTarget"))
            json_put_tree(w, NULL, json_item(conditions, i));
    json_end_array(w);
}

static void write_pod(struct json_writer *w, const struct json *tree)
{
    const struct json *containers = json_at(tree, "spec", "containers", NULL);
    const struct json *status = json_get(tree, "status");
    json_begin_object(w, "spec");
    put_if(w, "nodeName", json_at(tree, "spec", "nodeName", NULL));
    json_begin_array(w, "containers");
    for (size_t i = 0; i < json_len(containers); i++) {
        json_begin_object(w, NULL);
        put_if(w, "name", json_get(json_item(containers, i), "name"));
        json_end_object(w);
    }
    json_end_array(w);
    json_end_object(w);
    json_begin_object(w, "status");
    put_if(w, "phase", json_get(status, "phase"));
    put_if(w, "reason", json_get(status, "reason"));
    put_if(w, "message", json_get(status, "message"));
    write_disruption(w, json_get(status, "conditions"));
    write_statuses(w, json_get(status, "containerStatuses"));
    json_end_object(w);
}

static void write_profile(struct json_writer *w, const struct json *tree)
{
    put_if(w, "spec", json_get(tree, "spec"));
    put_if(w, "status", json_get(tree, "status"));
}

static struct kube_object *slim_profile(void *context, struct kube_object *o)
{
    (void)context;
    return slim(o, false, write_profile);
}

static struct kube_object *slim_job(void *context, struct kube_object *o)
{
    (void)context;
    return slim(o, true, write_job);
}

static struct kube_object *slim_pod(void *context, struct kube_object *o)
{
    (void)context;
    return slim(o, true, write_pod);
}

static int create_profile_caches(struct controller *c, const struct reflector_options *common,
                                 struct err *err)
{
    const struct json_str_array *namespaces = &c->config->watch_namespaces;
    size_t n = namespaces->len ? namespaces->len : 1;
    c->profiles = xcalloc(n, sizeof(struct reflector *));
    for (size_t i = 0; i < n; i++) {
        struct reflector_options o = *common;
        o.name = "profiles";
        o.resource = &resource_profiles;
        o.namespace_ = namespaces->len ? namespaces->items[i].ptr : NULL;
        o.field_selector = UNFINISHED;
        o.field_selector_optional = true;
        o.transform = slim_profile;
        o.changed = profile_changed;
        int r = reflector_create(&o, &c->profiles[i], err);
        if (r < 0)
            return r;
        c->n_profiles++;
    }
    return 0;
}

static int create_caches(struct controller *c, struct err *err)
{
    struct reflector_options common = {.client = c->client,
                                       .loop = c->loop,
                                       .random = c->random,
                                       .synced = cache_synced,
                                       .failed = cache_failed,
                                       .context = c};
    struct reflector_options jobs = common, pods = common, namespaces = common;
    jobs.name = "jobs";
    jobs.resource = &resource_jobs;
    jobs.namespace_ = c->config->namespace_.ptr;
    jobs.label_selector = LABEL_PROFILE_UID;
    jobs.transform = slim_job;
    jobs.changed = job_changed;
    pods.name = "pods";
    pods.resource = &resource_pods;
    pods.namespace_ = c->config->namespace_.ptr;
    pods.label_selector = LABEL_PROFILE_UID;
    pods.transform = slim_pod;
    pods.changed = pod_changed;
    namespaces.name = "namespaces";
    namespaces.resource = &resource_namespaces;
    namespaces.label_selector = LABEL_DENY "=true";
    namespaces.metadata_only = true;
    namespaces.changed = namespace_changed;
    int r = reflector_create(&jobs, &c->jobs, err);
    if (r == 0)
        r = reflector_create(&pods, &c->pods, err);
    if (r == 0)
        r = reflector_create(&namespaces, &c->namespaces, err);
    return r < 0 ? r : create_profile_caches(c, &common, err);
}

int controller_create(const struct controller_options *options, struct controller **ret,
                      struct err *err)
{
    _cleanup_(controller_destroyp) struct controller *c = xcalloc(1, sizeof(*c));
    *c = (struct controller){.config = options->config,
                             .loop = options->loop,
                             .client = options->client,
                             .random = options->random,
                             .events = options->events,
                             .identity = options->identity,
                             .telemetry = options->telemetry,
                             .on_synced = options->on_synced,
                             .on_finished = options->on_finished,
                             .context = options->context,
                             .tracked = map_create(),
                             .node_jobs = map_create(),
                             .queue = queue_create(loop_clock(options->loop)),
                             .queue_timer = {.fire = queue_due},
                             .quiet_timer = {.fire = quiet}};
    list_init(&c->waiting);
    int r = create_caches(c, err);
    if (r < 0)
        return r;
    *ret = TAKE(c);
    return 0;
}

void controller_destroy(struct controller *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_profiles; i++)
        reflector_destroy(c->profiles[i]);
    free(c->profiles);
    reflector_destroy(c->jobs);
    reflector_destroy(c->pods);
    reflector_destroy(c->namespaces);
    struct map_iter it = {0};
    while (map_next(c->tracked, &it)) {
        reconcile_abort(it.value);
        tracked_free(it.value);
    }
    map_destroy(c->tracked);
    it = (struct map_iter){0};
    while (map_next(c->node_jobs, &it))
        free(it.value);
    map_destroy(c->node_jobs);
    loop_timer_disarm(c->loop, &c->queue_timer);
    loop_timer_disarm(c->loop, &c->quiet_timer);
    queue_destroy(c->queue);
    free(c);
}

void controller_start(struct controller *c)
{
    reflector_start(c->jobs);
    reflector_start(c->pods);
    reflector_start(c->namespaces);
    for (size_t i = 0; i < c->n_profiles; i++)
        reflector_start(c->profiles[i]);
}

void controller_activate(struct controller *c)
{
    c->active = true;
    arm(c); /* the queue holds everything that was seen so far */
}

void controller_deactivate(struct controller *c)
{
    c->active = false;
    arm(c);
}

bool controller_busy(const struct controller *c)
{
    return c->in_flight > 0;
}
