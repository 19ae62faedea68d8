#include "http/http_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "json/write.h"

struct mailbox *mailbox_create(struct router *router)
{
    struct mailbox *m = xcalloc(1, sizeof(*m));
    atomic_init(&m->refs, 1);
    m->router = router;
    list_init(&m->answered);
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void mailbox_unref(struct mailbox *m)
{
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1)
        return;
    router_destroy(m->router);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

struct http_exchange *mailbox_take(struct mailbox *m)
{
    pthread_mutex_lock(&m->lock);
    struct list *link = list_pop(&m->answered);
    pthread_mutex_unlock(&m->lock);
    return link ? CONTAINER_OF(link, struct http_exchange, link) : NULL;
}

struct http_exchange *exchange_create(struct mailbox *mailbox)
{
    struct http_exchange *e = xcalloc(1, sizeof(*e));
    atomic_init(&e->refs, 1);
    atomic_fetch_add(&mailbox->refs, 1);
    e->mailbox = mailbox;
    e->arena = arena_create(2048);
    list_init(&e->link);
    return e;
}

void exchange_unref(struct http_exchange *e)
{
    if (!e || atomic_fetch_sub(&e->refs, 1) != 1)
        return;
    atomic_fetch_sub(&e->mailbox->buffered, e->charged);
    buf_finish(&e->body);
    buf_finish(&e->answer);
    arena_destroy(e->arena);
    free(e->content_type);
    mailbox_unref(e->mailbox);
    free(e);
}

struct str http_exchange_method(const struct http_exchange *e)
{
    return e->request.method;
}

struct str http_exchange_path(const struct http_exchange *e)
{
    return e->request.path;
}

static struct str find(const struct request_pair *pairs, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (str_is(pairs[i].name, name))
            return pairs[i].value;
    return STR_NULL;
}

struct str http_exchange_param(const struct http_exchange *e, const char *name)
{
    return find(e->match.params, e->match.n_params, name);
}

struct str http_exchange_query(const struct http_exchange *e, const char *name)
{
    return find(e->request.query, e->request.n_query, name);
}

struct str http_exchange_header(const struct http_exchange *e, const char *lower_case_name)
{
    return request_header(&e->request, lower_case_name);
}

struct str http_exchange_body(const struct http_exchange *e)
{
    return buf_str(&e->body);
}

struct str http_exchange_peer(const struct http_exchange *e)
{
    return str_of(e->peer);
}

struct str http_exchange_bearer(const struct http_exchange *e)
{
    struct str value = http_exchange_header(e, "authorization");
    struct str scheme = str_cut(&value, ' ');
    if (scheme.len != 6 || strncasecmp(scheme.ptr, "Bearer", 6) != 0)
        return STR_NULL;
    struct str token = str_trim(value);
    return str_find_char(token, ' ') < 0 ? token : STR_NULL;
}

void http_respond(struct http_exchange *e, int status, const char *content_type, struct str body)
{
    if (atomic_exchange(&e->answered, true))
        return;
    e->status = status;
    e->content_type = content_type ? xstrdup(content_type) : NULL;
    e->answer = BUF_INIT(body.len);
    buf_append_str(&e->answer, body);

    struct mailbox *m = e->mailbox;
    pthread_mutex_lock(&m->lock);
    bool is_served = m->context != NULL;
    if (is_served) {
        list_append(&m->answered, &e->link);
        /* Under the lock, for the context must not go meanwhile. */
        if (!m->has_thread || !pthread_equal(m->thread, pthread_self()))
            lws_cancel_service(m->context);
    }
    pthread_mutex_unlock(&m->lock);
    if (!is_served)
        exchange_unref(e);
}

void http_respond_error(struct http_exchange *e, int status, const char *reason,
                        const char *message)
{
    struct buf body = BUF_INIT(16 * 1024);
    struct json_writer w = JSON_WRITER(&body);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "kind", "Status");
    json_put_cstr(&w, "apiVersion", "v1");
    json_put_cstr(&w, "status", "Failure");
    json_put_cstr(&w, "message", message ? message : "");
    json_put_cstr(&w, "reason", reason ? reason : "");
    json_put_int(&w, "code", status);
    json_end_object(&w);
    /* Only a message of many KiB does not fit: then the status has to do. */
    http_respond(e, status, "application/json", body.failed ? STR("{}") : buf_str(&body));
    buf_finish(&body);
}
