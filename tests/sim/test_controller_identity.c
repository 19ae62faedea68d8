/* The identity of the result endpoint on a scripted API server: made once whoever comes first, read
 * again, renewed in time, and what its receipts are worth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "controller/identity.h"
#include "crypto/x509.h"
#include "sim_apiserver.h"

#define SECRET_PATH "/api/v1/namespaces/pyspy/secrets/" IDENTITY_SECRET
#define DAY_MS      86400000LL

static const struct sim_kind secrets = {"", "v1", "secrets", "Secret", false, NULL};

struct replica {
    struct identity *identity;
    struct buf certificate;
    int changes;
};

struct world {
    struct random_seeded random;
    struct sim_time time;
    struct loop *loop;
    struct sim_apiserver *server;
    struct kube_config *kube_config;
    struct kube_client *client;
    struct config *config;
    struct replica replicas[3];
};

static void changed(void *context, struct str certificate, struct str key)
{
    struct replica *r = context;
    assert_int_equal(crypto_cert_matches_key(certificate, key, NULL), 0);
    buf_clear(&r->certificate);
    buf_append_str(&r->certificate, certificate);
    r->changes++;
}

static void start(struct world *w, struct replica *r)
{
    r->certificate = BUF_INIT(CRYPTO_PEM_MAX);
    assert_int_equal(identity_create(&(struct identity_options){.config = w->config,
                                                                .loop = w->loop,
                                                                .client = w->client,
                                                                .random = &w->random.source,
                                                                .changed = changed,
                                                                .context = r},
                                     &r->identity, NULL),
                     0);
    identity_start(r->identity);
}

static int set_up(void **state)
{
    static const char *const environment[] = {"KUBERNETES_SERVICE_HOST=127.0.0.1",
                                              "KUBERNETES_SERVICE_PORT=443", NULL};
    static struct world world;
    struct world *w = &world;
    *w = (struct world){0};
    random_seed(&w->random, 1);
    sim_time_init(&w->time);
    assert_int_equal(loop_create(&w->time.clock, &w->loop, NULL), 0);
    w->server = sim_apiserver_create(w->loop, &w->random.source);
    sim_apiserver_add_kind(w->server, &secrets);
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
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < ARRAY_SIZE(w->replicas); i++) {
        identity_destroy(w->replicas[i].identity);
        buf_finish(&w->replicas[i].certificate);
    }
    kube_client_destroy(w->client);
    config_destroy(w->config);
    kube_config_destroy(w->kube_config);
    sim_apiserver_destroy(w->server);
    loop_destroy(w->loop);
    return 0;
}

static size_t writes(const struct world *w)
{
    return sim_apiserver_store(w->server)->n_changes;
}

/* All know the same certificate and authority. */
static void agree(const struct world *w, size_t n)
{
    const struct replica *a = &w->replicas[0];
    assert_true(identity_ready(a->identity));
    for (size_t i = 1; i < n; i++) {
        const struct replica *b = &w->replicas[i];
        assert_true(identity_ready(b->identity));
        assert_true(str_eq(buf_str(&a->certificate), buf_str(&b->certificate)));
        assert_true(str_eq(identity_ca(a->identity), identity_ca(b->identity)));
    }
}

static void made_once_and_read_again(void **state)
{
    struct world *w = *state;
    struct replica *r = &w->replicas[0];
    start(w, r);
    assert_false(identity_ready(r->identity));
    assert_int_equal(identity_ca(r->identity).len, 0);
    sim_run(&w->time, w->loop, 5000);
    assert_true(identity_ready(r->identity));
    assert_int_equal(r->changes, 1);
    assert_int_equal(writes(w), 1);
    struct str cert = buf_str(&r->certificate);
    assert_int_equal(crypto_cert_issued_by(cert, identity_ca(r->identity), NULL), 0);
    assert_int_equal(crypto_cert_covers(cert, "pyspy-controller.pyspy.svc", NULL), 0);
    assert_true(crypto_cert_covers(cert, "elsewhere", NULL) < 0);
    start(w, &w->replicas[1]); /* comes later: takes what there is */
    sim_run(&w->time, w->loop, 5000);
    agree(w, 2);
    sim_run(&w->time, w->loop, 3 * 3600 * 1000); /* looks again, changes nothing */
    assert_int_equal(writes(w), 1);
    assert_int_equal(r->changes, 1);
}

static void replicas_that_start_together_agree(void **state)
{
    struct world *w = *state;
    sim_apiserver_set_faults(
        w->server, &(struct sim_faults){
                       .max_latency_ms = 300, .lost = 200, .answer_lost = 200, .failed = 100});
    for (size_t i = 0; i < ARRAY_SIZE(w->replicas); i++)
        start(w, &w->replicas[i]);
    sim_run(&w->time, w->loop, 120000);
    agree(w, ARRAY_SIZE(w->replicas));
    assert_int_equal(writes(w), 1);
}

