#include "loop/http.h"

#include <signal.h>

#include "base/alloc.h"
#include "loop/http_internal.h"

static const int64_t max_retry_after_s = 3600;

static void call_free(struct http_call *call)
{
    struct http_transport *t = call->owner;
    list_remove(&call->node);
    if (call->parallel && call->with_curl)
        t->n_parallel--;
    if (call->easy && t->n_spare < HTTP_SPARE) {
        curl_easy_reset(call->easy);
        t->spare[t->n_spare++] = call->easy;
    } else {
        curl_easy_cleanup(call->easy);
    }
    curl_slist_free_all(call->headers);
    curl_slist_free_all(call->connect_to);
    buf_finish(&call->request_body);
    buf_finish(&call->response);
    free(call);
}

static void call_detach(struct http_call *call)
{
    if (!call->with_curl)
        return;
    curl_multi_remove_handle(call->owner->multi->curl, call->easy);
    call->with_curl = false;
    if (call->parallel)
        call->owner->n_parallel--;
}

/* The body */

static int take_chunk(struct http_call *call, struct str bytes)
{
    bool ok = call->status >= 200 && call->status < 300;
    size_t max = call->max_response;
    if (!ok && max > HTTP_MAX_ERROR_BODY)
        max = HTTP_MAX_ERROR_BODY;
    if (bytes.len > max - call->received)
        return err_set(&call->failure, ERR_TOO_LARGE, "the answer is larger than %zu bytes", max);
    call->received += bytes.len;
    if (ok && call->handlers.on_chunk)
        return call->handlers.on_chunk(call->handlers.context, bytes, &call->failure);
    call->response.max = max;
    buf_append_str(&call->response, bytes);
    return 0;
}

size_t http_on_body(char *bytes, size_t size, size_t n, void *context)
{
    struct http_call *call = context;
    size_t len = size * n;
    if (call->cancelled)
        return len + 1; /* anything but len ends the transfer */
    if (!call->status) {
        long status = 0;
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        call->status = (int)status;
    }
    int failed = take_chunk(call, (struct str){bytes, len});
    if (failed && !call->failure.code)
        err_set(&call->failure, failed, "the answer was refused");
    return failed || call->cancelled ? len + 1 : len;
}

/* The end */

static int curl_error(struct http_call *call, CURLcode result, struct err *err)
{
    const char *text = call->curl_message[0] ? call->curl_message : curl_easy_strerror(result);
    long os_errno = 0;
    switch (result) {
    case CURLE_COULDNT_CONNECT: /* curl's text does not say why */
        curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &os_errno);
        return err_set(err, ERR_IO, "%s%s%s", text, os_errno ? ": " : "",
                       os_errno ? strerror((int)os_errno) : "");
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(err, ERR_TIMEOUT, "%s", text);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_SSL_CERTPROBLEM:
        return err_set(err, ERR_INVALID, "%s", text);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
        return err_set(err, ERR_PROTOCOL, "%s", text);
    default:
        return err_set(err, ERR_IO, "%s", text);
    }
}

static void fail(struct http_call *call, struct err *err)
{
    struct http_handlers handlers = call->handlers;
    call_free(call);
    handlers.on_done(handlers.context, NULL, err);
}

static void succeed(struct http_call *call)
{
    long status = 0;
    curl_off_t retry_after_s = 0;
    const char *content_type = NULL;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &content_type);
    if (retry_after_s > max_retry_after_s)
        retry_after_s = max_retry_after_s;
    struct http_reply reply = {
        .status = (int)status,
        .retry_after_ms = retry_after_s * 1000,
        .body = buf_str(&call->response),
        .content_type = content_type ? content_type : "",
    };
    struct err err = ERR_INIT;
    call->handlers.on_done(call->handlers.context, &reply, &err);
    call_free(call);
}

void http_ended(CURL *easy, CURLcode result)
{
    void *private = NULL;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    struct http_call *call = private;
    call_detach(call);
    if (call->cancelled) {
        call_free(call);
        return;
    }
    /* From here on cancel() may not be called any more; on_done runs last. */
    struct err err = call->failure;
    if (err.code || (result && curl_error(call, result, &err)))
        fail(call, &err);
    else
        succeed(call);
}

