#include "http/http_internal.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

/* libwebsockets 4.1 gives the loop, the sockets, TLS and the timers (its "raw" role). Its own HTTP
 * role stays out: it does not decode chunked bodies, answers neither unknown methods nor heads that
 * are too large, cannot stop reading a body, and the distributions' builds have assert() in it. */

static int on_connection(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                         size_t len)
{
    struct connection *c = user;
    switch (reason) {
    case LWS_CALLBACK_RAW_ADOPT: {
        struct listener *l = lws_get_opaque_user_data(wsi);
        connection_open(c, l->server, l, wsi);
        return 0;
    }
    case LWS_CALLBACK_RAW_RX:
        return connection_read(c, in, len);
    case LWS_CALLBACK_RAW_WRITEABLE:
        return connection_writable(c);
    case LWS_CALLBACK_WSI_DESTROY:
        if (c && c->wsi == wsi)
            connection_finish(c);
        return 0;
    case LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS: {
        struct http_server *s = lws_context_user(lws_get_context(wsi));
        s->ssl_context = user;
        return tls_identity_install(s->identity, user);
    }
    default:
        return 0;
    }
}

static int on_listener(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                       size_t len)
{
    (void)user;
    (void)in;
    (void)len;
    struct listener *l = lws_get_opaque_user_data(wsi);
    if (reason == LWS_CALLBACK_RAW_RX_FILE)
        listener_accept(l);
    else if (reason == LWS_CALLBACK_RAW_CLOSE_FILE)
        l->wsi = NULL;
    return 0;
}

static const struct lws_protocols protocols[] = {
    {.name = "connection",
     .callback = on_connection,
     .per_session_data_size = sizeof(struct connection),
     .rx_buffer_size = HTTP_RX_BYTES},
    {.name = "listener", .callback = on_listener},
    {.name = NULL},
};

static int make_context(struct http_server *s, struct err *err)
{
    lws_set_log_level(0, NULL);
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
                   (s->identity ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0),
        .protocols = protocols,
        .pt_serv_buf_size = HTTP_RX_BYTES,
        .fd_limit_per_thread =
            (unsigned)(s->max_connections * (int)s->n_listeners + (int)s->n_listeners + 4),
        .timeout_secs = (unsigned)s->header_timeout_s, /* of the TLS handshake */
        .user = s,
    };
    s->context = lws_create_context(&info);
    return s->context ? 0 : err_set(err, ERR_IO, "create the libwebsockets context");
}

static int make_vhost(struct http_server *s, struct listener *l, struct err *err)
{
    struct lws_context_creation_info info = {
        .vhost_name = l->name,
        .port = CONTEXT_PORT_NO_LISTEN_SERVER, /* the sockets are ours */
        .protocols = protocols,
        /* The first of these also keeps libwebsockets from making a client's SSL_CTX, which would
         * load the system's CA bundle into memory. */
        .options =
            LWS_SERVER_OPTION_ADOPT_APPLY_LISTEN_ACCEPT_CONFIG |
            (l->tls ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT | LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX
                    : 0),
        .alpn = "http/1.1",
    };
    s->ssl_context = NULL;
    l->vhost = lws_create_vhost(s->context, &info);
    if (!l->vhost || (l->tls && !s->ssl_context))
        return err_set(err, ERR_IO, "listener %s: create its virtual host", l->name);

    lws_sock_file_fd_type descriptor = {.filefd = l->fd};
    lws_adopt_desc_t adopt = {
        .vh = l->vhost,
        .type = LWS_ADOPT_RAW_FILE_DESC,
        .fd = descriptor,
        .vh_prot_name = "listener",
        .opaque = l,
    };
    l->wsi = lws_adopt_descriptor_vhost_via_info(&adopt);
    if (!l->wsi)
        return err_set(err, ERR_IO, "listener %s: add its socket to the loop", l->name);
    l->fd = -1;
    return 0;
}

static int open_listeners(struct http_server *s, const struct http_server_options *o,
                          struct err *err)
{
    s->listeners = xcalloc(o->n_listeners, sizeof(*s->listeners));
    bool tls = false;
    for (; s->n_listeners < o->n_listeners; s->n_listeners++) {
        struct listener *l = &s->listeners[s->n_listeners];
        l->server = s;
        int code = listener_open(l, &o->listeners[s->n_listeners], err);
        if (code) {
            listener_finish(l);
            return code;
        }
        tls = tls || l->tls;
    }
    return tls ? tls_identity_create(o->certificate, o->private_key, &s->identity, err) : 0;
}

static int set_up(struct http_server *s, const struct http_server_options *o, struct err *err)
{
    struct router *router = NULL;
    int code = router_create(o->routes, o->n_routes, &router, err);
    if (code)
        return code;
    s->mailbox = mailbox_create(router);
    code = open_listeners(s, o, err);
    if (!code)
        code = make_context(s, err);
    for (size_t i = 0; !code && i < s->n_listeners; i++)
        code = make_vhost(s, &s->listeners[i], err);
    return code;
}

