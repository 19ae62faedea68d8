/* The server as good clients see it, over real sockets: answers, threads, start and end. */
#include "fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- good clients ---- */

static void test_answers_and_stays_open(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    for (int i = 0; i < 3; i++) {
        client_send_text(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&c, &r, false));
        assert_int_equal(r.status, 200);
        assert_true(response_has(&r, "\r\nContent-Type: text/plain\r\n"));
        assert_true(response_has(&r, "\r\nDate: "));
        assert_false(response_has(&r, "Connection: close"));
        assert_body(&r, "hello");
    }
    /* The headers of GET, and no body: what follows is the next answer. */
    client_send_text(&c, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&c, &r, true));
    assert_true(response_has(&r, "\r\nContent-Length: 5\r\n"));
    response_finish(&r);
    client_send_text(&c, "POST /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_true(response_has(&r, "\r\nConnection: close\r\n"));
    assert_body(&r, "posted");
    assert_true(client_sees_end(&c, 1000));
    client_close(&c);
    assert_int_equal(ask("GET /hello HTTP/1.0\r\n\r\n", &r), 200);
    assert_true(response_has(&r, "Connection: close"));
    assert_body(&r, "hello");
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                         "\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                         "POST /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 201);
    response_finish(&r);
    assert_true(client_receive(&c, &r, false));
    assert_body(&r, "hello");
    assert_true(client_receive(&c, &r, false));
    assert_body(&r, "posted");
    client_close(&c);
}

static void test_parameters(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct response r;
    assert_int_equal(ask("GET /items/shop/a%20b?x=1&q=%C3%A4+z HTTP/1.1\r\nHost: a\r\n"
                         "X-Thing: v\r\nAuthorization: bearer  tok.en \r\n\r\n",
                         &r),
                     200);
    assert_body(&r, "shop|a b|\xc3\xa4 z|v|tok.en|127.0.0.1");
    assert_int_equal(
        ask("GET /items/a/b HTTP/1.1\r\nHost: a\r\nAuthorization: Basic x\r\n\r\n", &r), 200);
    assert_body(&r, "a|b||||127.0.0.1");
}

static void test_unknown_paths_and_methods(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
    } rows[] = {
        {"GET /", 404},          {"GET /hello/", 404},   {"GET //hello", 404},
        {"GET /items/a", 404},   {"GET /items//b", 404}, {"GET /items/a/b/c", 404},
        {"GET /secret", 404},    {"DELETE /hello", 405}, {"BREW /hello", 405},
        {"OPTIONS /hello", 405}, {"HEAD /upload", 405},  {"GET /items/../hello", 400},
        {"GET /%2e%2e/x", 400},  {"GET /hello%00", 400},
    };
    start((struct http_server_options){0});
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char request[256];
        struct response r;
        snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].line);
        int status = ask(request, &r);
        if (status != rows[i].status)
            fail_msg("%s: %d", rows[i].line, status);
        if (status == 405 && strstr(rows[i].line, "hello"))
            assert_true(response_has(&r, "\r\nAllow: GET, HEAD, POST\r\n"));
        response_finish(&r);
    }
    assert_soon(atomic_load(&t.observed_unknown) == ARRAY_SIZE(rows));
    assert_int_equal(atomic_load(&t.observed[404]), 7);
    assert_int_equal(atomic_load(&t.observed[405]), 4);
    assert_int_equal(atomic_load(&t.observed[400]), 3);
}

static void test_body_with_length_and_in_chunks(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    static char bytes[300000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 7919 >> 3);
    char expected[64];
    snprintf(expected, sizeof(expected), "%zu %016llx", sizeof(bytes),
             (unsigned long long)str_hash((struct str){bytes, sizeof(bytes)}));
    struct client c;
    struct response r;
    for (int secure = 0; secure < 2; secure++) {
        assert_true(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()));
        client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
        assert_true(client_send(&c, bytes, sizeof(bytes)));
        assert_true(client_receive(&c, &r, false));
        assert_body(&r, expected);
        client_send_text(&c,
                         "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0, n = 1; at < sizeof(bytes); at += n, n = n * 3 + 1) {
            char size[16];
            if (n > sizeof(bytes) - at)
                n = sizeof(bytes) - at;
            snprintf(size, sizeof(size), "%zx\r\n", n);
            client_send_text(&c, size);
            client_send(&c, bytes + at, n);
            client_send_text(&c, "\r\n");
        }
        client_send_text(&c, "0\r\n\r\n");
        assert_true(client_receive(&c, &r, false));
        assert_body(&r, expected);
        client_close(&c);
    }
}

