#include "scenario.h"

#include "base/alloc.h"

const struct sim_kind jobs = {"batch", "v1", "jobs", "Job", true, NULL};
const struct sim_kind pods = {"", "v1", "pods", "Pod", true, NULL};

uint64_t below(struct scenario *s, uint64_t bound)
{
    return random_below(&s->random.source, bound);
}

/* The cluster's side */

struct kube_object **scenario_list(struct scenario *s, const struct sim_kind *kind, size_t *ret_n)
{
    struct sim_store *store = sim_apiserver_store(s->server);
    return sim_store_list(store, &(struct sim_selector){.kind = kind}, store->version, ret_n);
}

void patch_object(struct scenario *s, const char *path, const char *body)
{
    int status = sim_do(s->server, "PATCH", path, "application/merge-patch+json", body, NULL);
    CHECK(s, status == 200);
}

/* Which profile a Job or its Pod is of. */
static size_t profile_of(struct scenario *s, const struct kube_object *o)
{
    struct str name = kube_object_annotation(o, ANNOTATION_PROFILE_NAME);
    int64_t i = -1;
    CHECK(s, str_starts_with(name, STR("shop/p")));
    CHECK(s, str_to_i64(str_sub(name, 6, name.len), 0, PROFILES - 1, &i) == 0);
    return (size_t)i;
}

bool job_ended(const struct kube_object *job)
{
    return json_len(json_at(job->tree, "status", "conditions", NULL)) > 0;
}

static void now_text(struct scenario *s, char out[static TIME_RFC3339_MAX])
{
    time_format(clock_wall_ms(loop_clock(s->loop)), out);
}

static int64_t age_ms(struct scenario *s, const struct json *time)
{
    int64_t at = 0;
    CHECK(s, time_parse(json_text(time), &at) == 0);
    return clock_wall_ms(loop_clock(s->loop)) - at;
}

static void create_pod(struct scenario *s, const struct kube_object *job)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(1u << 20);
    struct json_writer w = JSON_WRITER(&body);
    json_begin_object(&w, NULL);
    json_begin_object(&w, "metadata");
    json_putf(&w, "name", "%.*s-x", STR_ARG(job->name));
    json_put_cstr(&w, "namespace", "pyspy");
    const struct json *template = json_at(job->tree, "spec", "template", NULL);
    json_put_tree(&w, "labels", json_at(template, "metadata", "labels", NULL));
    json_put_tree(&w, "annotations", json_at(template, "metadata", "annotations", NULL));
    json_end_object(&w);
    json_put_tree(&w, "spec", json_get(template, "spec"));
    json_end_object(&w);
    int status =
        sim_do(s->server, "POST", "/api/v1/namespaces/pyspy/pods", "", buf_cstr(&body), NULL);
    CHECK(s, status == 201);
}

/* What the runner leaves; "" for nothing. */
static void last_words(struct scenario *s, struct buf *out, enum fate fate,
                       const struct kube_object *pod)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct upload_file file = {.format = STR("flamegraph"),
                               .key = STR("flamegraph.svg"),
                               .media_type = STR("image/svg+xml"),
                               .size_bytes = 7,
                               .sha256 = STR("00")};
    struct receipt receipt = {.kind = STR("ConfigMap"), .name = STR("result"), .files = {&file, 1}};
    struct summary summary = {.message = STR(""), .samples = 99};
    if (fate == FATE_OUT_OF_MEMORY)
        return;
    if (fate == FATE_PROCESS_NOT_FOUND) {
        summary.reason = REASON_PROCESS_NOT_FOUND;
    } else {
        identity_sign(s->identity, arena, kube_object_label(pod, LABEL_PROFILE_UID), &receipt);
        summary.receipt = &receipt;
    }
    summary_write(out, &summary);
    CHECK(s, !out->failed);
}

static void put_state(struct json_writer *w, const char *phase, const char *state)
{
    json_begin_object(w, NULL);
    json_begin_object(w, "status");
    json_put_cstr(w, "phase", phase);
    json_begin_array(w, "containerStatuses");
    json_begin_object(w, NULL);
    json_put_cstr(w, "name", "runner");
    json_begin_object(w, "state");
    json_begin_object(w, state);
}

