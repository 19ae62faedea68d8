/* A loaded configuration and its credentials. Private to pkg/kube; on the loop's thread. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/list.h"
#include "crypto/digest.h"
#include "kube/config.h"
#include "kube/kube_internal.h"

enum {
    KUBE_MAX_KUBECONFIG = 4 * 1024 * 1024,
    KUBE_MAX_PEM = 1024 * 1024,
    KUBE_MAX_TOKEN = 64 * 1024,
    KUBE_RELOAD_MS = 50 * 1000, /* client-go: a minute, less ten seconds of leeway */
};

/* A value that was given as it is, or that is in a file and read again from time to time. */
struct kube_file_value {
    char *path;  /* NULL: given */
    char *bytes; /* NULL: none */
    size_t len;
};

enum kube_interactive {
    KUBE_INTERACTIVE_NEVER,
    KUBE_INTERACTIVE_IF_AVAILABLE,
    KUBE_INTERACTIVE_ALWAYS
};

struct kube_env {
    struct str name, value;
};

/* The exec section of a user. Texts live in the configuration's arena. */
struct kube_exec_spec {
    struct str api_version;
    char *command;
    char **args; /* NULL-ended, without the command */
    struct kube_env *env;
    size_t n_env;
    struct str install_hint;
    bool provide_cluster_info;
    enum kube_interactive interactive;
    const struct json *cluster_config; /* the cluster's extension, or NULL */
};

struct kube_exec;

struct kube_config {
    struct arena *arena; /* texts and trees that live as long as the configuration */
    const char *const *environment;
    char *server, *namespace_;
    struct kube_file_value ca, cert, key, token;
    int64_t loaded_ms; /* when the files were read last; -1: not yet by the loop's clock */
    char *basic;       /* "user:password", or NULL */
    const char *as_user, *as_uid;
    struct str *as_groups;
    size_t n_as_groups;
    struct http_header *as_extra; /* whole headers */
    size_t n_as_extra;
    struct kube_exec *exec; /* NULL: none */

    struct tls_config tls;
    struct buf authorization;
    struct http_header *headers;
    size_t n_headers;
    uint64_t generation;
};

const char *kube_config_getenv(const struct kube_config *c, const char *name);

/* Reads it now. `what` for messages. */
int kube_file_value_load(struct kube_file_value *v, size_t max, const char *what, struct err *err);
void kube_file_value_set(struct kube_file_value *v, struct str bytes);
void kube_file_value_finish(struct kube_file_value *v);

/* The first of the files wins. A missing one is skipped unless `must_exist`. ERR_NOT_FOUND when
 * there was none. */
int kube_config_from_files(struct kube_config *c, char *const *paths, size_t n_paths,
                           bool must_exist, const char *context_name, struct err *err);
/* ERR_NOT_FOUND when this is not in a Pod. */
int kube_config_in_cluster(struct kube_config *c, const char *service_account_dir, struct err *err);

/* What an exec plugin answered; texts are the plugin's until its next run. */
struct kube_exec_answer {
    struct str token, cert, key;
    int64_t expires_wall_ms; /* 0: never */
};
int kube_exec_create(struct kube_config *c, const struct kube_exec_spec *spec,
                     struct kube_exec **ret, struct err *err);
void kube_exec_destroy(struct kube_exec *e);
/* Whether the last answer still serves. */
bool kube_exec_is_fresh(const struct kube_exec *e, int64_t wall_ms);
/* Runs it, or joins the run under way. */
void kube_exec_ask(struct kube_exec *e, struct loop *loop,
                   void (*done)(void *context, const struct kube_credentials *credentials,
                                struct err *err),
                   void *context);
void kube_exec_cancel(struct kube_exec *e, void *context);
/* Puts an answer in force; called by the exec plugin's code. */
void kube_config_apply_answer(struct kube_config *c, const struct kube_exec_answer *answer);
void kube_config_current(const struct kube_config *c, struct kube_credentials *ret);

/* The document that a plugin printed. Exposed for its tests. */
int kube_exec_parse_answer(struct arena *arena, struct str text, struct str api_version,
                           struct kube_exec_answer *ret, struct err *err);
/* The environment of the plugin, NULL-ended, in `arena`. */
char **kube_exec_environment(const struct kube_config *c, const struct kube_exec_spec *spec,
                             bool interactive, struct arena *arena);
