/* The sweep of finished profiles on a scripted API server: what goes when, page by page, and what
 * happens when the API server is old, refuses, or forgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/sweep.h"
#include "sim_apiserver.h"

#define PROFILES_PATH "/apis/" API_GROUP_VERSION "/namespaces/shop/" API_PLURAL

static const char *const selectable[] = {"status.phase", "spec.target.podName", NULL};
static const struct sim_kind profiles = {API_GROUP, API_VERSION, API_PLURAL,
                                         API_KIND,  true,        selectable};
static const struct sim_kind plain_profiles = {API_GROUP, API_VERSION, API_PLURAL,
                                               API_KIND,  true,        NULL};

struct world {
    struct random_seeded random;
    struct sim_time time;
    struct loop *loop;
    struct sim_apiserver *server;
    struct kube_config *kube_config;
    struct kube_client *client;
    struct config *config;
    struct sweep *sweep;
    int lists, selected, deletes; /* requests; selected: lists with a selector */
    int refuse_deletes;           /* so many more */
    int refuse_continue;          /* so many more, with 410 */
    bool without_uid;             /* a deletion came without a precondition */
    const char *swap;             /* made anew before its deletion arrives */
    void (*at_delete)(struct world *w);
};

static struct world world;

static void create(struct world *w, const char *name, const char *ttl, int64_t ended_s_ago)
{
    char ended[TIME_RFC3339_MAX];
    time_format(clock_wall_ms(loop_clock(w->loop)) - ended_s_ago * 1000, ended);
    _cleanup_(freep) char *body =
        xasprintf("{\"metadata\":{\"name\":\"%s\",\"namespace\":\"shop\"},\"spec\":{%s%s}}", name,
                  ttl ? "\"ttlSecondsAfterFinished\":" : "", ttl ? ttl : "");
    _cleanup_(freep) char *path = xasprintf(PROFILES_PATH "/%s/status", name);
    _cleanup_(freep) char *status =
        xasprintf("{\"status\":{\"phase\":\"Completed\",\"completionTime\":\"%s\"}}", ended);
    assert_int_equal(sim_do(w->server, "POST", PROFILES_PATH, "", body, NULL), 201);
    assert_int_equal(sim_do(w->server, "PATCH", path, "application/merge-patch+json", status, NULL),
                     200);
}

static bool exists(struct world *w, const char *name)
{
    return sim_store_get(sim_apiserver_store(w->server), &profiles, STR("shop"), str_of(name)) ||
           sim_store_get(sim_apiserver_store(w->server), &plain_profiles, STR("shop"),
                         str_of(name));
}

static bool on_list(struct world *w, const struct sim_request *request, struct sim_answer *answer)
{
    w->lists++;
    w->selected += strstr(request->query, "fieldSelector=") != NULL;
    if (!strstr(request->query, "continue=") || w->refuse_continue <= 0)
        return false;
    w->refuse_continue--;
    sim_answer_status(answer, 410, "Expired", "The provided continue parameter is too old", NULL);
    return true;
}

static bool on_request(void *context, const struct sim_request *request, struct sim_answer *answer,
                       bool after)
{
    struct world *w = context;
    if (after)
        return false;
    if (strcmp(request->method, "GET") == 0)
        return on_list(w, request, answer);
    assert_string_equal(request->method, "DELETE");
    w->deletes++;
    if (str_find(request->body, STR("\"preconditions\":{\"uid\":\"")) < 0)
        w->without_uid = true;
    if (w->at_delete)
        w->at_delete(w);
    if (w->refuse_deletes > 0) {
        w->refuse_deletes--;
        sim_answer_status(answer, 500, "InternalError", "etcd is away", NULL);
        return true;
    }
    if (w->swap) {
        sim_do(w->server, "DELETE", request->path, "", "", NULL);
        create(w, w->swap, "3600", 0);
        w->swap = NULL;
    }
    return false;
}

