/* The whole controller against a scripted cluster: whatever happens to connections, watches and the
 * controller itself, each profile ends, with the right reason; no profile ever has two Jobs, and no
 * Job outlives its profile. One scenario for each seed. */
#include "scenario.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

enum {
    SEEDS = 120,
    TICK_MS = 100,
    ACTIVE_MS = 60000,
    QUIET_MS = 700000 /* a hung watch lives for 320 s */
};

static uint64_t only_seed; /* from the command line; 0: all */

static const char *const selectable[] = {"status.phase", "spec.target.podName", NULL};
static const struct sim_kind profiles = {API_GROUP, API_VERSION, API_PLURAL,
                                         API_KIND,  true,        selectable};
static const struct sim_kind nodes = {"", "v1", "nodes", "Node", true, NULL};
static const struct sim_kind namespaces = {"", "v1", "namespaces", "Namespace", true, NULL};
static const struct sim_kind secrets = {"", "v1", "secrets", "Secret", false, NULL};
static const struct sim_kind events = {"events.k8s.io", "v1", "events", "Event", false, NULL};

/* With each fate, separated; "" is Completed. LimitReached is right everywhere: its turn did not
 * come within the start deadline. */
static const char *const right_reasons[FATE_COUNT] = {
    [FATE_DONE] = "|",
    [FATE_PROCESS_NOT_FOUND] = "ProcessNotFound|",
    [FATE_OUT_OF_MEMORY] = "ProfilerFailed|",
    [FATE_NO_TARGET] = "TargetNotFound|JobStartTimeout|",
    [FATE_TARGET_PENDING] = "PodNotRunning|JobStartTimeout|",
    [FATE_OTHER_UID] = "PodUIDMismatch|",
    [FATE_NO_IMAGE] = "ImagePullFailed|JobStartTimeout|",
    [FATE_TOO_LONG] = "ProfilingDenied|",
    [FATE_JOB_DELETED] = "ProfilerFailed||",
    [FATE_CANCELLED] = "Cancelled||",
    [FATE_DELETED] = "|",
    [FATE_TARGET_DELETED] = "|TargetNotFound|",
};

static void certificate_changed(void *context, struct str certificate, struct str key)
{
    const struct scenario *s = context;
    CHECK(s, certificate.len && key.len);
}

static void synced(void *context)
{
    struct scenario *s = context;
    controller_activate(s->controller);
}

static void finished(void *context, int64_t ttl_s)
{
    (void)context;
    (void)ttl_s;
}

static void controller_up(struct scenario *s)
{
    struct err err = ERR_INIT;
    struct random_source *random = &s->random.source;
    int r = kube_client_create(
        &(struct kube_client_options){.loop = s->loop,
                                      .transport = sim_apiserver_transport(s->server),
                                      .config = s->kube_config,
                                      .random = random},
        &s->client, &err);
    if (r == 0)
        r = event_recorder_create(&(struct event_recorder_options){.client = s->client,
                                                                   .loop = s->loop,
                                                                   .random = random,
                                                                   .controller = "sim/controller",
                                                                   .instance = "pyspy-0"},
                                  &s->recorder, &err);
    if (r == 0)
        r = identity_create(&(struct identity_options){.config = s->config,
                                                       .loop = s->loop,
                                                       .client = s->client,
                                                       .random = random,
                                                       .changed = certificate_changed,
                                                       .context = s},
                            &s->identity, &err);
    if (r == 0)
        r = controller_create(&(struct controller_options){.config = s->config,
                                                           .loop = s->loop,
                                                           .client = s->client,
                                                           .random = random,
                                                           .events = s->recorder,
                                                           .identity = s->identity,
                                                           .telemetry = s->telemetry,
                                                           .on_synced = synced,
                                                           .on_finished = finished,
                                                           .context = s},
                              &s->controller, &err);
    if (r < 0)
        fail_msg("seed %llu: %s", (unsigned long long)s->seed, err.message);
    identity_start(s->identity);
    controller_start(s->controller);
}

static void controller_down(struct scenario *s)
{
    controller_destroy(s->controller);
    identity_destroy(s->identity);
    event_recorder_destroy(s->recorder);
    kube_client_destroy(s->client);
    CHECK(s, sim_apiserver_counts(s->server).open == 0);
}

