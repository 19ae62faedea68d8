/* What the libcurl transport sends, and what it makes of answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "http_fixture.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
