#include "runner/upload/post.h"

#include "base/backoff.h"
#include "base/random.h"
#include "crypto/digest.h"

#define TOKEN_MAX 16384
#define REPLY_MAX 65536
#define BODY_MAX  (256u << 20)

enum verdict { VERDICT_STORED, VERDICT_AGAIN, VERDICT_NEVER };

struct attempt {
    struct post *post;
    struct http_call *call;
    struct receipt *receipt; /* of VERDICT_STORED */
    bool done;
    enum verdict verdict;
    int64_t retry_after_ms;
    char message[640]; /* why not */
    int reason;        /* of VERDICT_NEVER, and of AGAIN when time is over */
};

struct pause {
    struct loop_timer timer;
    bool over;
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
    struct arena *arena = a->post->arena;
    const struct json *tree;
    struct receipt receipt;
    struct err err = ERR_INIT;
    if (json_parse(arena, reply->body, NULL, &tree, &err) < 0 ||
        receipt_decode(arena, tree, &receipt, &err) < 0) {
        a->verdict = VERDICT_AGAIN;
        a->reason = REASON_STORAGE_UNAVAILABLE;
        snprintf(a->message, sizeof(a->message), "receipt: %s", err.message);
        return;
    }
    a->receipt = arena_alloc(arena, sizeof(*a->receipt));
    *a->receipt = receipt;
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

/* The kubelet renews the projected token in its file, so it is read for every try. */
static int start(struct attempt *a, struct transport *transport, struct str body, struct err *err)
{
    const struct handover *h = a->post->handover;
    _cleanup_(crypto_wipe_buf) struct buf token = BUF_INIT(TOKEN_MAX);
    _cleanup_(crypto_wipe_buf) struct buf bearer = BUF_INIT(TOKEN_MAX + 16);
    int r = buf_read_file(&token, arena_cstr(a->post->arena, h->token), err);
    if (r < 0)
        return r;
    buf_append_cstr(&bearer, "Bearer ");
    buf_append_str(&bearer, str_trim(buf_str(&token)));

    struct http_header headers[] = {
        {STR("Authorization"), buf_str(&bearer)},
        {STR("Content-Type"), STR("application/json")},
        {STR("Accept"), STR("application/json")},
    };
    struct tls_config tls = {.ca = h->ca, .proxy_url = ""};
    struct http_request request = {
        .method = "POST",
        .url = arena_cstr(a->post->arena, h->url),
        .headers = headers,
        .n_headers = ARRAY_SIZE(headers),
        .body = body,
        .tls = &tls,
        .timeout_ms = HANDOVER_TRY_MS,
        .max_response = REPLY_MAX,
    };
    struct http_handlers handlers = {.on_done = on_done, .context = a};
    a->call = transport->start(transport, &request, &handlers);
    return 0;
}

/* Until the try has ended, and after SIGTERM for a little while only: what is on its way may
 * arrive. */
static void wait_for(struct attempt *a)
{
    int64_t until = -1;
    while (!a->done) {
        int64_t now = clock_monotonic_ms(&clock_system);
        if (a->post->cancelled && until < 0)
            until = now + HANDOVER_TERM_MS;
        if (until >= 0 && now >= until)
            return;
        if (loop_step(a->post->loop, until < 0 ? -1 : (int)(until - now), NULL) < 0)
            return;
    }
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
    wait_for(a);
    if (!a->done) {
        transport->cancel(transport, a->call);
        a->verdict = VERDICT_AGAIN;
        a->reason = REASON_STORAGE_UNAVAILABLE;
        snprintf(a->message, sizeof(a->message), "cancelled during the upload");
    }
}

static void pause_over(struct loop_timer *timer)
{
    CONTAINER_OF(timer, struct pause, timer)->over = true;
}

static void wait_ms(struct post *p, int64_t ms)
{
    struct pause pause = {.timer = {.fire = pause_over}};
    loop_timer_arm(p->loop, &pause.timer, ms);
    while (!pause.over && !p->cancelled && loop_step(p->loop, -1, NULL) >= 0)
        ;
    loop_timer_disarm(p->loop, &pause.timer);
}

static void refused(struct post *p, struct answer *ret, int reason, const char *text)
{
    *ret = (struct answer){.reason = reason, .message = arena_str(p->arena, str_of(text))};
}

static void try_again_and_again(struct post *p, struct transport *transport, struct str body,
                                struct answer *ret)
{
    struct backoff backoff = {.first_ms = 500, .max_ms = 30000, .factor = 2.0, .jitter = 1.0};
    int64_t deadline = clock_monotonic_ms(&clock_system) + p->handover->deadline_ms;
    for (int tries = 1;; tries++) {
        struct attempt a = {.post = p};
        try_once(&a, transport, body);
        if (a.verdict == VERDICT_STORED) {
            log_info("stored", LOG_I("tries", tries), LOG_S("kind", a.receipt->kind),
                     LOG_S("name", a.receipt->name), LOG_I("bytes", body.len));
            *ret = (struct answer){.receipt = a.receipt};
            return;
        }
        if (a.verdict == VERDICT_NEVER) {
            refused(p, ret, a.reason, a.message);
            return;
        }
        int64_t now = clock_monotonic_ms(&clock_system);
        int64_t wait = backoff_next(&backoff, now, &random_system);
        if (a.retry_after_ms > wait)
            wait = a.retry_after_ms;
        log_warn("upload failed", LOG_I("tries", tries), LOG_C("err", a.message),
                 LOG_I("againInMs", wait));
        if (now + wait > deadline) {
            refused(p, ret, a.reason,
                    arena_printf(p->arena, "given up after %d tries: %s", tries, a.message));
            return;
        }
        wait_ms(p, wait);
        if (p->cancelled) {
            refused(p, ret, REASON_CANCELLED,
                    arena_printf(p->arena, "cancelled before the results were stored; last try: %s",
                                 a.message));
            return;
        }
    }
}

static struct str wire_content(struct arena *arena, const struct upload_file *file, struct err *err)
{
    if (file->encoding.len == 0)
        return file->content;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(BODY_MAX);
    crypto_base64_encode(&text, file->content, CRYPTO_BASE64_STANDARD);
    if (buf_error(&text, "the upload", err) < 0)
        return STR_NULL;
    return arena_str(arena, buf_str(&text));
}

int post_body(const struct handover *h, struct buf *out, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct upload_file *from = h->upload.files.items;
    struct upload_file *files = arena_array(arena, h->upload.files.len + 1, sizeof(*files));
    for (size_t i = 0; i < h->upload.files.len; i++) {
        char digest[CRYPTO_SHA256_HEX];
        struct err why = ERR_INIT;
        files[i] = from[i];
        crypto_sha256_hex(from[i].content, digest);
        files[i].sha256 = arena_str(arena, str_of(digest));
        files[i].content = wire_content(arena, &from[i], &why);
        if (why.code)
            return err_set(err, why.code, "%s", why.message);
    }
    upload_write(out, &(struct upload){.version = 1, .files = {files, h->upload.files.len}});
    return buf_error(out, "the upload", err);
}

void post_run(struct post *p, struct transport *transport, struct answer *ret)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(BODY_MAX);
    struct err err = ERR_INIT;
    if (post_body(p->handover, &body, &err) < 0)
        refused(p, ret, REASON_RESULT_TOO_LARGE, err.message);
    else
        try_again_and_again(p, transport, buf_str(&body), ret);
}
