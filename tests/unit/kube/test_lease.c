/* Named after client-go's tools/leaderelection tests where the rules are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kube/lease.h"
#include "kube_fixture.h"
#include "sim_apiserver.h"

#define LEASES "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
#define LEASE  LEASES "/lock"
#define RECORD(holder, version)                                                                    \
    "{\"metadata\":{\"name\":\"lock\",\"namespace\":\"ns\",\"resourceVersion\":\"" version         \
    "\",\"labels\":{\"kept\":\"yes\"}},\"spec\":{\"holderIdentity\":\"" holder                     \
    "\",\"leaseDurationSeconds\":15,\"acquireTime\":\"2025-12-31T00:00:00.000000Z\","              \
    "\"renewTime\":\"2025-12-31T00:00:0" version ".000000Z\",\"leaseTransitions\":4}}"

struct fixture {
    struct kube_fixture kube;
    struct lease *lease;
    struct buf story;
};

static void started(void *context)
{
    buf_appendf(&((struct fixture *)context)->story, "started ");
}

static void stopped(void *context, const char *why)
{
    buf_appendf(&((struct fixture *)context)->story, "stopped(%s) ", why);
}

static void leader(void *context, struct str identity)
{
    buf_appendf(&((struct fixture *)context)->story, "leader=%.*s ", STR_ARG(identity));
}

static void released(void *context)
{
    buf_appendf(&((struct fixture *)context)->story, "released ");
}

static struct lease_options options_of(struct fixture *f)
{
    return (struct lease_options){.client = f->kube.client,
                                  .loop = f->kube.loop,
                                  .random = &f->kube.random.source,
                                  .namespace_ = "ns",
                                  .name = "lock",
                                  .identity = "me",
                                  .duration_ms = 15000,
                                  .renew_deadline_ms = 10000,
                                  .retry_ms = 2000,
                                  .on_started = started,
                                  .on_stopped = stopped,
                                  .on_leader = leader,
                                  .context = f};
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    f->story = BUF_INIT(65536);
    struct lease_options o = options_of(f);
    assert_int_equal(lease_create(&o, &f->lease, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    lease_destroy(f->lease);
    kube_fixture_finish(&f->kube);
    buf_finish(&f->story);
    free(f);
    return 0;
}

static void check(struct fixture *f, int64_t ms, const char *story)
{
    kube_fixture_run(&f->kube, ms);
    assert_int_equal(fake_expected(f->kube.fake), 0);
    assert_string_equal(buf_cstr(&f->story), story);
    buf_clear(&f->story);
}

static void expect_reply(struct fixture *f, const char *method, const char *path, int status,
                         const char *body)
{
    fake_expect(f->kube.fake, method, path);
    fake_reply(f->kube.fake, status, body);
}

static void expect_status(struct fixture *f, const char *method, const char *path, int status,
                          const char *reason)
{
    fake_expect(f->kube.fake, method, path);
    fake_status(f->kube.fake, status, reason);
}

/* A text of the body that was sent last. */
static void check_sent(struct fixture *f, const char *a, const char *b, const char *want)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree;
    struct str body = str_of(fake_sent(f->kube.fake)->body);
    assert_int_equal(json_parse(arena, body, NULL, &tree, NULL), 0);
    const struct json *v = json_at(tree, a, b, NULL);
    assert_non_null(v);
    assert_true(str_is(v->text, want));
}

static void lead(struct fixture *f)
{
    expect_status(f, "GET", LEASE, 404, "NotFound");
    expect_reply(f, "POST", LEASES, 201, RECORD("me", "1"));
    lease_start(f->lease);
    check(f, 10, "leader=me started ");
}