static void end_state(struct scenario *s, struct json_writer *w, const struct kube_object *pod)
{
    json_end_object(w);
    json_end_object(w);
    json_end_object(w);
    json_end_array(w);
    json_end_object(w);
    json_end_object(w);
    _cleanup_(freep) char *path =
        xasprintf("/api/v1/namespaces/pyspy/pods/%.*s/status", STR_ARG(pod->name));
    patch_object(s, path, buf_cstr(w->out));
}

static void pod_ends(struct scenario *s, const struct kube_object *pod, enum fate fate)
{
    _cleanup_(buf_finish) struct buf words = BUF_INIT(SUMMARY_MAX);
    _cleanup_(buf_finish) struct buf body = BUF_INIT(1u << 16);
    struct json_writer w = JSON_WRITER(&body);
    if (!identity_ready(s->identity))
        return; /* nobody would have taken the result in */
    last_words(s, &words, fate, pod);
    bool good = words.len && fate != FATE_PROCESS_NOT_FOUND;
    put_state(&w, good ? "Succeeded" : "Failed", "terminated");
    json_put_int(&w, "exitCode", good ? 0 : 1);
    json_put_cstr(&w, "reason", fate == FATE_OUT_OF_MEMORY ? "OOMKilled" : "Error");
    json_put_str(&w, "message", buf_str(&words));
    end_state(s, &w, pod);
}

/* The kubelet: one step of one Pod. */
static void pod_step(struct scenario *s, const struct kube_object *pod)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(1u << 16);
    struct json_writer w = JSON_WRITER(&body);
    enum fate fate = s->fates[profile_of(s, pod)];
    const struct json *state =
        json_get(json_item(json_at(pod->tree, "status", "containerStatuses", NULL), 0), "state");
    const struct json *running = json_get(state, "running");
    if (!state) {
        bool image = fate != FATE_NO_IMAGE;
        put_state(&w, "Pending", "waiting");
        json_put_cstr(&w, "reason", image ? "ContainerCreating" : "ErrImagePull");
        end_state(s, &w, pod);
    } else if (json_get(state, "waiting") && fate != FATE_NO_IMAGE && below(s, 4) == 0) {
        char now[TIME_RFC3339_MAX];
        now_text(s, now);
        put_state(&w, "Running", "running");
        json_put_cstr(&w, "startedAt", now);
        end_state(s, &w, pod);
    } else if (running && age_ms(s, json_get(running, "startedAt")) > 6000) {
        pod_ends(s, pod, fate);
    }
}

/* The Job controller: one step of one Job. */
static void job_step(struct scenario *s, const struct kube_object *job)
{
    struct sim_store *store = sim_apiserver_store(s->server);
    _cleanup_(freep) char *name = xasprintf("%.*s-x", STR_ARG(job->name));
    const struct kube_object *pod = sim_store_get(store, &pods, STR("pyspy"), str_of(name));
    if (job_ended(job))
        return;
    if (!pod) {
        create_pod(s, job);
        return;
    }
    struct str phase = json_text(json_at(pod->tree, "status", "phase", NULL));
    bool good = str_is(phase, "Succeeded");
    if (!good && !str_is(phase, "Failed")) {
        pod_step(s, pod);
        return;
    }
    char now[TIME_RFC3339_MAX];
    now_text(s, now);
    _cleanup_(freep) char *path =
        xasprintf("/apis/batch/v1/namespaces/pyspy/jobs/%.*s/status", STR_ARG(job->name));
    _cleanup_(freep) char *body = xasprintf(
        "{\"status\":{\"conditions\":[{\"type\":\"%s\",\"status\":\"True\",\"reason\":\"%s\","
        "\"lastTransitionTime\":\"%s\"}]}}",
        good ? "Complete" : "Failed", good ? "" : "BackoffLimitExceeded", now);
    patch_object(s, path, body);
}

/* The garbage collector: Pods go with their Job. */
static void collect(struct scenario *s)
{
    size_t n;
    struct sim_store *store = sim_apiserver_store(s->server);
    struct kube_object **found = scenario_list(s, &pods, &n);
    for (size_t i = 0; i < n; i++) {
        if (!str_is(found[i]->namespace_, "pyspy"))
            continue;
        struct str job = str_sub(found[i]->name, 0, found[i]->name.len - 2);
        if (sim_store_get(store, &jobs, STR("pyspy"), job))
            continue;
        _cleanup_(freep) char *path =
            xasprintf("/api/v1/namespaces/pyspy/pods/%.*s", STR_ARG(found[i]->name));
        sim_do(s->server, "DELETE", path, "", "", NULL);
    }
    free(found);
}

