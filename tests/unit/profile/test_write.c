/* Writers: what comes out is valid in its format, holds all samples, and is the same every time. */
#include "profile_test.h"

#include <zlib.h>

#include "json/json.h"

static const char *const recordings[] = {
    "all.raw",   "all.speedscope",      "func.speedscope", "native.speedscope",
    "shop.raw",  "threads.speedscope",  "weird.raw",       "weird.speedscope",
    "empty.raw", "nolineno.speedscope", "shop.speedscope", "hostile.speedscope",
};

static struct profile *recorded(const char *name)
{
    struct profile *p = profile_create(NULL);

    about(p, "shop/checkout \"1\" <2>", 100);
    read_into(p, name);
    return p;
}

static const struct json *parse(struct arena *arena, const struct buf *text)
{
    static const struct json_limits limits = {.max_bytes = MAX_OUT, .max_nodes = 4000000};
    const struct json *v;
    struct err err = ERR_INIT;

    if (json_parse(arena, buf_str(text), &limits, &v, &err))
        fail_msg("%s", err.message);
    return v;
}

static void raw_is_read_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(recordings); i++) {
        _cleanup_(profile_destroyp) struct profile *p = recorded(recordings[i]);
        _cleanup_(profile_destroyp) struct profile *q = profile_create(NULL);
        _cleanup_(buf_finish) struct buf once, twice;
        struct err err = ERR_INIT;

        write_with(profile_write_raw, p, &once);
        if (profile_read_raw(q, buf_str(&once), &err))
            fail_msg("%s: %s", recordings[i], err.message);
        write_with(profile_write_raw, q, &twice);
        assert_int_equal(profile_samples(p), profile_samples(q));
        assert_string_equal(buf_cstr(&once), buf_cstr(&twice));
    }
}

static void hostile_names_stay_in_their_frame(void **state)
{
    (void)state;
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf raw;
    const struct profile_frame frame = {STR("a;b 7\nc\x1b[2J\xc2\x9b\xe2\x80\xae\x9b\"\\<"),
                                        STR("/x\r.py"), 1};
    uint32_t id, thread;

    assert_int_equal(profile_add_thread(p, STR("t\x1b]0;\x07"), &thread, NULL), 0);
    assert_int_equal(profile_add_frame(p, &frame, &id, NULL), 0);
    assert_int_equal(profile_add_sample(p, thread, &id, 1, 3, NULL), 0);
    write_with(profile_write_raw, p, &raw);
    assert_string_equal(buf_cstr(&raw), "a,b 7 c [2J \\u202e\xef\xbf\xbd\"\\< (/x .py:1) 3\n");
    static const writer in_json[] = {profile_write_speedscope, profile_write_chrometrace};
    for (size_t i = 0; i < ARRAY_SIZE(in_json); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        _cleanup_(buf_finish) struct buf json;
        write_with(in_json[i], p, &json);
        parse(arena, &json);
        for (size_t at = 0; at < json.len; at++)
            assert_true((unsigned char)json.ptr[at] >= 0x20);
        assert_true(str_is_utf8(buf_str(&json)));
    }
}

/* py-spy's own file, line by line: only the order of its lines is another. */
static void raw_is_pyspys(void **state)
{
    static const char *const names[] = {"threads.raw", "native.raw", "func.raw", "shop.raw",
                                        "nolineno.raw"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(profile_destroyp) struct profile *p = recorded(names[i]);
        _cleanup_(buf_finish) struct buf theirs, ours;

        load(names[i], &theirs);
        write_with(profile_write_raw, p, &ours);
        struct str rest = buf_str(&theirs);
        size_t lines = 0;
        for (struct str line = str_cut(&rest, '\n'); line.len; line = str_cut(&rest, '\n')) {
            _cleanup_(freep) char *text = str_dup(line);
            lines++;
            if (text[0] != ' ')
                assert_contains(&ours, text);
        }
        assert_int_equal(count(&ours, "\n"), lines);
    }
}

