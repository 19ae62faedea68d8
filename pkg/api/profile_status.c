#include "api/api_internal.h"

static const struct json_field condition_table[] = {
    {"type", JSON_F_STR, offsetof(struct condition, type), JSON_REQUIRED},
    {"status", JSON_F_STR, offsetof(struct condition, status), JSON_REQUIRED},
    {"reason", JSON_F_STR, offsetof(struct condition, reason)},
    {"message", JSON_F_STR, offsetof(struct condition, message), .max_len = 32768},
    {"lastTransitionTime", JSON_F_TIME, offsetof(struct condition, last_transition_ms)},
    {"observedGeneration", JSON_F_INT, offsetof(struct condition, observed_generation)},
    {NULL},
};

/* Also used by the runner's summary. */
const struct json_field process_status_table[] = {
    {"hostPID", JSON_F_INT, offsetof(struct process_status, host_pid)},
    {"pid", JSON_F_INT, offsetof(struct process_status, pid)},
    {"command", JSON_F_STR, offsetof(struct process_status, command)},
    {"pythonVersion", JSON_F_STR, offsetof(struct process_status, python_version)},
    {"engine", JSON_F_STR, offsetof(struct process_status, engine)},
    {"samples", JSON_F_INT, offsetof(struct process_status, samples)},
    {"errors", JSON_F_INT, offsetof(struct process_status, errors)},
    {"late", JSON_F_INT, offsetof(struct process_status, late)},
    {"held", JSON_F_INT, offsetof(struct process_status, held)},
    {NULL},
};

static const struct json_field cost_table[] = {
    {"cpuSeconds", JSON_F_STR, offsetof(struct target_status, cost_cpu_seconds)},
    {"maxMemoryBytes", JSON_F_INT, offsetof(struct target_status, cost_max_memory_bytes)},
    {NULL},
};

static const struct json_field target_status_table[] = {
    {"podName", JSON_F_STR, offsetof(struct target_status, pod_name)},
    {"podUID", JSON_F_STR, offsetof(struct target_status, pod_uid)},
    {"nodeName", JSON_F_STR, offsetof(struct target_status, node_name)},
    {"container", JSON_F_STR, offsetof(struct target_status, container)},
    {"jobName", JSON_F_STR, offsetof(struct target_status, job_name)},
    {"phase", JSON_F_ENUM, offsetof(struct target_status, phase), .names = profile_phase_names},
    {"reason", JSON_F_STR, offsetof(struct target_status, reason)},
    {"message", JSON_F_STR, offsetof(struct target_status, message), .max_len = 32768},
    {"engine", JSON_F_STR, offsetof(struct target_status, engine)},
    {"engineReason", JSON_F_STR, offsetof(struct target_status, engine_reason)},
    {"engineMessage", JSON_F_STR, offsetof(struct target_status, engine_message)},
    {"accuracy", JSON_F_STR, offsetof(struct target_status, accuracy)},
    {"processes", JSON_F_ARRAY, offsetof(struct target_status, processes),
     .table = process_status_table, .size = sizeof(struct process_status)},
    /* offset 0: the cost lies flat in the target's structure. */
    {"cost", JSON_F_OBJECT, 0, .table = cost_table},
    {NULL},
};

static const struct json_field object_key_config_map[] = {
    {"name", JSON_F_STR, offsetof(struct result_status, config_map_name)},
    {"key", JSON_F_STR, offsetof(struct result_status, config_map_key)},
    {NULL},
};

static const struct json_field object_key_secret[] = {
    {"name", JSON_F_STR, offsetof(struct result_status, secret_name)},
    {"key", JSON_F_STR, offsetof(struct result_status, secret_key)},
    {NULL},
};

static const struct json_field result_status_table[] = {
    {"target", JSON_F_STR, offsetof(struct result_status, target)},
    {"format", JSON_F_STR, offsetof(struct result_status, format)},
    {"mediaType", JSON_F_STR, offsetof(struct result_status, media_type)},
    {"encoding", JSON_F_STR, offsetof(struct result_status, encoding)},
    {"sizeBytes", JSON_F_INT, offsetof(struct result_status, size_bytes)},
    {"sha256", JSON_F_STR, offsetof(struct result_status, sha256)},
    {"configMapKeyRef", JSON_F_OBJECT, 0, .table = object_key_config_map},
    {"secretKeyRef", JSON_F_OBJECT, 0, .table = object_key_secret},
    {NULL},
};

const struct json_field profile_status_table[] = {
    {"observedGeneration", JSON_F_INT, offsetof(struct profile_status, observed_generation)},
    {"phase", JSON_F_ENUM, offsetof(struct profile_status, phase), .names = profile_phase_names},
    {"reason", JSON_F_STR, offsetof(struct profile_status, reason)},
    {"message", JSON_F_STR, offsetof(struct profile_status, message), .max_len = 32768},
    {"startTime", JSON_F_TIME, offsetof(struct profile_status, start_ms)},
    {"completionTime", JSON_F_TIME, offsetof(struct profile_status, completion_ms)},
    {"summary", JSON_F_STR, offsetof(struct profile_status, summary)},
    {"samples", JSON_F_INT, offsetof(struct profile_status, samples)},
    {"targets", JSON_F_ARRAY, offsetof(struct profile_status, targets),
     .table = target_status_table, .size = sizeof(struct target_status)},
    {"results", JSON_F_ARRAY, offsetof(struct profile_status, results),
     .table = result_status_table, .size = sizeof(struct result_status)},
    {"conditions", JSON_F_ARRAY, offsetof(struct profile_status, conditions),
     .table = condition_table, .size = sizeof(struct condition)},
    {NULL},
};

