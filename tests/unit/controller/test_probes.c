/* /healthz, /readyz and /metrics over a real server, and the metrics' names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "client.h"
#include "controller/probes.h"
#include "controller/telemetry.h"

static struct {
    struct loop *loop;
    struct probes *probes;
    struct http_server *server;
    struct telemetry *telemetry;
    bool lease, caches, too_much;
} t;

static bool lease(void *context)
{
    assert_ptr_equal(context, &t);
    return t.lease;
}

static bool caches(void *context)
{
    assert_ptr_equal(context, &t);
    return t.caches;
}

static const struct probe probes[] = {{"lease", lease, true, false},
                                      {"caches", caches, false, true}};

static void write_metrics(void *context, struct buf *out)
{
    assert_ptr_equal(context, &t);
    telemetry_write(t.telemetry, out);
    if (t.too_much)
        out->failed = true;
}

static int set_up(void **state)
{
    (void)state;
    t.lease = t.caches = true;
    t.too_much = false;
    t.telemetry = telemetry_create();
    assert_int_equal(loop_create(&clock_system, &t.loop, NULL), 0);
    t.probes = probes_create(&(struct probes_options){.loop = t.loop,
                                                      .probes = probes,
                                                      .n_probes = 2,
                                                      .write_metrics = write_metrics,
                                                      .context = &t});
    const struct http_listener listener = {"metrics", "127.0.0.1", 0, false};
    const struct http_route routes[] = {
        {"GET", "/healthz", 0, probes_healthz, t.probes, NULL, NULL},
        {"GET", "/readyz", 0, probes_readyz, t.probes, NULL, NULL},
        {"GET", "/metrics", 0, probes_metrics, t.probes, NULL, NULL},
    };
    assert_int_equal(http_server_create(&(struct http_server_options){.listeners = &listener,
                                                                      .n_listeners = 1,
                                                                      .routes = routes,
                                                                      .n_routes = 3},
                                        &t.server, NULL),
                     0);
    assert_int_equal(http_server_start(t.server, NULL), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    http_server_stop(t.server, 0);
    loop_flush_posts(t.loop);
    http_server_destroy(t.server);
    probes_destroy(t.probes);
    loop_destroy(t.loop);
    telemetry_destroy(t.telemetry);
    return 0;
}

static void send_get(struct client *c, const char *path)
{
    char request[256];
    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    assert_true(client_open(c, http_server_port(t.server, "metrics")));
    assert_true(client_send_text(c, request));
}

static int get(const char *path, struct response *r)
{
    struct client c;
    struct pollfd p = {.events = POLLIN};
    send_get(&c, path);
    p.fd = c.fd;
    while (!poll(&p, 1, 0))
        assert_true(loop_step(t.loop, 20, NULL) >= 0);
    assert_true(client_receive(&c, r, false));
    client_close(&c);
    return r->status;
}

static const struct {
    bool lease, caches;
    const char *path;
    int status;
    const char *body;
} rows[] = {
    {true, true, "/healthz", 200, "ok"},
    {true, true, "/readyz", 200, "ok"},
    {true, true, "/healthz?verbose", 200, "[+]lease ok\nhealthz check passed\n"},
    {true, true, "/readyz?verbose=1", 200, "[+]caches ok\nreadyz check passed\n"},
    {true, false, "/healthz", 200, "ok"},
    {true, false, "/readyz", 503, "[-]caches failed\nreadyz check failed\n"},
    {false, true, "/healthz", 503, "[-]lease failed\nhealthz check failed\n"},
    {false, true, "/readyz", 200, "ok"},
};

static void health_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct response r;
        t.lease = rows[i].lease;
        t.caches = rows[i].caches;
        if (get(rows[i].path, &r) != rows[i].status || strcmp(buf_cstr(&r.body), rows[i].body) != 0)
            fail_msg("row %zu: %d %s", i, r.status, buf_cstr(&r.body));
        assert_true(response_has(&r, "\r\nContent-Type: text/plain"));
        response_finish(&r);
    }
}

/* That is what the probe is for. */
static void a_loop_that_does_not_turn_does_not_answer(void **state)
{
    (void)state;
    struct client c;
    send_get(&c, "/healthz");
    struct pollfd p = {.fd = c.fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 100), 0);
    client_close(&c); /* tear_down finds the visit on its way */
}

