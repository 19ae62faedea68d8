/* Where the API server is and who we are, from files and environments of all kinds. Named after
 * client-go's clientcmd tests where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "kube/config.h"
#include "sim_time.h"

struct fixture {
    char folder[32];
    struct sim_time time;
    struct loop *loop;
    char *environment[8]; /* NULL-ended */
    size_t n_environment;
    struct kube_config *config;
    struct err err;
    /* Of the last kube_config_credentials(). */
    struct buf headers; /* "Name: value\n" each */
    struct tls_config tls;
    uint64_t generation;
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    snprintf(f->folder, sizeof(f->folder), "/tmp/test-config-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    sim_time_init(&f->time);
    f->headers = BUF_INIT(65536);
    *state = f;
    return loop_create(&f->time.clock, &f->loop, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kube_config_destroy(f->config);
    loop_destroy(f->loop);
    for (size_t i = 0; i < f->n_environment; i++)
        free(f->environment[i]);
    buf_finish(&f->headers);
    /* Of the kind "rm -r", for what the tests make. */
    static const char *const paths[] = {
        "config",    "second",     "ca.pem", "cert.pem",  "key.pem",      "token", "sub/config",
        "sub/token", "sub/ca.pem", "ca.crt", "namespace", ".kube/config", "sub",   ".kube"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", f->folder, paths[i]);
        remove(path);
    }
    int failed = rmdir(f->folder);
    free(f);
    return failed;
}

static char *path_of(struct fixture *f, const char *name)
{
    return xasprintf("%s/%s", f->folder, name);
}

static void write_file(struct fixture *f, const char *name, const char *text)
{
    _cleanup_(freep) char *path = path_of(f, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    mkdir(path, 0700);
    *slash = '/';
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void set_env(struct fixture *f, const char *name, const char *value)
{
    f->environment[f->n_environment++] = xasprintf("%s=%s", name, value);
}

static int load_context(struct fixture *f, const char *kubeconfig, const char *context)
{
    _cleanup_(freep) char *path = kubeconfig ? path_of(f, kubeconfig) : NULL;
    struct kube_config_options options = {
        .kubeconfig = path,
        .context = context,
        .environment = (const char *const *)f->environment,
        .service_account_dir = f->folder,
    };
    kube_config_destroy(f->config);
    f->config = NULL;
    f->err = (struct err)ERR_INIT;
    return kube_config_load(&options, &f->config, &f->err);
}

static int load(struct fixture *f, const char *kubeconfig)
{
    return load_context(f, kubeconfig, NULL);
}

static void take(void *context, const struct kube_credentials *credentials, struct err *err)
{
    struct fixture *f = context;
    buf_clear(&f->headers);
    f->err = *err;
    if (!credentials)
        return;
    for (size_t i = 0; i < credentials->n_headers; i++)
        buf_appendf(&f->headers, "%.*s: %.*s\n", STR_ARG(credentials->headers[i].name),
                    STR_ARG(credentials->headers[i].value));
    f->tls = *credentials->tls;
    f->generation = credentials->generation;
}

static const char *headers(struct fixture *f, bool renew)
{
    buf_clear(&f->headers);
    kube_config_credentials(f->config, f->loop, renew, take, f);
    return buf_cstr(&f->headers);
}

static const char plain[] = "apiVersion: v1\n"
                            "kind: Config\n"
                            "current-context: x\n"
                            "clusters: [{name: c, cluster: {server: 'https://a.example:6443/'}}]\n"
                            "users: [{name: u, user: {token: secret}}]\n"
                            "contexts:\n"
                            "- {name: x, context: {cluster: c, user: u, namespace: shop}}\n"
                            "- {name: y, context: {cluster: c}}\n";

static void test_token(void **state)
{
    struct fixture *f = *state;
    write_file(f, "config", plain);
    assert_int_equal(load(f, "config"), 0);
    assert_string_equal(kube_config_server(f->config), "https://a.example:6443");
    assert_string_equal(kube_config_namespace(f->config), "shop");
    assert_string_equal(headers(f, false), "Authorization: Bearer secret\n");
    assert_false(kube_config_renewable(f->config));
    assert_null(f->tls.proxy_url);
    assert_null(f->tls.server_name);
    assert_false(f->tls.insecure);
}

static void test_context_by_name(void **state)
{
    struct fixture *f = *state;
    write_file(f, "config", plain);
    assert_int_equal(load_context(f, "config", "y"), 0);
    assert_string_equal(kube_config_namespace(f->config), "default");
    assert_string_equal(headers(f, false), "");
    assert_int_equal(load_context(f, "config", "z"), ERR_INVALID);
    assert_non_null(strstr(f->err.message, "context \"z\""));
}

static void test_json_kubeconfig(void **state)
{
    struct fixture *f = *state;
    write_file(f, "config",
               "{\"current-context\":\"x\",\"clusters\":[{\"name\":\"c\",\"cluster\":"
               "{\"server\":\"http://127.0.0.1:8001/prefix\"}}],\"contexts\":[{"
               "\"name\":\"x\",\"context\":{\"cluster\":\"c\"}}]}");
    assert_int_equal(load(f, "config"), 0);
    assert_string_equal(kube_config_server(f->config), "http://127.0.0.1:8001/prefix");
}

static void test_cluster_settings(void **state)
{
    struct fixture *f = *state;
    write_file(f, "config",
               "current-context: x\n"
               "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
               "users: [{name: u, user: {username: me, password: 'p:w'}}]\n"
               "clusters: [{name: c, cluster: {server: 'https://a', tls-server-name: b.example,\n"
               "  proxy-url: 'socks5://127.0.0.1:1080', insecure-skip-tls-verify: true}}]\n");
    assert_int_equal(load(f, "config"), 0);
    assert_string_equal(headers(f, false), "Authorization: Basic bWU6cDp3\n");
    assert_string_equal(f->tls.server_name, "b.example");
    assert_string_equal(f->tls.proxy_url, "socks5://127.0.0.1:1080");
    assert_true(f->tls.insecure);
}

#define WITH_USER(user)                                                                            \
    "current-context: x\n"                                                                         \
    "contexts: [{name: x, context: {cluster: c, user: u}}]\n"                                      \
    "clusters: [{name: c, cluster: {server: 'https://a', certificate-authority: ca.pem}}]\n"       \
    "users: [{name: u, user: {" user "}}]\n"

static void test_relative_paths_and_certificates(void **state)
{
    struct fixture *f = *state;
    write_file(f, "sub/ca.pem", "the ca\n");
    write_file(f, "cert.pem", "the cert");
    write_file(f, "key.pem", "the key");
    write_file(f, "sub/config",
               WITH_USER("client-certificate: ../cert.pem, client-key: ../key.pem"));
    assert_int_equal(load(f, "sub/config"), 0);
    headers(f, false);
    assert_true(str_is(f->tls.ca, "the ca"));
    assert_true(str_is(f->tls.client_cert, "the cert"));
    assert_true(str_is(f->tls.client_key, "the key"));
}

static void test_data_wins_over_files(void **state)
{
    struct fixture *f = *state;
    write_file(f, "config",
               "current-context: x\n"
               "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
               "clusters: [{name: c, cluster: {server: 'https://a', certificate-authority: none,\n"
               "  certificate-authority-data: Q0E=}}]\n"
               "users: [{name: u, user: {client-certificate: none, client-key: none,\n"
               "  client-certificate-data: Q0VSVA==, client-key-data: S0VZ}}]\n");
    assert_int_equal(load(f, "config"), 0);
    headers(f, false);
    assert_true(str_is(f->tls.ca, "CA"));
    assert_true(str_is(f->tls.client_cert, "CERT"));
    assert_true(str_is(f->tls.client_key, "KEY"));
}

static void test_impersonation(void **state)
{
    struct fixture *f = *state;
    write_file(f, "ca.pem", "ca");
    write_file(f, "config",
               WITH_USER("token: t, as: jane, as-uid: '7', as-groups: [a, b], as-user-extra: "
                         "{scopes: [view, edit], 'acme.com/pro ject': [x]}"));
    assert_int_equal(load(f, "config"), 0);
    assert_string_equal(headers(f, false), "Authorization: Bearer t\n"
                                           "Impersonate-User: jane\n"
                                           "Impersonate-Uid: 7\n"
                                           "Impersonate-Group: a\n"
                                           "Impersonate-Group: b\n"
                                           "Impersonate-Extra-scopes: view\n"
                                           "Impersonate-Extra-scopes: edit\n"
                                           "Impersonate-Extra-acme.com%2Fpro%20ject: x\n");
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {"", "current-context"},
        {"current-context: x\n", "context \"x\""},
        {WITH_USER("token: t"), "ca.pem"}, /* there is none */
        {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n", "cluster \"c\""},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
         "clusters: [{name: c, cluster: {server: 'ftp://a'}}]\n",
         "ftp://a"},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
         "clusters: [{name: c, cluster: {server: 'https://a', proxy-url: 'gopher://b'}}]\n",
         "proxy-url"},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
         "clusters: [{name: c, cluster: {server: 'https://a', insecure-skip-tls-verify: true, "
         "certificate-authority-data: Q0E=}}]\n",
         "exclude each other"},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
         "clusters: [{name: c, cluster: {server: 7}}]\n",
         "server"},
        {"current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
         "clusters: [{name: c, cluster: {server: 'https://a', certificate-authority-data: '*'}}]\n",
         "certificate-authority-data"},
        {"a: [", "config"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        write_file(f, "config", rows[i].text);
        assert_int_not_equal(load(f, "config"), 0);
        if (!strstr(f->err.message, rows[i].message))
            fail_msg("row %zu: %s", i, f->err.message);
    }
}

