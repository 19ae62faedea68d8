/* What the controller and the runner say to each other: the task (environment variable PYSPY_TASK
 * of the Job), the results that the runner uploads, the receipt it gets, and the summary in its
 * termination message. JSON both ways, each with a decode table and a writer, so that both programs
 * share one definition. Nothing here is secret. Any thread. */
#pragma once

#include "api/pyspyprofile.h"

#define TASK_VARIABLE       "PYSPY_TASK"
#define TASK_TOKEN_AUDIENCE "pyspy-results"
#define TASK_TOKEN_PATH     "/var/run/secrets/pyspy/token"
#define TASK_MAX            65536 /* bytes of a task */
#define SUMMARY_MAX         4096  /* bytes of a termination message (kubelet's cap) */
#define UPLOAD_FILES_MAX    16

struct task_container {
    struct str name;
    struct str id; /* without "containerd://" */
};

struct task {
    int64_t version; /* 1 */
    struct str profile_namespace, profile_name, profile_uid;
    struct str pod_namespace, pod_name, pod_uid, node_name;
    struct str runtime;           /* scheme of the container IDs: containerd, cri-o, docker */
    struct str runtime_class;     /* of the Pod; "" none */
    struct json_array containers; /* struct task_container, in the order to try */
    struct process_spec process;
    struct sampling_spec sampling;
    struct json_str_array format_names;
    unsigned formats;         /* bits 1 << enum profile_format */
    bool join_namespaces;     /* runner.joinNamespaces */
    int64_t max_result_bytes; /* of one stored result, after compression */
    struct str upload_url;    /* https://…/v1/results/<ns>/<name>/<uid> */
    struct str ca;            /* PEM of the result endpoint */
};

extern const struct json_field task_table[];
int task_decode(struct arena *arena, struct str text, struct task *ret, struct err *err);
void task_write(struct buf *out, const struct task *task);

/* One stored thing of an upload. Content: text as a JSON string (encoding ""), or base64 of gzip
 * (encoding "gzip"). */
struct upload_file {
    struct str format;     /* one of profile_format_names */
    struct str key;        /* key in the ConfigMap or Secret: "flamegraph.svg", "raw.txt.gz" */
    struct str media_type; /* of the content, before gzip */
    struct str encoding;   /* "" or "gzip" */
    int64_t size_bytes;    /* of what is stored */
    struct str sha256;     /* hex, of what is stored */
    struct str content;    /* see above */
};

struct upload {
    int64_t version;         /* 1 */
    struct json_array files; /* struct upload_file */
};

extern const struct json_field upload_file_table[];
void upload_file_write(struct json_writer *w, const struct upload_file *file, bool content);
int upload_decode(struct arena *arena, struct str text, struct upload *ret, struct err *err);
void upload_write(struct buf *out, const struct upload *upload);

/* The answer to an upload: where it is, signed by the endpoint so that the leader need not read the
 * object back. */
struct receipt {
    struct str kind; /* "ConfigMap" or "Secret" */
    struct str name;
    struct json_array files; /* struct upload_file without content */
    struct str mac;          /* hex HMAC-SHA256 over receipt_mac_input() */
};

int receipt_decode(struct arena *arena, const struct json *tree, struct receipt *ret,
                   struct err *err);
void receipt_write(struct json_writer *w, const char *name, const struct receipt *receipt);
/* The bytes that the MAC covers: profile UID, kind, name and every file's fields, unambiguous. */
void receipt_mac_input(struct buf *out, struct str profile_uid, const struct receipt *receipt);

/* Termination message. reason REASON_NONE: done. */
struct summary {
    int64_t version; /* 1 */
    int reason;      /* enum profile_reason */
    struct str message;
    struct str container;
    struct str engine, accuracy;
    struct str engine_reason, engine_message; /* as in the status */
    int64_t start_ms, end_ms;                 /* wall: sampling began and ended; 0 not begun */
    int64_t samples, errors, late;            /* over all processes */
    int64_t expected;            /* samples that rate × duration would give for one thread */
    struct json_array processes; /* struct process_status; cut to what fits */
    int64_t processes_omitted;
    struct str cpu_seconds; /* own and py-spy's, "0.41" */
    int64_t max_memory_bytes;
    struct receipt *receipt; /* NULL: nothing stored */
};

int summary_decode(struct arena *arena, struct str text, struct summary *ret, struct err *err);
/* Never more than SUMMARY_MAX bytes: drops processes, then cuts the message. */
void summary_write(struct buf *out, const struct summary *summary);
