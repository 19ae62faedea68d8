#include "controller/results.h"

#include "base/alloc.h"
#include "base/list.h"
#include "base/log.h"
#include "controller/store.h"
#include "crypto/digest.h"

#define TOKEN_MAX     8192
#define OBJECT_MAX    (4u << 20)
#define MAX_UNDER_WAY 32
/* Of bodies. Each is held five times until it is stored: as it came, decoded, as an object, and in
 * the two layers of the client. */
#define MAX_UNDER_WAY_BYTES (8u << 20)

struct results {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct controller *controller;
    struct identity *identity;
    struct worker *worker;
    struct telemetry *telemetry;
    struct list handovers; /* under way */
    int under_way;
    size_t under_way_bytes;
};

/* One upload on its way. */
struct handover {
    struct list link;
    struct results *results;
    struct http_exchange *exchange;
    size_t bytes; /* of the body */
    struct worker_task task;
    struct arena *arena;
    struct str namespace_, name, uid; /* of the profile, from the path */
    struct store_target target;
    struct upload upload;
    struct receipt receipt;
    struct buf object; /* what is sent to the API server */
    bool patch;        /* the second try, on an object that exists */
    struct err failure;
    struct kube_call *call;
};

static void handover_free(struct handover *h)
{
    list_remove(&h->link);
    h->results->under_way--;
    h->results->under_way_bytes -= h->bytes;
    arena_destroy(h->arena);
    buf_finish(&h->object);
    free(h);
}

/* HTTP status, reason and message to the runner; 4xx tells it not to try again. */
static void refuse(struct handover *h, int status, const char *reason, const char *message)
{
    log_warn("result refused", LOG_S("namespace", h->namespace_), LOG_S("name", h->name),
             LOG_I("status", status), LOG_C("reason", reason), LOG_C("err", message));
    telemetry_upload(h->results->telemetry, status);
    http_respond_error(h->exchange, status, reason, message);
    handover_free(h);
}

static void answer(struct handover *h)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(64u << 10);
    struct json_writer w = JSON_WRITER(&body);
    identity_sign(h->results->identity, h->arena, h->uid, &h->receipt);
    receipt_write(&w, NULL, &h->receipt);
    log_info("result stored", LOG_S("namespace", h->namespace_), LOG_S("name", h->name),
             LOG_S("kind", h->receipt.kind), LOG_S("object", h->receipt.name),
             LOG_I("files", h->receipt.files.len));
    telemetry_upload(h->results->telemetry, 200);
    http_respond(h->exchange, 200, "application/json", buf_str(&body));
    handover_free(h);
}

static void send_object(struct handover *h);

static void stored(void *context, struct kube_object *object, struct err *err)
{
    struct handover *h = context;
    (void)object;
    h->call = NULL;
    if (!err->code) {
        answer(h);
        return;
    }
    const char *forbidden = profile_reason_names[REASON_STORAGE_FORBIDDEN];
    if (err->code == ERR_EXISTS && !h->patch) {
        /* From an earlier try of the same profile, or somebody else's: the patch finds out. */
        struct err failure = ERR_INIT;
        h->patch = true;
        buf_clear(&h->object);
        if (store_render_patch(&h->object, &h->target, &h->upload, &failure) == 0)
            send_object(h);
        else
            refuse(h, 500, profile_reason_names[REASON_STORAGE_UNAVAILABLE], failure.message);
    } else if (h->patch && err->http_status == 422) {
        _cleanup_(freep) char *message =
            xasprintf("%.*s %.*s exists and is not this profile's; choose another name in "
                      "spec.output",
                      STR_ARG(h->receipt.kind), STR_ARG(h->receipt.name));
        refuse(h, 403, forbidden, message);
    } else if (err->code == ERR_TOO_LARGE || err->http_status == 413) {
        refuse(h, 413, profile_reason_names[REASON_RESULT_TOO_LARGE], err->message);
    } else if (err->code == ERR_FORBIDDEN || err->code == ERR_INVALID ||
               (err->code == ERR_NOT_FOUND && !h->patch)) { /* patch: deleted since; once more */
        refuse(h, 403, forbidden, err->message);
    } else {
        refuse(h, 503, profile_reason_names[REASON_STORAGE_UNAVAILABLE], err->message);
    }
}