static void start_on(struct world *w, const struct sim_kind *kind)
{
    static const char *const environment[] = {"KUBERNETES_SERVICE_HOST=127.0.0.1",
                                              "KUBERNETES_SERVICE_PORT=443", NULL};
    *w = (struct world){0};
    random_seed(&w->random, 1);
    sim_time_init(&w->time);
    assert_int_equal(loop_create(&w->time.clock, &w->loop, NULL), 0);
    w->server = sim_apiserver_create(w->loop, &w->random.source);
    sim_apiserver_add_kind(w->server, kind);
    sim_apiserver_set_hook(w->server, on_request, w);
    struct kube_config_options config = {.environment = environment,
                                         .service_account_dir = SIM_DATA "/serviceaccount"};
    assert_int_equal(kube_config_load(&config, &w->kube_config, NULL), 0);
    assert_int_equal(
        kube_client_create(
            &(struct kube_client_options){.loop = w->loop,
                                          .transport = sim_apiserver_transport(w->server),
                                          .config = w->kube_config,
                                          .random = &w->random.source},
            &w->client, NULL),
        0);
    assert_int_equal(
        config_parse(STR("runner: {image: r}"), STR("pyspy"), STR("p"), &w->config, NULL), 0);
    assert_int_equal(sweep_create(&(struct sweep_options){.config = w->config,
                                                          .loop = w->loop,
                                                          .client = w->client,
                                                          .random = &w->random.source},
                                  &w->sweep, NULL),
                     0);
}

static int set_up(void **state)
{
    start_on(&world, &profiles);
    *state = &world;
    return 0;
}

static int set_up_old(void **state)
{
    start_on(&world, &plain_profiles);
    *state = &world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    assert_false(w->without_uid);
    sweep_destroy(w->sweep);
    kube_client_destroy(w->client);
    assert_int_equal(sim_apiserver_counts(w->server).open, 0);
    config_destroy(w->config);
    kube_config_destroy(w->kube_config);
    sim_apiserver_destroy(w->server);
    loop_destroy(w->loop);
    return 0;
}

static void run(struct world *w, int64_t seconds)
{
    sim_run(&w->time, w->loop, seconds * 1000);
}

static void what_is_due_goes(void **state)
{
    struct world *w = *state;
    create(w, "at-once", "0", 0);
    create(w, "due", "60", 61);
    create(w, "soon", "60", 20); /* 40 s from now: the next pass comes for it */
    create(w, "late", "100000", 100);
    create(w, "ever", NULL, 1 << 20);
    assert_int_equal(sim_do(w->server, "POST", PROFILES_PATH, "",
                            "{\"metadata\":{\"name\":\"new\",\"namespace\":\"shop\"},\"spec\":{"
                            "\"ttlSecondsAfterFinished\":0},\"status\":{}}",
                            NULL),
                     201);
    run(w, 60);
    assert_int_equal(w->lists, 0); /* not the leader */
    sweep_start(w->sweep);
    create(w, "soon2", "60", 20);
    run(w, 15);
    assert_false(exists(w, "at-once"));
    assert_false(exists(w, "due"));
    assert_true(exists(w, "soon2"));
    run(w, 30);
    assert_false(exists(w, "soon"));
    assert_false(exists(w, "soon2"));
    run(w, 10000);
    assert_true(exists(w, "late"));
    assert_true(exists(w, "ever"));
    assert_true(exists(w, "new"));
    assert_int_equal(w->deletes, 4);
    assert_int_equal(w->selected, w->lists);
}

/* Pages are asked for one after the other, and what is over the cap of a pass goes in the next. */
static void many_go_page_by_page(void **state)
{
    struct world *w = *state;
    enum { MANY = 620 };
    for (int i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof(name), "p%d", i);
        create(w, name, "5", 100);
    }
    sweep_start(w->sweep);
    run(w, 12);
    assert_int_equal(w->deletes, 500);
    assert_int_equal(w->lists, 5);
    run(w, 10);
    assert_int_equal(w->deletes, MANY);
    assert_int_equal(w->lists, 7);
    assert_false(exists(w, "p619"));
}

static void an_expired_continue_token_costs_a_pass(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 150; i++) {
        char name[32];
        snprintf(name, sizeof(name), "p%03d", i);
        create(w, name, "5", 100);
    }
    w->refuse_continue = 1;
    sweep_start(w->sweep);
    run(w, 12);
    assert_int_equal(w->deletes, 100); /* of the page that came */
    assert_true(exists(w, "p149"));
    run(w, 610);
    assert_false(exists(w, "p149"));
}