/* Both formats of one program name files alike. */
static void file_names_are_shortened(void **state)
{
    static const struct {
        const char *files[3];
        const char *labels[3];
    } rows[] = {
        {{"/srv/shop/app.py"}, {"app.py"}},
        {{"/srv/shop/app.py", "/srv/shop/db/orm.py"}, {"app.py", "db/orm.py"}},
        {{"/srv/shop/a.py", "/srv/shopping/b.py"}, {"shop/a.py", "shopping/b.py"}},
        {{"/srv/a.py", "/opt/b.py"}, {"/srv/a.py", "/opt/b.py"}},
        {{"/app/a.py", "/usr/lib/python3.11/json/decoder.py"}, {"a.py", "json/decoder.py"}},
        {{"/app/a.py", "/v/lib/python3.9/site-packages/django/http.py"},
         {"a.py", "django/http.py"}},
        {{"/usr/lib/python3/dist-packages/yaml/x.py"}, {"yaml/x.py"}},
        {{"/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/python3.11"},
         {"libc.so.6", "python3.11"}},
        {{"<string>", "app.py", "pkg/mod.py"}, {"<string>", "app.py", "pkg/mod.py"}},
        {{"/python3.x/a.py"}, {"a.py"}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        _cleanup_(buf_finish) struct buf out, want = BUF_INIT(1000);
        struct err err = ERR_INIT;
        uint32_t thread, path[3];
        size_t n = 0;

        assert_int_equal(profile_add_thread(p, STR("t"), &thread, &err), 0);
        for (; n < 3 && rows[i].files[n]; n++) {
            struct profile_frame f = {STR("f"), str_of(rows[i].files[n]), 7};
            assert_int_equal(profile_add_frame(p, &f, &path[n], &err), 0);
            buf_appendf(&want, "%sf (%s:7)", n ? ";" : "", rows[i].labels[n]);
        }
        buf_append_cstr(&want, " 1\n");
        assert_int_equal(profile_add_sample(p, thread, path, n, 1, &err), 0);
        write_with(profile_write_raw, p, &out);
        assert_string_equal(buf_cstr(&out), buf_cstr(&want));
    }
}

static int64_t check_speedscope_profile(const struct json *v, size_t n_frames)
{
    const struct json *samples = json_get(v, "samples"), *weights = json_get(v, "weights");
    double sum = 0;

    assert_true(str_is(json_text(json_get(v, "type")), "sampled"));
    assert_true(str_is(json_text(json_get(v, "unit")), "seconds"));
    assert_true(json_text(json_get(v, "name")).len > 0);
    assert_int_equal(json_get(v, "startValue")->type, JSON_NUMBER);
    assert_int_equal(json_get(v, "endValue")->type, JSON_NUMBER);
    assert_int_equal(samples->type, JSON_ARRAY);
    assert_int_equal(weights->type, JSON_ARRAY);
    assert_int_equal(json_len(samples), json_len(weights));
    for (size_t i = 0; i < json_len(samples); i++) {
        const struct json *stack = json_item(samples, i);
        assert_int_equal(stack->type, JSON_ARRAY);
        assert_true(json_len(stack) > 0);
        for (size_t j = 0; j < json_len(stack); j++)
            assert_in_range(json_int(json_item(stack, j), -1), 0, n_frames - 1);
        assert_int_equal(json_item(weights, i)->type, JSON_NUMBER);
        _cleanup_(freep) char *text = str_dup(json_item(weights, i)->text);
        sum += strtod(text, NULL);
    }
    return (int64_t)(sum * 100 + 0.5);
}

/* The rules of https://www.speedscope.app/file-format-schema.json for a sampled profile. */
static void speedscope_follows_its_schema(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(recordings); i++) {
        _cleanup_(profile_destroyp) struct profile *p = recorded(recordings[i]);
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        _cleanup_(buf_finish) struct buf out;
        int64_t samples = 0;

        write_with(profile_write_speedscope, p, &out);
        const struct json *v = parse(arena, &out);
        const struct json *frames = json_at(v, "shared", "frames", NULL);
        const struct json *profiles = json_get(v, "profiles");
        assert_true(str_is(json_text(json_get(v, "$schema")),
                           "https://www.speedscope.app/file-format-schema.json"));
        assert_int_equal(frames->type, JSON_ARRAY);
        assert_int_equal(profiles->type, JSON_ARRAY);
        for (size_t j = 0; j < json_len(frames); j++) {
            const struct json *f = json_item(frames, j), *line = json_get(f, "line");
            assert_true(json_text(json_get(f, "name")).len > 0);
            assert_true(!json_get(f, "file") || json_get(f, "file")->type == JSON_STRING);
            assert_true(!line || json_int(line, 0) > 0);
        }
        for (size_t j = 0; j < json_len(profiles); j++)
            samples += check_speedscope_profile(json_item(profiles, j), json_len(frames));
        assert_int_equal(samples, profile_samples(p));
    }
}

static void speedscope_is_read_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(recordings); i++) {
        _cleanup_(profile_destroyp) struct profile *p = recorded(recordings[i]);
        _cleanup_(profile_destroyp) struct profile *q = profile_create(NULL);
        _cleanup_(buf_finish) struct buf once, twice;
        struct err err = ERR_INIT;

        about(q, "shop/checkout \"1\" <2>", 100);
        write_with(profile_write_speedscope, p, &once);
        if (profile_read_speedscope(q, buf_str(&once), &err))
            fail_msg("%s: %s", recordings[i], err.message);
        write_with(profile_write_speedscope, q, &twice);
        assert_int_equal(profile_samples(p), profile_samples(q));
        assert_string_equal(buf_cstr(&once), buf_cstr(&twice));
    }
}