static void test_expect_continue(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                         "Content-Length: 3\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 100);
    response_finish(&r);
    client_send_text(&c, "abc");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 201);
    response_finish(&r);
    client_send_text(&c, "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                         "Content-Length: 3000000\r\n\r\n");
    assert_true(client_receive(&c, &r, false));
    assert_int_equal(r.status, 413);
    response_finish(&r);
    client_close(&c);
}

static void test_large_answer_to_slow_reader(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    for (int secure = 0; secure < 2; secure++) {
        struct client c;
        struct response r;
        assert_true(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()));
        client_send_text(&c, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        usleep(100000);
        assert_true(is_served());
        assert_true(client_receive(&c, &r, false));
        assert_int_equal(r.body.len, sizeof(big));
        assert_memory_equal(r.body.ptr, big, sizeof(big));
        response_finish(&r);
        client_close(&c);
    }
}

/* ---- answers from other threads ---- */

static void test_answer_from_another_thread(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    pthread_t thread;
    int n = 50;
    pthread_create(&thread, NULL, answer_kept, &n);
    struct client c;
    struct response r;
    assert_true(client_open_tls(&c, tls(), 0));
    for (int i = 0; i < n; i++) {
        client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(client_receive(&c, &r, false));
        assert_int_equal(r.status, 503);
        assert_true(response_has(&r, "\r\nRetry-After: 1\r\n"));
        assert_body(&r, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\","
                        "\"message\":\"not \\\"now\\\"\",\"reason\":\"Later\",\"code\":503}");
    }
    pthread_join(thread, NULL);
    client_close(&c);
}

static void test_client_is_gone_before_the_answer(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    for (int secure = 0; secure < 2; secure++) {
        struct client c;
        assert_true(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()));
        client_send_text(&c, "GET /keep?q=still HTTP/1.1\r\nHost: a\r\n\r\n");
        struct http_exchange *e = take_kept();
        client_close(&c);
        assert_soon(atomic_load(&t.observed[499]) == secure + 1);
        assert_true(str_is(http_exchange_query(e, "q"), "still"));
        http_respond(e, 200, "text/plain", STR("nobody hears it"));
        assert_true(is_served());
    }
    assert_soon(atomic_load(&t.observed[200]) == 2);
}

static void test_server_is_gone_before_the_answer(void **state)
{
    start((struct http_server_options){0});
    struct client c;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep?q=still HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    stop(state);
    assert_true(client_sees_end(&c, 5000));
    assert_true(str_is(http_exchange_query(e, "q"), "still"));
    http_respond(e, 200, "text/plain", STR("nobody hears it"));
    client_close(&c);
}

