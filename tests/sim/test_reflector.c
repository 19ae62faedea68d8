/* Whatever the API server and the network do to it, a reflector ends up with the server's state,
 * and what it told on the way is a consistent story. One scenario for each seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/map.h"
#include "cache/reflector.h"
#include "sim_apiserver.h"

enum { SEEDS = 2000, NAMES = 12, WRITES = 60 };

static uint64_t only_seed; /* from the command line; 0: all */

static const char *const selectable[] = {"spec.colour", NULL};
static const struct sim_kind widgets = {"example.dev", "v1", "widgets", "Widget", true, selectable};
static const struct kube_resource resource = {"example.dev", "v1", "widgets"};

struct scenario {
    uint64_t seed;
    struct random_seeded random;
    struct sim_time time;
    struct loop *loop;
    struct sim_apiserver *server;
    struct kube_config *config;
    struct kube_client *client;
    struct reflector *reflector;
    struct sim_selector selector; /* what it should end up with */
    struct map *told;             /* what the calls of changed() add up to */
    int64_t n_told;
    int synced;
};

#define CHECK(s, condition)                                                                        \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %llu: %s", (unsigned long long)(s)->seed, #condition);                  \
    } while (0)

static uint64_t below(struct scenario *s, uint64_t bound)
{
    return random_below(&s->random.source, bound);
}

static struct str key_of(char out[static 128], const struct kube_object *o)
{
    snprintf(out, 128, "%.*s/%.*s", STR_ARG(o->namespace_), STR_ARG(o->name));
    return str_of(out);
}

static int64_t version_of(const struct kube_object *o)
{
    int64_t version = -1;
    str_to_i64(o->resource_version, 0, INT64_MAX, &version);
    return version;
}

static void changed(void *context, enum cache_change change, struct kube_object *old,
                    struct kube_object *now)
{
    struct scenario *s = context;
    char text[128];
    s->n_told++;
    struct str key = key_of(text, now ? now : old);
    CHECK(s, map_get(s->told, key) == old);
    CHECK(s, (change == CACHE_ADDED) == (old == NULL));
    CHECK(s, (change == CACHE_DELETED) == (now == NULL));
    if (old && now) {
        CHECK(s, str_eq(old->uid, now->uid));
        CHECK(s, version_of(now) > version_of(old));
    }
    if (now)
        map_set(s->told, key, kube_object_ref(now));
    else
        map_remove(s->told, key);
    kube_object_unref(old); /* the reference that `told` held */
}

static void synced(void *context)
{
    ((struct scenario *)context)->synced++;
}

/* A copy that keeps metadata alone, so that the big object's memory goes. */
static struct kube_object *shrink(void *context, struct kube_object *object)
{
    (void)context;
    struct arena *arena = arena_create(256);
    char *text = arena_printf(arena,
                              "{\"metadata\":{\"name\":\"%.*s\",\"namespace\":\"%.*s\",\"uid\":"
                              "\"%.*s\",\"resourceVersion\":\"%.*s\"}}",
                              STR_ARG(object->name), STR_ARG(object->namespace_),
                              STR_ARG(object->uid), STR_ARG(object->resource_version));
    const struct json *tree = NULL;
    assert_int_equal(json_parse(arena, str_of(text), NULL, &tree, NULL), 0);
    return kube_object_create(arena, tree);
}

static void set_up(struct scenario *s, uint64_t seed)
{
    static const char *const environment[] = {"KUBERNETES_SERVICE_HOST=127.0.0.1",
                                              "KUBERNETES_SERVICE_PORT=443", NULL};
    struct err err = ERR_INIT;
    *s = (struct scenario){.seed = seed};
    random_seed(&s->random, seed);
    sim_time_init(&s->time);
    assert_int_equal(loop_create(&s->time.clock, &s->loop, &err), 0);
    s->server = sim_apiserver_create(s->loop, &s->random.source);
    sim_apiserver_add_kind(s->server, &widgets);
    struct kube_config_options config = {.environment = environment,
                                         .service_account_dir = SIM_DATA "/serviceaccount"};
    assert_int_equal(kube_config_load(&config, &s->config, &err), 0);
    struct kube_client_options client = {.loop = s->loop,
                                         .transport = sim_apiserver_transport(s->server),
                                         .config = s->config,
                                         .random = &s->random.source};
    assert_int_equal(kube_client_create(&client, &s->client, &err), 0);
    s->told = map_create();
}