static void test_users_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {WITH_USER("client-certificate-data: Q0E="), "need each other"},
        {WITH_USER("client-key-data: Q0E="), "need each other"},
        {WITH_USER("tokenFile: none"), "tokenFile"},
        {WITH_USER("as-groups: [a]"), "need \"as\""},
        {WITH_USER("auth-provider: {name: gcp}"), "auth-provider"},
        {WITH_USER("exec: {command: x}"), "exec.apiVersion"},
        {WITH_USER("exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}"),
         "v1alpha1"},
        {WITH_USER("exec: {command: x, apiVersion: client.authentication.k8s.io/v1}"),
         "interactiveMode"},
        {WITH_USER("exec: {command: '', apiVersion: client.authentication.k8s.io/v1beta1}"),
         "exec.command"},
    };
    write_file(f, "ca.pem", "ca");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        write_file(f, "config", rows[i].text);
        assert_int_not_equal(load(f, "config"), 0);
        if (!strstr(f->err.message, rows[i].message))
            fail_msg("row %zu: %s", i, f->err.message);
    }
}

/* KUBECONFIG is a list: the first file to set a thing wins, missing files are skipped. */
static void test_merge(void **state)
{
    struct fixture *f = *state;
    write_file(f, "config",
               "users: [{name: red, user: {username: first, password: p}}]\n"
               "current-context: x\n");
    write_file(f, "second",
               "current-context: y\n"
               "users: [{name: red, user: {token: second}}, {name: blue, user: {token: blue}}]\n"
               "clusters: [{name: c, cluster: {server: 'https://c'}}]\n"
               "contexts: [{name: x, context: {cluster: c, user: red}},\n"
               "           {name: y, context: {cluster: c, user: blue}}]\n");
    _cleanup_(freep) char *list =
        xasprintf("%s/nowhere::%s/config:%s/second", f->folder, f->folder, f->folder);
    set_env(f, "KUBECONFIG", list);
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(kube_config_server(f->config), "https://c");
    assert_string_equal(headers(f, false), "Authorization: Basic Zmlyc3Q6cA==\n");
    assert_int_equal(load_context(f, NULL, "y"), 0);
    assert_string_equal(headers(f, false), "Authorization: Bearer blue\n");
}

