/* Hands the results in: one POST to the result endpoint, tried again with back-off until it says
 * yes, says never, or the deadline passes. */
#include "base/backoff.h"
#include "base/random.h"
#include "crypto/digest.h"
#include "loop/http.h"
#include "runner/run.h"

#define TOKEN_MAX     16384
#define ANSWER_MAX    65536
#define TRY_MS        60000
#define AFTER_TERM_MS 3000 /* for the try that is under way when SIGTERM comes */

enum verdict { VERDICT_STORED, VERDICT_AGAIN, VERDICT_NEVER };

struct attempt {
    struct run *run;
    struct http_call *call;
    bool done;
    enum verdict verdict;
    int64_t retry_after_ms;
    char message[640]; /* why not */
    int reason;        /* of VERDICT_NEVER, and of AGAIN when time is over */
};

/* A 4xx will be the same next time, but for these. 401: the token may have been renewed since. */
static bool may_change(int status)
{
    return status >= 500 || status == 401 || status == 408 || status == 429;
}

/* The endpoint answers failures as the Kubernetes API does: a metav1.Status with a reason of ours,
 * where it has one. */
static void refuse(struct attempt *a, const struct http_reply *reply)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree = NULL;
    json_parse(arena, reply->body, NULL, &tree, NULL);
    struct str message = json_text(json_get(tree, "message"));
    int reason = api_enum_find(profile_reason_names, json_text(json_get(tree, "reason")));
    if (reason <= REASON_NONE || reason == REASON_INVALID) /* Kubernetes has an Invalid, too */
        reason = reply->status == 413                           ? REASON_RESULT_TOO_LARGE
                 : reply->status >= 500 || reply->status == 429 ? REASON_STORAGE_UNAVAILABLE
                                                                : REASON_STORAGE_FORBIDDEN;
    a->verdict = may_change(reply->status) ? VERDICT_AGAIN : VERDICT_NEVER;
    a->reason = reason;
    a->retry_after_ms = reply->retry_after_ms;
    if (message.len > 0)
        snprintf(a->message, sizeof(a->message), "%.*s", STR_ARG(message));
    else
        snprintf(a->message, sizeof(a->message), "the result endpoint answered %d", reply->status);
}

static void accept(struct attempt *a, const struct http_reply *reply)
{
    struct run *run = a->run;
    const struct json *tree;
    struct receipt receipt;
    struct err err = ERR_INIT;
    /* Copied first: the receipt's texts point into what was parsed. */
    struct str body = arena_str(run->arena, reply->body);
    if (json_parse(run->arena, body, NULL, &tree, &err) < 0 ||
        receipt_decode(run->arena, tree, &receipt, &err) < 0) {
        a->verdict = VERDICT_AGAIN;
        a->reason = REASON_STORAGE_UNAVAILABLE;
        snprintf(a->message, sizeof(a->message), "receipt: %s", err.message);
        return;
    }
    run->receipt = arena_alloc(run->arena, sizeof(*run->receipt));
    *run->receipt = receipt;
    a->verdict = VERDICT_STORED;
}

static void on_done(void *context, const struct http_reply *reply, struct err *err)
{
    struct attempt *a = context;
    a->done = true;
    a->call = NULL;
    if (!reply) {
        a->verdict = VERDICT_AGAIN;
        a->reason = REASON_STORAGE_UNAVAILABLE;
        snprintf(a->message, sizeof(a->message), "%s", err->message);
    } else if (reply->status >= 200 && reply->status < 300) {
        accept(a, reply);
    } else {
        refuse(a, reply);
    }
}

static bool attempt_done(void *context)
{
    return ((struct attempt *)context)->done;
}

