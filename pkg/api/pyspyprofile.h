/* PySpyProfile (profiling.pyspy.dev/v1alpha1): structures and decode tables of what users write
 * and read. Texts point into the arena of the object that was decoded. The CRD in crds/ is the same
 * contract in OpenAPI; a test holds the two against each other. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "json/decode.h"
#include "json/write.h"

#define API_GROUP         "profiling.pyspy.dev"
#define API_VERSION       "v1alpha1"
#define API_GROUP_VERSION API_GROUP "/" API_VERSION
#define API_KIND          "PySpyProfile"
#define API_PLURAL        "pyspyprofiles"

/* Labels that the operator puts on what it makes. */
#define LABEL_PROFILE_UID       API_GROUP "/profile-uid"
#define LABEL_PROFILE_NAME      API_GROUP "/profile-name" /* cut to 63 bytes; for people */
#define LABEL_PROFILE_NAMESPACE API_GROUP "/profile-namespace"
#define LABEL_DENY              API_GROUP "/deny"       /* on a Pod or Namespace: "true" */
#define ANNOTATION_TARGET_UID   API_GROUP "/target-uid" /* UID of the profiled Pod */
#define ANNOTATION_PROFILE_NAME API_GROUP "/profile"    /* "namespace/name", never cut */

enum profile_phase { PHASE_PENDING, PHASE_RUNNING, PHASE_COMPLETED, PHASE_FAILED, PHASE_CANCELLED };
extern const char *const profile_phase_names[];

/* status.reason, conditions, Events and the runner's summary share these. */
enum profile_reason {
    REASON_NONE,
    REASON_TARGET_NOT_FOUND,
    REASON_POD_UID_MISMATCH,
    REASON_POD_NOT_RUNNING,
    REASON_CONTAINER_NOT_FOUND,
    REASON_NODE_NOT_READY,
    REASON_PROFILING_DENIED,
    REASON_LIMIT_REACHED,
    REASON_JOB_START_TIMEOUT,
    REASON_IMAGE_PULL_FAILED,
    REASON_PROCESS_NOT_FOUND,
    REASON_PROCESS_NOT_PYTHON,
    REASON_PROCESS_NOT_IN_TARGET,
    REASON_UNSUPPORTED_PYTHON,
    REASON_PERMISSION_DENIED,
    REASON_PROCESS_EXITED,
    REASON_NO_SAMPLES,
    REASON_PROFILER_FAILED,
    REASON_RESULT_TOO_LARGE,
    REASON_STORAGE_UNAVAILABLE,
    REASON_STORAGE_FORBIDDEN,
    REASON_DEADLINE_EXCEEDED,
    REASON_NODE_LOST,
    REASON_CANCELLED,
    REASON_INVALID, /* the resource cannot be read; cannot happen with our CRD in place */
    REASON_COUNT
};
extern const char *const profile_reason_names[]; /* NULL-ended; "" for REASON_NONE */

enum process_select { SELECT_OLDEST, SELECT_BUSIEST, SELECT_ALL };
extern const char *const process_select_names[];

enum sampling_engine { ENGINE_AUTO, ENGINE_NATIVE, ENGINE_PYSPY };
extern const char *const sampling_engine_names[];

/* Why the engine was taken. */
enum engine_reason {
    ENGINE_REASON_NONE,               /* none was taken yet */
    ENGINE_REASON_REQUESTED,          /* the profile names it */
    ENGINE_REASON_PREFERRED,          /* Auto: ours */
    ENGINE_REASON_NATIVE_STACKS,      /* py-spy: ours does not read those of C */
    ENGINE_REASON_UNSUPPORTED_PYTHON, /* py-spy: ours cannot read this interpreter */
    ENGINE_REASON_NATIVE_FAILED,      /* py-spy: ours could not be started */
};
extern const char *const engine_reason_names[]; /* NULL-ended; "" for ENGINE_REASON_NONE */

enum profile_format {
    FORMAT_FLAMEGRAPH,
    FORMAT_SPEEDSCOPE,
    FORMAT_RAW,
    FORMAT_CHROMETRACE,
    FORMAT_COUNT
};
extern const char *const profile_format_names[];

