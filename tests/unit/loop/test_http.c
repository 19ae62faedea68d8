/* The libcurl transport against a small server on loopback: a thread that takes one connection
 * after another and answers as it is told. TLS against `openssl s_server`, where that is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "crypto/x509.h"
#include "loop/http.h"

enum { MAX_REQUEST = 1 << 20 };

/* The server: serves all its connections by poll() on one thread. */
struct server {
    int listener, stop_fds[2];
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock;
    char *answer;        /* whole bytes; what each request gets */
    bool close_after;    /* the connection ends with the answer */
    struct buf requests; /* all that came */
    atomic_int n_connections, n_requests, n_open, most_open;
    atomic_bool hold; /* do not answer yet */
};

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

static void server_answers(struct server *s, const char *bytes)
{
    pthread_mutex_lock(&s->lock);
    free(s->answer);
    s->answer = xstrdup(bytes);
    buf_clear(&s->requests);
    pthread_mutex_unlock(&s->lock);
}

/* `openssl s_server`, with a certificate made for the test. */
struct tls_server {
    pid_t pid;
    uint16_t port;
    char folder[32];
    struct buf ca, ca_key, cert, key, other_ca, other_key;
};

static void tls_stop(struct tls_server *s);

/* The client */

struct fixture {
    struct tls_server tls; /* pid 0: none */
    struct server server;
    struct loop *loop;
    struct transport *transport;
    char *url;
    int done, status, cancelled_at;
    int64_t retry_after_ms;
    struct err err;
    struct buf body, chunks;
    char content_type[64];
    struct http_call *call;
    size_t refuse_after; /* on_chunk fails when it has this much; 0: never */
    size_t cancel_after;
};

static int set_up(void **state)
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

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->tls.pid)
        tls_stop(&f->tls);
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

static struct http_call *start(struct fixture *f, struct http_request request, bool streamed)
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

static void run_until_done(struct fixture *f, int done)
{
    int64_t end = clock_monotonic_ms(&clock_system) + 20000;
    while (f->done < done && clock_monotonic_ms(&clock_system) < end)
        assert_true(loop_step(f->loop, 1000, NULL) >= 0);
    assert_int_equal(f->done, done);
}

static void run_for(struct fixture *f, int64_t ms)
{
    int64_t end = clock_monotonic_ms(&clock_system) + ms;
    while (clock_monotonic_ms(&clock_system) < end)
        loop_step(f->loop, 5, NULL);
}

/* Until the server has seen so many requests; then some time for those that should not come. */
static void run_until_requests(struct fixture *f, int n)
{
    int64_t end = clock_monotonic_ms(&clock_system) + 20000;
    while (f->server.n_requests < n && clock_monotonic_ms(&clock_system) < end)
        loop_step(f->loop, 5, NULL);
    run_for(f, 100);
    assert_int_equal(f->server.n_requests, n);
}

static void get(struct fixture *f, struct http_request request)
{
    start(f, request, false);
    run_until_done(f, f->done + 1);
}

static void check_request(struct fixture *f, const char *part, bool there)
{
    pthread_mutex_lock(&f->server.lock);
    bool found = str_find(buf_str(&f->server.requests), str_of(part)) >= 0;
    if (found != there)
        fail_msg("\"%s\" is %sin:\n%s", part, found ? "" : "not ", buf_cstr(&f->server.requests));
    pthread_mutex_unlock(&f->server.lock);
}

/* Requests */

static void test_get(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                               "Content-Length: 2\r\n\r\n{}");
    const struct http_header headers[] = {{STR("Accept"), STR("application/json")},
                                          {STR("X-Empty"), STR("")}};
    get(f, (struct http_request){.headers = headers, .n_headers = 2});
    assert_int_equal(f->status, 200);
    assert_string_equal(buf_cstr(&f->body), "{}");
    assert_string_equal(f->content_type, "application/json");
    check_request(f, "GET /path?query HTTP/1.1\r\n", true);
    check_request(f, "Accept: application/json\r\n", true);
    check_request(f, "X-Empty:\r\n", true);
    check_request(f, "User-Agent: test/1\r\n", true);
    check_request(f, "Content-Type", false);
}