void cluster_step(struct scenario *s)
{
    size_t n, live = 0;
    struct kube_object **found = scenario_list(s, &jobs, &n);
    size_t of_profile[PROFILES] = {0};
    for (size_t i = 0; i < n; i++) {
        live += !job_ended(found[i]);
        CHECK(s, ++of_profile[profile_of(s, found[i])] == 1);
        if (below(s, 3))
            job_step(s, found[i]);
    }
    /* A cache that starts in the past knows fewer Jobs than there are. */
    CHECK(s, live <= LIMIT || s->faults.stale);
    free(found);
    if (below(s, 3))
        collect(s);
}

/* The users' side */

void create_target(struct scenario *s, size_t i)
{
    bool runs = s->fates[i] != FATE_TARGET_PENDING;
    _cleanup_(freep) char *body = xasprintf(
        "{\"metadata\":{\"name\":\"web%zu\",\"namespace\":\"shop\"},\"spec\":{\"nodeName\":"
        "\"node%zu\",\"containers\":[{\"name\":\"app\"}]}}",
        i, i % 2);
    _cleanup_(freep) char *status = xasprintf(
        "{\"status\":{\"phase\":\"%s\",\"containerStatuses\":[{\"name\":\"app\",\"containerID\":"
        "\"containerd://a\",\"state\":{\"%s\":{}}}]}}",
        runs ? "Running" : "Pending", runs ? "running" : "waiting");
    _cleanup_(freep) char *path = xasprintf("/api/v1/namespaces/shop/pods/web%zu/status", i);
    CHECK(s, sim_do(s->server, "POST", "/api/v1/namespaces/shop/pods", "", body, NULL) == 201);
    patch_object(s, path, status);
}

void create_profile(struct scenario *s, size_t i)
{
    enum fate fate = s->fates[i];
    _cleanup_(freep) char *body =
        xasprintf("{\"metadata\":{\"name\":\"p%zu\",\"namespace\":\"shop\"},\"spec\":{\"target\":{"
                  "\"podName\":\"web%zu\"%s},\"sampling\":{\"duration\":\"%s\"},"
                  "\"startDeadlineSeconds\":%d}}",
                  i, i, fate == FATE_OTHER_UID ? ",\"podUID\":\"other\"" : "",
                  fate == FATE_TOO_LONG ? "10m" : "5s", fate == FATE_DONE ? 3600 : 90);
    CHECK(s, sim_do(s->server, "POST", "/apis/" API_GROUP_VERSION "/namespaces/shop/" API_PLURAL,
                    "", body, NULL) == 201);
    s->created[i] = true;
}

void user_step(struct scenario *s)
{
    size_t i = below(s, PROFILES);
    _cleanup_(freep) char *path =
        xasprintf("/apis/" API_GROUP_VERSION "/namespaces/shop/" API_PLURAL "/p%zu", i);
    _cleanup_(freep) char *target = xasprintf("/api/v1/namespaces/shop/pods/web%zu", i);
    if (below(s, 20))
        return;
    if (!s->created[i]) {
        create_profile(s, i);
    } else if (s->fates[i] == FATE_CANCELLED) {
        patch_object(s, path, "{\"spec\":{\"cancel\":true}}");
    } else if (s->fates[i] == FATE_DELETED && !s->deleted[i]) {
        CHECK(s, sim_do(s->server, "DELETE", path, "", "", NULL) == 200);
        s->deleted[i] = true;
    } else if (s->fates[i] == FATE_TARGET_DELETED) {
        sim_do(s->server, "DELETE", target, "", "", NULL);
    } else if (s->fates[i] == FATE_JOB_DELETED) {
        size_t n;
        struct kube_object **found = scenario_list(s, &jobs, &n);
        for (size_t j = 0; j < n; j++) {
            _cleanup_(freep) char *job =
                xasprintf("/apis/batch/v1/namespaces/pyspy/jobs/%.*s", STR_ARG(found[j]->name));
            if (profile_of(s, found[j]) == i)
                sim_do(s->server, "DELETE", job, "", "", NULL);
        }
        free(found);
    }
}
