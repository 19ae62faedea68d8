#include "http_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

enum { MAX_REQUEST = 1 << 20 };

struct connection {
    int fd;
    struct buf in;
    bool waiting; /* a whole request is in, its answer is not out */
};

static bool is_whole(const struct buf *in)
{
    ssize_t head = str_find(buf_str(in), STR("\r\n\r\n"));
    if (head < 0)
        return false;
    ssize_t at = str_find(buf_str(in), STR("Content-Length: "));
    int64_t len = 0;
    if (at >= 0 && at < head)
        len = strtoll(in->ptr + at + 16, NULL, 10);
    return in->len >= (size_t)head + 4 + (size_t)len;
}

static void drop(struct connection *c)
{
    close(c->fd);
    buf_finish(&c->in);
    *c = (struct connection){.fd = -1};
}

static void answer(struct server *s, struct connection *c)
{
    pthread_mutex_lock(&s->lock);
    buf_append_str(&s->requests, buf_str(&c->in));
    buf_clear(&c->in);
    size_t len = strlen(s->answer), at = 0;
    for (ssize_t n; at < len && (n = send(c->fd, s->answer + at, len - at, MSG_NOSIGNAL)) > 0;)
        at += (size_t)n;
    c->waiting = false;
    s->n_open--;
    if (s->close_after)
        drop(c);
    pthread_mutex_unlock(&s->lock);
}

static void receive(struct server *s, struct connection *c)
{
    char *room = buf_reserve(&c->in, 65536);
    ssize_t n = room ? read(c->fd, room, 65536) : 0;
    if (n <= 0) {
        if (c->waiting)
            s->n_open--;
        drop(c);
        return;
    }
    c->in.len += (size_t)n;
    if (!c->waiting && is_whole(&c->in)) {
        c->waiting = true;
        s->n_requests++;
        int open = ++s->n_open;
        if (open > s->most_open)
            s->most_open = open;
    }
}

static void *serve(void *arg)
{
    struct server *s = arg;
    struct connection connections[256];
    size_t n = 0;
    for (;;) {
        struct pollfd fds[260] = {{s->stop_fds[0], POLLIN, 0}, {s->listener, POLLIN, 0}};
        for (size_t i = 0; i < n; i++)
            fds[i + 2] = (struct pollfd){connections[i].fd, POLLIN, 0};
        poll(fds, n + 2, 5);
        if (fds[0].revents)
            break;
        size_t n_before = n;
        if (fds[1].revents && n < 256) {
            connections[n++] =
                (struct connection){accept(s->listener, NULL, NULL), BUF_INIT(MAX_REQUEST), false};
            s->n_connections++;
        }
        for (size_t i = 0; i < n_before; i++)
            if (fds[i + 2].revents && connections[i].fd >= 0)
                receive(s, &connections[i]);
        for (size_t i = 0; i < n; i++)
            if (connections[i].fd >= 0 && connections[i].waiting && !s->hold)
                answer(s, &connections[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (connections[i].fd >= 0)
            drop(&connections[i]);
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    pthread_mutex_init(&s->lock, NULL);
    s->requests = BUF_INIT(64 << 20);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(s->listener, 200), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &len), 0);
    s->port = ntohs(address.sin_port);
    assert_int_equal(pipe2(s->stop_fds, O_CLOEXEC), 0); /* else a child keeps it open */
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    close(s->stop_fds[1]);
    pthread_join(s->thread, NULL);
    close(s->stop_fds[0]);
    close(s->listener);
    buf_finish(&s->requests);
    free(s->answer);
}

void server_answers(struct server *s, const char *bytes)
{
    pthread_mutex_lock(&s->lock);
    free(s->answer);
    s->answer = xstrdup(bytes);
    buf_clear(&s->requests);
    pthread_mutex_unlock(&s->lock);
}

int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    server_start(&f->server);
    server_answers(&f->server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    f->url = xasprintf("http://127.0.0.1:%d/path?query", f->server.port);
    f->body = BUF_INIT(64 << 20);
    f->chunks = BUF_INIT(64 << 20);
    assert_int_equal(loop_create(&clock_system, &f->loop, NULL), 0);
    assert_int_equal(http_transport_create(f->loop, "test/1", &f->transport, NULL), 0);
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    struct fixture *f = *state;
    http_transport_destroy(f->transport);
    loop_destroy(f->loop);
    server_stop(&f->server);
    buf_finish(&f->body);
    buf_finish(&f->chunks);
    free(f->url);
    free(f);
    return 0;
}

static void on_done(void *context, const struct http_reply *reply, struct err *err)
{
    struct fixture *f = context;
    f->done++;
    f->err = *err;
    f->call = NULL;
    buf_clear(&f->body);
    f->status = 0;
    if (!reply)
        return;
    f->status = reply->status;
    f->retry_after_ms = reply->retry_after_ms;
    buf_append_str(&f->body, reply->body);
    snprintf(f->content_type, sizeof(f->content_type), "%s", reply->content_type);
}

static int on_chunk(void *context, struct str bytes, struct err *err)
{
    struct fixture *f = context;
    buf_append_str(&f->chunks, bytes);
    if (f->refuse_after && f->chunks.len >= f->refuse_after)
        return err_set(err, ERR_PROTOCOL, "enough");
    if (f->cancel_after && f->chunks.len >= f->cancel_after) {
        f->transport->cancel(f->transport, f->call);
        f->cancelled_at = (int)f->chunks.len;
    }
    return 0;
}

struct http_call *start(struct fixture *f, struct http_request request, bool streamed)
{
    struct http_handlers handlers = {
        .on_chunk = streamed ? on_chunk : NULL, .on_done = on_done, .context = f};
    if (!request.method)
        request.method = "GET";
    if (!request.url)
        request.url = f->url;
    int before = f->done;
    f->call = f->transport->start(f->transport, &request, &handlers);
    assert_int_equal(f->done, before); /* never before it returns */
    return f->call;
}

void run_until_done(struct fixture *f, int done)
{
    int64_t end = clock_monotonic_ms(&clock_system) + 20000;
    while (f->done < done && clock_monotonic_ms(&clock_system) < end)
        assert_true(loop_step(f->loop, 1000, NULL) >= 0);
    assert_int_equal(f->done, done);
}

void run_for(struct fixture *f, int64_t ms)
{
    int64_t end = clock_monotonic_ms(&clock_system) + ms;
    while (clock_monotonic_ms(&clock_system) < end)
        loop_step(f->loop, 5, NULL);
}

void run_until_requests(struct fixture *f, int n)
{
    int64_t end = clock_monotonic_ms(&clock_system) + 20000;
    while (f->server.n_requests < n && clock_monotonic_ms(&clock_system) < end)
        loop_step(f->loop, 5, NULL);
    run_for(f, 100);
    assert_int_equal(f->server.n_requests, n);
}

void get(struct fixture *f, struct http_request request)
{
    start(f, request, false);
    run_until_done(f, f->done + 1);
}

void check_request(struct fixture *f, const char *part, bool there)
{
    pthread_mutex_lock(&f->server.lock);
    bool found = str_find(buf_str(&f->server.requests), str_of(part)) >= 0;
    if (found != there)
        fail_msg("\"%s\" is %sin:\n%s", part, found ? "" : "not ", buf_cstr(&f->server.requests));
    pthread_mutex_unlock(&f->server.lock);
}
