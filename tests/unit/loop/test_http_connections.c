/* The libcurl transport's connections: when they are new ones, how many there are, what is
 * cancelled on them, and that quiet ones cost nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "http_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refused),
        TEST(test_timeout),
        TEST(test_connections_are_reused),
        TEST(test_a_dead_connection_is_replaced),
        TEST(test_broken_pipes_end_nobody),
        TEST(test_parallel_requests_are_bounded),
        TEST(test_cancel),
        TEST(test_an_idle_stream_means_no_wakeups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