static void in_cluster(struct fixture *f, const char *host)
{
    write_file(f, "token", "first\n");
    write_file(f, "ca.crt", "ca one\n");
    write_file(f, "namespace", "pyspy-system\n");
    set_env(f, "KUBERNETES_SERVICE_HOST", host);
    set_env(f, "KUBERNETES_SERVICE_PORT", "443");
}

static void test_in_cluster_config(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "10.96.0.1");
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(kube_config_server(f->config), "https://10.96.0.1:443");
    assert_string_equal(kube_config_namespace(f->config), "pyspy-system");
    assert_string_equal(headers(f, false), "Authorization: Bearer first\n");
    assert_true(str_is(f->tls.ca, "ca one"));
    assert_true(kube_config_renewable(f->config));
}

static void test_in_cluster_ipv6(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "fd00::1");
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(kube_config_server(f->config), "https://[fd00::1]:443");
}

static void test_precedence(void **state)
{
    struct fixture *f = *state;
    /* Nothing at all. */
    set_env(f, "HOME", f->folder);
    assert_int_equal(load(f, NULL), ERR_NOT_FOUND);
    assert_non_null(strstr(f->err.message, "no API server is known"));
    /* ~/.kube/config last, */
    write_file(f, ".kube/config", plain);
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(kube_config_server(f->config), "https://a.example:6443");
    /* a Pod's own before it, */
    in_cluster(f, "10.96.0.1");
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(kube_config_server(f->config), "https://10.96.0.1:443");
    /* KUBECONFIG before that, */
    write_file(f, "second",
               "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
               "clusters: [{name: c, cluster: {server: 'https://env'}}]\n");
    _cleanup_(freep) char *second = path_of(f, "second");
    set_env(f, "KUBECONFIG", second);
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(kube_config_server(f->config), "https://env");
    /* and the flag before all. */
    write_file(f, "config", plain);
    assert_int_equal(load(f, "config"), 0);
    assert_string_equal(kube_config_server(f->config), "https://a.example:6443");
    assert_int_equal(load(f, "nowhere"), ERR_NOT_FOUND);
}

