#include "results_fixture.h"

#include <poll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "crypto/digest.h"
#include "kube/events.h"

static const char *const selectable[] = {"status.phase", "spec.target.podName", NULL};
static const struct sim_kind kinds[] = {
    {API_GROUP, API_VERSION, API_PLURAL, API_KIND, true, selectable},
    {"batch", "v1", "jobs", "Job", true, NULL},
    {"", "v1", "pods", "Pod", true, NULL},
    {"", "v1", "namespaces", "Namespace", true, NULL},
    {"", "v1", "secrets", "Secret", false, NULL},
    {"", "v1", "configmaps", "ConfigMap", false, NULL},
};

static void certificate_changed(void *context, struct str certificate, struct str key)
{
    struct world *w = context;
    assert_int_equal(http_server_set_certificate(w->http, certificate, key, NULL), 0);
}

static void synced(void *context)
{
    (void)context; /* not the leader: it takes results in all the same */
}

static void answer_review(const struct world *w, struct sim_answer *answer)
{
    const struct review *r = &w->review;
    if (r->status) {
        sim_answer_status(answer, r->status, "InternalError", "no review", NULL);
        return;
    }
    struct json_writer out = JSON_WRITER(&answer->body);
    json_begin_object(&out, NULL);
    json_put_cstr(&out, "apiVersion", "authentication.k8s.io/v1");
    json_put_cstr(&out, "kind", "TokenReview");
    json_begin_object(&out, "status");
    json_put_bool(&out, "authenticated", !r->no);
    json_begin_array(&out, "audiences");
    json_put_cstr(&out, NULL, r->audience ? r->audience : TASK_TOKEN_AUDIENCE);
    json_end_array(&out);
    json_begin_object(&out, "user");
    json_put_cstr(&out, "username", r->user ? r->user : "system:serviceaccount:pyspy:pyspy-runner");
    json_begin_object(&out, "extra");
    json_begin_array(&out, "authentication.kubernetes.io/pod-uid");
    json_put_cstr(&out, NULL, r->pod_uid ? r->pod_uid : w->pod_uid);
    json_end_array(&out);
    json_end_object(&out);
    json_end_object(&out);
    json_end_object(&out);
    json_end_object(&out);
    answer->status = 201;
}

static bool on_request(void *context, const struct sim_request *request, struct sim_answer *answer,
                       bool after)
{
    struct world *w = context;
    bool result = strstr(request->path, "/namespaces/shop/");
    if (after)
        return false;
    if (strstr(request->path, "/tokenreviews")) {
        w->reviews++;
        assert_true(str_find(request->body, STR("\"token\":\"sesame\"")) > 0);
        assert_true(str_find(request->body, STR("\"audiences\":[\"pyspy-results\"]")) > 0);
        answer_review(w, answer);
        if (w->hang_after_review)
            sim_apiserver_set_faults(w->server, &(struct sim_faults){.hung = 1000});
        return true;
    }
    if (result && strcmp(request->method, "POST") == 0) {
        w->creates++;
        if (w->refuse_create)
            sim_answer_status(answer, w->refuse_create,
                              w->refuse_create == 403   ? "Forbidden"
                              : w->refuse_create == 413 ? "RequestEntityTooLarge"
                                                        : "InternalError",
                              "the API server said so", NULL);
        return w->refuse_create != 0;
    }
    if (result && strcmp(request->method, "PATCH") == 0) {
        w->patches++;
        assert_string_equal(request->content_type, "application/json-patch+json");
        if (w->vanish)
            sim_do(w->server, "DELETE", request->path, "", "", NULL);
    }
    return false;
}

static void handle(void *context, struct http_exchange *exchange)
{
    struct world *w = context;
    results_handle(w->results, exchange);
    w->handled++;
}

static void create_http(struct world *w)
{
    _cleanup_(buf_finish) struct buf certificate = BUF_INIT(1u << 16);
    _cleanup_(buf_finish) struct buf key = BUF_INIT(1u << 16);
    struct err err = ERR_INIT;
    make_certificate("placeholder", &certificate, &key);
    const struct http_listener listeners[] = {{"results", "127.0.0.1", 0, true},
                                              {"plain", "127.0.0.1", 0, false}};
    const struct http_route route = {"POST", RESULTS_PATTERN, RESULTS_MAX_BODY, handle, w,
                                     NULL,   results_admit};
    if (http_server_create(&(struct http_server_options){.listeners = listeners,
                                                         .n_listeners = ARRAY_SIZE(listeners),
                                                         .routes = &route,
                                                         .n_routes = 1,
                                                         .certificate = buf_str(&certificate),
                                                         .private_key = buf_str(&key)},
                           &w->http, &err) ||
        http_server_start(w->http, &err))
        fail_msg("%s", err.message);
}

