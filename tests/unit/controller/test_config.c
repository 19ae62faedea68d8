/* The configuration file: its defaults, which manifests/base/config.yaml documents, every key, and
 * what is said about mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "controller/config.h"

#define DOCUMENTED TEST_DATA "/../../manifests/base/config.yaml"

static struct config *parsed(const char *yaml)
{
    struct config *c = NULL;
    struct err err = ERR_INIT;
    if (config_parse(str_of(yaml), STR("pyspy-system"), STR("pyspy-0"), &c, &err) < 0)
        fail_msg("%s", err.message);
    return c;
}

static void same_pair(const struct resource_pair *a, const struct resource_pair *b)
{
    assert_true(str_eq(a->cpu, b->cpu) && str_eq(a->memory, b->memory));
}

static void defaults_are_as_documented(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    _cleanup_(config_destroyp) struct config *a = parsed("runner: {image: 'x'}");
    _cleanup_(config_destroyp) struct config *b = NULL;
    if (config_load(DOCUMENTED, STR("pyspy-system"), STR("pyspy-0"), &b, &err) < 0)
        fail_msg("%s", err.message);
    const struct runner_config *r = &a->runner, *s = &b->runner;
    assert_true(str_eq(r->image_pull_policy, s->image_pull_policy));
    assert_true(str_eq(r->priority_class_name, s->priority_class_name));
    assert_true(str_eq(r->service_account_name, s->service_account_name));
    assert_int_equal(s->image_pull_secrets.len, r->image_pull_secrets.len);
    assert_int_equal(s->capabilities.len, r->capabilities.len);
    assert_int_equal(r->join_namespaces, s->join_namespaces);
    assert_int_equal(r->ttl_s, s->ttl_s);
    same_pair(&r->requests, &s->requests);
    same_pair(&r->limits, &s->limits);
    assert_null(r->tolerations); /* which means the one that is documented */
    assert_int_equal(json_len(s->tolerations), 1);
    assert_true(str_is(json_text(json_get(json_item(s->tolerations, 0), "operator")), "Exists"));
    assert_memory_equal(&a->limits, &b->limits, sizeof(a->limits));
    assert_int_equal(a->lease.enabled, b->lease.enabled);
    assert_true(str_eq(a->lease.name, b->lease.name));
    assert_int_equal(a->lease.duration_ms, b->lease.duration_ms);
    assert_int_equal(a->lease.renew_deadline_ms, b->lease.renew_deadline_ms);
    assert_int_equal(a->lease.retry_period_ms, b->lease.retry_period_ms);
    assert_memory_equal(&a->results_listen, &b->results_listen, sizeof(a->results_listen));
    assert_memory_equal(&a->metrics_listen, &b->metrics_listen, sizeof(a->metrics_listen));
    assert_true(str_eq(a->results_url, b->results_url));
    assert_true(str_is(a->results_url, "https://pyspy-controller.pyspy-system.svc:8443"));
    assert_int_equal(a->log_level, b->log_level);
    assert_int_equal(a->log_format, b->log_format);
    assert_int_equal(b->watch_namespaces.len, 0);
}

static void every_key(void **state)
{
    (void)state;
    _cleanup_(config_destroyp) struct config *c =
        parsed("runner:\n"
               "  image: r:1\n"
               "  imagePullPolicy: Always\n"
               "  imagePullSecrets: [a, b]\n"
               "  joinNamespaces: true\n"
               "  capabilities: [DAC_READ_SEARCH]\n"
               "  resources: {requests: {cpu: 1m, memory: 2Mi}, limits: {cpu: '', memory: 3Mi}}\n"
               "  tolerations: [{key: a}, {key: b}]\n"
               "  priorityClassName: high\n"
               "  ttlSecondsAfterFinished: 0\n"
               "  serviceAccountName: sa\n"
               "limits: {maxDuration: 90s, maxConcurrent: 7, maxConcurrentPerNode: 2,\n"
               "  maxResultBytes: 64Ki}\n"
               "results: {listen: '[::1]:9443', url: 'https://pyspy.example//'}\n"
               "metrics: {listen: '127.0.0.1:9090'}\n"
               "leaderElection: {enabled: false, leaseName: l, leaseDuration: 5s,\n"
               "  renewDeadline: 3s, retryPeriod: 1s}\n"
               "log: {level: debug, format: logfmt}\n"
               "watchNamespaces: [shop, bank]\n");
    const struct runner_config *r = &c->runner;
    assert_true(str_is(r->image, "r:1") && str_is(r->image_pull_policy, "Always"));
    assert_int_equal(r->image_pull_secrets.len, 2);
    assert_true(r->join_namespaces && str_is(r->capabilities.items[0], "DAC_READ_SEARCH"));
    same_pair(&r->requests, &(struct resource_pair){STR("1m"), STR("2Mi")});
    same_pair(&r->limits, &(struct resource_pair){STR_NULL, STR("3Mi")});
    assert_int_equal(json_len(r->tolerations), 2);
    assert_true(str_is(r->priority_class_name, "high") && str_is(r->service_account_name, "sa"));
    assert_int_equal(r->ttl_s, 0);
    assert_int_equal(c->limits.max_duration_ms, 90000);
    assert_int_equal(c->limits.max_concurrent, 7);
    assert_int_equal(c->limits.max_concurrent_per_node, 2);
    assert_int_equal(c->limits.max_result_bytes, 65536);
    assert_string_equal(c->results_listen.address, "::1");
    assert_int_equal(c->results_listen.port, 9443);
    assert_true(str_is(c->results_url, "https://pyspy.example"));
    assert_string_equal(c->metrics_listen.address, "127.0.0.1");
    assert_int_equal(c->metrics_listen.port, 9090);
    assert_true(!c->lease.enabled && str_is(c->lease.name, "l"));
    assert_int_equal(c->lease.duration_ms, 5000);
    assert_int_equal(c->log_level, LOG_DEBUG);
    assert_int_equal(c->log_format, LOG_LOGFMT);
    assert_int_equal(c->watch_namespaces.len, 2);
    assert_true(str_is(c->namespace_, "pyspy-system") && str_is(c->pod_name, "pyspy-0"));
}