int http_server_create(const struct http_server_options *options, struct http_server **ret,
                       struct err *err)
{
    struct http_server *s = xcalloc(1, sizeof(*s));
    list_init(&s->connections);
    s->max_connections = options->max_connections > 0 ? options->max_connections : 256;
    s->header_timeout_s = options->header_timeout_s > 0 ? options->header_timeout_s : 10;
    s->body_timeout_s = options->body_timeout_s > 0 ? options->body_timeout_s : 30;
    s->max_buffered = options->max_buffered ? options->max_buffered : (size_t)64 << 20;
    s->observe = options->observe;
    s->observe_context = options->observe_context;
    s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int code = set_up(s, options, err);
    if (code) {
        http_server_destroy(s);
        return code;
    }
    *ret = s;
    return 0;
}

static void deliver_answers(struct http_server *s)
{
    struct http_exchange *e;
    while ((e = mailbox_take(s->mailbox))) {
        if (e->connection)
            connection_answer(e->connection, e);
        exchange_unref(e);
    }
}

static void on_grace_over(lws_sorted_usec_list_t *sul)
{
    struct http_server *s = CONTAINER_OF(sul, struct http_server, grace);
    s->grace_over = true;
    lws_cancel_service(s->context); /* timers run just before the wait, not after it */
}

/* No new connections, none that idles; what is under way has its time. */
static void begin_draining(struct http_server *s)
{
    s->draining = true;
    for (size_t i = 0; i < s->n_listeners; i++)
        if (s->listeners[i].wsi)
            lws_set_timeout(s->listeners[i].wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    LIST_FOREACH(&s->connections, link)
    {
        struct connection *c = CONTAINER_OF(link, struct connection, link);
        if (!connection_is_busy(c))
            lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    }
    lws_sul_schedule(s->context, 0, &s->grace, on_grace_over,
                     (lws_usec_t)atomic_load(&s->grace_ms) * LWS_US_PER_MS + 1);
}

/* Closes the mailbox first, so that nobody wakes a context that is going. */
static void end_context(struct http_server *s)
{
    if (!s->context)
        return;
    pthread_mutex_lock(&s->mailbox->lock);
    s->mailbox->context = NULL;
    pthread_mutex_unlock(&s->mailbox->lock);
    lws_sul_schedule(s->context, 0, &s->grace, on_grace_over, LWS_SET_TIMER_USEC_CANCEL);
    lws_context_destroy(s->context);
    s->context = NULL;
    deliver_answers(s);
}

static void *serve(void *argument)
{
    struct http_server *s = argument;
    while (!s->grace_over && !(s->draining && list_empty(&s->connections))) {
        if (lws_service(s->context, 0) < 0)
            break;
        deliver_answers(s);
        if (atomic_load(&s->stopping) && !s->draining)
            begin_draining(s);
    }
    end_context(s);
    return NULL;
}

int http_server_start(struct http_server *s, struct err *err)
{
    struct mailbox *m = s->mailbox;
    pthread_mutex_lock(&m->lock);
    int failed = pthread_create(&s->thread, NULL, serve, s);
    if (!failed) {
        m->context = s->context;
        m->thread = s->thread;
        m->has_thread = true;
        s->started = true;
        pthread_setname_np(s->thread, "http");
    }
    pthread_mutex_unlock(&m->lock);
    return failed ? err_set_errno(err, failed, "start the server's thread") : 0;
}

void http_server_stop(struct http_server *s, int grace_ms)
{
    if (!s->started)
        return;
    atomic_store(&s->grace_ms, grace_ms > 0 ? grace_ms : 0);
    atomic_store(&s->stopping, true);
    pthread_mutex_lock(&s->mailbox->lock);
    if (s->mailbox->context)
        lws_cancel_service(s->mailbox->context);
    pthread_mutex_unlock(&s->mailbox->lock);
    pthread_join(s->thread, NULL);
    s->started = false;
}

void http_server_destroy(struct http_server *s)
{
    if (!s)
        return;
    http_server_stop(s, 0);
    end_context(s);
    for (size_t i = 0; i < s->n_listeners; i++)
        listener_finish(&s->listeners[i]);
    free(s->listeners);
    tls_identity_destroy(s->identity);
    mailbox_unref(s->mailbox);
    if (s->spare_fd >= 0)
        close(s->spare_fd);
    free(s);
}

int http_server_port(const struct http_server *s, const char *listener)
{
    for (size_t i = 0; i < s->n_listeners; i++)
        if (!strcmp(s->listeners[i].name, listener))
            return s->listeners[i].port;
    return -1;
}

int http_server_set_certificate(struct http_server *s, struct str certificate, struct str key,
                                struct err *err)
{
    if (!s->identity)
        return err_set(err, ERR_INVALID, "no listener has TLS");
    return tls_identity_replace(s->identity, certificate, key, err);
}

void http_server_stats(const struct http_server *s, struct http_server_stats *ret)
{
    *ret = (struct http_server_stats){
        .accepted = atomic_load(&s->accepted),
        .refused = atomic_load(&s->refused),
        .timed_out = atomic_load(&s->timed_out),
        .buffered = atomic_load(&s->mailbox->buffered),
    };
}