static void tear_down(struct scenario *s)
{
    reflector_destroy(s->reflector);
    CHECK(s, sim_apiserver_counts(s->server).open == 0);
    for (struct map_iter it = {0}; map_next(s->told, &it);)
        kube_object_unref(it.value);
    map_destroy(s->told);
    kube_client_destroy(s->client);
    kube_config_destroy(s->config);
    sim_apiserver_destroy(s->server);
    loop_destroy(s->loop);
}

static void make_reflector(struct scenario *s)
{
    struct reflector_options o = {.name = "widgets",
                                  .client = s->client,
                                  .loop = s->loop,
                                  .random = &s->random.source,
                                  .resource = &resource,
                                  .changed = changed,
                                  .synced = synced,
                                  .context = s};
    s->selector.kind = &widgets;
    if (below(s, 2))
        o.namespace_ = "a", s->selector.namespace_ = STR("a");
    if (below(s, 3) == 0)
        o.label_selector = "size=big", s->selector.labels = STR("size=big");
    if (below(s, 3) == 0)
        o.field_selector = "spec.colour!=red", s->selector.fields = STR("spec.colour!=red");
    o.metadata_only = below(s, 3) == 0;
    o.no_watch_list = below(s, 2);
    o.page_items = 1 + (int64_t)below(s, NAMES);
    if (below(s, 2))
        o.transform = shrink;
    sim_apiserver_set_watch_list(s->server, below(s, 2));
    struct err err = ERR_INIT;
    assert_int_equal(reflector_create(&o, &s->reflector, &err), 0);
}

static unsigned sometimes(struct scenario *s, unsigned most)
{
    return below(s, 2) ? (unsigned)below(s, most) : 0;
}

static void make_faults(struct scenario *s)
{
    struct sim_faults faults = {
        .lost = sometimes(s, 200),
        .answer_lost = sometimes(s, 200),
        .throttled = sometimes(s, 200),
        .failed = sometimes(s, 200),
        .hung = sometimes(s, 50),
        .stale = sometimes(s, 1000),
        .expired = sometimes(s, 300),
        .too_large = sometimes(s, 300),
        .short_watch = sometimes(s, 300),
        .cut = sometimes(s, 300),
        .error_event = sometimes(s, 100),
        .compacted = sometimes(s, 100),
        .max_latency_ms = (int64_t)sometimes(s, 2000),
    };
    sim_apiserver_set_faults(s->server, &faults);
}

/* Writes one widget: makes it, changes its spec, labels or status, or deletes it. */
static void write_one(struct scenario *s)
{
    static const char *const colours[] = {"red", "green", "blue"};
    char path[128], body[512], folder[96];
    const char *ns = below(s, 2) ? "a" : "b";
    snprintf(folder, sizeof(folder), "/apis/example.dev/v1/namespaces/%s/widgets", ns);
    unsigned name = (unsigned)below(s, NAMES);
    snprintf(path, sizeof(path), "%s/w%u", folder, name);
    snprintf(body, sizeof(body),
             "{\"metadata\":{\"name\":\"w%u\",\"labels\":{\"size\":\"%s\"}},"
             "\"spec\":{\"colour\":\"%s\",\"text\":\"\\\"}]%llu\"}}",
             name, below(s, 2) ? "big" : "small", colours[below(s, 3)],
             (unsigned long long)below(s, 1000));
    switch (below(s, 5)) {
    case 0:
        sim_do(s->server, "DELETE", path, "", "", NULL);
        break;
    case 1:
        sim_do(s->server, "DELETE", path, "", "", NULL);
        sim_do(s->server, "POST", folder, "", body, NULL);
        break;
    default:
        if (sim_do(s->server, "POST", folder, "", body, NULL) == 409)
            sim_do(s->server, "PATCH", path, "application/merge-patch+json", body, NULL);
    }
}