static void test_acquire_from_no_object(void **state)
{
    struct fixture *f = *state;
    lead(f);
    assert_true(lease_is_leader(f->lease));
    check_sent(f, "spec", "holderIdentity", "me");
    check_sent(f, "spec", "leaseDurationSeconds", "15");
    check_sent(f, "spec", "leaseTransitions", "0");
    check_sent(f, "spec", "renewTime", "2026-01-01T00:00:01.000000Z");
    assert_true(fake_sent(f->kube.fake)->urgent);
}

static void test_create_lost_to_another(void **state)
{
    struct fixture *f = *state;
    expect_status(f, "GET", LEASE, 404, "NotFound");
    expect_status(f, "POST", LEASES, 409, "AlreadyExists");
    lease_start(f->lease);
    check(f, 10, "");
    assert_false(lease_is_leader(f->lease));
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "2"));
    check(f, 4400, "leader=other "); /* 2 s and up to 1.2 times more */
}

static void test_acquire_from_released_object(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, "GET", LEASE, 200, RECORD("", "2"));
    expect_reply(f, "PUT", LEASE, 200, RECORD("me", "3"));
    lease_start(f->lease);
    check(f, 10, "leader=me started ");
    check_sent(f, "metadata", "resourceVersion", "2"); /* who else tries, conflicts */
    check_sent(f, "spec", "leaseTransitions", "5");
    check_sent(f, "spec", "acquireTime", "2026-01-01T00:00:01.000000Z");
    assert_non_null(strstr(fake_sent(f->kube.fake)->body, "\"kept\":\"yes\""));
}

static void test_no_acquire_from_led_object(void **state)
{
    struct fixture *f = *state;
    /* Its renewTime is a day old by our wall clock. That says nothing: clocks differ. */
    for (int i = 0; i < 3; i++)
        expect_reply(f, "GET", LEASE, 200, RECORD("other", "2"));
    lease_start(f->lease);
    check(f, 9000, "leader=other ");
    assert_false(lease_is_leader(f->lease));
}

static void test_acquire_from_led_object_with_the_lease_duration_seen_passing(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "2"));
    lease_start(f->lease);
    check(f, 10, "leader=other ");
    /* A renewal begins the 15 s anew. */
    kube_fixture_run(&f->kube, loop_next_timer(f->kube.loop) - 1);
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "3"));
    check(f, 2, "");
    int64_t seen = f->kube.time.now_ms;
    while (f->kube.time.now_ms + loop_next_timer(f->kube.loop) < seen + 15000) {
        kube_fixture_run(&f->kube, loop_next_timer(f->kube.loop) - 1);
        expect_reply(f, "GET", LEASE, 200, RECORD("other", "3"));
        check(f, 2, "");
    }
    kube_fixture_run(&f->kube, loop_next_timer(f->kube.loop) - 1);
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "3"));
    expect_reply(f, "PUT", LEASE, 200, RECORD("me", "4"));
    check(f, 2, "leader=me started ");
    check_sent(f, "spec", "leaseTransitions", "5");
}

static void test_acquire_conflict(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, "GET", LEASE, 200, RECORD("", "2"));
    expect_status(f, "PUT", LEASE, 409, "Conflict");
    lease_start(f->lease);
    check(f, 10, "");
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "3"));
    check(f, 4400, "leader=other ");
}

static void test_renew_already_acquired_object(void **state)
{
    struct fixture *f = *state;
    lead(f);
    /* The leader need not look first. */
    expect_reply(f, "PUT", LEASE, 200, RECORD("me", "2"));
    check(f, 2000, "");
    check_sent(f, "metadata", "resourceVersion", "1");
    check_sent(f, "spec", "leaseTransitions", "4"); /* as the answer had it */
    check_sent(f, "spec", "acquireTime", "2025-12-31T00:00:00.000000Z");
    expect_reply(f, "PUT", LEASE, 200, RECORD("me", "3"));
    check(f, 2000, "");
    check_sent(f, "metadata", "resourceVersion", "2");
}