static void send_object(struct handover *h)
{
    struct results *r = h->results;
    h->call = kube_send(r->client,
                        &(struct kube_request){.verb = h->patch ? KUBE_PATCH : KUBE_CREATE,
                                               .patch = KUBE_PATCH_JSON,
                                               .resource = h->target.secret ? &resource_secrets
                                                                            : &resource_config_maps,
                                               .namespace_ = h->namespace_,
                                               .name = h->patch ? h->target.object_name : STR_NULL,
                                               .body = buf_str(&h->object),
                                               .discard_reply = true},
                        stored, h);
}

static void check_run(struct worker_task *task)
{
    struct handover *h = CONTAINER_OF(task, struct handover, task);
    if (store_check(h->arena, http_exchange_body(h->exchange), &h->target, &h->upload, &h->receipt,
                    &h->failure) == 0)
        store_render_object(&h->object, &h->target, &h->upload, &h->failure);
}

static void check_done(struct worker_task *task)
{
    struct handover *h = CONTAINER_OF(task, struct handover, task);
    if (h->failure.code == ERR_TOO_LARGE)
        refuse(h, 413, profile_reason_names[REASON_RESULT_TOO_LARGE], h->failure.message);
    else if (h->failure.code)
        refuse(h, 422, "Invalid", h->failure.message);
    else
        send_object(h);
}

/* What the token must say: that it is of the Pod of this profile's Job. */
static bool token_fits(const struct handover *h, const struct token_review *review,
                       const struct kube_object *runner, struct err *err)
{
    const struct config *config = h->results->config;
    _cleanup_(freep) char *user =
        xasprintf("system:serviceaccount:%.*s:%.*s", STR_ARG(config->namespace_),
                  STR_ARG(config->runner.service_account_name));
    bool audience = false;
    for (size_t i = 0; i < review->audiences.len; i++)
        audience = audience || str_is(review->audiences.items[i], TASK_TOKEN_AUDIENCE);
    if (!review->authenticated || !audience || !str_is(review->username, user)) {
        err_set(err, ERR_UNAUTHORIZED, "the token is not one of a profiling Job");
        return false;
    }
    if (!runner || !str_eq(review->pod_uid, runner->uid)) {
        err_set(err, ERR_FORBIDDEN, "the token is not one of this profile's Pod");
        return false;
    }
    return true;
}

static int describe_target(struct handover *h, const struct kube_object *profile, struct err *err)
{
    struct pyspyprofile p;
    int r = pyspyprofile_decode(h->arena, profile->tree, &p, err);
    if (r < 0)
        return r;
    const struct output_object *output =
        p.spec.output.secret ? p.spec.output.secret : p.spec.output.config_map;
    h->target = (struct store_target){
        .namespace_ = h->namespace_,
        .profile_name = h->name,
        .profile_uid = h->uid,
        .object_name = output && output->name.len ? arena_str(h->arena, output->name)
                                                  : profile_result_name(h->arena, h->name, h->uid),
        .secret = p.spec.output.secret != NULL,
        .formats = p.spec.formats,
        .max_bytes = h->results->config->limits.max_result_bytes,
    };
    return 0;
}

static void token_reviewed(void *context, struct kube_object *object, struct err *err)
{
    struct handover *h = context;
    struct token_review review;
    struct err failure = ERR_INIT;
    h->call = NULL;
    if (err->code) {
        refuse(h, 503, profile_reason_names[REASON_STORAGE_UNAVAILABLE], err->message);
        return;
    }
    const struct tracked *t = controller_find(h->results->controller, h->uid);
    if (token_review_decode(h->arena, object->tree, &review, &failure) < 0) {
        refuse(h, 503, profile_reason_names[REASON_STORAGE_UNAVAILABLE], failure.message);
    } else if (!t || !t->profile) {
        refuse(h, 404, "NotFound", "there is no such profile that runs");
    } else if (!token_fits(h, &review, t->runner, &failure)) {
        refuse(h, failure.code == ERR_UNAUTHORIZED ? 401 : 403,
               failure.code == ERR_UNAUTHORIZED ? "Unauthorized" : "Forbidden", failure.message);
    } else if (describe_target(h, t->profile, &failure) < 0) {
        refuse(h, 422, "Invalid", failure.message);
    } else if (worker_submit(h->results->worker, &h->task, &failure) < 0) {
        refuse(h, 503, "TooManyRequests", failure.message);
    }
}