static void test_request_read_ahead_waits_for_its_turn(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    struct response r;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    client_send_text(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    usleep(50000);
    http_respond(take_kept(), 200, NULL, STR(""));
    assert_true(client_receive(&c, &r, false));
    assert_false(response_has(&r, "\r\nContent-Type:"));
    assert_body(&r, "");
    assert_true(client_receive(&c, &r, false));
    assert_body(&r, "hello");
    client_close(&c);
}

/* ---- the end ---- */

static void *stop_soon(void *argument)
{
    http_server_stop(t.server, *(int *)argument);
    return NULL;
}

static void test_stop_lets_requests_end(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client idle, busy, late;
    struct response r;
    int port = plain(), grace_ms = 15000;
    assert_true(client_open(&idle, port));
    assert_true(client_open(&busy, port));
    client_send_text(&busy, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    int64_t begin = clock_monotonic_ms(&clock_system);
    pthread_t thread;
    pthread_create(&thread, NULL, stop_soon, &grace_ms);
    assert_true(client_sees_end(&idle, 5000));
    assert_false(client_open(&late, port));
    http_respond(e, 200, "text/plain", STR("in time"));
    assert_true(client_receive(&busy, &r, false));
    assert_true(response_has(&r, "Connection: close"));
    assert_body(&r, "in time");
    client_close(&busy);
    client_close(&idle);
    pthread_join(thread, NULL);
    assert_true(clock_monotonic_ms(&clock_system) < begin + 10000);
}

static void test_stop_does_not_wait_for_ever(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    assert_true(client_open(&c, plain()));
    client_send_text(&c, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    struct http_exchange *e = take_kept();
    int64_t begin = clock_monotonic_ms(&clock_system);
    http_server_stop(t.server, 300);
    int64_t took = clock_monotonic_ms(&clock_system) - begin;
    if (took < 290 || took > 10000)
        fail_msg("%d ms", (int)took);
    assert_true(client_sees_end(&c, 1000));
    http_respond(e, 200, NULL, STR("too late"));
    client_close(&c);
}

static void never(void *context, struct http_exchange *e)
{
    (void)context;
    http_respond(e, 500, NULL, STR(""));
}

static void test_wrong_options_are_told(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct err err = ERR_INIT;
    struct http_server *s = NULL;
    struct http_listener taken = {.name = "x", .address = "127.0.0.1", .port = plain()};
    struct http_server_options o = {.listeners = &taken, .n_listeners = 1};
    assert_int_equal(http_server_create(&o, &s, &err), ERR_IO);
    assert_non_null(strstr(err.message, "Address already in use"));
    taken.address = "localhost";
    assert_int_equal(http_server_create(&o, &s, &err), ERR_INVALID);
    taken = (struct http_listener){.name = "x", .address = "127.0.0.1", .tls = true};
    assert_int_equal(http_server_create(&o, &s, &err), ERR_INVALID);
    struct http_route route = {.method = "GET", .pattern = "no-slash", .handler = never};
    o = (struct http_server_options){.routes = &route, .n_routes = 1};
    assert_int_equal(http_server_create(&o, &s, &err), ERR_INVALID);
    assert_null(s);
}

/* How often the service thread went to sleep so far: /proc/PID/task/TID/status. */
static long count_waits(void)
{
    long waits = -1;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *d; tasks && (d = readdir(tasks));) {
        char path[300];
        struct err err = ERR_INIT;
        struct buf text = BUF_INIT(65536);
        snprintf(path, sizeof(path), "/proc/self/task/%s/status", d->d_name);
        if (!buf_read_file(&text, path, &err) &&
            str_starts_with(buf_str(&text), STR("Name:\thttp\n")))
            waits = strtol(strstr(buf_cstr(&text), "\nvoluntary_ctxt_switches:") + 25, NULL, 10);
        buf_finish(&text);
    }
    closedir(tasks);
    return waits;
}

static void test_idle_means_no_wakeups(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    assert_true(is_served());
    sleep(3); /* past the timers of that client */
    long before = count_waits();
    assert_true(before > 0);
    sleep(3);
    assert_int_equal(count_waits(), before);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, stop)
    const struct CMUnitTest tests[] = {
        CASE(test_answers_and_stays_open),
        CASE(test_pipelined_requests_are_answered_in_order),
        CASE(test_parameters),
        CASE(test_unknown_paths_and_methods),
        CASE(test_body_with_length_and_in_chunks),
        CASE(test_expect_continue),
        CASE(test_large_answer_to_slow_reader),
        CASE(test_answer_from_another_thread),
        CASE(test_client_is_gone_before_the_answer),
        CASE(test_server_is_gone_before_the_answer),
        CASE(test_request_read_ahead_waits_for_its_turn),
        CASE(test_stop_lets_requests_end),
        CASE(test_stop_does_not_wait_for_ever),
        CASE(test_wrong_options_are_told),
        CASE(test_idle_means_no_wakeups),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
