#include "controller/job.h"

#include "crypto/digest.h"

#define UPLOAD_MARGIN_S  90 /* for finding the process, making the formats and handing them in */
#define GRACE_PERIOD_S   8  /* a sampler gets 3 s to end; the rest is for the runner's own words */
#define RUNNER_CONTAINER "runner"

void job_name(struct str profile_uid, struct str pod_uid, char ret[static JOB_NAME_MAX])
{
    char hex[CRYPTO_SHA256_HEX];
    struct buf text = BUF_INIT(1024);
    buf_appendf(&text, "%.*s/%.*s", STR_ARG(str_sub(profile_uid, 0, 256)),
                STR_ARG(str_sub(pod_uid, 0, 256)));
    crypto_sha256_hex(buf_str(&text), hex);
    buf_finish(&text);
    snprintf(ret, JOB_NAME_MAX, "pyspy-%.20s", hex);
}

int64_t job_active_deadline_s(const struct profile_spec *spec)
{
    return spec->start_deadline_s + spec->sampling.duration_ms / 1000 + UPLOAD_MARGIN_S;
}

static void add_container(struct json_array *list, const struct container_status *status,
                          struct str *runtime)
{
    ssize_t scheme = str_find(status->container_id, STR("://"));
    if (status->state != CONTAINER_RUNNING || scheme <= 0)
        return;
    struct task_container *items = list->items;
    items[list->len++] = (struct task_container){
        .name = status->name,
        .id = str_sub(status->container_id, (size_t)scheme + 3, status->container_id.len),
    };
    *runtime = str_sub(status->container_id, 0, (size_t)scheme);
}

int job_containers(struct arena *arena, const struct target_spec *target, const struct pod *pod,
                   struct json_array *ret, struct str *ret_runtime, struct err *err)
{
    struct str only = target->container.len ? target->container : pod->default_container;
    const struct container_status *statuses = pod->statuses.items;
    struct json_array list = {arena_array(arena, pod->statuses.len, sizeof(struct task_container)),
                              0};
    struct str runtime = STR_NULL;

    if (only.len) {
        bool named = false;
        for (size_t i = 0; i < pod->container_names.len; i++)
            named = named || str_eq(pod->container_names.items[i], only);
        if (!named)
            return err_set(err, ERR_NOT_FOUND, "Pod %.*s has no container \"%.*s\"",
                           STR_ARG(pod->meta.name), STR_ARG(only));
    }
    for (size_t i = 0; i < pod->statuses.len; i++)
        if (!only.len || str_eq(statuses[i].name, only))
            add_container(&list, &statuses[i], &runtime);
    if (!list.len)
        return err_set(err, ERR_CONFLICT, "no container of Pod %.*s runs now%s%.*s",
                       STR_ARG(pod->meta.name), only.len ? ", looking for " : "", STR_ARG(only));
    *ret = list;
    *ret_runtime = runtime;
    return 0;
}

static void put_labels(struct json_writer *w, const struct pyspyprofile *p, const struct pod *pod)
{
    json_begin_object(w, "labels");
    json_put_cstr(w, "app.kubernetes.io/name", "pyspy-runner");
    json_put_cstr(w, "app.kubernetes.io/managed-by", "pyspy-controller");
    json_put_str(w, LABEL_PROFILE_UID, p->meta.uid);
    json_put_str(w, LABEL_PROFILE_NAMESPACE, p->meta.namespace_);
    struct str name = str_sub(p->meta.name, 0, 63);
    while (name.len && (name.ptr[name.len - 1] == '.' || name.ptr[name.len - 1] == '-'))
        name.len--; /* a label's value ends with a letter or a digit */
    json_put_str(w, LABEL_PROFILE_NAME, name);
    json_end_object(w);
    json_begin_object(w, "annotations");
    json_putf(w, ANNOTATION_PROFILE_NAME, "%.*s/%.*s", STR_ARG(p->meta.namespace_),
              STR_ARG(p->meta.name));
    json_put_str(w, ANNOTATION_TARGET_UID, pod->meta.uid);
    json_end_object(w);
}

static void put_pair(struct json_writer *w, const char *name, const struct resource_pair *pair)
{
    json_begin_object(w, name);
    if (pair->cpu.len)
        json_put_str(w, "cpu", pair->cpu);
    if (pair->memory.len)
        json_put_str(w, "memory", pair->memory);
    json_end_object(w);
}

