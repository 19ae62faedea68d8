#include "helpers.h"

#include "json/decode.h"

enum colour { RED, GREEN };
static const char *const colour_names[] = {"Red", "Green", NULL};
static const char *const format_names[] = {"flamegraph", "raw", NULL};
static const char *const maybe_names[] = {"", "gzip", NULL};

struct inner {
    struct str name;
    int64_t count;
};

struct outer {
    int64_t rate; /* at offset 0 on purpose */
    bool has_rate, has_inner;
    int64_t any, at_least, duration_ms, time_ms;
    bool on;
    double ratio;
    int colour;
    struct str text, maybe;
    struct inner inner, needed;
    struct inner *ptr;
    struct json_array list;
    struct json_str_array formats;
    struct json_str_map labels;
    const struct json *raw;
};

static const struct json_field inner_table[] = {
    {"name", JSON_F_STR, offsetof(struct inner, name), .flags = JSON_REQUIRED, .max_len = 8},
    {"count", JSON_F_INT, offsetof(struct inner, count)},
    {.name = NULL},
};

#define AT(member) offsetof(struct outer, member)
static const struct json_field outer_table[] = {
    {"rate", JSON_F_INT, AT(rate), .present = AT(has_rate), .min = 1, .max = 1000},
    {"any", JSON_F_INT, AT(any)},
    {"atLeast", JSON_F_INT, AT(at_least), .min = 5},
    {"duration", JSON_F_DURATION, AT(duration_ms), .min = 1000, .max = 3600000},
    {"time", JSON_F_TIME, AT(time_ms)},
    {"on", JSON_F_BOOL, AT(on)},
    {"ratio", JSON_F_DOUBLE, AT(ratio)},
    {"colour", JSON_F_ENUM, AT(colour), .names = colour_names},
    {"text", JSON_F_STR, AT(text)},
    {"maybe", JSON_F_STR, AT(maybe), .names = maybe_names},
    {"inner", JSON_F_OBJECT, AT(inner), .present = AT(has_inner), .table = inner_table},
    {"ptr", JSON_F_OBJECT_PTR, AT(ptr), .table = inner_table, .size = sizeof(struct inner)},
    {"list", JSON_F_ARRAY, AT(list), .table = inner_table, .size = sizeof(struct inner),
     .max_len = 2},
    {"formats", JSON_F_STR_ARRAY, AT(formats), .names = format_names},
    {"labels", JSON_F_STR_MAP, AT(labels), .max_len = 2},
    {"raw", JSON_F_RAW, AT(raw)},
    {.name = NULL},
};

static int decode(struct arena *arena, const char *text, enum json_unknown unknown,
                  struct outer *ret, struct err *err)
{
    const struct json *tree;
    assert_int_equal(json_parse(arena, str_of(text), NULL, &tree, err), 0);
    return json_decode(arena, tree, outer_table, "spec", unknown, ret, err);
}

static void test_every_kind(void **state)
{
    struct outer o = {0};
    struct err err = ERR_INIT;
    const char *text =
        "{\"rate\":1000,\"any\":-5,\"atLeast\":5,\"duration\":\"1m30s\","
        "\"time\":\"1970-01-01T00:00:01.5Z\",\"on\":true,\"ratio\":2.5,\"colour\":\"Green\","
        "\"text\":\"t\",\"maybe\":\"gzip\",\"inner\":{\"name\":\"i\",\"count\":1e2},"
        "\"ptr\":{\"name\":\"p\"},\"list\":[{\"name\":\"a\"},{\"name\":\"b\",\"count\":2}],"
        "\"formats\":[\"raw\",\"flamegraph\"],\"labels\":{\"x\":\"1\",\"y\":\"\"},"
        "\"raw\":{\"k\":[1]}}";
    assert_int_equal(decode(*state, text, JSON_UNKNOWN_REFUSE, &o, &err), 0);
    assert_int_equal(o.rate, 1000);
    assert_true(o.has_rate);
    assert_true(o.has_inner);
    assert_int_equal(o.any, -5);
    assert_int_equal(o.at_least, 5);
    assert_int_equal(o.duration_ms, 90000);
    assert_int_equal(o.time_ms, 1500);
    assert_true(o.on);
    assert_true(o.ratio > 2.4 && o.ratio < 2.6);
    assert_int_equal(o.colour, GREEN);
    assert_true(str_is(o.text, "t"));
    assert_true(str_is(o.maybe, "gzip"));
    assert_true(str_is(o.inner.name, "i"));
    assert_int_equal(o.inner.count, 100);
    assert_true(str_is(o.ptr->name, "p"));
    assert_int_equal(o.ptr->count, 0);
    assert_int_equal(o.list.len, 2);
    const struct inner *items = o.list.items;
    assert_true(str_is(items[0].name, "a"));
    assert_int_equal(items[1].count, 2);
    assert_int_equal(o.formats.len, 2);
    assert_true(str_is(o.formats.items[0], "raw"));
    assert_int_equal(o.labels.len, 2);
    assert_true(str_is(json_str_map_get(&o.labels, STR("x")), "1"));
    assert_non_null(json_str_map_get(&o.labels, STR("y")).ptr);
    assert_null(json_str_map_get(&o.labels, STR("z")).ptr);
    assert_string_equal(tree_text(*state, o.raw), "{\"k\":[1]}");
}