static void test_acquire_as_ourselves_restarted(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, "GET", LEASE, 200, RECORD("me", "2"));
    expect_reply(f, "PUT", LEASE, 200, RECORD("me", "3"));
    lease_start(f->lease);
    check(f, 10, "leader=me started ");
    check_sent(f, "spec", "leaseTransitions", "4");
}

static void test_renew_conflict_with_our_own_write(void **state)
{
    struct fixture *f = *state;
    lead(f);
    expect_status(f, "PUT", LEASE, 409, "Conflict"); /* somebody labelled it */
    check(f, 2000, "");
    expect_reply(f, "GET", LEASE, 200, RECORD("me", "7"));
    expect_reply(f, "PUT", LEASE, 200, RECORD("me", "8"));
    check(f, 2000, "");
    assert_true(lease_is_leader(f->lease));
}

static void test_lost_to_another(void **state)
{
    struct fixture *f = *state;
    lead(f);
    expect_status(f, "PUT", LEASE, 409, "Conflict");
    check(f, 2000, "");
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "7"));
    check(f, 2000, "stopped(another one holds the lease) ");
    assert_false(lease_is_leader(f->lease));
    check(f, 60000, ""); /* and never tried again: the process is to end */
}

static void test_lost_when_it_cannot_be_renewed_in_time(void **state)
{
    struct fixture *f = *state;
    lead(f);
    for (int i = 0; i < 4; i++) {
        fake_expect(f->kube.fake, "PUT", LEASE);
        fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    }
    check(f, 9900, "");
    assert_true(lease_is_leader(f->lease));
    assert_true(lease_is_healthy(f->lease));
    check(f, 100, "stopped(the lease could not be renewed in time: Connection refused) ");
    assert_false(lease_is_leader(f->lease));
}

/* The deadline counts from when the renewal was sent, not from when its answer came. */
static void test_slow_answers_count(void **state)
{
    struct fixture *f = *state;
    lead(f);
    fake_expect(f->kube.fake, "PUT", LEASE);
    fake_wait(f->kube.fake, 4000);
    fake_reply(f->kube.fake, 200, RECORD("me", "2"));
    fake_expect(f->kube.fake, "PUT", LEASE); /* hangs */
    check(f, 11900, "");
    check(f, 200,
          "stopped(the lease could not be renewed in time: the API server has not answered) ");
    assert_int_equal(fake_open(f->kube.fake), 0);
}

static void test_requests_leave_room_for_a_second_try(void **state)
{
    struct fixture *f = *state;
    lead(f);
    assert_int_equal(fake_sent(f->kube.fake)->timeout_ms, 5000);
}

static void test_release_lease(void **state)
{
    struct fixture *f = *state;
    lead(f);
    expect_reply(f, "PUT", LEASE, 200, RECORD("", "2"));
    lease_release(f->lease, released, f);
    assert_int_equal(f->story.len, 0);
    check(f, 10, "released ");
    check_sent(f, "spec", "holderIdentity", "");
    check_sent(f, "spec", "leaseDurationSeconds", "1");
    check_sent(f, "spec", "leaseTransitions", "4");
    check_sent(f, "metadata", "resourceVersion", "1");
    check(f, 60000, "");
}

static void test_release_waits_for_the_renewal_under_way(void **state)
{
    struct fixture *f = *state;
    lead(f);
    fake_expect(f->kube.fake, "PUT", LEASE);
    fake_wait(f->kube.fake, 500);
    fake_reply(f->kube.fake, 200, RECORD("me", "2"));
    expect_reply(f, "PUT", LEASE, 200, RECORD("", "3"));
    kube_fixture_run(&f->kube, 2000);
    lease_release(f->lease, released, f);
    check(f, 600, "released ");
    check_sent(f, "metadata", "resourceVersion", "2");
}