static void speedscope_keeps_threads_and_order(void **state)
{
    static const char in[] =
        "{\"profiles\":[{\"type\":\"sampled\",\"name\":\"Thread 1 \\\"a\\\"\",\"unit\":\"seconds\","
        "\"samples\":[[0],[0,1],[0,1],[0]],\"weights\":[0.01,0.01,0.01,0.01]},"
        "{\"type\":\"sampled\",\"name\":\"Thread 2 \\\"b\\\"\",\"unit\":\"seconds\","
        "\"samples\":[[1]],\"weights\":[0.01]}],"
        "\"shared\":{\"frames\":[{\"name\":\"f\",\"file\":\"/a.py\",\"line\":3,\"col\":null},"
        "{\"name\":\"g\",\"file\":\"\",\"line\":null}]}}";
    static const char want[] =
        "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\"name\":\"x\","
        "\"exporter\":\"pyspy-operator\",\"shared\":{\"frames\":[{\"name\":\"f\",\"file\":\"/"
        "a.py\","
        "\"line\":3},{\"name\":\"g\"}]},\"profiles\":[{\"type\":\"sampled\","
        "\"name\":\"Thread 1 \\\"a\\\"\",\"unit\":\"seconds\",\"startValue\":0,\"endValue\":0.04,"
        "\"samples\":[[0],[0,1],[0]],\"weights\":[0.01,0.02,0.01]},{\"type\":\"sampled\","
        "\"name\":\"Thread 2 \\\"b\\\"\",\"unit\":\"seconds\",\"startValue\":0,\"endValue\":0.01,"
        "\"samples\":[[1]],\"weights\":[0.01]}],\"activeProfileIndex\":0}";
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf out;
    struct err err = ERR_INIT;

    (void)state;
    about(p, "x", 100);
    assert_int_equal(profile_read_speedscope(p, str_of(in), &err), 0);
    write_with(profile_write_speedscope, p, &out);
    assert_string_equal(buf_cstr(&out), want);
}

#define MAX_TRACKS 64

/* Every E closes the last B of its thread, times never go back, everything is closed at the end. */
static void chrometrace_is_well_nested(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(recordings); i++) {
        _cleanup_(profile_destroyp) struct profile *p = recorded(recordings[i]);
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        _cleanup_(buf_finish) struct buf out;
        int64_t open[MAX_TRACKS] = {0}, at[MAX_TRACKS] = {0}, last = 0;

        write_with(profile_write_chrometrace, p, &out);
        const struct json *v = parse(arena, &out);
        assert_int_equal(v->type, JSON_ARRAY);
        for (size_t j = 0; j < json_len(v); j++) {
            const struct json *e = json_item(v, j);
            struct str ph = json_text(json_get(e, "ph"));
            int64_t tid = json_int(json_get(e, "tid"), -1), ts = json_int(json_get(e, "ts"), -1);

            assert_in_range(tid, 1, MAX_TRACKS - 1);
            assert_in_range(json_int(json_get(e, "pid"), -1), 1, INT32_MAX);
            if (str_is(ph, "M"))
                continue;
            assert_true(ts >= at[tid]);
            at[tid] = ts;
            last = ts > last ? ts : last;
            if (str_is(ph, "B")) {
                assert_true(json_text(json_get(e, "name")).len > 0);
                open[tid]++;
            } else {
                assert_true(str_is(ph, "E"));
                assert_true(--open[tid] >= 0);
            }
        }
        for (size_t t = 0; t < MAX_TRACKS; t++)
            assert_int_equal(open[t], 0);
        if (!strcmp(recordings[i], "all.speedscope")) /* 199 looks, --idle: 10 ms each */
            assert_int_equal(last, 1990000);
    }
}

