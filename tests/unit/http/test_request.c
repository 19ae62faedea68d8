/* Request heads and bodies: what is understood, what is refused and how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "http/request.h"

#define GET  "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

static const struct {
    struct str head;
    int status;
} heads[] = {
    {STR(GET "\r\n"), 0},
    {STR("GET /a/b?c=d HTTP/1.0\r\n\r\n"), 0},
    {STR("GET http://host:1/a HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {STR("GET https://host HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {STR("BREW /a HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {STR(POST "Content-Length: 12\r\n\r\n"), 0},
    {STR(POST "Transfer-Encoding: Chunked\r\n\r\n"), 0},
    {STR(GET "Empty:\r\nTab:\ta\tb\t\r\n\r\n"), 0},
    {STR(GET "Expect: 100-Continue\r\n\r\n"), 0},
    /* request line */
    {STR("GET /\r\n\r\n"), 400},
    {STR("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), 400},
    {STR("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("G(T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("AMETHODTHATISLONG / HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505},
    {STR("GET / HTTP/1.2\r\nHost: a\r\n\r\n"), 505},
    {STR("GET / http/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("PRI * HTTP/2.0\r\n\r\n"), 505},
    /* path */
    {STR("GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a/. HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%0ab HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%ffb HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%c0%afb HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16 HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {STR("GET /1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17 HTTP/1.1\r\nHost: a\r\n\r\n"), 414},
    {STR("GET /?a=%00 HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {STR("GET /?%=1 HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    /* headers */
    {STR("GET / HTTP/1.1\r\n\r\n"), 400},
    {STR(GET "Host: b\r\n\r\n"), 400},
    {STR(GET "Authorization: a\r\nAuthorization: b\r\n\r\n"), 400},
    {STR(GET "No colon\r\n\r\n"), 400},
    {STR(GET ": no name\r\n\r\n"), 400},
    {STR(GET "Space : before\r\n\r\n"), 400},
    {STR(GET "A: folded\r\n over\r\n\r\n"), 400},
    {STR(GET "A: b\rc\r\n\r\n"), 400},
    {STR(GET "A: b\nc\r\n\r\n"), 400},
    {STR(GET "A: b\0c\r\n\r\n"), 400},
    {STR(GET "Expect: tea\r\n\r\n"), 417},
    /* how long the body is */
    {STR(POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"), 400},
    {STR(POST "Content-Length: 1, 1\r\n\r\n"), 400},
    {STR(POST "Content-Length: +1\r\n\r\n"), 400},
    {STR(POST "Content-Length: -1\r\n\r\n"), 400},
    {STR(POST "Content-Length: 0x1\r\n\r\n"), 400},
    {STR(POST "Content-Length:\r\n\r\n"), 400},
    {STR(POST "Content-Length: 18446744073709551616\r\n\r\n"), 400},
    {STR(POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
    {STR(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
    {STR(POST "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501},
    {STR(POST "Transfer-Encoding: xchunked\r\n\r\n"), 501},
    {STR(POST "Transfer-Encoding:\r\n\r\n"), 501},
    {STR("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
};

static void test_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
        struct arena *arena = arena_create(0);
        struct request r;
        const char *why = NULL;
        int status = request_parse(heads[i].head, arena, &r, &why);
        if (status != heads[i].status)
            fail_msg("%.*s: %d (%s) and not %d", STR_ARG(heads[i].head), status, why,
                     heads[i].status);
        arena_destroy(arena);
    }
}

static void test_head_is_taken_apart(void **state)
{
    (void)state;
    struct arena *arena = arena_create(0);
    struct request r;
    const char *why;
    assert_int_equal(
        request_parse(STR("POST /v1/a%20b//x?q=1+2&%41=%26&&flag HTTP/1.1\r\nHost: h\r\n"
                          "X-Thing:  value \r\nConnection: x, Close\r\nContent-Length: 7\r\n\r\n"),
                      arena, &r, &why),
        0);
    assert_true(str_is(r.method, "POST"));
    assert_true(str_is(r.path, "/v1/a%20b//x"));
    assert_int_equal(r.n_segments, 4);
    assert_true(str_is(r.segments[1], "a b"));
    assert_int_equal(r.segments[2].len, 0);
    assert_int_equal(r.n_query, 3);
    assert_true(str_is(r.query[0].value, "1 2"));
    assert_true(str_is(r.query[1].name, "A"));
    assert_true(str_is(r.query[1].value, "&"));
    assert_true(str_is(r.query[2].name, "flag"));
    assert_true(str_is(request_header(&r, "x-thing"), "value"));
    assert_null(request_header(&r, "absent").ptr);
    assert_false(r.keep_alive);
    assert_true(r.has_length && r.length == 7);
    arena_destroy(arena);
}

static void test_too_many_headers(void **state)
{
    (void)state;
    for (int n = REQUEST_HEADERS_MAX - 1; n <= REQUEST_HEADERS_MAX; n++) {
        struct buf head = BUF_INIT(REQUEST_HEAD_MAX);
        buf_append_cstr(&head, GET);
        for (int i = 0; i < n; i++)
            buf_appendf(&head, "H%d: v\r\n", i);
        buf_append_cstr(&head, "\r\n");
        struct arena *arena = arena_create(0);
        struct request r;
        const char *why;
        assert_int_equal(request_parse(buf_str(&head), arena, &r, &why),
                         n < REQUEST_HEADERS_MAX ? 0 : 431);
        arena_destroy(arena);
        buf_finish(&head);
    }
}

static void test_end_of_head_in_any_pieces(void **state)
{
    (void)state;
    struct str text = STR(GET "A: b\r\n\r\nrest");
    size_t end = text.len - 4;
    for (size_t step = 1; step < text.len; step++) {
        size_t scanned = 0, found = 0;
        for (size_t n = step; !found && n < text.len + step; n += step)
            found = request_head_end(str_sub(text, 0, n), &scanned);
        assert_int_equal(found, end);
    }
}

static const struct {
    const char *bytes, *body;
    int result;
    size_t rest;
} chunks[] = {
    {"0\r\n\r\n", "", 1, 0},
    {"3\r\nabc\r\n0\r\n\r\n", "abc", 1, 0},
    {"3\r\nabc\r\n0\r\n\r\nGET", "abc", 1, 3},
    {"1\r\na\r\n00002;x=\"y\"\r\nbc\r\n000\r\nTrailer: t\r\n\r\n", "abc", 1, 0},
    {"A\r\n0123456789\r\n0\r\n\r\n", "0123456789", 1, 0},
    {"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", "", -413, 0},
    {"ffffffff\r\n0123456789x", "", -413, 0},
    {"3\r\nab", "ab", 0, 0},
    {"\r\n", "", -400, 0},
    {";\r\n", "", -400, 0},
    {"g\r\n", "", -400, 0},
    {"-1\r\n", "", -400, 0},
    {"0x1\r\na\r\n0\r\n\r\n", "", -400, 0},
    {"1 \r\na\r\n0\r\n\r\n", "", -400, 0},
    {"000000001\r\na\r\n0\r\n\r\n", "", -400, 0},
    {"1\na\n0\n\n", "", -400, 0},
    {"1\r\nab\r\n", "", -400, 0},
    {"1;a\nb\r\na\r\n0\r\n\r\n", "", -400, 0},
    {"0\r\nTrailer: t\n\r\n", "", -400, 0},
};

static void test_chunks_in_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
        size_t total = strlen(chunks[i].bytes);
        for (size_t step = 1; step <= total; step++) {
            struct body_reader reader = {.chunked = true};
            struct buf body = BUF_INIT(10);
            int result = 0;
            size_t at = 0;
            while (!result && at < total) {
                struct str piece = str_sub(str_of(chunks[i].bytes), at, step);
                size_t had = piece.len;
                result = body_read(&reader, &piece, &body);
                at += had - piece.len;
            }
            if (result != chunks[i].result)
                fail_msg("%s in steps of %zu: %d", chunks[i].bytes, step, result);
            if (result >= 0)
                assert_string_equal(buf_cstr(&body), chunks[i].body);
            if (result > 0)
                assert_int_equal(total - at, chunks[i].rest);
            buf_finish(&body);
        }
    }
}

static void test_chunk_overhead_is_capped(void **state)
{
    (void)state;
    const char *const starts[] = {"1;", "0\r\nT"};
    for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
        struct body_reader reader = {.chunked = true};
        struct buf body = BUF_INIT(10);
        struct str piece = str_of(starts[i]);
        assert_int_equal(body_read(&reader, &piece, &body), 0);
        int result = 0;
        for (int n = 0; !result && n < 100000; n++) {
            piece = STR("x");
            result = body_read(&reader, &piece, &body);
        }
        assert_int_equal(result, -400);
        buf_finish(&body);
    }
}

static void test_body_of_known_length(void **state)
{
    (void)state;
    struct body_reader reader = {.remaining = 5};
    struct buf body = BUF_INIT(5);
    struct str piece = STR("abc");
    assert_int_equal(body_read(&reader, &piece, &body), 0);
    piece = STR("deNEXT");
    assert_int_equal(body_read(&reader, &piece, &body), 1);
    assert_true(str_is(piece, "NEXT"));
    assert_string_equal(buf_cstr(&body), "abcde");
    buf_finish(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_head_is_taken_apart),
        cmocka_unit_test(test_too_many_headers),
        cmocka_unit_test(test_end_of_head_in_any_pieces),
        cmocka_unit_test(test_chunks_in_any_pieces),
        cmocka_unit_test(test_chunk_overhead_is_capped),
        cmocka_unit_test(test_body_of_known_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
