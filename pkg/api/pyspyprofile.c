#include "api/pyspyprofile.h"

#include <inttypes.h>

const char *const profile_phase_names[] = {"Pending", "Running",   "Completed",
                                           "Failed",  "Cancelled", NULL};

const char *const profile_reason_names[] = {
    [REASON_NONE] = "",
    [REASON_TARGET_NOT_FOUND] = "TargetNotFound",
    [REASON_POD_UID_MISMATCH] = "PodUIDMismatch",
    [REASON_POD_NOT_RUNNING] = "PodNotRunning",
    [REASON_CONTAINER_NOT_FOUND] = "ContainerNotFound",
    [REASON_NODE_NOT_READY] = "NodeNotReady",
    [REASON_PROFILING_DENIED] = "ProfilingDenied",
    [REASON_LIMIT_REACHED] = "LimitReached",
    [REASON_JOB_START_TIMEOUT] = "JobStartTimeout",
    [REASON_IMAGE_PULL_FAILED] = "ImagePullFailed",
    [REASON_PROCESS_NOT_FOUND] = "ProcessNotFound",
    [REASON_PROCESS_NOT_PYTHON] = "ProcessNotPython",
    [REASON_PROCESS_NOT_IN_TARGET] = "ProcessNotInTarget",
    [REASON_UNSUPPORTED_PYTHON] = "UnsupportedPython",
    [REASON_PERMISSION_DENIED] = "PermissionDenied",
    [REASON_PROCESS_EXITED] = "ProcessExited",
    [REASON_NO_SAMPLES] = "NoSamples",
    [REASON_PROFILER_FAILED] = "ProfilerFailed",
    [REASON_RESULT_TOO_LARGE] = "ResultTooLarge",
    [REASON_STORAGE_UNAVAILABLE] = "StorageUnavailable",
    [REASON_STORAGE_FORBIDDEN] = "StorageForbidden",
    [REASON_DEADLINE_EXCEEDED] = "DeadlineExceeded",
    [REASON_NODE_LOST] = "NodeLost",
    [REASON_CANCELLED] = "Cancelled",
    [REASON_INVALID] = "Invalid",
    [REASON_COUNT] = NULL,
};

const char *const process_select_names[] = {"Oldest", "Busiest", "All", NULL};
const char *const sampling_engine_names[] = {"Auto", "Native", "PySpy", NULL};
const char *const engine_reason_names[] = {
    [ENGINE_REASON_NONE] = "",
    [ENGINE_REASON_REQUESTED] = "Requested",
    [ENGINE_REASON_PREFERRED] = "Preferred",
    [ENGINE_REASON_NATIVE_STACKS] = "NativeStacks",
    [ENGINE_REASON_UNSUPPORTED_PYTHON] = "UnsupportedPython",
    [ENGINE_REASON_NATIVE_FAILED] = "NativeFailed",
    NULL,
};
const char *const profile_format_names[] = {"flamegraph", "speedscope", "raw", "chrometrace", NULL};

#define DEFAULT_DURATION_MS      30000
#define DEFAULT_RATE             100
#define DEFAULT_START_DEADLINE_S 120
#define DEFAULT_TTL_S            604800
#define NAME_MAX_BYTES           253

static const struct json_field process_spec_table[] = {
    {"select", JSON_F_ENUM, offsetof(struct process_spec, select), .names = process_select_names},
    {"command", JSON_F_STR, offsetof(struct process_spec, command), .max_len = 4096},
    {"pid", JSON_F_INT, offsetof(struct process_spec, pid), .min = 1, .max = 4194304},
    {"hostPID", JSON_F_INT, offsetof(struct process_spec, host_pid), .min = 1, .max = 4194304},
    {NULL},
};

static const struct json_field target_spec_table[] = {
    {"podName", JSON_F_STR, offsetof(struct target_spec, pod_name), JSON_REQUIRED, .max_len = 253},
    {"podUID", JSON_F_STR, offsetof(struct target_spec, pod_uid), .max_len = 64},
    {"nodeName", JSON_F_STR, offsetof(struct target_spec, node_name), .max_len = 253},
    {"container", JSON_F_STR, offsetof(struct target_spec, container), .max_len = 63},
    {"process", JSON_F_OBJECT, offsetof(struct target_spec, process), .table = process_spec_table},
    {NULL},
};

static const struct json_field sampling_spec_table[] = {
    {"duration", JSON_F_DURATION, offsetof(struct sampling_spec, duration_ms), .min = 1000,
     .max = 3600000},
    {"rate", JSON_F_INT, offsetof(struct sampling_spec, rate), .min = 1, .max = 1000},
    {"subprocesses", JSON_F_BOOL, offsetof(struct sampling_spec, subprocesses)},
    {"native", JSON_F_BOOL, offsetof(struct sampling_spec, native)},
    {"gil", JSON_F_BOOL, offsetof(struct sampling_spec, gil)},
    {"idle", JSON_F_BOOL, offsetof(struct sampling_spec, idle)},
    {"nonblocking", JSON_F_BOOL, offsetof(struct sampling_spec, nonblocking)},
    {"threads", JSON_F_BOOL, offsetof(struct sampling_spec, threads)},
    {"functions", JSON_F_BOOL, offsetof(struct sampling_spec, functions)},
    {"asyncTasks", JSON_F_BOOL, offsetof(struct sampling_spec, async_tasks)},
    {"commandLines", JSON_F_BOOL, offsetof(struct sampling_spec, command_lines)},
    {"engine", JSON_F_ENUM, offsetof(struct sampling_spec, engine), .names = sampling_engine_names},
    {NULL},
};