static void make_trouble(struct scenario *s)
{
    switch (below(s, 12)) {
    case 0:
        sim_apiserver_restart(s->server, (int64_t)below(s, 20000));
        break;
    case 1:
        sim_apiserver_compact(s->server);
        break;
    default:
        write_one(s);
    }
}

static bool is_equal(struct scenario *s)
{
    size_t n;
    struct sim_store *store = sim_apiserver_store(s->server);
    struct kube_object **want = sim_store_list(store, &s->selector, store->version, &n);
    bool equal = reflector_synced(s->reflector) && n == reflector_size(s->reflector) &&
                 n == map_size(s->told);
    for (size_t i = 0; i < n && equal; i++) {
        char text[128];
        struct str key = key_of(text, want[i]);
        struct kube_object *have = reflector_get(s->reflector, key);
        equal = have && str_eq(have->resource_version, want[i]->resource_version) &&
                map_get(s->told, key) == have;
    }
    free(want);
    return equal;
}

static bool holds_equal(void *context)
{
    return is_equal(context);
}

static void run(uint64_t seed)
{
    struct scenario s;
    set_up(&s, seed);
    for (size_t i = below(&s, 20); i > 0; i--)
        write_one(&s);
    make_reflector(&s);
    make_faults(&s);
    reflector_start(s.reflector);
    for (size_t i = below(&s, WRITES); i > 0; i--) {
        make_trouble(&s);
        sim_run(&s.time, s.loop, (int64_t)below(&s, below(&s, 10) ? 500 : 100 * 1000));
    }
    /* The trouble ends: within ten minutes (a hung watch lives for up to 320 s) all is well. */
    sim_apiserver_set_faults(s.server, &(struct sim_faults){0});
    CHECK(&s, sim_run_until(&s.time, s.loop, 600 * 1000, holds_equal, &s));
    /* It may have been equal by chance; by then it is connected. */
    write_one(&s);
    CHECK(&s, sim_run_until(&s.time, s.loop, 600 * 1000, holds_equal, &s));
    sim_run(&s.time, s.loop, 600 * 1000);
    write_one(&s);
    sim_run(&s.time, s.loop, 1000);
    CHECK(&s, is_equal(&s));
    CHECK(&s, s.synced == 1);
    tear_down(&s);
}

static void test_converges_after_any_trouble(void **state)
{
    (void)state;
    if (only_seed) {
        run(only_seed);
        return;
    }
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run(seed);
}

/* A quiet, healthy server: one list, then watches that live their 290 s, and nothing else. */
static void test_is_quiet_when_all_is_well(void **state)
{
    (void)state;
    struct scenario s;
    set_up(&s, 1);
    write_one(&s);
    struct reflector_options o = {.client = s.client,
                                  .loop = s.loop,
                                  .random = &s.random.source,
                                  .resource = &resource,
                                  .changed = changed,
                                  .context = &s,
                                  .no_watch_list = true};
    struct err err = ERR_INIT;
    assert_int_equal(reflector_create(&o, &s.reflector, &err), 0);
    reflector_start(s.reflector);
    sim_run(&s.time, s.loop, 3600 * 1000);
    struct sim_counts counts = sim_apiserver_counts(s.server);
    assert_int_equal(counts.lists, 1);
    assert_in_range(counts.watches, 3600 / 310, 3600 / 290 + 1);
    struct reflector_stats stats;
    reflector_stats(s.reflector, &stats);
    assert_int_equal(stats.errors, 0);
    assert_int_equal(stats.relists, 0);
    assert_true(stats.bookmarks > 0);
    tear_down(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 10);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_converges_after_any_trouble),
        cmocka_unit_test(test_is_quiet_when_all_is_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