/* Only py-spy has to enter the target's PID namespace. */
static bool joins(const struct runner_config *runner, const struct sampling_spec *sampling)
{
    return runner->join_namespaces && sampling->engine != ENGINE_NATIVE;
}

static void put_security_context(struct json_writer *w, const struct runner_config *runner,
                                 bool join)
{
    json_begin_object(w, "securityContext");
    json_put_int(w, "runAsUser", 0);
    json_put_bool(w, "privileged", false);
    json_put_bool(w, "allowPrivilegeEscalation", false);
    json_put_bool(w, "readOnlyRootFilesystem", true);
    json_begin_object(w, "capabilities");
    json_begin_array(w, "drop");
    json_put_cstr(w, NULL, "ALL");
    json_end_array(w);
    json_begin_array(w, "add");
    json_put_cstr(w, NULL, "SYS_PTRACE");
    if (join) {
        json_put_cstr(w, NULL, "SYS_ADMIN");
        /* `native` pauses the target: to wake one of another user whose py-spy was killed. */
        json_put_cstr(w, NULL, "KILL");
    }
    for (size_t i = 0; i < runner->capabilities.len; i++)
        json_put_str(w, NULL, runner->capabilities.items[i]);
    json_end_array(w);
    json_end_object(w);
    json_begin_object(w, "seccompProfile");
    json_put_cstr(w, "type", "RuntimeDefault");
    json_end_object(w);
    /* The default AppArmor profile forbids tracing a process that another profile confines. */
    json_begin_object(w, "appArmorProfile");
    json_put_cstr(w, "type", "Unconfined");
    json_end_object(w);
    json_end_object(w);
}

static void put_container(struct json_writer *w, const struct config *config, struct str task,
                          bool join)
{
    const struct runner_config *runner = &config->runner;
    json_begin_array(w, "containers");
    json_begin_object(w, NULL);
    json_put_cstr(w, "name", RUNNER_CONTAINER);
    json_put_str(w, "image", runner->image);
    json_put_str(w, "imagePullPolicy", runner->image_pull_policy);
    json_begin_array(w, "args");
    json_put_cstr(w, NULL, "run");
    json_end_array(w);
    json_begin_array(w, "env");
    json_begin_object(w, NULL);
    json_put_cstr(w, "name", TASK_VARIABLE);
    json_put_str(w, "value", task);
    json_end_object(w);
    json_end_array(w);
    json_begin_object(w, "resources");
    put_pair(w, "requests", &runner->requests);
    put_pair(w, "limits", &runner->limits);
    json_end_object(w);
    put_security_context(w, runner, join);
    json_begin_array(w, "volumeMounts");
    json_begin_object(w, NULL);
    json_put_cstr(w, "name", "token");
    json_put_cstr(w, "mountPath", "/var/run/secrets/pyspy");
    json_put_bool(w, "readOnly", true);
    json_end_object(w);
    json_end_array(w);
    json_put_cstr(w, "terminationMessagePolicy", "File");
    json_end_object(w);
    json_end_array(w);
}

static void put_volumes(struct json_writer *w)
{
    json_begin_array(w, "volumes");
    json_begin_object(w, NULL);
    json_put_cstr(w, "name", "token");
    json_begin_object(w, "projected");
    json_put_int(w, "defaultMode", 0400);
    json_begin_array(w, "sources");
    json_begin_object(w, NULL);
    json_begin_object(w, "serviceAccountToken");
    json_put_cstr(w, "audience", TASK_TOKEN_AUDIENCE);
    json_put_int(w, "expirationSeconds", 7200);
    json_put_cstr(w, "path", "token");
    json_end_object(w);
    json_end_object(w);
    json_end_array(w);
    json_end_object(w);
    json_end_object(w);
    json_end_array(w);
}

