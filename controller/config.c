#include "controller/config.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"

#define CONFIG_MAX (256u << 10)

/* Texts as they stand in the file, before they are checked and turned into struct config. */
struct raw_config {
    struct config *config;
    struct str results_listen, metrics_listen, results_url;
    struct str max_result_bytes, log_level, log_format;
    struct runner_config runner;
    struct limits_config limits;
    struct lease_config lease;
    struct json_str_array watch_namespaces;
};

static const struct json_field pair_table[] = {
    {"cpu", JSON_F_STR, offsetof(struct resource_pair, cpu), .max_len = 32},
    {"memory", JSON_F_STR, offsetof(struct resource_pair, memory), .max_len = 32},
    {NULL},
};

static const struct json_field resources_table[] = {
    {"requests", JSON_F_OBJECT, offsetof(struct runner_config, requests), .table = pair_table},
    {"limits", JSON_F_OBJECT, offsetof(struct runner_config, limits), .table = pair_table},
    {NULL},
};

static const struct json_field runner_table[] = {
    {"image", JSON_F_STR, offsetof(struct runner_config, image), JSON_REQUIRED, .max_len = 512},
    {"imagePullPolicy", JSON_F_STR, offsetof(struct runner_config, image_pull_policy)},
    {"imagePullSecrets", JSON_F_STR_ARRAY, offsetof(struct runner_config, image_pull_secrets),
     .max_len = 16},
    {"joinNamespaces", JSON_F_BOOL, offsetof(struct runner_config, join_namespaces)},
    {"capabilities", JSON_F_STR_ARRAY, offsetof(struct runner_config, capabilities), .max_len = 16},
    {"resources", JSON_F_OBJECT, 0, .table = resources_table},
    {"tolerations", JSON_F_RAW, offsetof(struct runner_config, tolerations)},
    {"priorityClassName", JSON_F_STR, offsetof(struct runner_config, priority_class_name),
     .max_len = 253},
    {"ttlSecondsAfterFinished", JSON_F_INT, offsetof(struct runner_config, ttl_s), .min = 0,
     .max = 604800},
    {"serviceAccountName", JSON_F_STR, offsetof(struct runner_config, service_account_name),
     .max_len = 253},
    {NULL},
};

static const struct json_field limits_table[] = {
    {"maxDuration", JSON_F_DURATION, offsetof(struct raw_config, limits.max_duration_ms),
     .min = 1000, .max = 3600000},
    {"maxConcurrent", JSON_F_INT, offsetof(struct raw_config, limits.max_concurrent), .min = 1,
     .max = 10000},
    {"maxConcurrentPerNode", JSON_F_INT,
     offsetof(struct raw_config, limits.max_concurrent_per_node), .min = 1, .max = 1000},
    {"maxResultBytes", JSON_F_STR, offsetof(struct raw_config, max_result_bytes), .max_len = 32},
    {NULL},
};

static const struct json_field results_table[] = {
    {"listen", JSON_F_STR, offsetof(struct raw_config, results_listen), .max_len = 64},
    {"url", JSON_F_STR, offsetof(struct raw_config, results_url), .max_len = 512},
    {NULL},
};

static const struct json_field metrics_table[] = {
    {"listen", JSON_F_STR, offsetof(struct raw_config, metrics_listen), .max_len = 64},
    {NULL},
};

static const struct json_field lease_table[] = {
    {"enabled", JSON_F_BOOL, offsetof(struct lease_config, enabled)},
    {"leaseName", JSON_F_STR, offsetof(struct lease_config, name), .max_len = 253},
    {"leaseDuration", JSON_F_DURATION, offsetof(struct lease_config, duration_ms), .min = 1000,
     .max = 600000},
    {"renewDeadline", JSON_F_DURATION, offsetof(struct lease_config, renew_deadline_ms), .min = 500,
     .max = 600000},
    {"retryPeriod", JSON_F_DURATION, offsetof(struct lease_config, retry_period_ms), .min = 100,
     .max = 600000},
    {NULL},
};

static const struct json_field log_table[] = {
    {"level", JSON_F_STR, offsetof(struct raw_config, log_level)},
    {"format", JSON_F_STR, offsetof(struct raw_config, log_format)},
    {NULL},
};

static const struct json_field config_table[] = {
    {"runner", JSON_F_OBJECT, offsetof(struct raw_config, runner), JSON_REQUIRED,
     .table = runner_table},
    {"limits", JSON_F_OBJECT, 0, .table = limits_table},
    {"results", JSON_F_OBJECT, 0, .table = results_table},
    {"metrics", JSON_F_OBJECT, 0, .table = metrics_table},
    {"leaderElection", JSON_F_OBJECT, offsetof(struct raw_config, lease), .table = lease_table},
    {"log", JSON_F_OBJECT, 0, .table = log_table},
    {"watchNamespaces", JSON_F_STR_ARRAY, offsetof(struct raw_config, watch_namespaces),
     .max_len = 100},
    {NULL},
};

