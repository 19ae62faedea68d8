#include "http/http_internal.h"

#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"

static int on_timeout(struct connection *c);

static void on_timer(lws_sorted_usec_list_t *timer)
{
    struct connection *c = CONTAINER_OF(timer, struct connection, timer);
    if (on_timeout(c) < 0)
        lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
}

/* ms: -1: none. A list entry of our own, for lws_set_timer_usecs() cannot cancel: it adds the -1
 * that is documented for that to the present time. */
static void set_timer(struct connection *c, int64_t ms)
{
    lws_sul_schedule(lws_get_context(c->wsi), 0, &c->timer, on_timer,
                     ms < 0 ? LWS_SET_TIMER_USEC_CANCEL : ms * LWS_US_PER_MS);
}

void connection_open(struct connection *c, struct http_server *s, struct listener *l,
                     struct lws *wsi)
{
    *c = (struct connection){.server = s, .listener = l, .wsi = wsi};
    c->in = BUF_INIT(HTTP_PIPELINED_MAX);
    c->started_ms = clock_monotonic_ms(&clock_system);
    list_append(&s->connections, &c->link);
    l->connections++;
    atomic_fetch_add(&s->accepted, 1);
    /* Handshake and first request together. */
    set_timer(c, s->header_timeout_s * 1000LL);
}

static void observe(struct connection *c)
{
    struct http_server *s = c->server;
    if (s->observe)
        s->observe(s->observe_context, c->method, c->pattern, c->status,
                   clock_monotonic_ms(&clock_system) - c->started_ms);
}

void connection_finish(struct connection *c)
{
    if (!c->server)
        return;
    set_timer(c, -1);
    if (c->state == CONNECTION_HANDLING || c->state == CONNECTION_WRITING) {
        if (c->state == CONNECTION_HANDLING)
            c->status = HTTP_CLIENT_GONE;
        observe(c);
    }
    if (c->exchange) {
        c->exchange->connection = NULL;
        exchange_unref(c->exchange);
    }
    buf_finish(&c->in);
    buf_finish(&c->out);
    list_remove(&c->link);
    c->listener->connections--;
    if (c->server->draining)
        lws_cancel_service(c->server->context); /* to look whether it was the last */
    c->server = NULL;
}

bool connection_is_busy(const struct connection *c)
{
    return c->state != CONNECTION_HEAD || c->in.len > 0;
}

/* ---- answering ---- */

static const char *phrase(int status)
{
    static const struct {
        int status;
        const char *phrase;
    } phrases[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(phrases); i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Status";
}

/* A request's own method may be any word, and metrics must not have a series for each. */
static const char *known_method(struct str method)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (str_is(method, known[i]))
            return known[i];
    return "other";
}

static void append_date(struct buf *out)
{
    time_t now = time(NULL);
    struct tm tm;
    char text[64];
    gmtime_r(&now, &tm);
    if (strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm))
        buf_appendf(out, "Date: %s\r\n", text);
}