static void put_pod_spec(struct json_writer *w, const struct config *config, const struct pod *pod,
                         struct str task, bool join)
{
    const struct runner_config *runner = &config->runner;
    json_begin_object(w, "spec");
    /* By name rather than by the scheduler: works on a cordoned node, and without a scheduler. */
    json_put_str(w, "nodeName", pod->node_name);
    json_put_bool(w, "hostPID", true);
    json_put_cstr(w, "restartPolicy", "Never");
    json_put_str(w, "serviceAccountName", runner->service_account_name);
    json_put_bool(w, "automountServiceAccountToken", false);
    json_put_bool(w, "enableServiceLinks", false);
    json_put_int(w, "terminationGracePeriodSeconds", GRACE_PERIOD_S);
    if (runner->priority_class_name.len)
        json_put_str(w, "priorityClassName", runner->priority_class_name);
    if (runner->tolerations) {
        json_put_tree(w, "tolerations", runner->tolerations);
    } else {
        json_begin_array(w, "tolerations");
        json_begin_object(w, NULL);
        json_put_cstr(w, "operator", "Exists");
        json_end_object(w);
        json_end_array(w);
    }
    if (runner->image_pull_secrets.len) {
        json_begin_array(w, "imagePullSecrets");
        for (size_t i = 0; i < runner->image_pull_secrets.len; i++) {
            json_begin_object(w, NULL);
            json_put_str(w, "name", runner->image_pull_secrets.items[i]);
            json_end_object(w);
        }
        json_end_array(w);
    }
    put_container(w, config, task, join);
    put_volumes(w);
    json_end_object(w);
}

static int render_task(struct buf *out, const struct config *config,
                       const struct pyspyprofile *profile, const struct pod *pod, struct str ca,
                       struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct task task = {
        .profile_namespace = profile->meta.namespace_,
        .profile_name = profile->meta.name,
        .profile_uid = profile->meta.uid,
        .pod_namespace = pod->meta.namespace_,
        .pod_name = pod->meta.name,
        .pod_uid = pod->meta.uid,
        .node_name = pod->node_name,
        .runtime_class = pod->runtime_class,
        .process = profile->spec.target.process,
        .sampling = profile->spec.sampling,
        .formats = profile->spec.formats,
        .join_namespaces = joins(&config->runner, &profile->spec.sampling),
        .max_result_bytes = config->limits.max_result_bytes,
        .ca = ca,
    };
    int r = job_containers(arena, &profile->spec.target, pod, &task.containers, &task.runtime, err);
    if (r < 0)
        return r;
    struct buf url = BUF_INIT(4096);
    buf_append_str(&url, config->results_url);
    const struct str parts[] = {
        STR("/v1/results/"), profile->meta.namespace_, STR("/"), profile->meta.name, STR("/"),
        profile->meta.uid};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        buf_append_str(&url, parts[i]);
    task.upload_url = arena_str(arena, buf_str(&url));
    buf_finish(&url);
    task_write(out, &task);
    return buf_error(out, "the task", err);
}

int job_render(struct buf *out, const struct config *config, const struct pyspyprofile *profile,
               const struct pod *pod, struct str ca, struct err *err)
{
    _cleanup_(buf_finish) struct buf task = BUF_INIT(TASK_MAX);
    int r = render_task(&task, config, profile, pod, ca, err);
    if (r < 0)
        return r;
    char name[JOB_NAME_MAX];
    job_name(profile->meta.uid, pod->meta.uid, name);

    struct json_writer w = JSON_WRITER(out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "batch/v1");
    json_put_cstr(&w, "kind", "Job");
    json_begin_object(&w, "metadata");
    json_put_cstr(&w, "name", name);
    put_labels(&w, profile, pod);
    json_end_object(&w);
    json_begin_object(&w, "spec");
    json_put_int(&w, "backoffLimit", 0);
    json_put_int(&w, "completions", 1);
    json_put_int(&w, "parallelism", 1);
    json_put_int(&w, "activeDeadlineSeconds", job_active_deadline_s(&profile->spec));
    json_put_int(&w, "ttlSecondsAfterFinished", config->runner.ttl_s);
    /* A Pod that was deleted or lost is not replaced: a second sampling is not what was asked for.
     */
    json_put_cstr(&w, "podReplacementPolicy", "Failed");
    json_begin_object(&w, "template");
    json_begin_object(&w, "metadata");
    put_labels(&w, profile, pod);
    json_end_object(&w);
    put_pod_spec(&w, config, pod, buf_str(&task), joins(&config->runner, &profile->spec.sampling));
    json_end_object(&w);
    json_end_object(&w);
    json_end_object(&w);
    return buf_error(out, "the Job", err);
}
