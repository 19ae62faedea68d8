/* Configuration of the controller: a YAML file (every key documented in manifests/base/config.yaml)
 * read once at the start. Owns its memory; immutable after loading, so any thread may read it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/log.h"
#include "json/decode.h"

struct resource_pair {
    struct str cpu, memory; /* Kubernetes quantities; "" none */
};

struct runner_config {
    struct str image, image_pull_policy, priority_class_name, service_account_name;
    struct json_str_array image_pull_secrets;
    struct json_str_array capabilities; /* beside SYS_PTRACE, without CAP_ */
    bool join_namespaces;
    struct resource_pair requests, limits;
    const struct json *tolerations; /* an array, as in a Pod; NULL: tolerate everything */
    int64_t ttl_s;                  /* of finished Jobs */
};

struct limits_config {
    int64_t max_duration_ms;
    int64_t max_concurrent, max_concurrent_per_node;
    int64_t max_result_bytes;
};

struct lease_config {
    bool enabled;
    struct str name;
    int64_t duration_ms, renew_deadline_ms, retry_period_ms;
};

struct listen_address {
    char address[64]; /* numeric; "" every address */
    int port;
};

struct config {
    struct arena *arena;
    struct runner_config runner;
    struct limits_config limits;
    struct lease_config lease;
    struct listen_address results_listen, metrics_listen;
    struct str results_url; /* no slash at the end */
    enum log_level log_level;
    enum log_format log_format;
    struct json_str_array watch_namespaces; /* empty: all */
    struct str namespace_;                  /* the controller's own */
    struct str pod_name;                    /* its own; the host's name outside a cluster */
};

/* path NULL: defaults only, which lack runner.image and so fail. namespace_, pod_name: from the
 * environment. ERR_INVALID names line, key, value and what was expected. */
int config_load(const char *path, struct str namespace_, struct str pod_name, struct config **ret,
                struct err *err);
/* The same from text, for tests. */
int config_parse(struct str text, struct str namespace_, struct str pod_name, struct config **ret,
                 struct err *err);
void config_destroy(struct config *config);
DEFINE_CLEANUP(struct config *, config_destroy);
