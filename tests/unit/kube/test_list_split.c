/* The splitter of list answers, at every way of cutting the input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kube/kube_internal.h"

static int collect(void *context, struct str text, struct err *err)
{
    struct buf *items = context;
    if (str_is(text, "{\"refuse\":1}"))
        return err_set(err, ERR_INVALID, "refused");
    buf_append_str(items, text);
    buf_append_char(items, '|');
    return 0;
}

static int split(struct str text, size_t piece, struct buf *items, struct buf *envelope)
{
    struct err err = ERR_INIT;
    int failed = 0;
    *items = BUF_INIT(1 << 20);
    *envelope = BUF_INIT(1 << 20);
    struct kube_list_split *s = kube_list_split_create(64, collect, items);
    for (size_t i = 0; i < text.len && !failed; i += piece)
        failed = kube_list_split_feed(s, str_sub(text, i, piece), &err);
    buf_append_str(envelope, kube_list_split_envelope(s));
    kube_list_split_destroy(s);
    return failed;
}

static void check(const char *text, const char *items, const char *envelope)
{
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        _cleanup_(buf_finish) struct buf have_items = {0}, have_envelope = {0};
        assert_int_equal(split(str_of(text), piece, &have_items, &have_envelope), 0);
        assert_string_equal(buf_cstr(&have_items), items);
        assert_string_equal(buf_cstr(&have_envelope), envelope);
    }
}

static void check_fails(const char *text, int code)
{
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        _cleanup_(buf_finish) struct buf items = {0}, envelope = {0};
        assert_int_equal(split(str_of(text), piece, &items, &envelope), code);
    }
}

static void test_splits(void **state)
{
    (void)state;
    check("{\"a\":1,\"items\":[{\"x\":[1,{}]},{}],\"b\":{}}", "{\"x\":[1,{}]}|{}|",
          "{\"a\":1,\"items\":[],\"b\":{}}");
    check("{ \"items\" : [ ] }", "", "{ \"items\" : [] }");
    check("{\"items\":[\n {\"s\":\"]},\\\\\\\"{\"} , {}\n]}", "{\"s\":\"]},\\\\\\\"{\"}|{}|",
          "{\"items\":[]}");
}

static void test_only_the_lists_own_items(void **state)
{
    (void)state;
    check("{\"metadata\":{\"items\":[{\"a\":1}]},\"x\":\"items\",\"y\":[{}]}", "",
          "{\"metadata\":{\"items\":[{\"a\":1}]},\"x\":\"items\",\"y\":[{}]}");
    check("{\"x\":\"items\",\"items\":null,\"z\":[{\"a\":1}]}", "",
          "{\"x\":\"items\",\"items\":null,\"z\":[{\"a\":1}]}");
    check("{\"items\":{\"items\":[{}]}}", "", "{\"items\":{\"items\":[{}]}}");
}

static void test_refuses(void **state)
{
    (void)state;
    check_fails("{\"items\":[1]}", ERR_PROTOCOL);
    check_fails("{\"items\":[\"x\"]}", ERR_PROTOCOL);
    check_fails("{\"items\":[{\"refuse\":1}]}", ERR_INVALID);
    check_fails("{\"items\":[{\"too\":\"0123456789012345678901234567890123456789012345678901234"
                "56789\"}]}",
                ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_only_the_lists_own_items),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
