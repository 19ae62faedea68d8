#include "controller/sweep.h"

#include "api/pyspyprofile.h"
#include "base/alloc.h"
#include "base/log.h"
#include "controller/controller.h"

#define PAGE          100
#define PASS_MAX_MS   (600 * 1000) /* between two passes, when nothing is known to be due */
#define PASS_MIN_MS   (5 * 1000)
#define FIRST_PASS_MS (10 * 1000) /* the start has better things to do */
#define BATCH_MAX     500         /* deletions of one pass; the rest waits for the next */
#define FINISHED      "status.phase!=Pending,status.phase!=Running"

struct expired {
    struct str name, namespace_, uid;
};

struct sweep {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct random_source *random;
    struct loop_timer timer;
    struct kube_call *call;
    bool running;
    size_t namespace_index;
    char *continue_token;
    int64_t next_due_ms; /* wall; the earliest end of life seen in this pass; 0 none */
    struct arena *arena; /* of one pass */
    struct expired expired[BATCH_MAX];
    size_t n_expired, deleted;
    bool no_selector; /* refused: an old API server */
};

static void next_page(struct sweep *s);
static void delete_next(struct sweep *s);

static void arm(struct sweep *s, int64_t delay_ms)
{
    if (s->running)
        loop_timer_arm(s->loop, &s->timer, delay_ms);
}

static void end_pass(struct sweep *s)
{
    int64_t now_ms = clock_wall_ms(loop_clock(s->loop));
    int64_t delay = PASS_MAX_MS;
    if (s->next_due_ms && s->next_due_ms - now_ms < delay)
        delay = s->next_due_ms - now_ms;
    if (s->n_expired == BATCH_MAX || delay < PASS_MIN_MS)
        delay = PASS_MIN_MS;
    arena_destroy(TAKE(s->arena));
    arm(s, delay);
}

static void begin_pass(struct loop_timer *timer)
{
    struct sweep *s = CONTAINER_OF(timer, struct sweep, timer);
    if (s->call || s->arena) /* one at a time */
        return;
    s->arena = arena_create(0);
    s->n_expired = s->deleted = s->namespace_index = 0;
    s->next_due_ms = 0;
    free(TAKE(s->continue_token));
    next_page(s);
}

static void deleted(void *context, struct kube_object *object, struct err *err)
{
    struct sweep *s = context;
    (void)object;
    s->call = NULL;
    const struct expired *e = &s->expired[s->deleted++];
    if (!err->code)
        log_info("profile removed after its ttlSecondsAfterFinished",
                 LOG_S("namespace", e->namespace_), LOG_S("name", e->name));
    else if (err->code && err->code != ERR_NOT_FOUND && err->code != ERR_CONFLICT)
        log_warn("cannot remove an expired profile", LOG_S("namespace", e->namespace_),
                 LOG_S("name", e->name), LOG_ERR(err));
    delete_next(s);
}

static void delete_next(struct sweep *s)
{
    if (s->deleted == s->n_expired || !s->running) {
        end_pass(s);
        return;
    }
    const struct expired *e = &s->expired[s->deleted];
    _cleanup_(buf_finish) struct buf body = BUF_INIT(4096);
    kube_delete_options(&body, e->uid);
    s->call = kube_send(s->client,
                        &(struct kube_request){.verb = KUBE_DELETE,
                                               .resource = &resource_profiles,
                                               .namespace_ = e->namespace_,
                                               .name = e->name,
                                               .body = buf_str(&body),
                                               .discard_reply = true},
                        deleted, s);
}

static void item(void *context, struct kube_object *object)
{
    struct sweep *s = context;
    int64_t ttl_s = json_int(json_at(object->tree, "spec", "ttlSecondsAfterFinished", NULL), -1);
    struct str ended = json_text(json_at(object->tree, "status", "completionTime", NULL));
    int64_t ended_ms;
    if (ttl_s < 0 || time_parse(ended, &ended_ms) < 0)
        return;
    int64_t due_ms = ended_ms + ttl_s * 1000;
    if (due_ms <= clock_wall_ms(loop_clock(s->loop)) && s->n_expired < BATCH_MAX)
        s->expired[s->n_expired++] =
            (struct expired){.name = arena_str(s->arena, object->name),
                             .namespace_ = arena_str(s->arena, object->namespace_),
                             .uid = arena_str(s->arena, object->uid)};
    else if (!s->next_due_ms || due_ms < s->next_due_ms)
        s->next_due_ms = due_ms;
}

static void page_end(void *context, struct str resource_version, struct str continue_token,
                     struct err *err)
{
    struct sweep *s = context;
    (void)resource_version;
    s->call = NULL;
    if (err && err->http_status == 400 && !s->no_selector) {
        s->no_selector = true;
        next_page(s);
        return;
    }
    free(TAKE(s->continue_token));
    if (err) {
        log_warn("cannot list finished profiles", LOG_ERR(err));
        delete_next(s);
        return;
    }
    if (continue_token.len)
        s->continue_token = str_dup(continue_token);
    else
        s->namespace_index++;
    size_t n = s->config->watch_namespaces.len;
    if (s->namespace_index >= (n ? n : 1) || s->n_expired == BATCH_MAX || !s->running)
        delete_next(s);
    else
        next_page(s);
}

static void next_page(struct sweep *s)
{
    const struct json_str_array *namespaces = &s->config->watch_namespaces;
    s->call = kube_list(
        s->client,
        &(struct kube_list_options){
            .resource = &resource_profiles,
            .namespace_ = namespaces->len ? namespaces->items[s->namespace_index] : STR_NULL,
            .field_selector = s->no_selector ? NULL : FINISHED,
            .continue_token = s->continue_token,
            .limit = PAGE},
        &(struct kube_list_handlers){.item = item, .end = page_end, .context = s});
}

int sweep_create(const struct sweep_options *options, struct sweep **ret, struct err *err)
{
    (void)err;
    struct sweep *s = xcalloc(1, sizeof(*s));
    s->config = options->config;
    s->loop = options->loop;
    s->client = options->client;
    s->random = options->random;
    s->timer.fire = begin_pass;
    *ret = s;
    return 0;
}

void sweep_destroy(struct sweep *s)
{
    if (!s)
        return;
    sweep_stop(s);
    kube_cancel(s->client, s->call);
    arena_destroy(s->arena);
    free(s->continue_token);
    free(s);
}

void sweep_start(struct sweep *s)
{
    s->running = true;
    arm(s, FIRST_PASS_MS + (int64_t)random_below(s->random, 1000));
}

void sweep_stop(struct sweep *s)
{
    s->running = false;
    loop_timer_disarm(s->loop, &s->timer);
}

void sweep_hint(struct sweep *s, int64_t ttl_s)
{
    int64_t delay = ttl_s * 1000 + 1000; /* completionTime has whole seconds */
    if (ttl_s < 0 || !s->running || delay >= PASS_MAX_MS)
        return;
    int64_t due_ms = clock_wall_ms(loop_clock(s->loop)) + delay;
    if (s->arena) { /* in a pass, whose lists may be from before */
        if (!s->next_due_ms || due_ms < s->next_due_ms)
            s->next_due_ms = due_ms;
    } else if (!loop_timer_armed(&s->timer) || s->timer.node.key - loop_now(s->loop) > delay) {
        arm(s, delay);
    }
}
