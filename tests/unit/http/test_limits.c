/* What the server does about clients that ask too much, are too slow, or do not speak HTTP. */
#include "fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* ---- limits ---- */

static void test_head_too_large(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct buf request = BUF_INIT(1 << 20);
    buf_append_cstr(&request, "GET /hello HTTP/1.1\r\nHost: a\r\nX: ");
    for (int i = 0; i < 40000; i++)
        buf_append_char(&request, 'x');
    struct response r;
    assert_int_equal(ask(buf_cstr(&request), &r), 431);
    assert_true(response_has(&r, "Connection: close"));
    response_finish(&r);
    buf_finish(&request);
    assert_true(is_served());
}

static void test_body_too_large(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    /* By Content-Length: before a byte of it was sent. */
    assert_int_equal(
        ask("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", NULL), 413);
    assert_int_equal(ask("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", NULL),
                     413);
    assert_int_equal(
        ask("POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", NULL), 413);
    /* In chunks; the client goes on sending, and has its answer nevertheless. */
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    char size[16];
    snprintf(size, sizeof(size), "%zx\r\n", sizeof(big) / 2);
    client_send_text(&c, size);
    client_send(&c, big, sizeof(big) * 3 / 8);
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 413);
    assert_true(response_has(&r, "Connection: close"));
    response_finish(&r);
    client_close(&c);
    struct http_server_stats stats;
    assert_soon((http_server_stats(t.server, &stats), stats.buffered == 0));
}

static void test_too_much_at_once(void **state)
{
    (void)state;
    start((struct http_server_options){.max_buffered = 6 << 20});
    struct client first;
    struct response r;
    struct http_server_stats stats;
    assert_true(client_open(&first, plain()));
    client_send_text(&first, "POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n");
    assert_soon((http_server_stats(t.server, &stats), stats.buffered == sizeof(big)));
    assert_int_equal(ask("POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n", &r),
                     503);
    assert_true(response_has(&r, "\r\nRetry-After: 1\r\n"));
    response_finish(&r);
    struct client chunked;
    assert_true(client_open(&chunked, plain()));
    client_send_text(&chunked,
                     "POST /huge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                     "400000\r\n");
    client_send(&chunked, big, sizeof(big) * 5 / 8);
    assert_true(client_receive(&chunked, &r, false));
    assert_int_equal(r.status, 503);
    response_finish(&r);
    client_close(&chunked);
    assert_int_equal(ask("POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", NULL),
                     201);
    /* The one that was let in ends well. */
    assert_true(client_send(&first, big, sizeof(big)));
    assert_true(client_receive(&first, &r, false));
    assert_int_equal(r.status, 201);
    response_finish(&r);
    client_close(&first);
    assert_soon((http_server_stats(t.server, &stats), stats.buffered == 0));
}

static void test_admit_comes_before_the_body(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /guarded HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 401);
    assert_true(response_has(&r, "\r\nWWW-Authenticate: Bearer\r\n"));
    assert_true(response_has(&r, "\r\nConnection: close\r\n"));
    response_finish(&r);
    client_close(&c);
    assert_int_equal(ask("POST /guarded HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sesame\r\n"
                         "Content-Length: 2\r\n\r\nok",
                         NULL),
                     201);
    assert_int_equal(atomic_load(&t.admitted), 2);
}

static void test_too_many_connections_on_one_listener(void **state)
{
    (void)state;
    enum { MAX = 5 };
    start((struct http_server_options){.max_connections = MAX});
    struct client idle[MAX], more, other;
    struct response r;
    struct http_server_stats stats;
    for (int i = 0; i < MAX; i++)
        assert_true(client_open(&idle[i], plain()));
    assert_soon((http_server_stats(t.server, &stats), stats.accepted == MAX));
    assert_true(client_open(&more, plain()));
    assert_true(client_sees_end(&more, 5000));
    client_close(&more);
    assert_true(client_open_tls(&other, tls(), 0));
    client_send_text(&other, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&other, &r, false));
    assert_body(&r, "hello");
    client_close(&other);
    client_close(&idle[0]);
    assert_soon(is_served());
    for (int i = 1; i < MAX; i++)
        client_close(&idle[i]);
    http_server_stats(t.server, &stats);
    assert_true(stats.refused >= 1);
}

