/* The result endpoint from a socket to the stored object: who may hand what in, what a receipt is
 * worth, what the runner is told when it fails, and an end at every stage of an upload. */
#include "results_fixture.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

#define MAP_PATH    "/api/v1/namespaces/shop/configmaps/"
#define SECRET_PATH "/api/v1/namespaces/shop/secrets/"

static struct world world;

static int set_up(void **state)
{
    world_set_up(&world);
    *state = &world;
    return 0;
}

static int tear_down(void **state)
{
    world_tear_down(*state);
    return 0;
}

static const struct json *stored(struct world *w, struct arena *arena, const char *path,
                                 const char *name)
{
    _cleanup_(buf_finish) struct buf reply = BUF_INIT(4u << 20);
    _cleanup_(freep) char *full = xasprintf("%s%s", path, name);
    const struct json *tree = NULL;
    assert_int_equal(sim_do(w->server, "GET", full, "", "", &reply), 200);
    assert_int_equal(json_parse(arena, buf_str(&reply), NULL, &tree, NULL), 0);
    return tree;
}

/* The receipt in the answer is one that the leader believes, for this profile only. */
static struct receipt receipt_in(struct world *w, struct arena *arena, struct response *response)
{
    struct receipt receipt;
    const struct json *tree = NULL;
    assert_int_equal(json_parse(arena, buf_str(&response->body), NULL, &tree, NULL), 0);
    assert_int_equal(receipt_decode(arena, tree, &receipt, NULL), 0);
    assert_true(identity_receipt_valid(w->identity, str_of(w->uid), &receipt));
    assert_false(identity_receipt_valid(w->identity, STR("other"), &receipt));
    response_finish(response);
    return receipt;
}

static struct str text_at(const struct json *tree, const char *a, const char *b)
{
    return json_text(json_at(tree, a, b, NULL));
}

static void stores_a_config_map(void **state)
{
    struct world *w = *state;
    struct client c;
    struct response r;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    upload_send(w, &c, NULL, NULL, "main;f 7\n");
    upload_expect(w, &c, 200, "\"mac\"", &r);
    struct receipt receipt = receipt_in(w, arena, &r);
    assert_true(str_is(receipt.kind, "ConfigMap"));
    assert_int_equal(receipt.files.len, 1);
    const struct json *map = stored(w, arena, MAP_PATH, arena_cstr(arena, receipt.name));
    assert_true(str_is(text_at(map, "data", "raw.txt"), "main;f 7\n"));
    const struct json *owner = json_item(json_at(map, "metadata", "ownerReferences", NULL), 0);
    assert_true(str_is(json_text(json_get(owner, "uid")), w->uid));
    assert_int_equal(w->reviews, 1);
    assert_int_equal(w->creates, 1);
    assert_false(results_busy(w->results));
}

/* With TLS, as runners come, and under the name that the profile chose. */
static void stores_a_secret(void **state)
{
    struct world *w = *state;
    struct client c;
    struct response r;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    world_add_profile(w, STORED_SECRET, "mine");
    world_add_pod(w);
    char name[64];
    w->tls = true;
    upload_send(w, &c, NULL, NULL, "abc");
    client_peer_name(&c, name, sizeof(name));
    assert_string_not_equal(name, "placeholder");
    upload_expect(w, &c, 200, "\"Secret\"", &r);
    struct receipt receipt = receipt_in(w, arena, &r);
    assert_true(str_is(receipt.name, "mine"));
    const struct json *secret = stored(w, arena, SECRET_PATH, "mine");
    assert_true(str_is(text_at(secret, "data", "raw.txt"), "YWJj"));
}

static void a_second_upload_replaces_the_first(void **state)
{
    struct world *w = *state;
    struct client c;
    struct response r;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    world_add_profile(w, STORED_CONFIG_MAP, "mine");
    world_add_pod(w);
    upload(w, 200, "mac");
    assert_int_equal(w->patches, 0);
    upload_send(w, &c, NULL, NULL, "later");
    upload_expect(w, &c, 200, "mac", &r);
    receipt_in(w, arena, &r);
    assert_int_equal(w->patches, 1);
    assert_true(str_is(text_at(stored(w, arena, MAP_PATH, "mine"), "data", "raw.txt"), "later"));
}