static void test_release_after_conflict(void **state)
{
    struct fixture *f = *state;
    lead(f);
    expect_status(f, "PUT", LEASE, 409, "Conflict");
    expect_reply(f, "GET", LEASE, 200, RECORD("me", "5"));
    expect_reply(f, "PUT", LEASE, 200, RECORD("", "6"));
    lease_release(f->lease, released, f);
    check(f, 100, "released ");
}

static void test_release_never_takes_it_from_another(void **state)
{
    struct fixture *f = *state;
    lead(f);
    expect_status(f, "PUT", LEASE, 409, "Conflict");
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "5"));
    lease_release(f->lease, released, f);
    check(f, 100, "released ");
}

static void test_release_as_candidate(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "2"));
    lease_start(f->lease);
    check(f, 10, "leader=other ");
    lease_release(f->lease, released, f);
    check(f, 60000, "released ");
}

static void test_release_with_the_server_away(void **state)
{
    struct fixture *f = *state;
    lead(f);
    for (int i = 0; i < 3; i++) {
        fake_expect(f->kube.fake, i % 2 ? "GET" : "PUT", LEASE);
        fake_fail(f->kube.fake, ERR_IO, "Connection refused");
    }
    lease_release(f->lease, released, f);
    check(f, 100, "released ");
}

static void test_new_leader_is_told_once(void **state)
{
    struct fixture *f = *state;
    expect_reply(f, "GET", LEASE, 200, RECORD("other", "2"));
    expect_reply(f, "GET", LEASE, 200, RECORD("third", "3"));
    expect_reply(f, "GET", LEASE, 200, RECORD("third", "4"));
    lease_start(f->lease);
    while (fake_expected(f->kube.fake))
        kube_fixture_run(&f->kube, 100);
    check(f, 10, "leader=other leader=third ");
}

static void test_options(void **state)
{
    struct fixture *f = *state;
    struct lease *l;
    struct lease_options o = options_of(f);
    o.identity = "";
    assert_int_equal(lease_create(&o, &l, NULL), ERR_INVALID);
    o = options_of(f);
    o.renew_deadline_ms = 15000;
    assert_int_equal(lease_create(&o, &l, NULL), ERR_INVALID);
    o = options_of(f);
    o.retry_ms = 9000;
    assert_int_equal(lease_create(&o, &l, NULL), ERR_INVALID);
}

/* Many candidates, a faulty server: at no time do two lead, and somebody always comes to. */

enum { CANDIDATES = 3, SEEDS = 100 };

struct election {
    struct sim_time time;
    struct random_seeded random;
    struct loop *loop;
    struct sim_apiserver *server;
    struct kube_config *config;
    struct kube_client *client;
    struct candidate {
        struct election *election;
        struct lease *lease;
        bool leads;
        int64_t down_until_ms; /* a stopped candidate comes back then */
    } candidates[CANDIDATES];
    uint64_t seed;
    int64_t leaderless_ms;
};

static void leads(void *context)
{
    struct candidate *c = context;
    c->leads = true;
    for (int i = 0; i < CANDIDATES; i++) {
        struct candidate *other = &c->election->candidates[i];
        if (other != c && other->leads)
            fail_msg("seed %llu: two leaders", (unsigned long long)c->election->seed);
    }
}

static void leads_no_more(void *context, const char *why)
{
    (void)why;
    struct candidate *c = context;
    c->leads = false;
}

static void make_candidate(struct election *e, int i)
{
    char identity[16];
    snprintf(identity, sizeof(identity), "c%d-%llu", i,
             (unsigned long long)random_below(&e->random.source, 1000000));
    struct lease_options o = {.client = e->client,
                              .loop = e->loop,
                              .random = &e->random.source,
                              .namespace_ = "ns",
                              .name = "lock",
                              .identity = identity,
                              .duration_ms = 15000,
                              .renew_deadline_ms = 10000,
                              .retry_ms = 2000,
                              .on_started = leads,
                              .on_stopped = leads_no_more,
                              .context = &e->candidates[i]};
    e->candidates[i] = (struct candidate){.election = e};
    assert_int_equal(lease_create(&o, &e->candidates[i].lease, NULL), 0);
    lease_start(e->candidates[i].lease);
}