/* Sees each write of the controller: counts Jobs, and chooses where it crashes. */
static bool on_request(void *context, const struct sim_request *request, struct sim_answer *answer,
                       bool after)
{
    struct scenario *s = context;
    if (!after || strcmp(request->method, "GET") == 0)
        return false;
    if (strcmp(request->method, "POST") == 0 && strstr(request->path, "/jobs") &&
        answer->status == 201) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        const struct json *tree;
        assert_int_equal(json_parse(arena, request->body, NULL, &tree, NULL), 0);
        struct str name =
            json_text(json_at(tree, "metadata", "annotations", ANNOTATION_PROFILE_NAME, NULL));
        int64_t i = -1;
        CHECK(s, str_to_i64(str_sub(name, 6, name.len), 0, PROFILES - 1, &i) == 0);
        s->jobs_created[i]++;
    }
    if (s->writes_until_crash > 0 && --s->writes_until_crash == 0)
        s->crash = true;
    return false;
}

static bool must_crash(void *context)
{
    return ((const struct scenario *)context)->crash;
}

static void run(struct scenario *s, int64_t ms, bool active)
{
    for (int64_t end = s->time.now_ms + ms; s->time.now_ms < end;) {
        if (sim_run_until(&s->time, s->loop, active ? TICK_MS : 10 * TICK_MS, must_crash, s)) {
            s->crash = false;
            s->crashes++;
            controller_down(s);
            if (below(s, 2))
                s->time.now_ms += (int64_t)below(s, 20000); /* gone for a while */
            controller_up(s);
            s->writes_until_crash = (int64_t)below(s, 12) * (int64_t)active;
        }
        cluster_step(s);
        if (active)
            user_step(s);
        if (active && below(s, 400) == 0)
            sim_apiserver_restart(s->server, (int64_t)below(s, 5000));
    }
}

static void set_up(struct scenario *s, uint64_t seed)
{
    static const char *const environment[] = {"KUBERNETES_SERVICE_HOST=127.0.0.1",
                                              "KUBERNETES_SERVICE_PORT=443", NULL};
    static const struct sim_kind *const kinds[] = {&profiles,   &jobs,    &pods,  &nodes,
                                                   &namespaces, &secrets, &events};
    struct err err = ERR_INIT;
    *s = (struct scenario){.seed = seed};
    random_seed(&s->random, seed);
    sim_time_init(&s->time);
    assert_int_equal(loop_create(&s->time.clock, &s->loop, &err), 0);
    s->server = sim_apiserver_create(s->loop, &s->random.source);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        sim_apiserver_add_kind(s->server, kinds[i]);
    sim_apiserver_set_hook(s->server, on_request, s);
    sim_apiserver_set_watch_list(s->server, below(s, 2));
    struct kube_config_options config = {.environment = environment,
                                         .service_account_dir = SIM_DATA "/serviceaccount"};
    assert_int_equal(kube_config_load(&config, &s->kube_config, &err), 0);
    assert_int_equal(config_parse(STR("runner: {image: r}\n"
                                      "limits: {maxConcurrent: 3, maxDuration: 5m}\n"),
                                  STR("pyspy"), STR("pyspy-0"), &s->config, &err),
                     0);
    assert_int_equal(s->config->limits.max_concurrent, LIMIT);
    s->telemetry = telemetry_create();
    for (size_t i = 0; i < 2; i++) {
        _cleanup_(freep) char *body = xasprintf("{\"metadata\":{\"name\":\"node%zu\"}}", i);
        _cleanup_(freep) char *path = xasprintf("/api/v1/nodes/node%zu/status", i);
        CHECK(s, sim_do(s->server, "POST", "/api/v1/nodes", "", body, NULL) == 201);
        patch_object(s, path,
                     "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}");
    }
    for (size_t i = 0; i < PROFILES; i++) {
        s->fates[i] = (enum fate)below(s, FATE_COUNT);
        if (s->fates[i] != FATE_NO_TARGET)
            create_target(s, i);
    }
}