static void what_is_somebody_elses_stays(void **state)
{
    struct world *w = *state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    static const char *const labels[] = {"", ",\"labels\":{\"" LABEL_PROFILE_UID "\":\"u-0\"}"};
    world_add_profile(w, STORED_CONFIG_MAP, "mine");
    world_add_pod(w);
    for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
        _cleanup_(freep) char *body = xasprintf(
            "{\"metadata\":{\"name\":\"mine\",\"namespace\":\"shop\"%s},\"data\":{\"a\":\"b\"}}",
            labels[i]);
        sim_do(w->server, "DELETE", MAP_PATH "mine", "", "", NULL);
        assert_int_equal(
            sim_do(w->server, "POST", "/api/v1/namespaces/shop/configmaps", "", body, NULL), 201);
        upload(w, 403, "ConfigMap mine exists and is not this profile's");
        upload(w, 403, "\"reason\":\"StorageForbidden\"");
        const struct json *map = stored(w, arena, MAP_PATH, "mine");
        assert_true(str_is(text_at(map, "data", "a"), "b"));
        assert_int_equal(json_len(json_get(map, "data")), 1);
    }
}

/* Between the create that found it and the patch. */
static void an_object_that_vanishes_is_tried_again(void **state)
{
    struct world *w = *state;
    world_add_profile(w, STORED_CONFIG_MAP, "mine");
    world_add_pod(w);
    upload(w, 200, "mac");
    w->vanish = true;
    upload(w, 503, "StorageUnavailable");
    upload(w, 200, "mac");
}

static void refusals_of_the_api_server(void **state)
{
    struct world *w = *state;
    static const struct {
        int from, to;
        const char *reason;
    } rows[] = {{403, 403, "StorageForbidden"},
                {413, 413, "ResultTooLarge"},
                {500, 503, "StorageUnavailable"}};
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        w->refuse_create = rows[i].from;
        upload(w, rows[i].to, rows[i].reason);
    }
    w->refuse_create = 0;
    upload(w, 200, "mac");
}

static void an_api_server_that_is_down(void **state)
{
    struct world *w = *state;
    struct client c;
    struct response r;
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    sim_apiserver_restart(w->server, 1 << 20);
    upload_send(w, &c, NULL, NULL, "abc");
    upload_expect(w, &c, 503, "StorageUnavailable", &r);
    assert_true(response_has(&r, "\r\nRetry-After: "));
    response_finish(&r);
    assert_int_equal(w->reviews, 0);
}

static void tokens_are_judged(void **state)
{
    struct world *w = *state;
    static const struct {
        struct review review;
        int status;
        const char *text;
    } rows[] = {
        {{.no = true}, 401, "Unauthorized"},
        {{.audience = "https://kubernetes.default.svc"}, 401, "Unauthorized"},
        {{.user = "system:serviceaccount:pyspy:default"}, 401, "Unauthorized"},
        {{.user = "system:serviceaccount:shop:pyspy-runner"}, 401, "Unauthorized"},
        {{.user = "system:serviceaccount:pyspy:pyspy-runner2"}, 401, "Unauthorized"},
        {{.pod_uid = "other"}, 403, "\"reason\":\"Forbidden\""},
        {{.pod_uid = ""}, 403, "\"reason\":\"Forbidden\""},
        {{.status = 500}, 503, "StorageUnavailable"},
        {{.status = 403}, 503, "StorageUnavailable"},
    };
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        w->review = rows[i].review;
        upload(w, rows[i].status, rows[i].text);
        assert_int_equal(w->reviews, (int)i + 1);
    }
    assert_int_equal(w->creates, 0);
    w->review = (struct review){0};
    upload(w, 200, "mac");
}