static void test_slow_clients_are_closed(void **state)
{
    (void)state;
    start((struct http_server_options){.header_timeout_s = 1, .body_timeout_s = 1});
    struct client silent, silent_tls, dripping, body;
    struct response r;
    assert_true(client_open(&silent, plain()));
    assert_true(client_open(&silent_tls, tls()));
    assert_true(client_open(&body, plain()));
    client_send_text(&body, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab");
    assert_true(client_open(&dripping, plain()));
    client_send_text(&dripping, "GET /hello HTTP/1.1\r\nX: ");
    int64_t begin = clock_monotonic_ms(&clock_system);
    while (clock_monotonic_ms(&clock_system) < begin + 1500) {
        client_send_text(&dripping, "x");
        client_send_text(&body, "x");
        usleep(50000);
    }
    assert_true(client_receive(&dripping, &r, false));
    assert_int_equal(r.status, 408);
    response_finish(&r);
    assert_true(client_receive(&body, &r, false));
    assert_int_equal(r.status, 408);
    response_finish(&r);
    assert_true(client_sees_end(&silent, 3000));
    assert_true(client_sees_end(&silent_tls, 3000));
    assert_true(client_sees_end(&dripping, 4000));
    assert_true(client_sees_end(&body, 4000));
    assert_true(clock_monotonic_ms(&clock_system) < begin + 8000);
    struct http_server_stats stats;
    http_server_stats(t.server, &stats);
    assert_int_equal(stats.timed_out, 2);
    client_close(&silent);
    client_close(&silent_tls);
    client_close(&dripping);
    client_close(&body);
    assert_true(is_served());
}

static void test_reader_that_does_not_read_is_closed(void **state)
{
    (void)state;
    start((struct http_server_options){.body_timeout_s = 1});
    struct client c;
    assert_true(client_open(&c, plain()));
    /* Far more than the sockets' buffers hold. */
    for (int i = 0; i < 8; i++)
        client_send_text(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_server_stats stats;
    assert_soon((http_server_stats(t.server, &stats), stats.timed_out == 1));
    client_close(&c);
    assert_true(is_served());
}

/* ---- bad clients ---- */

static void test_garbage_disturbs_nobody(void **state)
{
    (void)state;
    static const char garbage[][64] = {
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not quite a hello",
        "\x16\x03\x01\x00\x05hello there, this is no handshake",
        "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x80\x2e\x01\x00\x02 an old one",
        "\0\0\0\0\0\0\0\0\0\0\r\n\r\n\0\0\0\0",
        "\r\n\r\n\r\n\r\n\n\n\n\n\r\r\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /upload HTTP/1.1\r\nHost:a\r\nContent-Length: 9\r\n\r\nab",
    };
    start((struct http_server_options){.header_timeout_s = 1});
    struct client good, good_tls;
    struct response r;
    assert_true(client_open(&good, plain()));
    assert_true(client_open_tls(&good_tls, tls(), 0));
    for (size_t i = 0; i < ARRAY_SIZE(garbage) * 2; i++) {
        struct client bad;
        assert_true(client_open(&bad, i % 2 ? plain() : tls()));
        client_send(&bad, garbage[i / 2], sizeof(garbage[0]));
        if (i % 3)
            usleep(2000);
        client_close(&bad);
        client_send_text(&good, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&good, &r, false));
        assert_body(&r, "hello");
        client_send_text(&good_tls, "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&good_tls, &r, false));
        assert_body(&r, "s");
    }
    client_close(&good);
    client_close(&good_tls);
}

static void test_too_much_ahead_of_an_answer(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    for (int i = 0; i < 64; i++)
        client_send(&c, big, 16384);
    assert_true(client_sees_end(&c, 5000));
    client_close(&c);
    http_respond(e, 200, NULL, STR(""));
    assert_true(is_served());
}

/* With no descriptor left, poll() reports a connection that accept() cannot take. */
static void test_no_descriptor_left(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct rlimit former, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &former), 0);
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)plain())};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    low = former;
    low.rlim_cur = (rlim_t)c.fd + 8;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int filled[64];
    size_t n = 0;
    while (n < ARRAY_SIZE(filled) && (filled[n] = fcntl(c.fd, F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    assert_true(n < ARRAY_SIZE(filled));
    assert_int_equal(connect(c.fd, (struct sockaddr *)&address, sizeof(address)), 0);
    bool ended = client_sees_end(&c, 5000);
    while (n)
        close(filled[--n]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &former), 0);
    assert_true(ended);
    client_close(&c);
    struct http_server_stats stats;
    http_server_stats(t.server, &stats);
    assert_int_equal(stats.refused, 1);
    assert_true(is_served());
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, stop)
    const struct CMUnitTest tests[] = {
        CASE(test_head_too_large),
        CASE(test_body_too_large),
        CASE(test_too_much_at_once),
        CASE(test_admit_comes_before_the_body),
        CASE(test_too_many_connections_on_one_listener),
        CASE(test_slow_clients_are_closed),
        CASE(test_reader_that_does_not_read_is_closed),
        CASE(test_garbage_disturbs_nobody),
        CASE(test_too_much_ahead_of_an_answer),
        CASE(test_no_descriptor_left),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