static const struct json_field output_object_table[] = {
    {"name", JSON_F_STR, offsetof(struct output_object, name), .max_len = 253},
    {NULL},
};

static const struct json_field output_spec_table[] = {
    {"configMap", JSON_F_OBJECT_PTR, offsetof(struct output_spec, config_map),
     .table = output_object_table, .size = sizeof(struct output_object)},
    {"secret", JSON_F_OBJECT_PTR, offsetof(struct output_spec, secret),
     .table = output_object_table, .size = sizeof(struct output_object)},
    {NULL},
};

const struct json_field profile_spec_table[] = {
    {"target", JSON_F_OBJECT, offsetof(struct profile_spec, target), JSON_REQUIRED,
     .table = target_spec_table},
    {"sampling", JSON_F_OBJECT, offsetof(struct profile_spec, sampling),
     .table = sampling_spec_table},
    {"formats", JSON_F_STR_ARRAY, offsetof(struct profile_spec, format_names), .max_len = 8},
    {"output", JSON_F_OBJECT, offsetof(struct profile_spec, output), .table = output_spec_table},
    {"cancel", JSON_F_BOOL, offsetof(struct profile_spec, cancel)},
    {"startDeadlineSeconds", JSON_F_INT, offsetof(struct profile_spec, start_deadline_s), .min = 1,
     .max = 86400},
    {"ttlSecondsAfterFinished", JSON_F_INT, offsetof(struct profile_spec, ttl_s), .min = 0,
     .max = 315360000},
    {NULL},
};

const struct json_field object_meta_table[] = {
    {"name", JSON_F_STR, offsetof(struct object_meta, name), .max_len = 253},
    {"namespace", JSON_F_STR, offsetof(struct object_meta, namespace_), .max_len = 253},
    {"uid", JSON_F_STR, offsetof(struct object_meta, uid), .max_len = 128},
    {"resourceVersion", JSON_F_STR, offsetof(struct object_meta, resource_version)},
    {"generation", JSON_F_INT, offsetof(struct object_meta, generation)},
    {"creationTimestamp", JSON_F_TIME, offsetof(struct object_meta, creation_ms)},
    {"deletionTimestamp", JSON_F_TIME, offsetof(struct object_meta, deletion_ms)},
    {"labels", JSON_F_STR_MAP, offsetof(struct object_meta, labels)},
    {"annotations", JSON_F_STR_MAP, offsetof(struct object_meta, annotations), .max_len = 262144},
    {NULL},
};

const struct json_field pyspyprofile_table[] = {
    {"metadata", JSON_F_OBJECT, offsetof(struct pyspyprofile, meta), JSON_REQUIRED,
     .table = object_meta_table},
    {"spec", JSON_F_OBJECT, offsetof(struct pyspyprofile, spec), JSON_REQUIRED,
     .table = profile_spec_table},
    {"status", JSON_F_OBJECT, offsetof(struct pyspyprofile, status), .table = profile_status_table},
    {NULL},
};

int api_enum_find(const char *const *names, struct str name)
{
    for (int i = 0; names[i]; i++)
        if (str_is(name, names[i]))
            return i;
    return -1;
}

bool profile_phase_is_final(int phase)
{
    return phase == PHASE_COMPLETED || phase == PHASE_FAILED || phase == PHASE_CANCELLED;
}

struct str profile_result_name(struct arena *arena, struct str profile_name, struct str uid)
{
    char suffix[16];
    snprintf(suffix, sizeof(suffix), "-%08" PRIx32, (uint32_t)str_hash(uid));
    struct str head = str_sub(profile_name, 0, NAME_MAX_BYTES - strlen(suffix));
    while (str_ends_with(head, STR(".")))
        head.len--; /* cut there: ".-" is in no name */
    return str_of(arena_printf(arena, "%.*s%s", STR_ARG(head), suffix));
}

static int check_rules(const struct profile_spec *spec, struct err *err)
{
    if (spec->sampling.duration_ms % 1000)
        return err_set(err, ERR_INVALID,
                       "spec.sampling.duration: %" PRId64 " ms is no whole number of seconds",
                       spec->sampling.duration_ms);
    if (spec->output.config_map && spec->output.secret)
        return err_set(err, ERR_INVALID,
                       "spec.output: at most one of configMap, secret may be set");
    return 0;
}

int pyspyprofile_decode(struct arena *arena, const struct json *tree, struct pyspyprofile *ret,
                        struct err *err)
{
    struct pyspyprofile p = {
        .spec = {.sampling = {.duration_ms = DEFAULT_DURATION_MS,
                              .rate = DEFAULT_RATE,
                              .subprocesses = true},
                 .start_deadline_s = DEFAULT_START_DEADLINE_S,
                 .ttl_s = DEFAULT_TTL_S},
        .status = {.samples = -1},
    };
    int r = json_decode(arena, tree, pyspyprofile_table, "", JSON_UNKNOWN_IGNORE, &p, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < p.spec.format_names.len; i++) {
        int format = api_enum_find(profile_format_names, p.spec.format_names.items[i]);
        if (format < 0)
            return err_set(err, ERR_INVALID, "spec.formats[%zu]: \"%.*s\" is no known format", i,
                           STR_ARG(str_sub(p.spec.format_names.items[i], 0, 64)));
        p.spec.formats |= 1u << format;
    }
    if (!p.spec.formats)
        p.spec.formats = 1u << FORMAT_FLAMEGRAPH;
    r = check_rules(&p.spec, err);
    if (r < 0)
        return r;
    *ret = p;
    return 0;
}