/* ":8080", "127.0.0.1:8080", "[::1]:8080". */
static int parse_listen(const char *key, struct str text, struct listen_address *ret,
                        struct err *err)
{
    ssize_t colon = str_rfind_char(text, ':');
    int64_t port;
    if (colon < 0 || str_to_i64(str_sub(text, (size_t)colon + 1, text.len), 1, 65535, &port) < 0)
        return err_set(err, ERR_INVALID,
                       "%s: \"%.*s\" is no address and port, such as \":8080\" or "
                       "\"127.0.0.1:8080\"",
                       key, STR_ARG(text));
    struct str host = str_sub(text, 0, (size_t)colon);
    if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = str_sub(host, 1, host.len - 2);
    if (host.len >= sizeof(ret->address))
        return err_set(err, ERR_INVALID, "%s: the address is too long", key);
    *ret = (struct listen_address){.port = (int)port};
    memcpy(ret->address, host.len ? host.ptr : "", host.len);
    return 0;
}

/* A Kubernetes quantity of bytes: whole numbers with Ki, Mi or no suffix are what makes sense here.
 */
static int parse_bytes(const char *key, struct str text, int64_t min, int64_t max, int64_t *ret,
                       struct err *err)
{
    int64_t unit = 1;
    struct str digits = text;
    if (str_ends_with(text, STR("Ki")))
        unit = 1 << 10;
    else if (str_ends_with(text, STR("Mi")))
        unit = 1 << 20;
    if (unit > 1)
        digits.len -= 2;
    int64_t number;
    if (str_to_i64(digits, 0, max / unit, &number) < 0 || number * unit < min)
        return err_set(err, ERR_INVALID,
                       "%s: \"%.*s\" is no size from %" PRId64 "Ki to %" PRId64 "Ki", key,
                       STR_ARG(text), min / 1024, max / 1024);
    *ret = number * unit;
    return 0;
}

static bool is_capability(struct str s)
{
    if (!s.len || s.len > 32 || str_starts_with(s, STR("CAP_")))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (!((s.ptr[i] >= 'A' && s.ptr[i] <= 'Z') || s.ptr[i] == '_'))
            return false;
    return true;
}

static int check_runner(const struct runner_config *r, struct err *err)
{
    static const char *const policies[] = {"Always", "IfNotPresent", "Never"};
    bool known = false;
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
        known = known || str_is(r->image_pull_policy, policies[i]);
    if (!known)
        return err_set(err, ERR_INVALID,
                       "runner.imagePullPolicy: \"%.*s\" is not one of Always, IfNotPresent, Never",
                       STR_ARG(r->image_pull_policy));
    if (!r->image.len)
        return err_set(err, ERR_INVALID, "runner.image: is empty; the runner's image is needed");
    if (!r->service_account_name.len)
        return err_set(err, ERR_INVALID, "runner.serviceAccountName: is empty");
    for (size_t i = 0; i < r->capabilities.len; i++)
        if (!is_capability(r->capabilities.items[i]))
            return err_set(err, ERR_INVALID,
                           "runner.capabilities[%zu]: \"%.*s\" is no capability, such as "
                           "DAC_READ_SEARCH",
                           i, STR_ARG(r->capabilities.items[i]));
    if (r->tolerations && r->tolerations->type != JSON_ARRAY)
        return err_set(err, ERR_INVALID, "line %d: runner.tolerations: a list was expected",
                       r->tolerations->line);
    if (json_len(r->tolerations) > 32)
        return err_set(err, ERR_INVALID, "runner.tolerations: more than 32");
    return 0;
}

static int check_lease(const struct lease_config *l, struct err *err)
{
    if (!l->name.len)
        return err_set(err, ERR_INVALID, "leaderElection.leaseName: is empty");
    if (l->duration_ms <= l->renew_deadline_ms)
        return err_set(err, ERR_INVALID,
                       "leaderElection.leaseDuration: must be longer than renewDeadline");
    if (l->renew_deadline_ms * 5 <= l->retry_period_ms * 6)
        return err_set(err, ERR_INVALID,
                       "leaderElection.renewDeadline: must be longer than 1.2 times retryPeriod");
    return 0;
}

