#include "api/workload.h"

#define DEFAULT_CONTAINER "kubectl.kubernetes.io/default-container"

/* A Pod may have thousands of annotations' bytes that nobody reads here: only caps, no fields. */
struct state {
    struct str reason, message;
    int64_t exit_code, signal, started_ms, finished_ms;
};

struct raw_status {
    struct str name, container_id;
    struct state *waiting, *running, *terminated;
};

struct raw_condition {
    struct str type, status, reason, message;
    int64_t since_ms;
};

struct raw_container {
    struct str name;
};

static const struct json_field state_table[] = {
    {"reason", JSON_F_STR, offsetof(struct state, reason)},
    {"message", JSON_F_STR, offsetof(struct state, message), .max_len = 65536},
    {"exitCode", JSON_F_INT, offsetof(struct state, exit_code)},
    {"signal", JSON_F_INT, offsetof(struct state, signal)},
    {"startedAt", JSON_F_TIME, offsetof(struct state, started_ms)},
    {"finishedAt", JSON_F_TIME, offsetof(struct state, finished_ms)},
    {NULL},
};

static const struct json_field states_table[] = {
    {"waiting", JSON_F_OBJECT_PTR, offsetof(struct raw_status, waiting), .table = state_table,
     .size = sizeof(struct state)},
    {"running", JSON_F_OBJECT_PTR, offsetof(struct raw_status, running), .table = state_table,
     .size = sizeof(struct state)},
    {"terminated", JSON_F_OBJECT_PTR, offsetof(struct raw_status, terminated), .table = state_table,
     .size = sizeof(struct state)},
    {NULL},
};

static const struct json_field raw_status_table[] = {
    {"name", JSON_F_STR, offsetof(struct raw_status, name)},
    {"containerID", JSON_F_STR, offsetof(struct raw_status, container_id)},
    {"state", JSON_F_OBJECT, 0, .table = states_table},
    {NULL},
};

static const struct json_field raw_condition_table[] = {
    {"type", JSON_F_STR, offsetof(struct raw_condition, type)},
    {"status", JSON_F_STR, offsetof(struct raw_condition, status)},
    {"reason", JSON_F_STR, offsetof(struct raw_condition, reason)},
    {"message", JSON_F_STR, offsetof(struct raw_condition, message), .max_len = 65536},
    {"lastTransitionTime", JSON_F_TIME, offsetof(struct raw_condition, since_ms)},
    {NULL},
};

static const struct json_field raw_container_table[] = {
    {"name", JSON_F_STR, offsetof(struct raw_container, name)},
    {NULL},
};

struct raw_pod {
    struct object_meta meta;
    struct str node_name, phase, reason, message, runtime_class;
    struct json_array containers, statuses, conditions;
};

static const struct json_field pod_spec_table[] = {
    {"nodeName", JSON_F_STR, offsetof(struct raw_pod, node_name)},
    {"runtimeClassName", JSON_F_STR, offsetof(struct raw_pod, runtime_class)},
    {"containers", JSON_F_ARRAY, offsetof(struct raw_pod, containers), .table = raw_container_table,
     .size = sizeof(struct raw_container)},
    {NULL},
};

static const struct json_field pod_status_table[] = {
    {"phase", JSON_F_STR, offsetof(struct raw_pod, phase)},
    {"reason", JSON_F_STR, offsetof(struct raw_pod, reason)},
    {"message", JSON_F_STR, offsetof(struct raw_pod, message), .max_len = 65536},
    {"containerStatuses", JSON_F_ARRAY, offsetof(struct raw_pod, statuses),
     .table = raw_status_table, .size = sizeof(struct raw_status)},
    {"conditions", JSON_F_ARRAY, offsetof(struct raw_pod, conditions), .table = raw_condition_table,
     .size = sizeof(struct raw_condition)},
    {NULL},
};

static const struct json_field pod_table[] = {
    {"metadata", JSON_F_OBJECT, offsetof(struct raw_pod, meta), JSON_REQUIRED,
     .table = object_meta_table},
    {"spec", JSON_F_OBJECT, 0, .table = pod_spec_table},
    {"status", JSON_F_OBJECT, 0, .table = pod_status_table},
    {NULL},
};