static void test_bodies(void **state)
{
    struct fixture *f = *state;
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE"};
    const struct http_header type = {STR("Content-Type"), STR("application/x")};
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        server_answers(&f->server, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        char body[] = "{\"a\":1}";
        start(f,
              (struct http_request){
                  .method = methods[i], .body = str_of(body), .headers = &type, .n_headers = 1},
              false);
        memset(body, 'x', sizeof(body) - 1); /* it was copied */
        run_until_done(f, (int)i + 1);
        assert_int_equal(f->status, 201);
        _cleanup_(freep) char *line = xasprintf("%s /path?query HTTP/1.1\r\n", methods[i]);
        check_request(f, line, true);
        check_request(f, "Content-Type: application/x\r\n", true);
        check_request(f, "Content-Length: 7\r\n", true);
        check_request(f, "\r\n\r\n{\"a\":1}", true);
        check_request(f, "Expect", false);
    }
}

static void test_empty_bodies(void **state)
{
    struct fixture *f = *state;
    get(f, (struct http_request){.method = "POST"});
    check_request(f, "Content-Length: 0\r\n", true);
    check_request(f, "Content-Type", false);
    get(f, (struct http_request){.method = "DELETE"});
    check_request(f, "DELETE /path?query", true);
    check_request(f, "chunked", false);
}

static void test_headers_cannot_smuggle(void **state)
{
    struct fixture *f = *state;
    static const struct http_header rows[] = {
        {STR("A"), STR("b\r\nC: d")}, {STR("A\r\nB"), STR("c")}, {STR("A: b"), STR("c")},
        {STR("A"), STR("b\nc")},      {STR(""), STR("b")},       {STR("A"), STR("b\0c")},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        get(f, (struct http_request){.headers = &rows[i], .n_headers = 1});
        assert_int_equal(f->err.code, ERR_INVALID);
    }
    assert_int_equal(f->server.n_connections, 0);
}

static void test_dots_in_paths_stay(void **state)
{
    struct fixture *f = *state;
    _cleanup_(freep) char *url = xasprintf("http://127.0.0.1:%d/a/../b", f->server.port);
    get(f, (struct http_request){.url = url});
    check_request(f, "GET /a/../b HTTP/1.1\r\n", true);
}

static void test_only_http(void **state)
{
    struct fixture *f = *state;
    get(f, (struct http_request){.url = "file:///etc/passwd"});
    assert_int_equal(f->err.code, ERR_INVALID);
    get(f, (struct http_request){.url = "nonsense://"});
    assert_int_equal(f->err.code, ERR_INVALID);
}

/* Answers */

static void test_status_of_errors_with_their_body(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server,
                   "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy");
    start(f, (struct http_request){0}, true); /* also of a stream: it is no part of it */
    run_until_done(f, 1);
    assert_int_equal(f->status, 429);
    assert_int_equal(f->retry_after_ms, 7000);
    assert_string_equal(buf_cstr(&f->body), "busy");
    assert_int_equal(f->chunks.len, 0);
}

static void test_retry_after_is_capped(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server,
                   "HTTP/1.1 503 No\r\nRetry-After: 999999999\r\nContent-Length: 0\r\n\r\n");
    get(f, (struct http_request){0});
    assert_in_range(f->retry_after_ms, 0, 3600 * 1000);
}

static void test_redirects_are_answers(void **state)
{
    struct fixture *f = *state;
    _cleanup_(freep) char *text =
        xasprintf("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/other\r\n"
                  "Content-Length: 0\r\n\r\n",
                  f->server.port);
    server_answers(&f->server, text);
    get(f, (struct http_request){0});
    assert_int_equal(f->status, 302);
    check_request(f, "/other", false);
}

static void test_stream(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    start(f, (struct http_request){0}, true);
    run_until_done(f, 1);
    assert_int_equal(f->status, 200);
    assert_string_equal(buf_cstr(&f->chunks), "abcdefg");
    assert_int_equal(f->body.len, 0);
}