/* A version of the API server that cannot select by status.phase. */
static void without_a_selector(void **state)
{
    struct world *w = *state;
    create(w, "due", "60", 61);
    assert_int_equal(sim_do(w->server, "POST", PROFILES_PATH, "",
                            "{\"metadata\":{\"name\":\"new\",\"namespace\":\"shop\"},\"spec\":{"
                            "\"ttlSecondsAfterFinished\":0}}",
                            NULL),
                     201);
    sweep_start(w->sweep);
    run(w, 12);
    assert_false(exists(w, "due"));
    assert_true(exists(w, "new"));
    assert_int_equal(w->selected, 1);
    run(w, 1300);
    assert_int_equal(w->selected, 1); /* it is not asked again */
    assert_true(w->lists >= 4);
}

static void failed_deletions_are_made_up_for(void **state)
{
    struct world *w = *state;
    create(w, "a", "5", 100);
    create(w, "b", "5", 100);
    w->refuse_deletes = 1;
    sweep_start(w->sweep);
    run(w, 12);
    assert_true(exists(w, "a"));
    assert_false(exists(w, "b")); /* the others do not wait for it */
    run(w, 610);
    assert_false(exists(w, "a"));
}

/* Deleted by the user and made anew under the same name, after the list. */
static void a_namesake_stays(void **state)
{
    struct world *w = *state;
    create(w, "a", "5", 100);
    w->swap = "a";
    sweep_start(w->sweep);
    run(w, 30);
    assert_int_equal(w->deletes, 1);
    assert_true(exists(w, "a"));
}

static void a_hint_shortens_the_wait(void **state)
{
    struct world *w = *state;
    sweep_hint(w->sweep, 0); /* before it leads: nothing */
    run(w, 100);
    assert_int_equal(w->lists, 0);
    sweep_start(w->sweep);
    run(w, 15);
    assert_int_equal(w->lists, 1);
    create(w, "a", "30", 0);
    sweep_hint(w->sweep, 30);
    sweep_hint(w->sweep, 300); /* later than what is due: no longer wait */
    sweep_hint(w->sweep, -1);
    run(w, 29);
    assert_true(exists(w, "a"));
    run(w, 4);
    assert_false(exists(w, "a"));
    sweep_stop(w->sweep);
    sweep_hint(w->sweep, 0);
    create(w, "b", "0", 10);
    run(w, 10000);
    assert_true(exists(w, "b"));
}

static void end_one_meanwhile(struct world *w)
{
    w->at_delete = NULL;
    create(w, "late", "20", 0);
    sweep_hint(w->sweep, 20);
}

/* The list of the pass under way does not have it. */
static void a_hint_in_a_pass_is_kept(void **state)
{
    struct world *w = *state;
    create(w, "a", "5", 100);
    w->at_delete = end_one_meanwhile;
    sweep_start(w->sweep);
    run(w, 12);
    assert_false(exists(w, "a"));
    assert_true(exists(w, "late"));
    run(w, 25);
    assert_false(exists(w, "late"));
}

static void ends_in_the_middle(void **state)
{
    struct world *w = *state;
    create(w, "a", "5", 100);
    sim_apiserver_set_faults(w->server, &(struct sim_faults){.hung = 1000});
    sweep_start(w->sweep);
    run(w, 12);
    assert_int_equal(sim_apiserver_counts(w->server).open, 1);
    sweep_destroy(TAKE(w->sweep));
    assert_int_equal(sim_apiserver_counts(w->server).open, 0);
    run(w, 1000); /* no call comes back to what is gone */
}

static void stop_now(struct world *w)
{
    sweep_stop(w->sweep);
}

/* No deletion after the lease may be gone. */
static void a_stop_in_a_pass_ends_it(void **state)
{
    struct world *w = *state;
    create(w, "a", "5", 100);
    create(w, "b", "5", 100);
    w->at_delete = stop_now;
    sweep_start(w->sweep);
    run(w, 10000);
    assert_int_equal(w->deletes, 1);
    assert_true(exists(w, "b"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    const struct CMUnitTest tests[] = {
        TEST(what_is_due_goes),
        TEST(many_go_page_by_page),
        TEST(an_expired_continue_token_costs_a_pass),
        cmocka_unit_test_setup_teardown(without_a_selector, set_up_old, tear_down),
        TEST(failed_deletions_are_made_up_for),
        TEST(a_namesake_stays),
        TEST(a_hint_shortens_the_wait),
        TEST(a_hint_in_a_pass_is_kept),
        TEST(ends_in_the_middle),
        TEST(a_stop_in_a_pass_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