static void fill_status(struct container_status *to, const struct raw_status *from)
{
    const struct state *state = from->terminated ? from->terminated
                                : from->running  ? from->running
                                                 : from->waiting;
    *to = (struct container_status){
        .name = from->name,
        .container_id = from->container_id,
        .state = from->terminated ? CONTAINER_TERMINATED
                 : from->running  ? CONTAINER_RUNNING
                 : from->waiting  ? CONTAINER_WAITING
                                  : CONTAINER_UNKNOWN,
    };
    if (!state)
        return;
    to->reason = state->reason;
    to->message = state->message;
    to->exit_code = state->exit_code;
    to->signal = state->signal;
    to->started_ms = state->started_ms;
    to->finished_ms = state->finished_ms;
}

static const struct raw_condition *find_condition(const struct json_array *conditions,
                                                  const char *type)
{
    const struct raw_condition *items = conditions->items;
    for (size_t i = 0; i < conditions->len; i++)
        if (str_is(items[i].type, type))
            return &items[i];
    return NULL;
}

/* NULL: not there, or not true. */
static const struct raw_condition *find_true(const struct json_array *conditions, const char *type)
{
    const struct raw_condition *c = find_condition(conditions, type);
    return c && str_is(c->status, "True") ? c : NULL;
}

int pod_decode(struct arena *arena, const struct json *tree, struct pod *ret, struct err *err)
{
    struct raw_pod raw = {.phase = STR_NULL};
    int r = json_decode(arena, tree, pod_table, "", JSON_UNKNOWN_IGNORE, &raw, err);
    if (r < 0)
        return r;
    struct pod pod = {
        .meta = raw.meta,
        .node_name = raw.node_name,
        .phase = raw.phase,
        .reason = raw.reason,
        .message = raw.message,
        .runtime_class = raw.runtime_class,
        .default_container = json_str_map_get(&raw.meta.annotations, STR(DEFAULT_CONTAINER)),
    };
    const struct raw_container *containers = raw.containers.items;
    pod.container_names.items = arena_array(arena, raw.containers.len, sizeof(struct str));
    for (size_t i = 0; i < raw.containers.len; i++)
        pod.container_names.items[pod.container_names.len++] = containers[i].name;

    /* The kubelet sorts containerStatuses by name; the spec's order is what people mean by first.
     */
    const struct raw_status *statuses = raw.statuses.items;
    struct container_status *sorted =
        arena_array(arena, raw.containers.len, sizeof(struct container_status));
    for (size_t i = 0; i < raw.containers.len; i++)
        for (size_t j = 0; j < raw.statuses.len; j++)
            if (str_eq(statuses[j].name, containers[i].name)) {
                fill_status(&sorted[pod.statuses.len++], &statuses[j]);
                break;
            }
    pod.statuses.items = sorted;

    const struct raw_condition *disruption = find_condition(&raw.conditions, "DisruptionTarget");
    if (disruption && str_is(disruption->status, "True")) {
        pod.disrupted = true;
        pod.disruption_message = disruption->message;
    }
    *ret = pod;
    return 0;
}

const struct container_status *pod_container(const struct pod *pod, struct str name)
{
    const struct container_status *statuses = pod->statuses.items;
    for (size_t i = 0; i < pod->statuses.len; i++)
        if (str_eq(statuses[i].name, name))
            return &statuses[i];
    return NULL;
}

struct raw_job {
    struct object_meta meta;
    struct str node_name;
    struct json_array conditions;
};

static const struct json_field job_pod_spec_table[] = {
    {"nodeName", JSON_F_STR, offsetof(struct raw_job, node_name)},
    {NULL},
};

static const struct json_field job_template_table[] = {
    {"spec", JSON_F_OBJECT, 0, .table = job_pod_spec_table},
    {NULL},
};

static const struct json_field job_spec_table[] = {
    {"template", JSON_F_OBJECT, 0, .table = job_template_table},
    {NULL},
};

static const struct json_field job_status_table[] = {
    {"conditions", JSON_F_ARRAY, offsetof(struct raw_job, conditions), .table = raw_condition_table,
     .size = sizeof(struct raw_condition)},
    {NULL},
};