/* extra: whole header lines. */
static void send_answer(struct connection *c, int status, const char *content_type,
                        const char *extra, struct str body)
{
    static const char room[LWS_PRE];
    bool has_body = status != 204 && status != 304;
    bool is_head = c->exchange && str_is(c->exchange->request.method, "HEAD");
    if (c->server->draining)
        c->keep_alive = false;

    struct buf *out = &c->out;
    buf_finish(out);
    *out = BUF_INIT(sizeof(room) + 4096 + body.len);
    buf_append(out, room, sizeof(room));
    buf_appendf(out, "HTTP/1.1 %d %s\r\n", status, phrase(status));
    append_date(out);
    if (has_body && content_type && !strpbrk(content_type, "\r\n"))
        buf_appendf(out, "Content-Type: %.256s\r\n", content_type);
    if (has_body)
        buf_appendf(out, "Content-Length: %zu\r\n", body.len);
    if (status == 401)
        buf_append_cstr(out, "WWW-Authenticate: Bearer\r\n");
    if (status == 429 || status == 503)
        buf_append_cstr(out, "Retry-After: 1\r\n");
    buf_append_cstr(out, extra);
    buf_append_cstr(out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    if (!c->keep_alive)
        buf_append_cstr(out, "Connection: close\r\n");
    buf_append_cstr(out, "\r\n");
    if (has_body && !is_head)
        buf_append_str(out, body);

    c->status = status;
    c->sent = sizeof(room);
    c->state = CONNECTION_WRITING;
    set_timer(c, c->server->body_timeout_s * 1000LL);
    lws_callback_on_writable(c->wsi);
}

void connection_answer(struct connection *c, struct http_exchange *e)
{
    send_answer(c, e->status, e->content_type, "", buf_str(&e->answer));
}

/* An answer of our own, without any handler. */
static void refuse_with(struct connection *c, int status, const char *why, const char *extra)
{
    struct buf body = BUF_INIT(512);
    buf_appendf(&body, "%s\n", why);
    send_answer(c, status, "text/plain; charset=utf-8", extra, buf_str(&body));
    buf_finish(&body);
}

static void refuse(struct connection *c, int status, const char *why)
{
    c->keep_alive = false;
    refuse_with(c, status, why, "");
}

/* ---- one request ---- */

static void hand_over(struct connection *c)
{
    struct http_exchange *e = c->exchange;
    const struct http_route *route = e->match.route;
    c->state = CONNECTION_HANDLING;
    set_timer(c, -1);
    atomic_fetch_add(&e->refs, 1);
    route->handler(route->context, e);
}

/* Counts what a body takes before it is read: one that was let in is not refused halfway. */
static bool charge(struct connection *c, size_t bytes)
{
    struct mailbox *m = c->exchange->mailbox;
    size_t before = atomic_fetch_add(&m->buffered, bytes);
    c->exchange->charged += bytes;
    return bytes <= c->server->max_buffered && before <= c->server->max_buffered - bytes;
}

/* Whether the handler lets the request in; without it, an answer is on its way. */
static bool admit(struct connection *c)
{
    struct http_exchange *e = c->exchange;
    const struct http_route *route = e->match.route;
    if (!route->admit)
        return true;
    atomic_fetch_add(&e->refs, 1);
    if (route->admit(route->context, e)) {
        exchange_unref(e);
        return true;
    }
    /* The body that nobody reads could not be told from a next request. */
    if (e->request.chunked || e->request.length)
        c->keep_alive = false;
    c->state = CONNECTION_HANDLING;
    set_timer(c, -1);
    return false;
}

static void route_request(struct connection *c)
{
    struct http_exchange *e = c->exchange;
    const struct request *r = &e->request;
    bool has_body = r->chunked || r->length;
    struct buf allow = BUF_INIT(256);
    int status = router_match(e->mailbox->router, c->listener->name, r, &e->match, &allow);
    if (status) {
        struct buf extra = BUF_INIT(512);
        if (status == 405)
            buf_appendf(&extra, "Allow: %s\r\n", buf_cstr(&allow));
        c->keep_alive = r->keep_alive && !has_body;
        refuse_with(c, status, status == 404 ? "no such path" : "method not allowed here",
                    buf_cstr(&extra));
        buf_finish(&extra);
        buf_finish(&allow);
        return;
    }
    buf_finish(&allow);
    const struct http_route *route = e->match.route;
    c->pattern = route->pattern;
    c->keep_alive = r->keep_alive;
    e->body = BUF_INIT(route->max_body);
    if (r->length > route->max_body || (r->chunked && !route->max_body)) {
        refuse(c, 413, "body is larger than allowed here");
        return;
    }
    if (!admit(c))
        return;
    if (!has_body) {
        hand_over(c);
        return;
    }
    if (!charge(c, (size_t)r->length)) {
        refuse(c, 503, "too much is being received at the moment");
        return;
    }
    c->reader = (struct body_reader){.chunked = r->chunked, .remaining = r->length};
    c->state = CONNECTION_BODY;
    set_timer(c, c->server->body_timeout_s * 1000LL);
    if (r->expects_continue && !c->in.len) {
        c->send_continue = true;
        lws_callback_on_writable(c->wsi);
    }
}

static void start_request(struct connection *c, struct str head)
{
    struct http_exchange *e = exchange_create(c->server->mailbox);
    c->exchange = e;
    e->connection = c;
    lws_get_peer_simple(c->wsi, e->peer, sizeof(e->peer));
    c->started_ms = clock_monotonic_ms(&clock_system);
    c->method = "other";
    c->pattern = "";
    const char *why;
    int status = request_parse(arena_str(e->arena, head), e->arena, &e->request, &why);
    c->method = known_method(e->request.method);
    if (status)
        refuse(c, status, why);
}

/* Returns whether something was done, so that more may be. */
static bool advance_head(struct connection *c)
{
    /* RFC 9112, 2.2: an empty line before the request is to be skipped. */
    if (c->in.len >= 2 && !memcmp(c->in.ptr, "\r\n", 2)) {
        buf_consume(&c->in, 2);
        c->scanned = 0;
        return true;
    }
    size_t len = request_head_end(buf_str(&c->in), &c->scanned);
    if (len > REQUEST_HEAD_MAX || (!len && c->in.len > REQUEST_HEAD_MAX)) {
        c->method = "other";
        c->pattern = "";
        c->started_ms = clock_monotonic_ms(&clock_system);
        refuse(c, 431, "head of the request is too large");
        return false;
    }
    if (!len)
        return false;
    start_request(c, str_sub(buf_str(&c->in), 0, len));
    buf_consume(&c->in, len);
    c->scanned = 0;
    if (c->state == CONNECTION_HEAD)
        route_request(c);
    return c->state == CONNECTION_BODY;
}

static bool advance_body(struct connection *c)
{
    struct http_exchange *e = c->exchange;
    struct str in = buf_str(&c->in);
    size_t had = e->body.len;
    int done = body_read(&c->reader, &in, &e->body);
    buf_consume(&c->in, c->in.len - in.len);
    if (done < 0)
        refuse(c, -done, done == -413 ? "body is larger than allowed here" : "malformed chunks");
    else if (e->request.chunked && !charge(c, e->body.len - had))
        refuse(c, 503, "too much is being received at the moment");
    else if (done)
        hand_over(c);
    return false;
}

static void advance(struct connection *c)
{
    bool more = true;
    while (more && c->in.len) {
        if (c->state == CONNECTION_HEAD)
            more = advance_head(c);
        else if (c->state == CONNECTION_BODY)
            more = advance_body(c);
        else
            more = false;
    }
    if (!c->in.len)
        buf_finish(&c->in); /* an idle connection holds nothing */
}

/* ---- what libwebsockets calls ---- */

int connection_read(struct connection *c, const void *bytes, size_t len)
{
    if (c->state == CONNECTION_LINGERING) {
        c->lingered += len;
        return c->lingered > HTTP_LINGER_BYTES ? -1 : 0;
    }
    if ((c->state == CONNECTION_WRITING || c->state == CONNECTION_HANDLING) && !c->keep_alive)
        return 0;
    if (!c->method) /* the first bytes: libwebsockets' timeout for the handshake has done its part
                     */
        lws_set_timeout(c->wsi, NO_PENDING_TIMEOUT, 0);
    else if (c->state == CONNECTION_HEAD && !c->in.len) /* a head's time runs from its first byte */
        set_timer(c, c->server->header_timeout_s * 1000LL);
    c->in.max = HTTP_PIPELINED_MAX;
    buf_append(&c->in, bytes, len);
    if (c->in.failed)
        return -1;
    advance(c);
    return 0;
}

static int finish_answer(struct connection *c)
{
    observe(c);
    buf_finish(&c->out);
    if (c->exchange) {
        c->exchange->connection = NULL;
        exchange_unref(TAKE(c->exchange));
    }
    if (!c->keep_alive) {
        /* Closing with bytes unread would reset the connection, and the answer with it. */
        tls_close_notify(lws_get_ssl(c->wsi));
        shutdown(lws_get_socket_fd(c->wsi), SHUT_WR);
        c->state = CONNECTION_LINGERING;
        set_timer(c, HTTP_LINGER_MS);
        return 0;
    }
    c->state = CONNECTION_HEAD;
    c->scanned = 0;
    set_timer(c, c->server->header_timeout_s * 1000LL);
    advance(c);
    return 0;
}

static int write_continue(struct connection *c)
{
    char text[LWS_PRE + 32] = {0};
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    c->send_continue = false;
    memcpy(text + LWS_PRE, line, sizeof(line) - 1);
    int n = lws_write(c->wsi, (unsigned char *)text + LWS_PRE, sizeof(line) - 1, LWS_WRITE_RAW);
    return n < 0 ? -1 : 0;
}

int connection_writable(struct connection *c)
{
    if (c->state == CONNECTION_BODY && c->send_continue)
        return write_continue(c);
    if (c->state != CONNECTION_WRITING)
        return 0;
    size_t left = c->out.len - c->sent;
    if (left) {
        size_t n = left < HTTP_RX_BYTES ? left : HTTP_RX_BYTES;
        if (lws_write(c->wsi, (unsigned char *)c->out.ptr + c->sent, n, LWS_WRITE_RAW) < 0)
            return -1;
        c->sent += n; /* what the socket did not take, libwebsockets keeps */
    }
    if (c->sent < c->out.len || lws_partial_buffered(c->wsi)) {
        lws_callback_on_writable(c->wsi);
        return 0;
    }
    return finish_answer(c);
}

static int on_timeout(struct connection *c)
{
    switch (c->state) {
    case CONNECTION_HEAD:
        if (!c->in.len) /* an idle connection: nobody is waiting for anything */
            return -1;
        atomic_fetch_add(&c->server->timed_out, 1);
        c->method = "other";
        c->pattern = "";
        refuse(c, 408, "request came too slowly");
        return 0;
    case CONNECTION_BODY:
        atomic_fetch_add(&c->server->timed_out, 1);
        refuse(c, 408, "request came too slowly");
        return 0;
    case CONNECTION_HANDLING:
        return 0;
    case CONNECTION_WRITING:
        atomic_fetch_add(&c->server->timed_out, 1);
        return -1;
    case CONNECTION_LINGERING:
        return -1;
    }
    return -1;
}