/* Starting and cancelling. Curl allows neither while it is on the stack (in on_chunk), so both are
 * put off to the turn's end then. */

static void finish_soon(struct http_call *call)
{
    list_append(&call->owner->finished, &call->node);
    loop_wake(call->owner->loop); /* the turn must not wait first */
}

static struct http_call *call_start(struct transport *self, const struct http_request *request,
                                    const struct http_handlers *handlers)
{
    struct http_transport *t = CONTAINER_OF(self, struct http_transport, transport);
    struct http_call *call = xcalloc(1, sizeof(*call));
    call->owner = t;
    call->handlers = *handlers;
    call->parallel = !request->urgent && !handlers->on_chunk;
    call->easy = t->n_spare ? t->spare[--t->n_spare] : curl_easy_init();
    if (!call->easy)
        abort(); /* out of memory */
    if (http_setup(call, request, &call->failure))
        finish_soon(call);
    else
        list_append(&t->pending, &call->node);
    return call;
}

void http_begin_pending(struct http_transport *t)
{
    LIST_FOREACH(&t->pending, node)
    {
        struct http_call *call = CONTAINER_OF(node, struct http_call, node);
        if (call->parallel && t->n_parallel >= HTTP_PARALLEL)
            continue;
        list_remove(&call->node);
        if (curl_multi_add_handle(t->multi->curl, call->easy)) {
            err_set(&call->failure, ERR_IO, "libcurl refused the request");
            finish_soon(call);
            continue;
        }
        call->with_curl = true;
        if (call->parallel)
            t->n_parallel++;
        list_append(&t->active, &call->node);
    }
}

int http_reap_finished(struct http_transport *t)
{
    /* Only those of now: one whose handler starts another that fails at once must not hold the
     * turn. */
    struct list *last = t->finished.prev;
    int ran = 0;
    for (struct list *node = NULL; node != last && (node = list_pop(&t->finished)); ran++) {
        struct http_call *call = CONTAINER_OF(node, struct http_call, node);
        call_detach(call);
        struct err err = call->failure;
        if (call->cancelled)
            call_free(call);
        else
            fail(call, &err);
    }
    return ran;
}

static void call_cancel(struct transport *self, struct http_call *call)
{
    struct http_transport *t = CONTAINER_OF(self, struct http_transport, transport);
    call->cancelled = true;
    if (t->multi->inside && call->with_curl) {
        list_remove(&call->node);
        list_append(&t->finished, &call->node);
        return;
    }
    call_detach(call);
    call_free(call);
}

int http_transport_create(struct loop *l, const char *user_agent, struct transport **ret,
                          struct err *err)
{
    /* OpenSSL writes without MSG_NOSIGNAL, and libcurl's own way of ignoring SIGPIPE changes the
     * whole process at each turn. Blocked in this thread, a connection that broke is just EPIPE. */
    sigset_t sigpipe;
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe, NULL);

    struct http_multi *multi;
    int r = http_multi_get(l, &multi, err);
    if (r < 0)
        return r;
    CURLSH *share = curl_share_init();
    if (!share)
        return err_set(err, ERR_IO, "cannot set up libcurl");
    curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);

    struct http_transport *t = xcalloc(1, sizeof(*t));
    t->transport = (struct transport){.start = call_start, .cancel = call_cancel};
    t->loop = l;
    t->multi = multi;
    t->share = share;
    t->user_agent = xstrdup(user_agent);
    list_init(&t->pending);
    list_init(&t->active);
    list_init(&t->finished);
    list_append(&multi->transports, &t->node);
    *ret = &t->transport;
    return 0;
}

static void free_all(struct list *calls)
{
    for (struct list *node; (node = list_pop(calls));) {
        struct http_call *call = CONTAINER_OF(node, struct http_call, node);
        call_detach(call);
        call_free(call);
    }
}

void http_transport_destroy(struct transport *self)
{
    if (!self)
        return;
    struct http_transport *t = CONTAINER_OF(self, struct http_transport, transport);
    free_all(&t->pending);
    free_all(&t->active);
    free_all(&t->finished);
    list_remove(&t->node);
    while (t->n_spare)
        curl_easy_cleanup(t->spare[--t->n_spare]);
    curl_share_cleanup(t->share);
    free(t->user_agent);
    free(t);
}
