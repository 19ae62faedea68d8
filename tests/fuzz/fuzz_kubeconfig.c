/* A kubeconfig from anybody: it loads into something whole, or is refused with a message. What it
 * says is not done: no plugin runs, no server is asked. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "fuzz.h"
#include "kube/config.h"

static void check_loaded(const struct kube_config *c)
{
    struct str server = str_of(kube_config_server(c));
    FUZZ_CHECK(str_starts_with(server, STR("http://")) || str_starts_with(server, STR("https://")));
    FUZZ_CHECK(kube_config_namespace(c)[0] != '\0');
    const struct tls_config *tls = kube_config_tls(c);
    FUZZ_CHECK((tls->client_cert.len == 0) == (tls->client_key.len == 0));
    FUZZ_CHECK(!tls->insecure || tls->ca.len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const char *const environment[] = {NULL};
    int fd = memfd_create("kubeconfig", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct kube_config_options options = {.kubeconfig = path, .environment = environment};
    _cleanup_(kube_config_destroyp) struct kube_config *config = NULL;
    struct err err = ERR_INIT;
    int failed = kube_config_load(&options, &config, &err);
    close(fd);
    FUZZ_CHECK((failed != 0) == (config == NULL));
    FUZZ_CHECK(failed == err.code && (failed == 0) == (err.message[0] == '\0'));
    if (config)
        check_loaded(config);
    return 0;
}
