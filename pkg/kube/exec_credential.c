#include "base/alloc.h"
#include "kube/config_internal.h"
#include "json/decode.h"
#include "json/write.h"

/* ExecCredential, the document of the exec plugin protocol: what the plugin is told in
 * KUBERNETES_EXEC_INFO and what it answers. */

struct status {
    struct str token, cert, key;
    int64_t expires_wall_ms;
};

static const struct json_field status_table[] = {
    {"token", JSON_F_STR, offsetof(struct status, token), .max_len = KUBE_MAX_TOKEN},
    {"clientCertificateData", JSON_F_STR, offsetof(struct status, cert), .max_len = KUBE_MAX_PEM},
    {"clientKeyData", JSON_F_STR, offsetof(struct status, key), .max_len = KUBE_MAX_PEM},
    {"expirationTimestamp", JSON_F_TIME, offsetof(struct status, expires_wall_ms)},
    {0},
};

int kube_exec_parse_answer(struct arena *arena, struct str text, struct str api_version,
                           struct kube_exec_answer *ret, struct err *err)
{
    const struct json *tree;
    int failed = json_parse(arena, text, NULL, &tree, err);
    if (failed)
        return err_wrap(err, "decoding its answer");
    struct str kind = json_text(json_get(tree, "kind"));
    struct str version = json_text(json_get(tree, "apiVersion"));
    if (!str_is(kind, "ExecCredential"))
        return err_set(err, ERR_INVALID, "its answer is no ExecCredential");
    if (!str_eq(version, api_version))
        return err_set(err, ERR_INVALID, "it was asked for %.*s and answered %.*s",
                       STR_ARG(api_version), STR_ARG(version));
    const struct json *tree_status = json_get(tree, "status");
    if (!tree_status)
        return err_set(err, ERR_INVALID, "its answer has no status");
    struct status status = {0};
    failed =
        json_decode(arena, tree_status, status_table, "status", JSON_UNKNOWN_IGNORE, &status, err);
    if (failed)
        return failed;
    if (!status.cert.len != !status.key.len)
        return err_set(err, ERR_INVALID,
                       "clientCertificateData and clientKeyData need each other in its answer");
    if (!status.token.len && !status.cert.len)
        return err_set(err, ERR_INVALID, "its answer has neither a token nor a client certificate");
    *ret = (struct kube_exec_answer){status.token, status.cert, status.key, status.expires_wall_ms};
    return 0;
}

static void put_cluster(struct json_writer *w, const struct kube_config *c,
                        const struct json *cluster_config)
{
    json_begin_object(w, "cluster");
    json_put_cstr(w, "server", c->server);
    if (c->tls.server_name)
        json_put_cstr(w, "tls-server-name", c->tls.server_name);
    if (c->tls.insecure)
        json_put_bool(w, "insecure-skip-tls-verify", true);
    if (c->ca.len) {
        _cleanup_(buf_finish) struct buf encoded = BUF_INIT(2 * KUBE_MAX_PEM);
        crypto_base64_encode(&encoded, (struct str){c->ca.bytes, c->ca.len},
                             CRYPTO_BASE64_STANDARD);
        json_put_str(w, "certificate-authority-data", buf_str(&encoded));
    }
    if (c->tls.proxy_url)
        json_put_cstr(w, "proxy-url", c->tls.proxy_url);
    if (cluster_config)
        json_put_tree(w, "config", cluster_config);
    json_end_object(w);
}

static char *exec_info(const struct kube_config *c, const struct kube_exec_spec *spec,
                       bool interactive, struct arena *arena)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4 * KUBE_MAX_PEM);
    struct json_writer w = JSON_WRITER(&text);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "kind", "ExecCredential");
    json_put_str(&w, "apiVersion", spec->api_version);
    json_begin_object(&w, "spec");
    if (spec->provide_cluster_info)
        put_cluster(&w, c, spec->cluster_config);
    json_put_bool(&w, "interactive", interactive);
    json_end_object(&w);
    json_end_object(&w);
    return arena_cstr(arena, buf_str(&text));
}

static void set_variable(char **environment, size_t *n, struct arena *arena, struct str name,
                         struct str value)
{
    char *entry = arena_printf(arena, "%.*s=%.*s", STR_ARG(name), STR_ARG(value));
    for (size_t i = 0; i < *n; i++) {
        if (strncmp(environment[i], entry, name.len + 1) == 0) {
            environment[i] = entry;
            return;
        }
    }
    environment[(*n)++] = entry;
}

char **kube_exec_environment(const struct kube_config *c, const struct kube_exec_spec *spec,
                             bool interactive, struct arena *arena)
{
    size_t n_own = 0, n = 0;
    while (c->environment[n_own])
        n_own++;
    char **environment = arena_array(arena, n_own + spec->n_env + 2, sizeof(*environment));
    for (; n < n_own; n++)
        environment[n] = (char *)c->environment[n];
    for (size_t i = 0; i < spec->n_env; i++)
        set_variable(environment, &n, arena, spec->env[i].name, spec->env[i].value);
    set_variable(environment, &n, arena, STR("KUBERNETES_EXEC_INFO"),
                 str_of(exec_info(c, spec, interactive, arena)));
    return environment;
}
