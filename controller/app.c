#include "controller/app.h"

#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/probes.h"
#include "controller/results.h"
#include "controller/sweep.h"
#include "crypto/digest.h"
#include "crypto/x509.h"
#include "kube/lease.h"
#include "loop/http.h"

#define SYNC_LIMIT_MS  120000 /* caches that are not filled by then: start anew */
#define DRAIN_LIMIT_MS 5000   /* for what is under way at the end */
#define DRAIN_LOOK_MS  20
#define MAX_UPLOADS    64
#define REPORTER       API_GROUP "/pyspy-controller"

struct app {
    const struct config *config;
    struct loop *loop;
    struct transport *transport;
    struct kube_config *kube_config;
    struct kube_client *client;
    struct event_recorder *events;
    struct telemetry *telemetry;
    struct identity *identity;
    struct worker *worker;
    struct controller *controller;
    struct results *results;
    struct sweep *sweep;
    struct probes *probes;
    struct http_server *server;
    struct lease *lease;
    struct loop_timer sync_timer, drain_timer;
    const char *host; /* of the API server, for metrics */
    int64_t drain_until_ms;
    bool stopping, releasing;
    struct err failure; /* why it ended, code 0 for a signal */
};

static void observe_request(void *context, const char *verb, const char *group,
                            const char *resource, int code, int64_t duration_ms)
{
    struct app *a = context;
    telemetry_request(a->telemetry, a->host, verb, group, resource, code, duration_ms);
}

static void observe_http(void *context, const char *method, const char *pattern, int status,
                         int64_t duration_ms)
{
    const struct app *a = context;
    telemetry_http(a->telemetry, method, pattern, status, duration_ms);
}

static void lead(void *context)
{
    struct app *a = context;
    log_info("leading");
    telemetry_leader(a->telemetry, a->config->lease.name.ptr, true);
    controller_activate(a->controller);
    sweep_start(a->sweep);
}

/* Another replica may lead already: every further write would be one too many. */
static void lost(void *context, const char *why)
{
    (void)context;
    log_error("lost the lease; ending at once", LOG_C("why", why));
    _exit(1);
}

static void new_leader(void *context, struct str identity)
{
    (void)context;
    log_info("the leader is", LOG_S("identity", identity));
}

static void caches_synced(void *context)
{
    struct app *a = context;
    loop_timer_disarm(a->loop, &a->sync_timer);
    log_info("caches are filled");
    if (a->stopping)
        return;
    if (a->config->lease.enabled)
        lease_start(a->lease);
    else
        lead(a);
}

static void profile_finished(void *context, int64_t ttl_s)
{
    struct app *a = context;
    sweep_hint(a->sweep, ttl_s);
}

static void sync_too_long(struct loop_timer *timer)
{
    struct app *a = CONTAINER_OF(timer, struct app, sync_timer);
    err_set(&a->failure, ERR_TIMEOUT, "the caches were not filled within %d s; see the log for why",
            SYNC_LIMIT_MS / 1000);
    loop_stop(a->loop);
}

static void certificate_changed(void *context, struct str certificate, struct str key)
{
    struct app *a = context;
    struct err err = ERR_INIT;
    if (http_server_set_certificate(a->server, certificate, key, &err) < 0)
        log_error("cannot use the certificate of the result endpoint", LOG_ERR(&err));
}

static void released(void *context)
{
    struct app *a = context;
    loop_stop(a->loop);
}

static void drain(struct loop_timer *timer)
{
    struct app *a = CONTAINER_OF(timer, struct app, drain_timer);
    bool busy = controller_busy(a->controller) || results_busy(a->results);
    if (busy && loop_now(a->loop) < a->drain_until_ms) {
        loop_timer_arm(a->loop, &a->drain_timer, DRAIN_LOOK_MS);
        return;
    }
    if (a->releasing) { /* the API server does not answer: the lease will expire */
        loop_stop(a->loop);
        return;
    }
    a->releasing = true;
    a->drain_until_ms = loop_now(a->loop);
    loop_timer_arm(a->loop, &a->drain_timer, DRAIN_LIMIT_MS / 2);
    /* A reconcile that hangs may still write: then nobody else may lead before the lease expires.
     */
    if (a->lease && !controller_busy(a->controller))
        lease_release(a->lease, released, a);
    else
        released(a);
}

static void stop(void *context, int signo)
{
    struct app *a = context;
    if (a->stopping)
        return;
    a->stopping = true;
    log_info("stopping", LOG_C("signal", strsignal(signo)));
    controller_deactivate(a->controller);
    sweep_stop(a->sweep);
    a->drain_until_ms = loop_now(a->loop) + DRAIN_LIMIT_MS;
    loop_timer_arm(a->loop, &a->drain_timer, 0);
}

static bool probe_lease(void *context)
{
    const struct app *a = context;
    return !a->lease || lease_is_healthy(a->lease);
}