static void test_kubeconfig_of_missing_files_is_no_licence_to_guess(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "10.96.0.1");
    set_env(f, "KUBECONFIG", "/nowhere/config");
    assert_int_equal(load(f, NULL), ERR_NOT_FOUND);
    assert_non_null(strstr(f->err.message, "/nowhere/config"));
}

/* Named after client-go's transport/token_source_test. */

static void test_file_token_source(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "10.96.0.1");
    assert_int_equal(load(f, NULL), 0);
    assert_string_equal(headers(f, false), "Authorization: Bearer first\n");
    uint64_t generation = f->generation;
    write_file(f, "token", "second");
    f->time.now_ms += 49 * 1000;
    assert_string_equal(headers(f, false), "Authorization: Bearer first\n");
    assert_int_equal(f->generation, generation);
    f->time.now_ms += 2 * 1000;
    assert_string_equal(headers(f, false), "Authorization: Bearer second\n");
    assert_int_equal(f->generation, kube_config_generation(f->config));
    assert_true(f->generation > generation);
}

static void test_token_is_read_at_once_after_401(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "10.96.0.1");
    assert_int_equal(load(f, NULL), 0);
    write_file(f, "token", "second");
    assert_string_equal(headers(f, true), "Authorization: Bearer second\n");
}

static void test_old_token_is_kept_when_reading_fails(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "10.96.0.1");
    assert_int_equal(load(f, NULL), 0);
    static const char *const broken[] = {"", " \n"};
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
        write_file(f, "token", broken[i]);
        assert_string_equal(headers(f, true), "Authorization: Bearer first\n");
    }
    _cleanup_(freep) char *path = path_of(f, "token");
    unlink(path);
    assert_string_equal(headers(f, true), "Authorization: Bearer first\n");
    write_file(f, "token", "back");
    assert_string_equal(headers(f, true), "Authorization: Bearer back\n");
}

static void test_ca_is_read_again(void **state)
{
    struct fixture *f = *state;
    in_cluster(f, "10.96.0.1");
    assert_int_equal(load(f, NULL), 0);
    headers(f, false);
    write_file(f, "ca.crt", "ca two");
    f->time.now_ms += 60 * 1000;
    headers(f, false);
    assert_true(str_is(f->tls.ca, "ca two"));
}

static void test_token_file_wins_over_token_when_it_can_be_read(void **state)
{
    struct fixture *f = *state;
    write_file(f, "ca.pem", "ca");
    write_file(f, "config", WITH_USER("token: given, tokenFile: token"));
    assert_int_equal(load(f, "config"), 0);
    assert_string_equal(headers(f, false), "Authorization: Bearer given\n");
    write_file(f, "token", "from file");
    f->time.now_ms += 60 * 1000;
    assert_string_equal(headers(f, false), "Authorization: Bearer from file\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_token),
        TEST(test_context_by_name),
        TEST(test_json_kubeconfig),
        TEST(test_cluster_settings),
        TEST(test_relative_paths_and_certificates),
        TEST(test_data_wins_over_files),
        TEST(test_impersonation),
        TEST(test_refused),
        TEST(test_users_refused),
        TEST(test_merge),
        TEST(test_in_cluster_config),
        TEST(test_in_cluster_ipv6),
        TEST(test_precedence),
        TEST(test_kubeconfig_of_missing_files_is_no_licence_to_guess),
        TEST(test_file_token_source),
        TEST(test_token_is_read_at_once_after_401),
        TEST(test_old_token_is_kept_when_reading_fails),
        TEST(test_ca_is_read_again),
        TEST(test_token_file_wins_over_token_when_it_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
