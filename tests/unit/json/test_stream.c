#include "helpers.h"

#include <time.h>

/* What a stream gave: each document's text and "|", all of which had to parse. */
struct seen {
    struct buf all;
    size_t count;
    int answer; /* of on_document */
};

static int on_document(void *context, struct str text, struct err *err)
{
    struct seen *seen = context;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree;
    int code = json_parse(arena, text, NULL, &tree, err);
    if (code != 0)
        return code;
    seen->count++;
    buf_append_str(&seen->all, text);
    buf_append_char(&seen->all, '|');
    return seen->answer ? err_set(err, seen->answer, "enough") : 0;
}

/* Feeds memory of exactly that size. */
static int feed(struct json_stream *s, struct str bytes, struct err *err)
{
    char *exact = malloc(bytes.len ? bytes.len : 1);
    memcpy(exact, bytes.ptr, bytes.len);
    int code = json_stream_feed(s, (struct str){exact, bytes.len}, err);
    free(exact);
    return code;
}

static const struct str watch = STR(
    "{\"type\":\"ADDED\",\"object\":{\"a\":\"}{][\\\"\\\\\"}}\n"
    "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"annotations\":{\"k\":\"\\\\\"}}}} \r\n\t"
    "[]{\"n\":[[1],{}]}");
static const char watch_seen[] =
    "{\"type\":\"ADDED\",\"object\":{\"a\":\"}{][\\\"\\\\\"}}|"
    "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"annotations\":{\"k\":\"\\\\\"}}}}|"
    "[]|{\"n\":[[1],{}]}|";

static void check_parts(const size_t *cuts, size_t n)
{
    struct seen seen = {.all = BUF_INIT(1 << 16)};
    struct err err = ERR_INIT;
    struct json_stream *s = json_stream_create(NULL, on_document, &seen);
    size_t from = 0;
    for (size_t i = 0; i <= n; i++) {
        size_t to = i < n ? cuts[i] : watch.len;
        if (feed(s, str_sub(watch, from, to - from), &err) != 0)
            fail_msg("cut at %zu: %s", to, err.message);
        from = to;
    }
    assert_int_equal(json_stream_end(s, &err), 0);
    assert_string_equal(buf_cstr(&seen.all), watch_seen);
    json_stream_destroy(s);
    buf_finish(&seen.all);
}

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    check_parts(NULL, 0);
    for (size_t a = 0; a <= watch.len; a++) {
        check_parts(&a, 1);
        for (size_t b = a; b <= watch.len; b += 7)
            check_parts((size_t[]){a, b}, 2);
    }
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    size_t cuts[256];
    assert_true(watch.len < ARRAY_SIZE(cuts));
    for (size_t i = 0; i < watch.len; i++)
        cuts[i] = i + 1;
    check_parts(cuts, watch.len);
}

/* Cut off at every byte: fine between documents, ERR_PROTOCOL inside one. */
static void test_end_at_every_byte(void **state)
{
    (void)state;
    for (size_t n = 0; n <= watch.len; n++) {
        struct seen seen = {.all = BUF_INIT(1 << 16)};
        struct err err = ERR_INIT;
        struct json_stream *s = json_stream_create(NULL, on_document, &seen);
        assert_int_equal(feed(s, str_sub(watch, 0, n), &err), 0);
        size_t whole = seen.all.len - seen.count; /* bytes of whole documents */
        size_t spaces = 0;
        for (size_t i = 0; i < n; i++)
            spaces += watch.ptr[i] == '\n' || watch.ptr[i] == '\r' || watch.ptr[i] == '\t' ||
                      watch.ptr[i] == ' ';
        int expected = whole + spaces == n ? 0 : ERR_PROTOCOL;
        assert_int_equal(json_stream_end(s, &err), expected);
        json_stream_destroy(s);
        buf_finish(&seen.all);
    }
}

struct refused {
    const char *text;
    int code;
    const char *message;
    size_t documents; /* that came before */
};