static void create_reconciler(struct world *w)
{
    struct random_source *random = &w->random.source;
    assert_int_equal(
        kube_client_create(
            &(struct kube_client_options){.loop = w->loop,
                                          .transport = sim_apiserver_transport(w->server),
                                          .config = w->kube_config,
                                          .random = random},
            &w->client, NULL),
        0);
    assert_int_equal(event_recorder_create(&(struct event_recorder_options){.client = w->client,
                                                                            .loop = w->loop,
                                                                            .random = random,
                                                                            .controller = "sim/c",
                                                                            .instance = "p"},
                                           &w->recorder, NULL),
                     0);
    assert_int_equal(identity_create(&(struct identity_options){.config = w->config,
                                                                .loop = w->loop,
                                                                .client = w->client,
                                                                .random = random,
                                                                .changed = certificate_changed,
                                                                .context = w},
                                     &w->identity, NULL),
                     0);
    assert_int_equal(controller_create(&(struct controller_options){.config = w->config,
                                                                    .loop = w->loop,
                                                                    .client = w->client,
                                                                    .random = random,
                                                                    .events = w->recorder,
                                                                    .identity = w->identity,
                                                                    .telemetry = w->telemetry,
                                                                    .on_synced = synced,
                                                                    .context = w},
                                       &w->controller, NULL),
                     0);
}

void world_set_up(struct world *w)
{
    static const char *const environment[] = {"KUBERNETES_SERVICE_HOST=127.0.0.1",
                                              "KUBERNETES_SERVICE_PORT=443", NULL};
    *w = (struct world){0};
    sem_init(&w->block, 0, 0);
    random_seed(&w->random, 1);
    sim_time_init(&w->time);
    assert_int_equal(loop_create(&w->time.clock, &w->loop, NULL), 0);
    w->server = sim_apiserver_create(w->loop, &w->random.source);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        sim_apiserver_add_kind(w->server, &kinds[i]);
    sim_apiserver_set_hook(w->server, on_request, w);
    struct kube_config_options config = {.environment = environment,
                                         .service_account_dir = SIM_DATA "/serviceaccount"};
    assert_int_equal(kube_config_load(&config, &w->kube_config, NULL), 0);
    assert_int_equal(
        config_parse(STR("runner: {image: r}"), STR("pyspy"), STR("p"), &w->config, NULL), 0);
    w->telemetry = telemetry_create();
    create_reconciler(w);
    assert_int_equal(worker_create(w->loop, 64, &w->worker, NULL), 0);
    assert_int_equal(results_create(&(struct results_options){.config = w->config,
                                                              .loop = w->loop,
                                                              .client = w->client,
                                                              .controller = w->controller,
                                                              .identity = w->identity,
                                                              .worker = w->worker,
                                                              .telemetry = w->telemetry},
                                    &w->results, NULL),
                     0);
    create_http(w);
    identity_start(w->identity);
    controller_start(w->controller);
}

void world_stop_endpoint(struct world *w)
{
    if (w->stopped)
        return;
    w->stopped = true;
    http_server_stop(w->http, 0);
    sem_post(&w->block);
    worker_destroy(w->worker);
    loop_flush_posts(w->loop);
    results_destroy(w->results);
    http_server_destroy(w->http);
}

void world_tear_down(struct world *w)
{
    world_stop_endpoint(w);
    controller_destroy(w->controller);
    identity_destroy(w->identity);
    event_recorder_destroy(w->recorder);
    kube_client_destroy(w->client);
    assert_int_equal(sim_apiserver_counts(w->server).open, 0);
    config_destroy(w->config);
    kube_config_destroy(w->kube_config);
    sim_apiserver_destroy(w->server);
    loop_destroy(w->loop);
    telemetry_destroy(w->telemetry);
    sem_destroy(&w->block);
    free(w->uid);
    free(w->pod_uid);
}