static void elect(uint64_t seed)
{
    static const struct sim_kind kind = {
        "coordination.k8s.io", "v1", "leases", "Lease", false, NULL};
    struct fixture unused;
    struct election e = {.seed = seed};
    kube_fixture_init(&unused.kube); /* for its configuration */
    random_seed(&e.random, seed);
    sim_time_init(&e.time);
    assert_int_equal(loop_create(&e.time.clock, &e.loop, NULL), 0);
    e.server = sim_apiserver_create(e.loop, &e.random.source);
    sim_apiserver_add_kind(e.server, &kind);
    struct kube_client_options client = {.loop = e.loop,
                                         .transport = sim_apiserver_transport(e.server),
                                         .config = unused.kube.config,
                                         .random = &e.random.source};
    assert_int_equal(kube_client_create(&client, &e.client, NULL), 0);
    struct sim_faults faults = {.lost = 50,
                                .answer_lost = 100,
                                .throttled = 50,
                                .failed = 50,
                                .hung = 30,
                                .max_latency_ms = 1500};
    sim_apiserver_set_faults(e.server, &faults);
    for (int i = 0; i < CANDIDATES; i++)
        make_candidate(&e, i);
    for (int turn = 0; turn < 200; turn++) {
        sim_run(&e.time, e.loop, 1000);
        if (random_below(&e.random.source, 50) == 0)
            sim_apiserver_restart(e.server, (int64_t)random_below(&e.random.source, 20000));
        int i = (int)random_below(&e.random.source, CANDIDATES);
        if (random_below(&e.random.source, 20) == 0) { /* it dies and comes back as another */
            lease_destroy(e.candidates[i].lease);
            make_candidate(&e, i);
        }
    }
    sim_apiserver_set_faults(e.server, &(struct sim_faults){0});
    for (int i = 0; i < CANDIDATES; i++)
        if (!e.candidates[i].leads && !lease_is_leader(e.candidates[i].lease)) {
            lease_destroy(e.candidates[i].lease);
            make_candidate(&e, i);
        }
    sim_run(&e.time, e.loop, 60 * 1000);
    int n = 0;
    for (int i = 0; i < CANDIDATES; i++)
        n += lease_is_leader(e.candidates[i].lease);
    if (n != 1)
        fail_msg("seed %llu: %d leaders", (unsigned long long)seed, n);
    for (int i = 0; i < CANDIDATES; i++)
        lease_destroy(e.candidates[i].lease);
    kube_client_destroy(e.client);
    sim_apiserver_destroy(e.server);
    loop_destroy(e.loop);
    kube_fixture_finish(&unused.kube);
}

static void test_never_two_leaders(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        elect(seed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_acquire_from_no_object),
        TEST(test_create_lost_to_another),
        TEST(test_acquire_from_released_object),
        TEST(test_no_acquire_from_led_object),
        TEST(test_acquire_from_led_object_with_the_lease_duration_seen_passing),
        TEST(test_acquire_conflict),
        TEST(test_renew_already_acquired_object),
        TEST(test_acquire_as_ourselves_restarted),
        TEST(test_renew_conflict_with_our_own_write),
        TEST(test_lost_to_another),
        TEST(test_lost_when_it_cannot_be_renewed_in_time),
        TEST(test_slow_answers_count),
        TEST(test_requests_leave_room_for_a_second_try),
        TEST(test_release_lease),
        TEST(test_release_waits_for_the_renewal_under_way),
        TEST(test_release_after_conflict),
        TEST(test_release_never_takes_it_from_another),
        TEST(test_release_as_candidate),
        TEST(test_release_with_the_server_away),
        TEST(test_new_leader_is_told_once),
        TEST(test_options),
        cmocka_unit_test(test_never_two_leaders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