/* Absent is not zero: what is not there, or null, leaves the default. */
static void test_defaults_stay(void **state)
{
    const char *texts[] = {
        "{}", "{\"rate\":null,\"on\":null,\"ptr\":null,\"inner\":null,\"raw\":null}", "null"};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct outer o = {.rate = 100, .on = true, .colour = GREEN, .inner.count = 3};
        assert_int_equal(decode(*state, texts[i], JSON_UNKNOWN_REFUSE, &o, NULL), 0);
        assert_int_equal(o.rate, 100);
        assert_true(o.on);
        assert_int_equal(o.colour, GREEN);
        assert_int_equal(o.inner.count, 3);
        assert_false(o.has_rate);
        assert_false(o.has_inner);
        assert_null(o.ptr);
        assert_null(o.raw);
        assert_int_equal(o.list.len, 0);
    }
    struct outer o = {.rate = 100};
    assert_int_equal(json_decode(*state, NULL, outer_table, "", JSON_UNKNOWN_REFUSE, &o, NULL), 0);
    assert_int_equal(o.rate, 100);
    struct inner inner = {.count = 3};
    struct err err = ERR_INIT;
    assert_int_equal(json_decode(*state, NULL, inner_table, "", JSON_UNKNOWN_REFUSE, &inner, &err),
                     ERR_INVALID);
    assert_string_equal(err.message, "name: is required");
}

struct bad {
    const char *text, *message;
};

#define LONG16 "0123456789abcdef"
#define LONG64 LONG16 LONG16 LONG16 LONG16