static const struct json_field job_table[] = {
    {"metadata", JSON_F_OBJECT, offsetof(struct raw_job, meta), JSON_REQUIRED,
     .table = object_meta_table},
    {"spec", JSON_F_OBJECT, 0, .table = job_spec_table},
    {"status", JSON_F_OBJECT, 0, .table = job_status_table},
    {NULL},
};

int job_decode(struct arena *arena, const struct json *tree, struct job *ret, struct err *err)
{
    struct raw_job raw = {.node_name = STR_NULL};
    int r = json_decode(arena, tree, job_table, "", JSON_UNKNOWN_IGNORE, &raw, err);
    if (r < 0)
        return r;
    struct job job = {.meta = raw.meta, .node_name = raw.node_name};
    /* SuccessCriteriaMet and FailureTarget come first, while the Job controller still waits for the
     * Pod to end. */
    const struct raw_condition *complete = find_true(&raw.conditions, "Complete");
    const struct raw_condition *failed = find_true(&raw.conditions, "Failed");
    if (!complete)
        complete = find_true(&raw.conditions, "SuccessCriteriaMet");
    if (!failed)
        failed = find_true(&raw.conditions, "FailureTarget");
    if (complete) {
        job.complete = true;
        job.finished_ms = complete->since_ms;
    }
    if (failed) {
        job.failed = true;
        job.finished_ms = failed->since_ms;
        job.reason = failed->reason;
        job.message = failed->message;
    }
    *ret = job;
    return 0;
}

struct raw_node {
    struct object_meta meta;
    struct json_array conditions;
};

static const struct json_field node_status_table[] = {
    {"conditions", JSON_F_ARRAY, offsetof(struct raw_node, conditions),
     .table = raw_condition_table, .size = sizeof(struct raw_condition)},
    {NULL},
};

static const struct json_field node_table[] = {
    {"metadata", JSON_F_OBJECT, offsetof(struct raw_node, meta), JSON_REQUIRED,
     .table = object_meta_table},
    {"status", JSON_F_OBJECT, 0, .table = node_status_table},
    {NULL},
};

int node_decode(struct arena *arena, const struct json *tree, struct node *ret, struct err *err)
{
    struct raw_node raw = {.conditions = {NULL, 0}};
    int r = json_decode(arena, tree, node_table, "", JSON_UNKNOWN_IGNORE, &raw, err);
    if (r < 0)
        return r;
    struct node node = {.meta = raw.meta, .ready = find_true(&raw.conditions, "Ready") != NULL};
    const struct raw_condition *ready = find_condition(&raw.conditions, "Ready");
    if (ready)
        node.message = ready->message;
    *ret = node;
    return 0;
}

static const struct json_field token_user_table[] = {
    {"username", JSON_F_STR, offsetof(struct token_review, username)},
    {NULL},
};

static const struct json_field token_status_table[] = {
    {"authenticated", JSON_F_BOOL, offsetof(struct token_review, authenticated)},
    {"error", JSON_F_STR, offsetof(struct token_review, error), .max_len = 65536},
    {"audiences", JSON_F_STR_ARRAY, offsetof(struct token_review, audiences)},
    {"user", JSON_F_OBJECT, 0, .table = token_user_table},
    {NULL},
};

static const struct json_field token_review_table[] = {
    {"status", JSON_F_OBJECT, 0, JSON_REQUIRED, .table = token_status_table},
    {NULL},
};

int token_review_decode(struct arena *arena, const struct json *tree, struct token_review *ret,
                        struct err *err)
{
    struct token_review review = {.authenticated = false};
    int r = json_decode(arena, tree, token_review_table, "", JSON_UNKNOWN_IGNORE, &review, err);
    if (r < 0)
        return r;
    /* Values of extra are lists of texts. */
    const struct json *extra = json_at(tree, "status", "user", "extra", NULL);
    review.pod_name =
        json_text(json_item(json_get(extra, "authentication.kubernetes.io/pod-name"), 0));
    review.pod_uid =
        json_text(json_item(json_get(extra, "authentication.kubernetes.io/pod-uid"), 0));
    *ret = review;
    return 0;
}