static bool probe_caches(void *context)
{
    const struct app *a = context;
    return a->controller->synced;
}

static bool probe_certificate(void *context)
{
    const struct app *a = context;
    return identity_ready(a->identity);
}

static bool probe_running(void *context)
{
    const struct app *a = context;
    return !a->stopping;
}

static const struct probe probes[] = {
    {"lease", probe_lease, true, false},
    {"caches", probe_caches, false, true},
    {"certificate", probe_certificate, false, true},
    {"shutdown", probe_running, false, true},
};

static void write_metrics(void *context, struct buf *out)
{
    const struct app *a = context;
    struct queue_stats q;
    queue_stats(a->controller->queue, &q);
    int64_t depth = 0;
    for (int i = 0; i < QUEUE_PRIORITIES; i++)
        depth += (int64_t)q.depth[i];
    telemetry_queue(a->telemetry, depth, (int64_t)q.adds, (int64_t)q.retries,
                    a->controller->in_flight, (double)q.unfinished_work_ms / 1000,
                    (double)q.longest_running_ms / 1000);
    telemetry_write(a->telemetry, out);
}

static int create_client(struct app *a, const struct app_options *o, struct err *err)
{
    int r = loop_create(&clock_system, &a->loop, err);
    if (r == 0)
        r = loop_signals(a->loop, (const int[]){SIGTERM, SIGINT, 0}, stop, a, err);
    if (r < 0)
        return r;
    _cleanup_(freep) char *agent = xasprintf("pyspy-controller/%s", o->version);
    r = http_transport_create(a->loop, agent, &a->transport, err);
    if (r < 0)
        return r;
    r = kube_config_load(
        &(struct kube_config_options){.kubeconfig = o->kubeconfig, .context = o->context},
        &a->kube_config, err);
    if (r < 0)
        return err_wrap(err, "credentials for the API server");
    const char *scheme = strstr(kube_config_server(a->kube_config), "://");
    a->host = scheme ? scheme + 3 : kube_config_server(a->kube_config);
    return kube_client_create(&(struct kube_client_options){.loop = a->loop,
                                                            .transport = a->transport,
                                                            .config = a->kube_config,
                                                            .random = &random_system,
                                                            .observe = observe_request,
                                                            .observe_context = a},
                              &a->client, err);
}

static int create_lease(struct app *a, struct err *err)
{
    const struct lease_config *l = &a->config->lease;
    if (!l->enabled)
        return 0;
    _cleanup_(freep) char *identity = xasprintf("%.*s_%016llx", STR_ARG(a->config->pod_name),
                                                (unsigned long long)random_u64(&random_system));
    return lease_create(&(struct lease_options){.client = a->client,
                                                .loop = a->loop,
                                                .random = &random_system,
                                                .namespace_ = a->config->namespace_.ptr,
                                                .name = l->name.ptr,
                                                .identity = identity,
                                                .duration_ms = l->duration_ms,
                                                .renew_deadline_ms = l->renew_deadline_ms,
                                                .retry_ms = l->retry_period_ms,
                                                .on_started = lead,
                                                .on_stopped = lost,
                                                .on_leader = new_leader,
                                                .context = a},
                        &a->lease, err);
}

static int create_reconciler(struct app *a, struct err *err)
{
    int r =
        event_recorder_create(&(struct event_recorder_options){.client = a->client,
                                                               .loop = a->loop,
                                                               .random = &random_system,
                                                               .controller = REPORTER,
                                                               .instance = a->config->pod_name.ptr},
                              &a->events, err);
    if (r < 0)
        return r;
    r = identity_create(&(struct identity_options){.config = a->config,
                                                   .loop = a->loop,
                                                   .client = a->client,
                                                   .random = &random_system,
                                                   .changed = certificate_changed,
                                                   .context = a},
                        &a->identity, err);
    if (r < 0)
        return r;
    r = controller_create(&(struct controller_options){.config = a->config,
                                                       .loop = a->loop,
                                                       .client = a->client,
                                                       .random = &random_system,
                                                       .events = a->events,
                                                       .identity = a->identity,
                                                       .telemetry = a->telemetry,
                                                       .on_synced = caches_synced,
                                                       .on_finished = profile_finished,
                                                       .context = a},
                          &a->controller, err);
    if (r < 0)
        return r;
    return sweep_create(
        &(struct sweep_options){
            .config = a->config, .loop = a->loop, .client = a->client, .random = &random_system},
        &a->sweep, err);
}

static const char *address_or_any(const struct listen_address *l)
{
    return l->address[0] ? l->address : "::";
}

/* A certificate to listen with until the shared one has been read; nobody trusts it, and /readyz
 * keeps the Jobs away until then. */