static void review_token(struct handover *h)
{
    struct buf body = BUF_INIT(2 * TOKEN_MAX + 512);
    buf_reserve(&body, TOKEN_MAX + 512);
    struct json_writer w = JSON_WRITER(&body);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "authentication.k8s.io/v1");
    json_put_cstr(&w, "kind", "TokenReview");
    json_begin_object(&w, "spec");
    json_put_str(&w, "token", http_exchange_bearer(h->exchange));
    json_begin_array(&w, "audiences");
    json_put_cstr(&w, NULL, TASK_TOKEN_AUDIENCE);
    json_end_array(&w);
    json_end_object(&w);
    json_end_object(&w);
    h->call = kube_send(h->results->client,
                        &(struct kube_request){.verb = KUBE_CREATE,
                                               .resource = &resource_token_reviews,
                                               .body = buf_str(&body)},
                        token_reviewed, h);
    crypto_wipe_buf(&body);
}

/* On the control thread. What costs nothing comes before what costs the API server a request. */
static void handover_begin(void *arg)
{
    struct handover *h = arg;
    struct results *r = h->results;
    list_append(&r->handovers, &h->link);
    r->under_way++;
    r->under_way_bytes += h->bytes;
    const struct tracked *t = controller_find(r->controller, h->uid);
    if (!r->controller->synced || !identity_ready(r->identity))
        refuse(h, 503, "ServiceUnavailable", "the controller is starting");
    else if (r->under_way > MAX_UNDER_WAY || r->under_way_bytes > MAX_UNDER_WAY_BYTES)
        refuse(h, 503, "TooManyRequests", "too many uploads at a time");
    else if (!t || !t->profile || !str_eq(t->profile->name, h->name) ||
             !str_eq(t->profile->namespace_, h->namespace_))
        refuse(h, 404, "NotFound", "there is no such profile that runs");
    else if (!t->runner)
        refuse(h, 503, "ServiceUnavailable", "the profile's Pod is not known yet");
    else
        review_token(h);
}

bool results_admit(void *context, struct http_exchange *exchange)
{
    (void)context;
    struct str token = http_exchange_bearer(exchange);
    if (token.len && token.len <= TOKEN_MAX)
        return true;
    http_respond_error(exchange, 401, "Unauthorized", "a bearer token is needed");
    return false;
}

void results_handle(void *context, struct http_exchange *exchange)
{
    struct results *r = context;
    struct handover *h = xcalloc(1, sizeof(*h));
    list_init(&h->link);
    h->results = r;
    h->exchange = exchange;
    h->bytes = http_exchange_body(exchange).len;
    h->arena = arena_create(0);
    h->namespace_ = arena_str(h->arena, http_exchange_param(exchange, "namespace"));
    h->name = arena_str(h->arena, http_exchange_param(exchange, "name"));
    h->uid = arena_str(h->arena, http_exchange_param(exchange, "uid"));
    h->object = BUF_INIT(OBJECT_MAX);
    h->task = (struct worker_task){.run = check_run, .done = check_done};
    loop_post(r->loop, handover_begin, h);
}

int results_create(const struct results_options *options, struct results **ret, struct err *err)
{
    (void)err;
    struct results *r = xcalloc(1, sizeof(*r));
    *r = (struct results){.config = options->config,
                          .loop = options->loop,
                          .client = options->client,
                          .controller = options->controller,
                          .identity = options->identity,
                          .worker = options->worker,
                          .telemetry = options->telemetry};
    list_init(&r->handovers);
    *ret = r;
    return 0;
}

bool results_busy(const struct results *r)
{
    return r->under_way > 0;
}

void results_destroy(struct results *r)
{
    if (!r)
        return;
    struct list *node;
    while ((node = list_pop(&r->handovers))) {
        struct handover *h = CONTAINER_OF(node, struct handover, link);
        kube_cancel(r->client, h->call);
        http_respond_error(h->exchange, 503, "ServiceUnavailable", "the controller is stopping");
        handover_free(h);
    }
    free(r);
}