static const struct bad bad[] = {
    {"[]", "spec: an array is not an object"},
    {"\"x\"", "spec: \"x\" is not an object"},
    {"{\"rate\":2000}", "spec.rate: 2000 is more than 1000"},
    {"{\"rate\":0}", "spec.rate: 0 is less than 1"},
    {"{\"rate\":-1e2}", "spec.rate: -1e2 is less than 1"},
    {"{\"rate\":1.5}", "spec.rate: 1.5 is not a whole number"},
    {"{\"rate\":99999999999999999999}", "spec.rate: 99999999999999999999 is not a whole number"},
    {"{\"rate\":\"fast\"}", "spec.rate: \"fast\" is not a whole number"},
    {"{\"rate\":\"10\"}", "spec.rate: \"10\" is not a whole number"},
    {"{\"rate\":true}", "spec.rate: true is not a whole number"},
    {"{\"rate\":{}}", "spec.rate: an object is not a whole number"},
    {"{\"atLeast\":4}", "spec.atLeast: 4 is less than 5"},
    {"{\"duration\":\"0s\"}", "spec.duration: 0s is less than 1s"},
    {"{\"duration\":\"1h1ms\"}", "spec.duration: 1h1ms is more than 1h0m0s"},
    {"{\"duration\":\"soon\"}",
     "spec.duration: \"soon\" is not a duration such as \"30s\" or \"1h30m\""},
    {"{\"duration\":30}", "spec.duration: 30 is not a duration such as \"30s\" or \"1h30m\""},
    {"{\"time\":\"now\"}", "spec.time: \"now\" is not a time such as \"2026-01-31T23:59:59Z\""},
    {"{\"time\":1}", "spec.time: 1 is not a time such as \"2026-01-31T23:59:59Z\""},
    {"{\"on\":\"true\"}", "spec.on: \"true\" is not true or false"},
    {"{\"on\":1}", "spec.on: 1 is not true or false"},
    {"{\"ratio\":\"1\"}", "spec.ratio: \"1\" is not a number"},
    {"{\"ratio\":1e999}", "spec.ratio: 1e999 is not a number"},
    {"{\"colour\":\"red\"}", "spec.colour: \"red\" is not one of Red, Green"},
    {"{\"colour\":1}", "spec.colour: 1 is not one of Red, Green"},
    {"{\"text\":7}", "spec.text: 7 is not a string"},
    {"{\"text\":[]}", "spec.text: an array is not a string"},
    {"{\"maybe\":\"zip\"}", "spec.maybe: \"zip\" is not one of gzip"},
    {"{\"inner\":{}}", "spec.inner.name: is required"},
    {"{\"inner\":{\"name\":null}}", "spec.inner.name: is required"},
    {"{\"inner\":{\"name\":\"123456789\"}}", "spec.inner.name: 9 bytes are more than 8"},
    {"{\"inner\":3}", "spec.inner: 3 is not an object"},
    {"{\"ptr\":[]}", "spec.ptr: an array is not an object"},
    {"{\"ptr\":{\"name\":\"p\",\"count\":\"x\"}}", "spec.ptr.count: \"x\" is not a whole number"},
    {"{\"list\":{}}", "spec.list: an object is not an array"},
    {"{\"list\":[{\"name\":\"a\"},{\"count\":1}]}", "spec.list[1].name: is required"},
    {"{\"list\":[null]}", "spec.list[0]: null is not an object"},
    {"{\"list\":[{},{},{}]}", "spec.list: 3 items are more than 2"},
    {"{\"formats\":[\"raw\",\"svg\"]}", "spec.formats[1]: \"svg\" is not one of flamegraph, raw"},
    {"{\"formats\":[null]}", "spec.formats[0]: null is not a string"},
    {"{\"formats\":\"raw\"}", "spec.formats: \"raw\" is not an array"},
    {"{\"labels\":{\"a/b\":1}}", "spec.labels[\"a/b\"]: 1 is not a string"},
    {"{\"labels\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}", "spec.labels: 3 items are more than 2"},
    {"{\"labels\":[]}", "spec.labels: an array is not an object"},
    {"{\n\"rates\":1}", "line 2: spec.rates: unknown key (did you mean \"rate\"?)"},
    {"{\"RATE\":1}", "line 1: spec.RATE: unknown key (did you mean \"rate\"?)"},
    {"{\"at-least\":1}", "line 1: spec.at-least: unknown key (did you mean \"atLeast\"?)"},
    {"{\"nothing\":1}", "line 1: spec.nothing: unknown key"},
    {"{\"xx\":1}", "line 1: spec.xx: unknown key"},
    {"{\"\":1}", "line 1: spec.: unknown key"},
    {"{\"inner\":\n{\n\"nme\":\"x\"}}",
     "line 3: spec.inner.nme: unknown key (did you mean \"name\"?)"},
    {"{\"list\":[{\"name\":\"a\",\n\"cuont\":1}]}",
     "line 2: spec.list[0].cuont: unknown key (did you mean \"count\"?)"},
    /* What comes from outside cannot break a log line or fill it. */
    {"{\"a\\nb\":1}", "line 1: spec.a?b: unknown key"},
    {"{\"colour\":\"a\\u001b\\nb\"}", "spec.colour: \"a??b\" is not one of Red, Green"},
    {"{\"colour\":\"" LONG64 LONG64 "\"}", "spec.colour: \"" LONG64 "…\" is not one of Red, Green"},
    {"{\"colour\":\"x" LONG16 LONG16 LONG16 "0123456789abcd€\"}", /* cut between characters */
     "spec.colour: \"x" LONG16 LONG16 LONG16 "0123456789abcd…\" is not one of Red, Green"},
    {"{\"" LONG64 LONG64 "\":1}", "line 1: spec." LONG64 "…: unknown key"},
};

static void test_errors_name_path_value_expectation(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct outer o = {0};
        struct err err = ERR_INIT;
        int code = decode(*state, bad[i].text, JSON_UNKNOWN_REFUSE, &o, &err);
        if (code != ERR_INVALID || strcmp(err.message, bad[i].message) != 0)
            fail_msg("%s: %d \"%s\", not \"%s\"", bad[i].text, code, err.message, bad[i].message);
    }
}