static void test_stream_cut(void **state)
{
    struct fixture *f = *state;
    f->server.close_after = true;
    server_answers(&f->server,
                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\nd");
    start(f, (struct http_request){0}, true);
    run_until_done(f, 1);
    assert_int_equal(f->status, 0);
    assert_int_equal(f->err.code, ERR_IO);
    assert_true(str_starts_with(buf_str(&f->chunks), STR("abc")));
}

static void test_handler_refuses(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh");
    f->refuse_after = 1;
    start(f, (struct http_request){0}, true);
    run_until_done(f, 1);
    assert_int_equal(f->err.code, ERR_PROTOCOL);
    assert_string_equal(f->err.message, "enough");
}

static void test_cancel_in_its_own_chunk(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh");
    f->cancel_after = 1;
    start(f, (struct http_request){0}, true);
    for (int i = 0; i < 4000 && !f->cancelled_at; i++)
        loop_step(f->loop, 5, NULL);
    run_for(f, 50);
    assert_int_equal(f->done, 0);
    assert_true(f->cancelled_at > 0);
}

static void test_too_large(void **state)
{
    struct fixture *f = *state;
    _cleanup_(buf_finish) struct buf big = BUF_INIT(1 << 20);
    buf_append_cstr(&big, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    for (int i = 0; i < 5000; i++)
        buf_append_char(&big, 'x');
    server_answers(&f->server, buf_cstr(&big));
    get(f, (struct http_request){.max_response = 5000});
    assert_int_equal(f->status, 200);
    assert_int_equal(f->body.len, 5000);
    get(f, (struct http_request){.max_response = 4999});
    assert_int_equal(f->err.code, ERR_TOO_LARGE);
}

static void test_garbage(void **state)
{
    struct fixture *f = *state;
    static const char *const rows[] = {"hello\r\n\r\n", "HTTP/9.9 abc\r\n\r\n",
                                       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"};
    f->server.close_after = true;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        server_answers(&f->server, rows[i]);
        get(f, (struct http_request){0});
        assert_int_equal(f->status, 0);
        assert_true(f->err.code == ERR_PROTOCOL || f->err.code == ERR_IO ||
                    f->err.code == ERR_INVALID);
        assert_true(f->err.message[0]);
    }
}

/* Connections */

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* a port where nobody listens */
    bind(fd, (struct sockaddr *)&address, len);
    getsockname(fd, (struct sockaddr *)&address, &len);
    _cleanup_(freep) char *url = xasprintf("http://127.0.0.1:%d/", ntohs(address.sin_port));
    get(f, (struct http_request){.url = url});
    close(fd);
    assert_int_equal(f->err.code, ERR_IO);
    assert_non_null(strstr(f->err.message, "refused"));
}

static void test_timeout(void **state)
{
    struct fixture *f = *state;
    f->server.hold = true;
    int64_t before = clock_monotonic_ms(&clock_system);
    get(f, (struct http_request){.timeout_ms = 200});
    assert_int_equal(f->err.code, ERR_TIMEOUT);
    assert_in_range(clock_monotonic_ms(&clock_system) - before, 190, 5000);
    f->server.hold = false;
}

static void test_connections_are_reused(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++)
        get(f, (struct http_request){0});
    assert_int_equal(f->server.n_connections, 1);
    get(f, (struct http_request){.fresh_connection = true});
    assert_int_equal(f->server.n_connections, 2);
}

/* The server closes what is idle; the next request finds out and goes on a new connection. */
static void test_a_dead_connection_is_replaced(void **state)
{
    struct fixture *f = *state;
    f->server.close_after = true; /* without "Connection: close" */
    for (int i = 0; i < 5; i++) {
        get(f, (struct http_request){.method = i % 2 ? "GET" : "POST", .body = STR("{}")});
        assert_int_equal(f->status, 200);
    }
    assert_int_equal(f->server.n_connections, 5);
}

/* The signal that OpenSSL's writes bring about on a connection that has been closed. */
static void test_broken_pipes_end_nobody(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    assert_int_equal(write(fds[1], "x", 1), -1);
    close(fds[1]);
}