static int check_namespaces(const struct json_str_array *list, struct err *err)
{
    for (size_t i = 0; i < list->len; i++) {
        if (!list->items[i].len)
            return err_set(err, ERR_INVALID, "watchNamespaces[%zu]: is empty", i);
        for (size_t j = 0; j < i; j++)
            if (str_eq(list->items[i], list->items[j]))
                return err_set(err, ERR_INVALID, "watchNamespaces[%zu]: \"%.*s\" is given twice", i,
                               STR_ARG(list->items[i]));
    }
    return 0;
}

static int check(struct raw_config *raw, struct config *c, struct err *err)
{
    int r = check_runner(&raw->runner, err);
    if (r < 0 || (r = check_lease(&raw->lease, err)) < 0 ||
        (r = check_namespaces(&raw->watch_namespaces, err)) < 0 ||
        (r = parse_listen("results.listen", raw->results_listen, &c->results_listen, err)) < 0 ||
        (r = parse_listen("metrics.listen", raw->metrics_listen, &c->metrics_listen, err)) < 0 ||
        (r = parse_bytes("limits.maxResultBytes", raw->max_result_bytes, 64 << 10, 1000 << 10,
                         &raw->limits.max_result_bytes, err)) < 0)
        return r;
    if (log_level_parse(raw->log_level, &c->log_level) < 0)
        return err_set(err, ERR_INVALID,
                       "log.level: \"%.*s\" is not one of debug, info, warn, error",
                       STR_ARG(raw->log_level));
    if (log_format_parse(raw->log_format, &c->log_format) < 0)
        return err_set(err, ERR_INVALID, "log.format: \"%.*s\" is not one of json, logfmt",
                       STR_ARG(raw->log_format));
    struct str url = raw->results_url;
    while (str_ends_with(url, STR("/")))
        url.len--;
    if (raw->results_url.len &&
        (url.len <= strlen("https://") || !str_starts_with(url, STR("https://"))))
        return err_set(err, ERR_INVALID, "results.url: \"%.*s\" is not https:// and a host",
                       STR_ARG(raw->results_url));
    c->results_url = url.len ? url
                             : str_of(arena_printf(c->arena, "https://pyspy-controller.%.*s.svc:%d",
                                                   STR_ARG(c->namespace_), c->results_listen.port));
    c->runner = raw->runner;
    c->limits = raw->limits;
    c->lease = raw->lease;
    c->watch_namespaces = raw->watch_namespaces;
    return 0;
}

int config_parse(struct str text, struct str namespace_, struct str pod_name, struct config **ret,
                 struct err *err)
{
    _cleanup_(config_destroyp) struct config *c = xcalloc(1, sizeof(*c));
    c->arena = arena_create(0);
    c->namespace_ = arena_str(c->arena, namespace_);
    c->pod_name = arena_str(c->arena, pod_name);
    struct raw_config raw = {
        .results_listen = STR(":8443"),
        .metrics_listen = STR(":8080"),
        .max_result_bytes = STR("1000Ki"),
        .log_level = STR("info"),
        .log_format = STR("json"),
        .runner = {.image_pull_policy = STR("IfNotPresent"),
                   .service_account_name = STR("pyspy-runner"),
                   .requests = {STR("20m"), STR("48Mi")},
                   .limits = {STR("500m"), STR("256Mi")},
                   .ttl_s = 600},
        .limits = {.max_duration_ms = 3600000, .max_concurrent = 100, .max_concurrent_per_node = 5},
        .lease = {.enabled = true,
                  .name = STR("pyspy-controller"),
                  .duration_ms = 15000,
                  .renew_deadline_ms = 10000,
                  .retry_period_ms = 2000},
    };
    const struct json *tree;
    int r =
        json_parse_yaml(c->arena, text, &(struct json_limits){.max_bytes = CONFIG_MAX}, &tree, err);
    if (r < 0)
        return r;
    r = json_decode(c->arena, tree, config_table, "", JSON_UNKNOWN_REFUSE, &raw, err);
    if (r < 0)
        return r;
    r = check(&raw, c, err);
    if (r < 0)
        return r;
    *ret = TAKE(c);
    return 0;
}

int config_load(const char *path, struct str namespace_, struct str pod_name, struct config **ret,
                struct err *err)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(CONFIG_MAX);
    int r = path ? buf_read_file(&text, path, err) : 0;
    if (r < 0)
        return err_wrap(err, "configuration");
    r = config_parse(buf_str(&text), namespace_, pod_name, ret, err);
    return r < 0 ? err_wrap(err, "%s", path ? path : "configuration (none given: see --config)")
                 : 0;
}

void config_destroy(struct config *config)
{
    if (!config)
        return;
    arena_destroy(config->arena);
    free(config);
}