static void put_text(struct json_writer *w, const char *name, struct str value)
{
    if (value.len)
        json_put_str(w, name, value);
}

static void put_count(struct json_writer *w, const char *name, int64_t value)
{
    if (value)
        json_put_int(w, name, value);
}

void process_status_write(struct json_writer *w, const struct process_status *p)
{
    json_begin_object(w, NULL);
    put_count(w, "hostPID", p->host_pid);
    put_count(w, "pid", p->pid);
    put_text(w, "command", p->command);
    put_text(w, "pythonVersion", p->python_version);
    put_text(w, "engine", p->engine);
    json_put_int(w, "samples", p->samples);
    json_put_int(w, "errors", p->errors);
    json_put_int(w, "late", p->late);
    put_count(w, "held", p->held);
    json_end_object(w);
}

static void write_target(struct json_writer *w, const struct target_status *t)
{
    json_begin_object(w, NULL);
    put_text(w, "podName", t->pod_name);
    put_text(w, "podUID", t->pod_uid);
    put_text(w, "nodeName", t->node_name);
    put_text(w, "container", t->container);
    put_text(w, "jobName", t->job_name);
    json_put_cstr(w, "phase", profile_phase_names[t->phase]);
    put_text(w, "reason", t->reason);
    put_text(w, "message", t->message);
    put_text(w, "engine", t->engine);
    put_text(w, "engineReason", t->engine_reason);
    put_text(w, "engineMessage", t->engine_message);
    put_text(w, "accuracy", t->accuracy);
    if (t->processes.len) {
        const struct process_status *processes = t->processes.items;
        json_begin_array(w, "processes");
        for (size_t i = 0; i < t->processes.len; i++)
            process_status_write(w, &processes[i]);
        json_end_array(w);
    }
    if (t->cost_cpu_seconds.len) {
        json_begin_object(w, "cost");
        json_put_str(w, "cpuSeconds", t->cost_cpu_seconds);
        json_put_int(w, "maxMemoryBytes", t->cost_max_memory_bytes);
        json_end_object(w);
    }
    json_end_object(w);
}

static void write_reference(struct json_writer *w, const char *name, struct str object,
                            struct str key)
{
    if (!object.len)
        return;
    json_begin_object(w, name);
    json_put_str(w, "name", object);
    json_put_str(w, "key", key);
    json_end_object(w);
}

static void write_result(struct json_writer *w, const struct result_status *r)
{
    json_begin_object(w, NULL);
    json_put_str(w, "target", r->target);
    json_put_str(w, "format", r->format);
    json_put_str(w, "mediaType", r->media_type);
    put_text(w, "encoding", r->encoding);
    json_put_int(w, "sizeBytes", r->size_bytes);
    json_put_str(w, "sha256", r->sha256);
    write_reference(w, "configMapKeyRef", r->config_map_name, r->config_map_key);
    write_reference(w, "secretKeyRef", r->secret_name, r->secret_key);
    json_end_object(w);
}

static void write_condition(struct json_writer *w, const struct condition *c)
{
    json_begin_object(w, NULL);
    json_put_str(w, "type", c->type);
    json_put_str(w, "status", c->status);
    json_put_str(w, "reason", c->reason);
    json_put_str(w, "message", c->message);
    json_put_time(w, "lastTransitionTime", c->last_transition_ms);
    put_count(w, "observedGeneration", c->observed_generation);
    json_end_object(w);
}

void profile_status_write(struct json_writer *w, const char *name,
                          const struct profile_status *status)
{
    json_begin_object(w, name);
    put_count(w, "observedGeneration", status->observed_generation);
    json_put_cstr(w, "phase", profile_phase_names[status->phase]);
    put_text(w, "reason", status->reason);
    put_text(w, "message", status->message);
    if (status->start_ms)
        json_put_time(w, "startTime", status->start_ms);
    if (status->completion_ms)
        json_put_time(w, "completionTime", status->completion_ms);
    put_text(w, "summary", status->summary);
    if (status->samples >= 0)
        json_put_int(w, "samples", status->samples);
    const struct target_status *targets = status->targets.items;
    const struct result_status *results = status->results.items;
    const struct condition *conditions = status->conditions.items;
    if (status->targets.len) {
        json_begin_array(w, "targets");
        for (size_t i = 0; i < status->targets.len; i++)
            write_target(w, &targets[i]);
        json_end_array(w);
    }
    if (status->results.len) {
        json_begin_array(w, "results");
        for (size_t i = 0; i < status->results.len; i++)
            write_result(w, &results[i]);
        json_end_array(w);
    }
    if (status->conditions.len) {
        json_begin_array(w, "conditions");
        for (size_t i = 0; i < status->conditions.len; i++)
            write_condition(w, &conditions[i]);
        json_end_array(w);
    }
    json_end_object(w);
}