static void test_parallel_requests_are_bounded(void **state)
{
    struct fixture *f = *state;
    f->server.hold = true;
    for (int i = 0; i < 100; i++)
        start(f, (struct http_request){0}, false);
    run_until_requests(f, 16);
    start(f, (struct http_request){.urgent = true}, false); /* is not held up */
    start(f, (struct http_request){0}, true);               /* nor is a stream */
    run_until_requests(f, 18);
    f->server.hold = false;
    run_until_done(f, 102);
    assert_int_equal(f->server.n_requests, 102);
    assert_true(f->server.most_open <= 18);
}

static void test_cancel(void **state)
{
    struct fixture *f = *state;
    f->server.hold = true;
    f->transport->cancel(f->transport, start(f, (struct http_request){0}, false));
    struct http_call *call = start(f, (struct http_request){0}, false);
    run_for(f, 100);
    f->transport->cancel(f->transport, call);
    const struct http_header bad = {STR(""), STR("")};
    call = start(f, (struct http_request){.headers = &bad, .n_headers = 1}, false);
    f->transport->cancel(f->transport, call);
    run_for(f, 50);
    assert_int_equal(f->done, 0);
    start(f, (struct http_request){0}, false); /* and one that the tear-down cancels */
    run_for(f, 50);
}

/* A quiet stream wakes nobody: curl has no timers of its own meanwhile. */
static void test_an_idle_stream_means_no_wakeups(void **state)
{
    struct fixture *f = *state;
    server_answers(&f->server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    get(f, (struct http_request){.timeout_ms = 300 * 1000,
                                 .max_response = SIZE_MAX,
                                 .method = "HEAD"}); /* and an idle connection beside it */
    start(f, (struct http_request){.timeout_ms = 300 * 1000, .connect_timeout_ms = 60 * 1000},
          true);
    for (int i = 0; i < 4000 && f->chunks.len < 3; i++)
        loop_step(f->loop, 5, NULL);
    assert_int_equal(f->chunks.len, 3);
    run_for(f, 200);
    struct rusage before, after;
    getrusage(RUSAGE_THREAD, &before);
    assert_int_equal(loop_step(f->loop, 2500, NULL), 0);
    getrusage(RUSAGE_THREAD, &after);
    assert_in_range(after.ru_nvcsw - before.ru_nvcsw, 1, 1);
}

/* TLS */

static void write_pem(const char *folder, const char *name, const struct buf *pem)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(pem->ptr, 1, pem->len, file), pem->len);
    fclose(file);
}

static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    close(fd);
    return ntohs(address.sin_port);
}

static bool is_listening(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return ok;
}