/* The kubelet renews the projected token in its file, so it is read for every try. */
static int start(struct attempt *a, struct transport *transport, struct str body, struct err *err)
{
    struct run *run = a->run;
    _cleanup_(crypto_wipe_buf) struct buf token = BUF_INIT(TOKEN_MAX);
    _cleanup_(crypto_wipe_buf) struct buf bearer = BUF_INIT(TOKEN_MAX + 16);
    int r = buf_read_file(&token, run->options->token, err);
    if (r < 0)
        return r;
    buf_append_cstr(&bearer, "Bearer ");
    buf_append_str(&bearer, str_trim(buf_str(&token)));

    struct http_header headers[] = {
        {STR("Authorization"), buf_str(&bearer)},
        {STR("Content-Type"), STR("application/json")},
        {STR("Accept"), STR("application/json")},
    };
    struct tls_config tls = {.ca = run->task.ca, .proxy_url = ""};
    struct http_request request = {
        .method = "POST",
        .url = arena_cstr(run->arena, run->task.upload_url),
        .headers = headers,
        .n_headers = ARRAY_SIZE(headers),
        .body = body,
        .tls = &tls,
        .timeout_ms = TRY_MS,
        .max_response = ANSWER_MAX,
    };
    struct http_handlers handlers = {.on_done = on_done, .context = a};
    a->call = transport->start(transport, &request, &handlers);
    return 0;
}

static void try_once(struct attempt *a, struct transport *transport, struct str body)
{
    struct err err = ERR_INIT;
    if (start(a, transport, body, &err) < 0) {
        a->verdict = VERDICT_AGAIN;
        a->reason = REASON_STORAGE_UNAVAILABLE;
        snprintf(a->message, sizeof(a->message), "%s", err.message);
        return;
    }
    if (!run_wait(a->run, attempt_done, a, -1)) {
        /* SIGTERM: what is on its way may arrive. */
        int64_t until = clock_monotonic_ms(&clock_system) + AFTER_TERM_MS, left;
        while (!a->done && (left = until - clock_monotonic_ms(&clock_system)) > 0)
            loop_step(a->run->loop, (int)left, NULL);
    }
    if (!a->done) {
        transport->cancel(transport, a->call);
        a->verdict = VERDICT_AGAIN;
        a->reason = REASON_STORAGE_UNAVAILABLE;
        snprintf(a->message, sizeof(a->message), "cancelled during the upload");
    }
}

static int upload(struct run *run, struct transport *transport, struct str body)
{
    struct backoff backoff = {.first_ms = 500, .max_ms = 30000, .factor = 2.0, .jitter = 1.0};
    int64_t deadline = clock_monotonic_ms(&clock_system) + run->options->upload_deadline_ms;
    for (int tries = 1;; tries++) {
        struct attempt a = {.run = run};
        try_once(&a, transport, body);
        if (a.verdict == VERDICT_STORED) {
            log_info("stored", LOG_I("tries", tries), LOG_S("kind", run->receipt->kind),
                     LOG_S("name", run->receipt->name), LOG_I("bytes", body.len));
            return 0;
        }
        if (a.verdict == VERDICT_NEVER)
            return run_fail(run, a.reason, "%s", a.message);

        int64_t now = clock_monotonic_ms(&clock_system);
        int64_t wait = backoff_next(&backoff, now, &random_system);
        if (a.retry_after_ms > wait)
            wait = a.retry_after_ms;
        log_warn("upload failed", LOG_I("tries", tries), LOG_C("err", a.message),
                 LOG_I("againInMs", wait));
        if (now + wait > deadline)
            return run_fail(run, a.reason, "given up after %d tries: %s", tries, a.message);
        run_wait(run, NULL, NULL, wait);
        if (run->cancelled)
            return run_fail(run, REASON_CANCELLED,
                            "cancelled before the results were stored; last try: %s", a.message);
    }
}

int run_upload_over(struct run *run, struct transport *transport)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(256u << 20);
    struct err err = ERR_INIT;
    upload_write(&body, &run->upload);
    if (buf_error(&body, "the upload", &err) < 0)
        return run_fail(run, REASON_RESULT_TOO_LARGE, "%s", err.message);
    return upload(run, transport, buf_str(&body));
}

int run_upload(struct run *run)
{
    struct transport *transport;
    struct err err = ERR_INIT;
    if (http_transport_create(run->loop, "pyspy-runner/" PYSPY_OPERATOR_VERSION, &transport, &err) <
        0)
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "%s", err.message);
    int r = run_upload_over(run, transport);
    http_transport_destroy(transport);
    return r;
}