static void strangers_cost_the_api_server_nothing(void **state)
{
    struct world *w = *state;
    struct client c;
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    _cleanup_(freep) char *other_name = xasprintf("/v1/results/shop/fast/%s", w->uid);
    _cleanup_(freep) char *other_namespace = xasprintf("/v1/results/bank/slow/%s", w->uid);
    const char *const paths[] = {other_name, other_namespace, "/v1/results/shop/slow/none"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        upload_send(w, &c, paths[i], NULL, "abc");
        upload_expect(w, &c, 404, "NotFound", NULL);
    }
    upload_send(w, &c, NULL, "", "abc");
    upload_expect(w, &c, 401, "a bearer token is needed", NULL);
    _cleanup_(freep) char *long_token = xasprintf("%08193d", 7);
    upload_send(w, &c, NULL, long_token, "abc");
    upload_expect(w, &c, 401, "a bearer token is needed", NULL);
    assert_int_equal(w->reviews, 0);
}

static void too_early(void **state)
{
    struct world *w = *state;
    w->uid = xstrdup("u-0");
    /* Nothing is listed, nor tried again. */
    sim_apiserver_set_faults(w->server, &(struct sim_faults){.failed = 1000});
    w->time_stands = true;
    upload(w, 503, "the controller is starting");
    w->time_stands = false;
    sim_apiserver_set_faults(w->server, &(struct sim_faults){0});
    free(TAKE(w->uid));
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    upload(w, 503, "the profile's Pod is not known yet");
    assert_int_equal(w->reviews, 0);
    world_add_pod(w);
    upload(w, 200, "mac");
}

static void what_is_wrong_or_too_large(void **state)
{
    struct world *w = *state;
    struct client c;
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    size_t n = (size_t)w->config->limits.max_result_bytes + 1;
    _cleanup_(freep) char *text = xcalloc(1, RESULTS_MAX_BODY + 1);
    memset(text, 'x', n);
    upload_send(w, &c, NULL, NULL, text);
    upload_expect(w, &c, 413, "ResultTooLarge", NULL);
    upload_send(w, &c, NULL, NULL, "");
    upload_expect(w, &c, 422, "is empty", NULL);
    memset(text, 'x', RESULTS_MAX_BODY);
    upload_send(w, &c, NULL, NULL, text); /* refused before it is read */
    upload_expect(w, &c, 413, "", NULL);
    assert_int_equal(w->creates, 0);
    assert_false(results_busy(w->results));
}

enum { AT_A_TIME = 32 };

static int awaited_handled;

static bool all_handled(struct world *w)
{
    return w->handled >= awaited_handled;
}

static bool all_reviewed(struct world *w)
{
    return w->reviews >= awaited_handled;
}

static void only_so_many_at_a_time(void **state)
{
    struct world *w = *state;
    struct client clients[AT_A_TIME];
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    world_block_worker(w);
    for (size_t i = 0; i < AT_A_TIME; i++)
        upload_send(w, &clients[i], NULL, NULL, "abc");
    awaited_handled = AT_A_TIME;
    world_pump(w, all_reviewed);
    upload(w, 503, "too many uploads at a time");
    assert_int_equal(w->reviews, AT_A_TIME);
    sem_post(&w->block);
    for (size_t i = 0; i < AT_A_TIME; i++)
        upload_expect(w, &clients[i], 200, "mac", NULL);
    upload(w, 200, "mac");
}

/* Few large ones are as many small ones. */
static void only_so_many_bytes_at_a_time(void **state)
{
    struct world *w = *state;
    enum { LARGE = 5 << 19, FIT = 3 };
    struct client clients[FIT];
    world_add_profile(w, STORED_CONFIG_MAP, NULL);
    world_add_pod(w);
    _cleanup_(freep) char *text = xcalloc(1, LARGE + 1);
    memset(text, 'x', LARGE);
    world_block_worker(w);
    for (size_t i = 0; i < FIT; i++)
        upload_send(w, &clients[i], NULL, NULL, text);
    awaited_handled = FIT;
    world_pump(w, all_reviewed);
    struct client c;
    upload_send(w, &c, NULL, NULL, text);
    upload_expect(w, &c, 503, "too many uploads at a time", NULL);
    sem_post(&w->block);
    for (size_t i = 0; i < FIT; i++)
        upload_expect(w, &clients[i], 413, "ResultTooLarge", NULL);
}