void world_add_profile(struct world *w, enum stored_kind kind, const char *object_name)
{
    _cleanup_(freep) char *body =
        xasprintf("{\"metadata\":{\"name\":\"slow\",\"namespace\":\"shop\"},\"spec\":{\"target\":{"
                  "\"podName\":\"web\"},\"formats\":[\"raw\"],\"output\":{\"%s\":{%s%s%s}}}}",
                  kind == STORED_SECRET ? "secret" : "configMap", object_name ? "\"name\":\"" : "",
                  object_name ? object_name : "", object_name ? "\"" : "");
    assert_int_equal(sim_do(w->server, "POST",
                            "/apis/" API_GROUP_VERSION "/namespaces/shop/" API_PLURAL, "", body,
                            NULL),
                     201);
    struct kube_object *p =
        sim_store_get(sim_apiserver_store(w->server), &kinds[0], STR("shop"), STR("slow"));
    w->uid = str_dup(p->uid);
    sim_run(&w->time, w->loop, 5000);
    assert_true(w->controller->synced && identity_ready(w->identity));
}

void world_add_pod(struct world *w)
{
    _cleanup_(freep) char *body = xasprintf(
        "{\"metadata\":{\"name\":\"job-x\",\"namespace\":\"pyspy\",\"labels\":{\"%s\":\"%s\"}},"
        "\"spec\":{\"containers\":[{\"name\":\"runner\"}]}}",
        LABEL_PROFILE_UID, w->uid);
    assert_int_equal(sim_do(w->server, "POST", "/api/v1/namespaces/pyspy/pods", "", body, NULL),
                     201);
    struct kube_object *p =
        sim_store_get(sim_apiserver_store(w->server), &kinds[2], STR("pyspy"), STR("job-x"));
    w->pod_uid = str_dup(p->uid);
    sim_run(&w->time, w->loop, 1000);
}

void world_pump(struct world *w, bool (*holds)(struct world *w))
{
    int64_t until = clock_monotonic_ms(&clock_system) + 10000;
    while (!holds(w)) {
        int ran = loop_step(w->loop, 0, NULL);
        assert_true(ran >= 0);
        if (ran)
            continue;
        if (clock_monotonic_ms(&clock_system) > until)
            fail_msg("it has not come about");
        usleep(200);
        w->time.now_ms += !w->time_stands;
    }
}

static void wait_for_block(struct worker_task *task)
{
    struct world *w = CONTAINER_OF(task, struct world, blocker);
    while (sem_wait(&w->block))
        ;
}

static void let_go(struct worker_task *task)
{
    (void)task;
}

void world_block_worker(struct world *w)
{
    w->blocker = (struct worker_task){.run = wait_for_block, .done = let_go};
    assert_int_equal(worker_submit(w->worker, &w->blocker, NULL), 0);
}

void upload_send(struct world *w, struct client *c, const char *path, const char *token,
                 const char *content)
{
    char digest[CRYPTO_SHA256_HEX];
    crypto_sha256_hex(str_of(content), digest);
    struct upload_file file = {.format = STR("raw"),
                               .key = STR("raw.txt"),
                               .media_type = STR("text/plain; charset=utf-8"),
                               .size_bytes = (int64_t)strlen(content),
                               .sha256 = str_of(digest),
                               .content = str_of(content)};
    struct upload u = {.version = 1, .files = {&file, 1}};
    _cleanup_(buf_finish) struct buf body = BUF_INIT(8u << 20);
    _cleanup_(buf_finish) struct buf head = BUF_INIT(1u << 16);
    upload_write(&body, &u);
    _cleanup_(freep) char *own = xasprintf("/v1/results/shop/slow/%s", w->uid);
    buf_appendf(&head,
                "POST %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                path ? path : own, token ? token : "sesame", body.len);
    /* TLS 1.2, where the first bytes after the handshake are the answer's. */
    assert_true(w->tls ? client_open_tls(c, http_server_port(w->http, "results"), TLS1_2_VERSION)
                       : client_open(c, http_server_port(w->http, "plain")));
    assert_true(client_send(c, head.ptr, head.len));
    client_send(c, body.ptr, body.len); /* the server may have refused it meanwhile */
}

static const struct client *awaited;

static bool is_readable(struct world *w)
{
    (void)w;
    struct pollfd p = {.fd = awaited->fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

void upload_expect(struct world *w, struct client *c, int status, const char *text,
                   struct response *ret)
{
    struct response r;
    awaited = c;
    world_pump(w, is_readable);
    assert_true(client_receive(c, &r, false));
    if (r.status != status || !strstr(buf_cstr(&r.body), text))
        fail_msg("%d \"%s\" expected: %d %s", status, text, r.status, buf_cstr(&r.body));
    client_close(c);
    if (ret)
        *ret = r;
    else
        response_finish(&r);
}

void upload(struct world *w, int status, const char *text)
{
    struct client c;
    upload_send(w, &c, NULL, NULL, "abc");
    upload_expect(w, &c, status, text, NULL);
}