static void chrometrace_joins_what_stays(void **state)
{
    static const char in[] =
        "{\"profiles\":[{\"type\":\"sampled\",\"name\":\"Process 7 Thread 9 \\\"a\\\"\","
        "\"unit\":\"none\",\"samples\":[[0,1],[0,2],[0]],\"weights\":[1,2,1]}],"
        "\"shared\":{\"frames\":[{\"name\":\"f\",\"file\":\"a.py\",\"line\":3},{\"name\":\"g\"},"
        "{\"name\":\"h\"}]}}";
    static const char want[] =
        "[{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":7,\"tid\":1,\"args\":{\"name\":\"x\"}},"
        "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":7,\"tid\":1,"
        "\"args\":{\"name\":\"Process 7 Thread 9 \\\"a\\\"\"}},"
        "{\"name\":\"f\",\"cat\":\"python\",\"ph\":\"B\",\"pid\":7,\"tid\":1,\"ts\":0,"
        "\"args\":{\"file\":\"a.py\",\"line\":3}},"
        "{\"name\":\"g\",\"cat\":\"python\",\"ph\":\"B\",\"pid\":7,\"tid\":1,\"ts\":0},"
        "{\"ph\":\"E\",\"pid\":7,\"tid\":1,\"ts\":10000},"
        "{\"name\":\"h\",\"cat\":\"python\",\"ph\":\"B\",\"pid\":7,\"tid\":1,\"ts\":10000},"
        "{\"ph\":\"E\",\"pid\":7,\"tid\":1,\"ts\":30000},"
        "{\"ph\":\"E\",\"pid\":7,\"tid\":1,\"ts\":40000}]";
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf out;
    struct err err = ERR_INIT;

    (void)state;
    about(p, "x", 100);
    assert_int_equal(profile_read_speedscope(p, str_of(in), &err), 0);
    write_with(profile_write_chrometrace, p, &out);
    assert_string_equal(buf_cstr(&out), want);
}

static const writer writers[] = {profile_write_raw, profile_write_speedscope,
                                 profile_write_chrometrace, profile_write_flamegraph};

static void equal_profiles_give_equal_bytes(void **state)
{
    (void)state;
    for (size_t w = 0; w < ARRAY_SIZE(writers); w++) {
        _cleanup_(profile_destroyp) struct profile *p = recorded("shop.speedscope");
        _cleanup_(profile_destroyp) struct profile *q = recorded("shop.speedscope");
        _cleanup_(buf_finish) struct buf a, b;

        write_with(writers[w], p, &a);
        write_with(writers[w], q, &b);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.ptr, b.ptr, a.len);
    }
}

static void the_cap_is_told(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = recorded("shop.speedscope");

    (void)state;
    for (size_t w = 0; w < ARRAY_SIZE(writers); w++) {
        _cleanup_(buf_finish) struct buf out = BUF_INIT(1000);
        struct err err = ERR_INIT;

        assert_int_equal(writers[w](p, &out, &err), ERR_TOO_LARGE);
        assert_true(out.len <= 1000);
    }
}

static void gzip_is_undone_by_zlib(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = recorded("shop.speedscope");
    _cleanup_(buf_finish) struct buf text, once = BUF_INIT(MAX_OUT), twice = BUF_INIT(MAX_OUT),
                                           back = BUF_INIT(MAX_OUT), small = BUF_INIT(64);
    struct err err = ERR_INIT;
    z_stream z = {0};

    (void)state;
    write_with(profile_write_flamegraph, p, &text);
    assert_int_equal(profile_gzip(buf_str(&text), &once, &err), 0);
    assert_int_equal(profile_gzip(buf_str(&text), &twice, &err), 0);
    assert_true(once.len < text.len / 2);
    assert_int_equal(once.len, twice.len);
    assert_memory_equal(once.ptr, twice.ptr, once.len);
    assert_memory_equal(once.ptr + 4, "\0\0\0\0", 4); /* RFC 1952, 2.3: MTIME */

    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    z.next_in = (Bytef *)once.ptr;
    z.avail_in = (uInt)once.len;
    z.next_out = (Bytef *)buf_reserve(&back, text.len + 1);
    z.avail_out = (uInt)text.len + 1;
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.total_out, text.len);
    assert_memory_equal(back.ptr, text.ptr, text.len);
    inflateEnd(&z);

    assert_int_equal(profile_gzip(buf_str(&text), &small, &err), ERR_TOO_LARGE);
    buf_clear(&twice);
    assert_int_equal(profile_gzip(STR_NULL, &twice, &err), 0);
    assert_true(twice.len > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_is_read_back),
        cmocka_unit_test(hostile_names_stay_in_their_frame),
        cmocka_unit_test(raw_is_pyspys),
        cmocka_unit_test(file_names_are_shortened),
        cmocka_unit_test(speedscope_follows_its_schema),
        cmocka_unit_test(speedscope_is_read_back),
        cmocka_unit_test(speedscope_keeps_threads_and_order),
        cmocka_unit_test(chrometrace_is_well_nested),
        cmocka_unit_test(chrometrace_joins_what_stays),
        cmocka_unit_test(equal_profiles_give_equal_bytes),
        cmocka_unit_test(the_cap_is_told),
        cmocka_unit_test(gzip_is_undone_by_zlib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