static bool is_idle(struct world *w)
{
    return all_handled(w) && !results_busy(w->results) && w->creates > 0;
}

static void a_client_that_does_not_wait(void **state)
{
    struct world *w = *state;
    struct client c;
    world_add_profile(w, STORED_CONFIG_MAP, "mine");
    world_add_pod(w);
    upload_send(w, &c, NULL, NULL, "abc");
    while (!w->handled)
        usleep(200);
    client_close(&c);
    awaited_handled = 1;
    world_pump(w, is_idle);
    assert_int_equal(sim_do(w->server, "GET", MAP_PATH "mine", "", "", NULL), 200);
    upload(w, 200, "mac"); /* it comes again */
}

/* The end of the program, with uploads at each stage. */

enum stage { STAGE_ARRIVED, STAGE_REVIEW, STAGE_QUEUED, STAGE_CHECKED, STAGE_CREATE, STAGE_COUNT };

static struct worker_task marker;
static sem_t marked;

static void mark(struct worker_task *task)
{
    (void)task;
    sem_post(&marked);
}

static void nothing(struct worker_task *task)
{
    (void)task;
}

static bool create_hangs(struct world *w)
{
    return w->reviews > 0 && sim_apiserver_counts(w->server).faults > 0;
}

static void bring_to(struct world *w, enum stage stage)
{
    awaited_handled = 1;
    switch (stage) {
    case STAGE_REVIEW:
        sim_apiserver_set_faults(w->server, &(struct sim_faults){.hung = 1000});
        world_pump(w, all_handled);
        sim_run(&w->time, w->loop, 100);
        assert_int_equal(w->reviews, 0);
        break;
    case STAGE_QUEUED:
        world_pump(w, all_reviewed);
        sim_run(&w->time, w->loop, 100);
        break;
    case STAGE_CHECKED: /* by the worker, which has said so to a loop that does not turn */
        sem_init(&marked, 0, 0);
        world_pump(w, all_reviewed);
        sim_run(&w->time, w->loop, 100);
        marker = (struct worker_task){.run = mark, .done = nothing};
        assert_int_equal(worker_submit(w->worker, &marker, NULL), 0);
        sem_post(&w->block);
        while (sem_wait(&marked))
            ;
        sem_destroy(&marked);
        break;
    case STAGE_CREATE:
        w->hang_after_review = true;
        world_pump(w, create_hangs);
        break;
    case STAGE_ARRIVED:
    case STAGE_COUNT:
        while (!w->handled)
            usleep(200);
        break;
    }
}

static void ends_at_every_stage(void **state)
{
    (void)state;
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        struct client c;
        struct world *w = &world;
        world_set_up(w);
        world_add_profile(w, STORED_CONFIG_MAP, NULL);
        world_add_pod(w);
        if (stage == STAGE_QUEUED || stage == STAGE_CHECKED)
            world_block_worker(w);
        upload_send(w, &c, NULL, NULL, "abc");
        bring_to(w, stage);
        assert_int_equal(results_busy(w->results), stage != STAGE_ARRIVED);
        world_stop_endpoint(w);
        sim_run(&w->time, w->loop, 60000); /* no call comes back to what is gone */
        assert_int_equal(w->creates, 0);
        assert_true(client_sees_end(&c, 1000));
        client_close(&c);
        world_tear_down(w);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    const struct CMUnitTest tests[] = {
        TEST(stores_a_config_map),
        TEST(stores_a_secret),
        TEST(a_second_upload_replaces_the_first),
        TEST(what_is_somebody_elses_stays),
        TEST(an_object_that_vanishes_is_tried_again),
        TEST(refusals_of_the_api_server),
        TEST(an_api_server_that_is_down),
        TEST(tokens_are_judged),
        TEST(strangers_cost_the_api_server_nothing),
        TEST(too_early),
        TEST(what_is_wrong_or_too_large),
        TEST(only_so_many_at_a_time),
        TEST(only_so_many_bytes_at_a_time),
        TEST(a_client_that_does_not_wait),
        cmocka_unit_test(ends_at_every_stage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