static int make_placeholder(const struct app *a, struct buf *certificate, struct buf *key,
                            struct err *err)
{
    struct buf ca = BUF_INIT(CRYPTO_PEM_MAX), ca_key = BUF_INIT(CRYPTO_PEM_MAX);
    int64_t now_ms = clock_wall_ms(loop_clock(a->loop));
    int r = crypto_make_ca("placeholder", 3600, now_ms, &ca, &ca_key, err);
    if (r == 0)
        r = crypto_make_leaf(buf_str(&ca), buf_str(&ca_key),
                             (const char *const[]){"placeholder.invalid", NULL}, 3600, now_ms,
                             certificate, key, err);
    buf_finish(&ca);
    crypto_wipe_buf(&ca_key);
    return r;
}

static int create_server(struct app *a, struct err *err)
{
    _cleanup_(buf_finish) struct buf certificate = BUF_INIT(CRYPTO_PEM_MAX);
    _cleanup_(buf_finish) struct buf key = BUF_INIT(CRYPTO_PEM_MAX);
    int r = make_placeholder(a, &certificate, &key, err);
    if (r < 0)
        return r;
    r = worker_create(a->loop, MAX_UPLOADS, &a->worker, err);
    if (r < 0)
        return r;
    r = results_create(&(struct results_options){.config = a->config,
                                                 .loop = a->loop,
                                                 .client = a->client,
                                                 .controller = a->controller,
                                                 .identity = a->identity,
                                                 .worker = a->worker,
                                                 .telemetry = a->telemetry},
                       &a->results, err);
    if (r < 0)
        return r;
    a->probes = probes_create(&(struct probes_options){.loop = a->loop,
                                                       .probes = probes,
                                                       .n_probes = ARRAY_SIZE(probes),
                                                       .write_metrics = write_metrics,
                                                       .context = a});
    const struct listen_address *results = &a->config->results_listen;
    const struct listen_address *metrics = &a->config->metrics_listen;
    const struct http_listener listeners[] = {
        {"results", address_or_any(results), results->port, true},
        {"metrics", address_or_any(metrics), metrics->port, false},
    };
    const struct http_route routes[] = {
        {"POST", RESULTS_PATTERN, RESULTS_MAX_BODY, results_handle, a->results, "results",
         results_admit},
        {"GET", "/healthz", 0, probes_healthz, a->probes, "metrics", NULL},
        {"GET", "/readyz", 0, probes_readyz, a->probes, "metrics", NULL},
        {"GET", "/metrics", 0, probes_metrics, a->probes, "metrics", NULL},
    };
    r = http_server_create(&(struct http_server_options){.listeners = listeners,
                                                         .n_listeners = ARRAY_SIZE(listeners),
                                                         .routes = routes,
                                                         .n_routes = ARRAY_SIZE(routes),
                                                         .certificate = buf_str(&certificate),
                                                         .private_key = buf_str(&key),
                                                         .max_connections = 256,
                                                         .max_buffered = 16u << 20,
                                                         .observe = observe_http,
                                                         .observe_context = a},
                           &a->server, err);
    return r < 0 ? r : http_server_start(a->server, err);
}

/* In the reverse order of the creation. */
static void app_finish(struct app *a)
{
    if (a->server)
        http_server_stop(a->server, 0);
    worker_destroy(a->worker);
    if (a->loop)
        loop_flush_posts(a->loop); /* requests that came meanwhile: they own their exchange */
    results_destroy(a->results);
    http_server_destroy(a->server);
    probes_destroy(a->probes);
    sweep_destroy(a->sweep);
    lease_destroy(a->lease);
    controller_destroy(a->controller);
    identity_destroy(a->identity);
    event_recorder_destroy(a->events);
    kube_client_destroy(a->client);
    kube_config_destroy(a->kube_config);
    if (a->transport)
        http_transport_destroy(a->transport);
    loop_destroy(a->loop);
    telemetry_destroy(a->telemetry);
}

static int run(struct app *a, const struct app_options *options, struct err *err)
{
    int r = create_client(a, options, err);
    if (r < 0 || (r = create_reconciler(a, err)) < 0 || (r = create_lease(a, err)) < 0 ||
        (r = create_server(a, err)) < 0)
        return r;
    loop_timer_arm(a->loop, &a->sync_timer, SYNC_LIMIT_MS);
    identity_start(a->identity);
    controller_start(a->controller);
    r = loop_run(a->loop, err);
    if (r == 0 && a->failure.code) {
        *err = a->failure;
        r = err->code;
    }
    return r;
}

int app_run(const struct app_options *options, struct err *err)
{
    struct app a = {.config = options->config,
                    .telemetry = telemetry_create(),
                    .sync_timer = {.fire = sync_too_long},
                    .drain_timer = {.fire = drain}};
    log_info("starting", LOG_C("version", options->version),
             LOG_S("namespace", options->config->namespace_));
    int r = run(&a, options, err);
    app_finish(&a);
    if (r == 0)
        log_info("stopped");
    return r;
}
