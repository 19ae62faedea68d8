/* The slices of Kubernetes' own objects that the operator reads: Pod, Job, Node, TokenReview.
 * Texts point into the decoded tree. Any thread. */
#pragma once

#include "api/pyspyprofile.h"

enum container_state {
    CONTAINER_UNKNOWN,
    CONTAINER_WAITING,
    CONTAINER_RUNNING,
    CONTAINER_TERMINATED
};

struct container_status {
    struct str name;
    struct str container_id;    /* "containerd://…", "" while it has none */
    int state;                  /* enum container_state */
    struct str reason, message; /* of waiting or terminated */
    int64_t exit_code, signal;
    int64_t started_ms, finished_ms; /* wall; 0 unknown */
};

struct pod {
    struct object_meta meta;
    struct str node_name, phase, reason,
        message; /* phase: Pending Running Succeeded Failed Unknown */
    struct str runtime_class;
    struct str default_container; /* annotation kubectl.kubernetes.io/default-container, or "" */
    struct json_str_array container_names; /* of spec.containers, in order */
    struct json_array statuses;            /* struct container_status, in the order of the spec */
    bool disrupted;                        /* condition DisruptionTarget is True */
    struct str disruption_message;
};

int pod_decode(struct arena *arena, const struct json *tree, struct pod *ret, struct err *err);
/* NULL: none of that name. */
const struct container_status *pod_container(const struct pod *pod, struct str name);

struct job {
    struct object_meta meta;
    struct str node_name; /* spec.template.spec.nodeName */
    bool complete,
        failed; /* conditions Complete (or SuccessCriteriaMet), Failed (or FailureTarget) */
    int64_t finished_ms;        /* wall: since when; 0 unknown or not finished */
    struct str reason, message; /* of the failure */
};

int job_decode(struct arena *arena, const struct json *tree, struct job *ret, struct err *err);
static inline bool job_finished(const struct job *job)
{
    return job->complete || job->failed;
}

struct node {
    struct object_meta meta;
    bool ready;
    struct str message; /* of the Ready condition */
};

int node_decode(struct arena *arena, const struct json *tree, struct node *ret, struct err *err);

struct token_review {
    bool authenticated;
    struct str username, error;
    struct str pod_name, pod_uid; /* the Pod that the token is bound to; "" none */
    struct json_str_array audiences;
};

int token_review_decode(struct arena *arena, const struct json *tree, struct token_review *ret,
                        struct err *err);