/* With `runner: {image: r}` before it unless it begins with runner. */
static const struct {
    const char *yaml, *message;
} mistakes[] = {
    {"runner: {}", "runner.image"},
    {"runner: {image: ''}", "runner.image: is empty"},
    {"runner: {image: r, imagePullPolicy: Sometimes}",
     "runner.imagePullPolicy: \"Sometimes\" is not one of Always, IfNotPresent, Never"},
    {"runner: {image: r, capabilities: [CAP_SYS_PTRACE]}",
     "runner.capabilities[0]: \"CAP_SYS_PTRACE\" is no capability"},
    {"runner: {image: r, capabilities: [A, b]}", "runner.capabilities[1]: \"b\""},
    {"runner: {image: r, tolerations: {}}", "line 1: runner.tolerations: a list was expected"},
    {"runner: {image: r, ttlSecondsAfterFinished: -1}", "runner.ttlSecondsAfterFinished"},
    {"runner: {image: r, ttlSecondsAfterFinished: 604801}", "runner.ttlSecondsAfterFinished"},
    {"runner: {image: r, serviceAccountName: ''}", "runner.serviceAccountName: is empty"},
    {"runner: {image: r, joinNamespaces: 1}", "runner.joinNamespaces"},
    {"runner: {image: r, colour: red}", "colour"},
    {"limits: {maxDuration: 2h}", "limits.maxDuration"},
    {"limits: {maxDuration: soon}", "limits.maxDuration"},
    {"limits: {maxConcurrent: 0}", "limits.maxConcurrent"},
    {"limits: {maxConcurrentPerNode: 1001}", "limits.maxConcurrentPerNode"},
    {"limits: {maxResultBytes: 1Mi}", "limits.maxResultBytes: \"1Mi\" is no size from 64Ki to "
                                      "1000Ki"},
    {"limits: {maxResultBytes: 63Ki}", "limits.maxResultBytes"},
    {"limits: {maxResultBytes: 1Gi}", "limits.maxResultBytes"},
    {"results: {listen: '8443'}", "results.listen: \"8443\" is no address and port"},
    {"results: {listen: ':0'}", "results.listen"},
    {"results: {listen: ':65536'}", "results.listen"},
    {"results: {url: 'http://x'}", "results.url: \"http://x\""},
    {"results: {url: 'https://'}", "results.url: \"https://\""},
    {"results: {url: '/'}", "results.url"},
    {"metrics: {listen: 'x'}", "metrics.listen"},
    {"leaderElection: {leaseName: ''}", "leaderElection.leaseName: is empty"},
    {"leaderElection: {leaseDuration: 10s}", "leaderElection.leaseDuration: must be longer"},
    {"leaderElection: {renewDeadline: 2400ms}", "leaderElection.renewDeadline: must be longer"},
    {"log: {level: loud}", "log.level: \"loud\" is not one of debug, info, warn, error"},
    {"log: {format: xml}", "log.format: \"xml\" is not one of json, logfmt"},
    {"watchNamespaces: ['']", "watchNamespaces[0]: is empty"},
    {"watchNamespaces: [a, b, a]", "watchNamespaces[2]: \"a\" is given twice"},
    {"watchNamespaces: shop", "watchNamespaces"},
    {"\n\ncolour: red", "line 4"},
    {"log: [", "line"},
    {"log: &a {}", "line"},
};

static void mistakes_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
        _cleanup_(buf_finish) struct buf yaml = BUF_INIT(4096);
        struct config *c = NULL;
        struct err err = ERR_INIT;
        if (!str_starts_with(str_of(mistakes[i].yaml), STR("runner")))
            buf_append_cstr(&yaml, "runner: {image: r}\n");
        buf_append_cstr(&yaml, mistakes[i].yaml);
        int r = config_parse(buf_str(&yaml), STR("n"), STR("p"), &c, &err);
        if (r != ERR_INVALID || !strstr(err.message, mistakes[i].message))
            fail_msg("%s: %d %s", mistakes[i].yaml, r, err.message);
        assert_null(c);
    }
}

static void files_that_are_not_there(void **state)
{
    (void)state;
    struct config *c = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(config_load(TEST_DATA "/none.yaml", STR("n"), STR("p"), &c, &err),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "none.yaml"));
    assert_int_equal(config_load(NULL, STR("n"), STR("p"), &c, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "--config"));
    config_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_as_documented),
        cmocka_unit_test(every_key),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(files_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