static void choose_faults(struct scenario *s)
{
    if (below(s, 4) == 0) /* a healthy server, but for crashes */
        return;
    unsigned *const chances[] = {
        &s->faults.lost,      &s->faults.answer_lost, &s->faults.throttled,
        &s->faults.failed,    &s->faults.hung,        &s->faults.expired,
        &s->faults.too_large, &s->faults.short_watch, &s->faults.error_event,
        &s->faults.cut,       &s->faults.compacted,   &s->faults.stale};
    for (size_t i = 0; i < ARRAY_SIZE(chances); i++)
        *chances[i] = below(s, 2) ? (unsigned)below(s, i < 5 ? 60 : 100) : 0;
    s->faults.max_latency_ms = below(s, 2) ? (int64_t)below(s, 500) : 0;
}

static void check_end(struct scenario *s)
{
    size_t n;
    struct sim_store *store = sim_apiserver_store(s->server);
    for (size_t i = 0; i < PROFILES; i++) {
        _cleanup_(freep) char *name = xasprintf("p%zu", i);
        const struct kube_object *p = sim_store_get(store, &profiles, STR("shop"), str_of(name));
        CHECK(s, (p != NULL) == !s->deleted[i]);
        bool strict = !s->faults.stale && s->fates[i] != FATE_JOB_DELETED;
        CHECK(s, s->jobs_created[i] <= 1 || !strict);
        if (!p)
            continue;
        struct str phase = json_text(json_at(p->tree, "status", "phase", NULL));
        struct str reason = json_text(json_at(p->tree, "status", "reason", NULL));
        /* A watch that hangs is noticed after minutes only. */
        bool right =
            str_is(reason, "LimitReached") || (s->faults.hung && str_is(reason, "JobStartTimeout"));
        struct str rest = str_of(right_reasons[s->fates[i]]);
        for (struct str one = str_cut(&rest, '|'); rest.ptr; one = str_cut(&rest, '|'))
            right = right || str_eq(one, reason);
        if (!right || !str_is(phase, !reason.len                   ? "Completed"
                                     : str_is(reason, "Cancelled") ? "Cancelled"
                                                                   : "Failed"))
            fail_msg("seed %llu: p%zu with fate %d ended %.*s/%.*s: %.*s",
                     (unsigned long long)s->seed, i, s->fates[i], STR_ARG(phase), STR_ARG(reason),
                     STR_ARG(json_text(json_at(p->tree, "status", "message", NULL))));
    }
    struct kube_object **found = scenario_list(s, &jobs, &n);
    for (size_t i = 0; i < n; i++)
        CHECK(s, job_ended(found[i]));
    free(found);
    CHECK(s, s->controller->live_jobs == 0 && map_size(s->controller->node_jobs) == 0);
    CHECK(s, !controller_busy(s->controller));
}

static void tear_down(struct scenario *s)
{
    controller_down(s);
    telemetry_destroy(s->telemetry);
    config_destroy(s->config);
    kube_config_destroy(s->kube_config);
    sim_apiserver_destroy(s->server);
    loop_destroy(s->loop);
}

static void every_profile_ends(void **state)
{
    (void)state;
    int crashes = 0;
    int64_t faults = 0;
    for (uint64_t seed = only_seed ? only_seed : 1; seed <= (only_seed ? only_seed : SEEDS);
         seed++) {
        struct scenario s;
        set_up(&s, seed);
        choose_faults(&s);
        sim_apiserver_set_faults(s.server, &s.faults);
        s.writes_until_crash = (int64_t)below(&s, 12);
        controller_up(&s);
        run(&s, ACTIVE_MS, true);
        for (size_t i = 0; i < PROFILES; i++)
            if (!s.created[i])
                create_profile(&s, i);
        sim_apiserver_set_faults(s.server, &(struct sim_faults){0});
        s.writes_until_crash = 0;
        run(&s, QUIET_MS, false);
        check_end(&s);
        crashes += s.crashes;
        faults += sim_apiserver_counts(s.server).faults;
        tear_down(&s);
    }
    if (!only_seed) {
        assert_true(crashes > SEEDS); /* the scenarios do what they are for */
        assert_true(faults > SEEDS);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        str_to_u64(str_of(argv[1]), UINT64_MAX, &only_seed);
    log_setup(STDERR_FILENO, only_seed ? LOG_INFO : LOG_ERROR, LOG_LOGFMT);
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_profile_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
