#include "base/alloc.h"
#include "kube/config_internal.h"

static const char default_dir[] = "/var/run/secrets/kubernetes.io/serviceaccount";

int kube_config_in_cluster(struct kube_config *c, const char *service_account_dir, struct err *err)
{
    const char *dir = service_account_dir ? service_account_dir : default_dir;
    const char *host = kube_config_getenv(c, "KUBERNETES_SERVICE_HOST");
    const char *port = kube_config_getenv(c, "KUBERNETES_SERVICE_PORT");
    if (!host || !host[0] || !port || !port[0])
        return err_set(err, ERR_NOT_FOUND, "KUBERNETES_SERVICE_HOST or _PORT is not set");

    struct kube_file_value token = {.path = xasprintf("%s/token", dir)};
    int failed = kube_file_value_load(&token, KUBE_MAX_TOKEN, "service account", err);
    if (failed) {
        kube_file_value_finish(&token);
        return failed;
    }
    c->token = token;
    c->ca.path = xasprintf("%s/ca.crt", dir);
    if (kube_file_value_load(&c->ca, KUBE_MAX_PEM, "service account", NULL)) {
        /* As client-go: the server may be signed by an authority that the system knows. */
        free(c->ca.path);
        c->ca.path = NULL;
    }
    struct kube_file_value namespace_ = {.path = xasprintf("%s/namespace", dir)};
    kube_file_value_load(&namespace_, KUBE_MAX_TOKEN, "service account", NULL);
    c->namespace_ = xstrdup(namespace_.bytes ? namespace_.bytes : "default");
    kube_file_value_finish(&namespace_);

    bool is_ipv6 = strchr(host, ':') && host[0] != '[';
    c->server = xasprintf(is_ipv6 ? "https://[%s]:%s" : "https://%s:%s", host, port);
    return 0;
}