static void test_unknown_ignored(void **state)
{
    struct outer o = {0};
    const char *text = "{\"new\":{\"x\":1},\"rate\":3,\"inner\":{\"name\":\"n\",\"later\":[]}}";
    assert_int_equal(decode(*state, text, JSON_UNKNOWN_IGNORE, &o, NULL), 0);
    assert_int_equal(o.rate, 3);
    assert_true(str_is(o.inner.name, "n"));
}

static void test_no_prefix(void **state)
{
    struct outer o = {0};
    struct err err = ERR_INIT;
    const struct json *tree;
    assert_int_equal(json_parse_yaml(*state, STR("a: 1\nrate: 5000\n"), NULL, &tree, &err), 0);
    assert_int_equal(json_decode(*state, tree, outer_table, "", JSON_UNKNOWN_IGNORE, &o, &err),
                     ERR_INVALID);
    assert_string_equal(err.message, "rate: 5000 is more than 1000");
    assert_int_equal(json_decode(*state, tree, outer_table, "", JSON_UNKNOWN_REFUSE, &o, &err),
                     ERR_INVALID);
    assert_string_equal(err.message, "line 1: a: unknown key");
}

/* Default caps: 4096 bytes of a text, 1000 items of an array; none on a map's values. */
static void test_default_caps(void **state)
{
    for (size_t over = 0; over <= 1; over++) {
        struct buf text = BUF_INIT(1 << 20), list = BUF_INIT(1 << 20), map = BUF_INIT(1 << 20);
        buf_append_cstr(&text, "{\"text\":\"");
        buf_append_cstr(&map, "{\"labels\":{\"a\":\"");
        for (size_t i = 0; i < 4096 + over; i++) {
            buf_append_char(&text, 'x');
            buf_append_char(&map, 'x');
        }
        buf_append_cstr(&text, "\"}");
        buf_append_cstr(&map, "\"}}");
        buf_append_cstr(&list, "{\"formats\":[");
        for (size_t i = 0; i < 1000 + over; i++)
            buf_append_cstr(&list, i ? ",\"raw\"" : "\"raw\"");
        buf_append_cstr(&list, "]}");
        struct outer o = {0};
        struct err err = ERR_INIT;
        int expected = over ? ERR_INVALID : 0;
        assert_int_equal(decode(*state, buf_cstr(&map), JSON_UNKNOWN_REFUSE, &o, &err), 0);
        assert_int_equal(decode(*state, buf_cstr(&text), JSON_UNKNOWN_REFUSE, &o, &err), expected);
        assert_string_equal(err.message, over ? "spec.text: 4097 bytes are more than 4096" : "");
        assert_int_equal(decode(*state, buf_cstr(&list), JSON_UNKNOWN_REFUSE, &o, &err), expected);
        assert_string_equal(err.message, over ? "spec.formats: 1001 items are more than 1000" : "");
        buf_finish(&text);
        buf_finish(&list);
        buf_finish(&map);
    }
}

/* A message longer than its room is cut, never overrun. */
static void test_long_paths(void **state)
{
    char prefix[1000];
    memset(prefix, 'p', sizeof(prefix) - 1);
    prefix[sizeof(prefix) - 1] = '\0';
    struct outer o = {0};
    struct err err = ERR_INIT;
    const struct json *tree;
    assert_int_equal(json_parse(*state, STR("{\"inner\":{\"nam\":1}}"), NULL, &tree, NULL), 0);
    assert_int_equal(json_decode(*state, tree, outer_table, prefix, JSON_UNKNOWN_REFUSE, &o, &err),
                     ERR_INVALID);
    assert_non_null(strstr(err.message, "unknown key"));
    assert_int_equal(json_decode(*state, tree, outer_table, prefix, JSON_UNKNOWN_IGNORE, &o, &err),
                     ERR_INVALID);
    assert_non_null(strstr(err.message, "is required"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_defaults_stay),
        cmocka_unit_test(test_errors_name_path_value_expectation),
        cmocka_unit_test(test_unknown_ignored),
        cmocka_unit_test(test_no_prefix),
        cmocka_unit_test(test_default_caps),
        cmocka_unit_test(test_long_paths),
    };
    return cmocka_run_group_tests(tests, arena_setup, arena_teardown);
}
