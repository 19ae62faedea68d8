/* Where the API server is and who we are: --kubeconfig, KUBECONFIG, in-cluster, ~/.kube/config, in
 * the order of client-go. Credentials of every kind: client certificates, tokens, token files that
 * are read again, basic auth, exec plugins (client.authentication.k8s.io/v1, v1beta1),
 * impersonation. Loading is synchronous; renewing is not. Owned by the caller. */
#pragma once

#include "base/cleanup.h"
#include "base/err.h"
#include "base/random.h"
#include "loop/loop.h"
#include "loop/transport.h"

struct kube_config;

struct kube_config_options {
    const char *kubeconfig;          /* path of the flag, or NULL */
    const char *context;             /* NULL: current-context */
    const char *const *environment;  /* NAME=value list; NULL: environ */
    const char *service_account_dir; /* NULL: /var/run/secrets/kubernetes.io/serviceaccount */
};

int kube_config_load(const struct kube_config_options *options, struct kube_config **ret,
                     struct err *err);
void kube_config_destroy(struct kube_config *c);
DEFINE_CLEANUP(struct kube_config *, kube_config_destroy);

const char *kube_config_server(const struct kube_config *c);    /* "https://host:port", no slash */
const char *kube_config_namespace(const struct kube_config *c); /* of the context; never NULL */
const struct tls_config *kube_config_tls(const struct kube_config *c);

/* Calls back with the credentials to use now: reads a token file again when its time has come, runs
 * an exec plugin when its answer has expired or `renew` is set (after a 401). May call back before
 * it returns. headers (Authorization, Impersonate-*) and tls are valid until the next call of this
 * function with renew or expiry; the transport copies what it needs. */
struct kube_credentials {
    const struct http_header *headers;
    size_t n_headers;
    const struct tls_config *tls;
    uint64_t generation; /* grows with each renewal */
};
void kube_config_credentials(struct kube_config *c, struct loop *loop, bool renew,
                             void (*done)(void *context, const struct kube_credentials *credentials,
                                          struct err *err),
                             void *context);
/* Takes back a question whose answer has not come; by its context. */
void kube_config_credentials_cancel(struct kube_config *c, void *context);
bool kube_config_renewable(const struct kube_config *c); /* asking with `renew` may help */
uint64_t kube_config_generation(const struct kube_config *c);