struct process_spec {
    int select;         /* enum process_select */
    struct str command; /* POSIX extended regular expression on the command line; "" any */
    int64_t pid;        /* as the container sees it; 0 any */
    int64_t host_pid;   /* as the node sees it; 0 any */
};

struct target_spec {
    struct str pod_name, pod_uid, node_name, container; /* "" where not given */
    struct process_spec process;
};

struct sampling_spec {
    int64_t duration_ms; /* 1 s … 1 h, whole seconds */
    int64_t rate;        /* samples a second, 1 … 1000 */
    bool subprocesses, native, gil, idle, nonblocking, threads, functions, async_tasks,
        command_lines;
    int engine; /* enum sampling_engine */
};

struct output_object {
    struct str name; /* "": <profile>-<short hash> */
};

struct output_spec {
    struct output_object *config_map; /* at most one is not NULL; none means config_map */
    struct output_object *secret;
};

struct profile_spec {
    struct target_spec target;
    struct sampling_spec sampling;
    struct json_str_array format_names;
    unsigned formats; /* bits 1 << enum profile_format; from format_names */
    struct output_spec output;
    bool cancel;
    int64_t start_deadline_s;
    int64_t ttl_s; /* ttlSecondsAfterFinished */
};

struct condition {
    struct str type, status, reason, message;
    int64_t last_transition_ms; /* wall */
    int64_t observed_generation;
};

struct process_status {
    int64_t host_pid, pid;
    struct str command, python_version;
    struct str engine; /* "" where all of a target's processes have the same */
    int64_t samples, errors, late;
    int64_t held; /* how often our sampler made a thread wait */
};

struct target_status {
    struct str pod_name, pod_uid, node_name, container, job_name;
    int phase; /* enum profile_phase */
    struct str reason, message;
    struct str engine, accuracy;   /* "Native" "PySpy"; "Full" "GILOnly" "IdleCounted" */
    struct str engine_reason;      /* one of engine_reason_names */
    struct str engine_message;     /* what it could not do; "" nothing to tell */
    struct json_array processes;   /* struct process_status */
    struct str cost_cpu_seconds;   /* "0.41"; "" unknown */
    int64_t cost_max_memory_bytes; /* 0 unknown */
};

struct result_status {
    struct str target, format, media_type, encoding; /* encoding: "" or "gzip" */
    int64_t size_bytes;                              /* as stored */
    struct str sha256;                               /* hex, of what is stored */
    struct str config_map_name, config_map_key;      /* "" when in a Secret */
    struct str secret_name, secret_key;
};

struct profile_status {
    int64_t observed_generation;
    int phase; /* enum profile_phase */
    struct str reason, message;
    int64_t start_ms, completion_ms; /* wall; 0: not yet */
    struct str summary;              /* "1/1" */
    int64_t samples;                 /* -1: not known yet */
    struct json_array targets;       /* struct target_status */
    struct json_array results;       /* struct result_status */
    struct json_array conditions;    /* struct condition */
};

struct object_meta {
    struct str name, namespace_, uid, resource_version;
    int64_t generation;
    int64_t creation_ms; /* wall */
    int64_t deletion_ms; /* 0: living */
    struct json_str_map labels, annotations;
};

struct pyspyprofile {
    struct object_meta meta;
    struct profile_spec spec;
    struct profile_status status;
};

extern const struct json_field object_meta_table[];
extern const struct json_field profile_spec_table[];
extern const struct json_field profile_status_table[];
extern const struct json_field pyspyprofile_table[];

/* Decodes and applies defaults and the rules that the CRD's CEL has as well. ret points into
 * arena and the tree's arena. ERR_INVALID names the path. */
int pyspyprofile_decode(struct arena *arena, const struct json *tree, struct pyspyprofile *ret,
                        struct err *err);

/* Writes the value of .status as a JSON object. */
void profile_status_write(struct json_writer *w, const char *name,
                          const struct profile_status *status);

/* A finished phase: Completed, Failed, Cancelled. */
bool profile_phase_is_final(int phase);

/* Name of the result's object when the user gave none: <profile>-<8 hex of FNV of the UID>, cut to
 * 253 bytes. */
struct str profile_result_name(struct arena *arena, struct str profile_name, struct str uid);

/* Index of `name`, or -1. */
int api_enum_find(const char *const *names, struct str name);