static void feed(void)
{
    telemetry_reconcile(t.telemetry, false, false, 5);
    telemetry_reconcile(t.telemetry, true, false, 5);
    telemetry_reconcile(t.telemetry, false, true, 5);
    telemetry_queue_wait(t.telemetry, 7);
    telemetry_queue(t.telemetry, 3, 10, 2, 1, 0.5, 0.25);
    telemetry_queue(t.telemetry, 4, 12, 2, 1, 0.5, 0.25);
    telemetry_live_jobs(t.telemetry, 6);
    telemetry_leader(t.telemetry, "pyspy", true);
    telemetry_request(t.telemetry, "h:1", "create", "batch", "jobs", 201, 12);
    telemetry_request(t.telemetry, "h:1", "watch", "", "pods", 0, 1000);
    telemetry_upload(t.telemetry, 403);
    telemetry_http(t.telemetry, "POST", "/v1/results", 200, 3);
    struct profile_status before = {.phase = PHASE_RUNNING}, now = {.phase = PHASE_COMPLETED};
    now.samples = 99;
    telemetry_profile_status(t.telemetry, &before, &now);
    telemetry_profile_status(t.telemetry, &now, &now); /* written again: not twice */
    now = (struct profile_status){.phase = PHASE_FAILED, .reason = STR("TargetNotFound")};
    telemetry_profile_status(t.telemetry, &before, &now);
    now.reason = STR("whatever a user could write");
    telemetry_profile_status(t.telemetry, &before, &now);
}

static void metrics_are_there(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "controller_runtime_reconcile_total{controller=\"pyspyprofile\",result=\"success\"} 1",
        "controller_runtime_reconcile_total{controller=\"pyspyprofile\",result=\"error\"} 1",
        "controller_runtime_reconcile_total{controller=\"pyspyprofile\",result=\"requeue_after\"} "
        "1",
        "controller_runtime_reconcile_time_seconds_count{controller=\"pyspyprofile\"} 3",
        "controller_runtime_active_workers{controller=\"pyspyprofile\"} 1",
        "workqueue_depth{name=\"pyspyprofile\"} 4",
        "workqueue_adds_total{name=\"pyspyprofile\"} 12",
        "workqueue_retries_total{name=\"pyspyprofile\"} 2",
        "workqueue_queue_duration_seconds_count{name=\"pyspyprofile\"} 1",
        "workqueue_work_duration_seconds_count{name=\"pyspyprofile\"} 3",
        "workqueue_unfinished_work_seconds{name=\"pyspyprofile\"} 0.5",
        "workqueue_longest_running_processor_seconds{name=\"pyspyprofile\"} 0.25",
        "leader_election_master_status{name=\"pyspy\"} 1",
        "rest_client_requests_total{code=\"201\",method=\"POST\",host=\"h:1\"} 1",
        "rest_client_requests_total{code=\"<error>\",method=\"GET\",host=\"h:1\"} 1",
        "rest_client_request_duration_seconds_count{verb=\"create\"} 1",
        "pyspy_api_requests_total{verb=\"watch\",group=\"\",resource=\"pods\"} 1",
        "pyspy_uploads_total{code=\"403\"} 1",
        "pyspy_http_requests_total{method=\"POST\",path=\"/v1/results\",code=\"200\"} 1",
        "pyspy_profiles_finished_total{phase=\"Completed\",reason=\"\"} 1",
        "pyspy_profiles_finished_total{phase=\"Failed\",reason=\"TargetNotFound\"} 1",
        "pyspy_profiles_finished_total{phase=\"Failed\",reason=\"\"} 1",
        "pyspy_jobs_running 6",
        "pyspy_samples_total 99",
    };
    static const char *const names[] = {"process_cpu_seconds_total ",
                                        "process_resident_memory_bytes "};
    struct response r;
    feed();
    assert_int_equal(get("/metrics", &r), 200);
    assert_true(response_has(&r, "\r\nContent-Type: text/plain; version=0.0.4"));
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        char line[256];
        snprintf(line, sizeof(line), "\n%s\n", lines[i]);
        if (!strstr(buf_cstr(&r.body), line))
            fail_msg("not there: %s\nin:\n%s", lines[i], buf_cstr(&r.body));
    }
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_non_null(strstr(buf_cstr(&r.body), names[i]));
    /* A watch lasts as long as it may: that is no request's duration. */
    assert_null(strstr(buf_cstr(&r.body), "rest_client_request_duration_seconds_count{verb=\"wat"));
    response_finish(&r);
}

static void metrics_that_do_not_fit(void **state)
{
    (void)state;
    struct response r;
    t.too_much = true;
    assert_int_equal(get("/metrics", &r), 500);
    assert_non_null(strstr(buf_cstr(&r.body), "the metrics"));
    response_finish(&r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(health_is_told),
        TEST(a_loop_that_does_not_turn_does_not_answer),
        TEST(metrics_are_there),
        TEST(metrics_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