/* A leaf at two thirds of its 90 days, by whichever replica looks first; the authority stays. */
static void renewed_in_time(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < 2; i++)
        start(w, &w->replicas[i]);
    sim_run(&w->time, w->loop, 5000);
    _cleanup_(buf_finish) struct buf ca = BUF_INIT(1u << 16);
    buf_append_str(&ca, identity_ca(w->replicas[0].identity));
    int changes = w->replicas[0].changes;
    w->time.now_ms += 59 * DAY_MS;
    sim_run(&w->time, w->loop, 2 * 3600 * 1000);
    assert_int_equal(w->replicas[0].changes, changes);
    w->time.now_ms += 2 * DAY_MS;
    sim_run(&w->time, w->loop, 3 * 3600 * 1000);
    assert_int_equal(w->replicas[0].changes, changes + 1);
    agree(w, 2);
    assert_true(str_eq(buf_str(&ca), identity_ca(w->replicas[0].identity)));

    /* The authority after two thirds of two years: Jobs are told of the next one at once … */
    w->time.now_ms += 500 * DAY_MS;
    sim_run(&w->time, w->loop, 3 * 3600 * 1000);
    agree(w, 2);
    struct str bundle = identity_ca(w->replicas[0].identity);
    assert_true(str_starts_with(bundle, buf_str(&ca)));
    assert_true(bundle.len > ca.len);
    _cleanup_(buf_finish) struct buf next = BUF_INIT(1u << 16);
    buf_append_str(&next, str_sub(bundle, ca.len, bundle.len));
    struct str leaf = buf_str(&w->replicas[0].certificate);
    assert_int_equal(crypto_cert_issued_by(leaf, buf_str(&ca), NULL), 0);

    /* … and it signs when no Job is left that was told of the former one alone. */
    sim_run(&w->time, w->loop, 28 * 3600 * 1000);
    agree(w, 2);
    assert_true(str_eq(identity_ca(w->replicas[0].identity), buf_str(&next)));
    leaf = buf_str(&w->replicas[0].certificate);
    assert_int_equal(crypto_cert_issued_by(leaf, buf_str(&next), NULL), 0);
}

static void what_is_broken_is_made_anew(void **state)
{
    struct world *w = *state;
    static const char *const breaks[] = {
        "{\"data\":{\"tls.crt\":\"bm9uZQ==\"}}",
        "{\"data\":{\"ca.key\":null}}",
        "{\"data\":{\"receipt.key\":\"c2hvcnQ=\"}}",
        "{\"data\":null}",
        "{\"data\":{\"tls.key\":\"!\"}}",
    };
    start(w, &w->replicas[0]);
    sim_run(&w->time, w->loop, 5000);
    for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
        int changes = w->replicas[0].changes;
        assert_int_equal(sim_do(w->server, "PATCH", SECRET_PATH, "application/merge-patch+json",
                                breaks[i], NULL),
                         200);
        sim_run(&w->time, w->loop, 2 * 3600 * 1000);
        assert_int_equal(w->replicas[0].changes, changes + (strstr(breaks[i], "receipt") ? 0 : 1));
        agree(w, 1);
    }
    sim_do(w->server, "DELETE", SECRET_PATH, "", "", NULL);
    sim_run(&w->time, w->loop, 2 * 3600 * 1000);
    assert_int_equal(sim_do(w->server, "GET", SECRET_PATH, "", "", NULL), 200);
}

static void receipts_are_worth_what_they_say(void **state)
{
    struct world *w = *state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct upload_file file = {.format = STR("raw"), .key = STR("raw.txt"), .sha256 = STR("ab")};
    struct receipt receipt = {.kind = STR("Secret"), .name = STR("n"), .files = {&file, 1}};
    start(w, &w->replicas[0]);
    receipt.mac = STR("");
    assert_false(identity_receipt_valid(w->replicas[0].identity, STR("u-1"), &receipt));
    sim_run(&w->time, w->loop, 5000);
    start(w, &w->replicas[1]);
    sim_run(&w->time, w->loop, 5000);
    identity_sign(w->replicas[0].identity, arena, STR("u-1"), &receipt);
    const struct identity *other = w->replicas[1].identity;
    assert_int_equal(receipt.mac.len, 64);
    assert_true(identity_receipt_valid(other, STR("u-1"), &receipt));
    assert_false(identity_receipt_valid(other, STR("u-2"), &receipt));
    file.sha256 = STR("ac");
    assert_false(identity_receipt_valid(other, STR("u-1"), &receipt));
    file.sha256 = STR("ab");
    struct str mac = receipt.mac;
    receipt.mac = str_sub(mac, 0, 63);
    assert_false(identity_receipt_valid(other, STR("u-1"), &receipt));
    receipt.mac = STR("");
    assert_false(identity_receipt_valid(other, STR("u-1"), &receipt));
    receipt.mac = mac;
    assert_true(identity_receipt_valid(other, STR("u-1"), &receipt));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    const struct CMUnitTest tests[] = {
        TEST(made_once_and_read_again),
        TEST(replicas_that_start_together_agree),
        TEST(renewed_in_time),
        TEST(what_is_broken_is_made_anew),
        TEST(receipts_are_worth_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