static const struct refused refused[] = {
    {"{}x", ERR_PROTOCOL, "byte 0x78 where a document should begin", 1},
    {"}", ERR_PROTOCOL, "byte 0x7d where a document should begin", 0},
    {"{},{}", ERR_PROTOCOL, "byte 0x2c where a document should begin", 1},
    {"1", ERR_PROTOCOL, "byte 0x31 where a document should begin", 0},
    {"\"a\"", ERR_PROTOCOL, "byte 0x22 where a document should begin", 0},
    {"\xEF\xBB\xBF{}", ERR_PROTOCOL, "byte 0xef where a document should begin", 0},
    {"{]", ERR_INVALID, NULL, 0}, /* mixed-up brackets reach the parser */
    {"[{]}", ERR_INVALID, NULL, 0},
    {"{}{\"a\":\"\n\"}", ERR_INVALID, NULL, 1},
    {"[[[[[]]]]]", ERR_TOO_LARGE, "a document nested deeper than 4 levels", 0},
    {"{} {\"a\":\"0123456789012345678901234\"}", ERR_TOO_LARGE,
     "a document is larger than 32 bytes", 1},
    {"{\"a\":\"012345678901234567890123456789", ERR_TOO_LARGE, "a document is larger than 32 bytes",
     0}, /* before its end has come */
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        for (size_t step = 1; step <= 64; step *= 4) {
            struct seen seen = {.all = BUF_INIT(1 << 16)};
            struct err err = ERR_INIT;
            struct json_limits limits = {.max_bytes = 32, .max_depth = 4};
            struct json_stream *s = json_stream_create(&limits, on_document, &seen);
            struct str text = str_of(refused[i].text);
            int code = 0;
            for (size_t at = 0; at < text.len && code == 0; at += step)
                code = feed(s, str_sub(text, at, step), &err);
            assert_int_equal(code, refused[i].code);
            if (refused[i].message)
                assert_string_equal(err.message, refused[i].message);
            assert_int_equal(seen.count, refused[i].documents);
            assert_int_equal(feed(s, STR("{}"), &err), code); /* it stays failed */
            assert_int_equal(json_stream_end(s, &err), code);
            assert_int_equal(seen.count, refused[i].documents);
            json_stream_destroy(s);
            buf_finish(&seen.all);
        }
    }
}

static void test_exact_size_fits(void **state)
{
    (void)state;
    struct seen seen = {.all = BUF_INIT(1 << 16)};
    struct json_limits limits = {.max_bytes = 9};
    struct json_stream *s = json_stream_create(&limits, on_document, &seen);
    assert_int_equal(feed(s, STR("{\"a\":1"), NULL), 0);
    assert_int_equal(feed(s, STR("23}{\"a\":456}"), NULL), 0);
    assert_int_equal(seen.count, 2);
    json_stream_destroy(s);
    buf_finish(&seen.all);
}

static void test_document_ends_stream(void **state)
{
    (void)state;
    struct seen seen = {.all = BUF_INIT(1 << 16), .answer = ERR_CANCELLED};
    struct err err = ERR_INIT;
    struct json_stream *s = json_stream_create(NULL, on_document, &seen);
    assert_int_equal(feed(s, STR("{}{}"), &err), ERR_CANCELLED);
    assert_string_equal(err.message, "enough");
    assert_int_equal(seen.count, 1);
    json_stream_destroy(s);
    buf_finish(&seen.all);
    json_stream_destroy(NULL);
}

static int count_only(void *context, struct str text, struct err *err)
{
    (void)text, (void)err;
    ++*(size_t *)context;
    return 0;
}

static double seconds_for(size_t document_bytes)
{
    size_t count = 0;
    struct json_stream *s = json_stream_create(NULL, count_only, &count);
    struct buf text = BUF_INIT(document_bytes + 16);
    buf_append_cstr(&text, "{\"a\":\"");
    while (text.len < document_bytes)
        buf_append_char(&text, 'x');
    buf_append_cstr(&text, "\"}");
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (size_t at = 0; at < text.len; at += 16)
        assert_int_equal(json_stream_feed(s, str_sub(buf_str(&text), at, 16), NULL), 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    assert_int_equal(count, 1);
    json_stream_destroy(s);
    buf_finish(&text);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

/* One document in pieces of 16 bytes: 16 times the size would take 256 times as long if every
 * piece were scanned or copied from the document's beginning. */
static void test_linear(void **state)
{
    (void)state;
    double small = seconds_for(1 << 18), large = seconds_for(1 << 22);
    assert_true(large < small * 80 + 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_end_at_every_byte),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_exact_size_fits),
        cmocka_unit_test(test_document_ends_stream),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