/* The server's certificate is for the given name alone; clients need one of the same authority. */
static void tls_start(struct tls_server *s, const char *name)
{
    *s = (struct tls_server){.port = free_port(), .folder = "/tmp/test-http-XXXXXX"};
    int64_t now = clock_wall_ms(&clock_system);
    const char *const names[] = {name, NULL};
    struct buf *all[] = {&s->ca, &s->ca_key, &s->cert, &s->key, &s->other_ca, &s->other_key};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        *all[i] = BUF_INIT(CRYPTO_PEM_MAX);
    assert_int_equal(crypto_make_ca("ca", 3600, now, &s->ca, &s->ca_key, NULL), 0);
    assert_int_equal(crypto_make_ca("other", 3600, now, &s->other_ca, &s->other_key, NULL), 0);
    assert_int_equal(crypto_make_leaf(buf_str(&s->ca), buf_str(&s->ca_key), names, 3600, now,
                                      &s->cert, &s->key, NULL),
                     0);
    assert_non_null(mkdtemp(s->folder));
    write_pem(s->folder, "ca", &s->ca);
    write_pem(s->folder, "cert", &s->cert);
    write_pem(s->folder, "key", &s->key);
    char port[32];
    snprintf(port, sizeof(port), "127.0.0.1:%d", s->port);
    _cleanup_(freep) char *cert = xasprintf("%s/cert", s->folder);
    _cleanup_(freep) char *key = xasprintf("%s/key", s->folder);
    char *const argv[] = {"openssl", "s_server", "-accept", port,     "-cert", cert,
                          "-key",    key,        "-www",    "-quiet", NULL};
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", 1, 0);
    int failed = posix_spawnp(&s->pid, "openssl", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    assert_int_equal(failed, 0);
    for (int i = 0; i < 2000 && !is_listening(s->port); i++)
        usleep(10000);
}

static void tls_stop(struct tls_server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    static const char *const names[] = {"ca", "cert", "key"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", s->folder, names[i]);
        unlink(path);
    }
    rmdir(s->folder);
    struct buf *all[] = {&s->ca, &s->ca_key, &s->cert, &s->key, &s->other_ca, &s->other_key};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        buf_finish(all[i]);
}

static void tls_get(struct fixture *f, const struct tls_server *s, struct tls_config tls)
{
    _cleanup_(freep) char *url = xasprintf("https://127.0.0.1:%d/", s->port);
    struct tls_config *copy = xcalloc(1, sizeof(*copy));
    *copy = tls;
    start(f, (struct http_request){.url = url, .tls = copy, .timeout_ms = 19000}, false);
    free(copy); /* the transport has taken what it needs */
    run_until_done(f, f->done + 1);
}

static void test_tls_trusts_what_it_is_given_only(void **state)
{
    struct fixture *f = *state;
    struct tls_server *s = &f->tls;
    tls_start(s, "127.0.0.1");
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca)});
    assert_int_equal(f->status, 200);
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->other_ca)});
    assert_int_equal(f->err.code, ERR_IO);
    tls_get(f, s, (struct tls_config){0}); /* the system's */
    assert_int_equal(f->err.code, ERR_IO);
    tls_get(f, s, (struct tls_config){.insecure = true});
    assert_int_equal(f->status, 200);
    tls_get(f, s, (struct tls_config){.ca = STR("not PEM")});
    assert_int_not_equal(f->err.code, 0);
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca)}); /* what failed left nothing behind */
    assert_int_equal(f->status, 200);
}

static void test_tls_server_name(void **state)
{
    struct fixture *f = *state;
    struct tls_server *s = &f->tls;
    tls_start(s, "api.example");
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca)});
    assert_int_equal(f->err.code, ERR_IO); /* it is not the certificate of 127.0.0.1 */
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca), .server_name = "api.example"});
    assert_int_equal(f->status, 200);
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca), .server_name = "other.example"});
    assert_int_equal(f->err.code, ERR_IO);
}

static void test_tls_client_certificate(void **state)
{
    struct fixture *f = *state;
    struct tls_server *s = &f->tls;
    tls_start(s, "127.0.0.1");
    tls_get(f, s,
            (struct tls_config){.ca = buf_str(&s->ca),
                                .client_cert = buf_str(&s->cert),
                                .client_key = buf_str(&s->key)});
    assert_int_equal(f->status, 200);
    tls_get(f, s,
            (struct tls_config){.ca = buf_str(&s->ca),
                                .client_cert = buf_str(&s->cert),
                                .client_key = STR("not a key")});
    assert_int_equal(f->err.code, ERR_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_get),
        TEST(test_bodies),
        TEST(test_empty_bodies),
        TEST(test_headers_cannot_smuggle),
        TEST(test_dots_in_paths_stay),
        TEST(test_only_http),
        TEST(test_status_of_errors_with_their_body),
        TEST(test_retry_after_is_capped),
        TEST(test_redirects_are_answers),
        TEST(test_stream),
        TEST(test_stream_cut),
        TEST(test_handler_refuses),
        TEST(test_cancel_in_its_own_chunk),
        TEST(test_too_large),
        TEST(test_garbage),
        TEST(test_refused),
        TEST(test_timeout),
        TEST(test_connections_are_reused),
        TEST(test_a_dead_connection_is_replaced),
        TEST(test_broken_pipes_end_nobody),
        TEST(test_parallel_requests_are_bounded),
        TEST(test_cancel),
        TEST(test_an_idle_stream_means_no_wakeups),
        TEST(test_tls_trusts_what_it_is_given_only),
        TEST(test_tls_server_name),
        TEST(test_tls_client_certificate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
