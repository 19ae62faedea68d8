/* Readers: recordings of py-spy give what py-spy counted; what makes no sense is told by place. */
#include "profile_test.h"

static const struct {
    const char *name;
    int64_t samples; /* "Samples:" as py-spy printed it */
    size_t stacks;
} recordings[] = {
    {"all.raw", 1194, 25},     {"all.speedscope", 1194, 26},
    {"func.raw", 661, 23},     {"func.speedscope", 659, 23},
    {"native.raw", 296, 20},   {"native.speedscope", 367, 26},
    {"threads.raw", 409, 9},   {"threads.speedscope", 436, 11},
    {"hostile.raw", 99, 1},    {"hostile.speedscope", 99, 1},
    {"weird.raw", 99, 1},      {"weird.speedscope", 100, 2},
    {"nolineno.raw", 99, 1},   {"nolineno.speedscope", 99, 1},
    {"shop.raw", 1092, 90},    {"shop.speedscope", 3025, 295},
    {"empty.raw", 0, 0},       {"empty.speedscope", 0, 0},
    {"idle.speedscope", 3, 1},
};

static void counts_are_those_of_pyspy(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(recordings); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        read_into(p, recordings[i].name);
        assert_int_equal(profile_samples(p), recordings[i].samples);
        if (profile_stacks(p) != recordings[i].stacks)
            fail_msg("%s: %zu stacks", recordings[i].name, profile_stacks(p));
    }
}

/* Where the weights are times, the rate must give the same counts back. */
static void weights_become_samples(void **state)
{
    static const char text[] =
        "{\"shared\":{\"frames\":[{\"name\":\"f\"}]},\"profiles\":[{\"type\":\"sampled\","
        "\"name\":\"t\",\"unit\":\"%s\",\"startValue\":0,\"endValue\":1,"
        "\"samples\":[[0],[0]],\"weights\":[%s]}]}";
    static const struct {
        const char *unit, *weights;
        int64_t rate, samples;
    } rows[] = {
        {"seconds", "0.01,0.01", 100, 2},   {"seconds", "0.03,0.01", 100, 4},
        {"seconds", "0.01,0.01", 0, 2},     {"seconds", "0.0033333333,0.01", 300, 4},
        {"milliseconds", "5,10", 200, 3},   {"microseconds", "1000,2000", 1000, 3},
        {"nanoseconds", "1e7,2e7", 100, 3}, {"none", "3,4", 100, 7},
        {"seconds", "0.0001,0", 100, 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        _cleanup_(buf_finish) struct buf b = BUF_INIT(4096);
        struct err err = ERR_INIT;

        buf_append_cstr(&b, "");
        for (const char *s = text, *v = NULL; *s; s++) {
            if (s[0] != '%') {
                buf_append_char(&b, *s);
                continue;
            }
            v = v ? rows[i].weights : rows[i].unit;
            buf_append_cstr(&b, v);
            s++;
        }
        about(p, "", rows[i].rate);
        if (profile_read_speedscope(p, buf_str(&b), &err))
            fail_msg("row %zu: %s", i, err.message);
        assert_int_equal(profile_samples(p), rows[i].samples);
    }
}

static void command_lines_are_scrubbed(void **state)
{
    static const char *const names[] = {"all.raw",     "all.speedscope",
                                        "hostile.raw", "hostile.speedscope",
                                        "func.raw",    "func.speedscope"};
    static const char *const secrets[] = {"hunter2", "--secret", "import time", "quoted",
                                          "\"x\"",   "arg;",     "arg,",        "python"};
    static const writer writers[] = {profile_write_raw, profile_write_speedscope,
                                     profile_write_chrometrace, profile_write_flamegraph};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        profile_scrub_process_frames(p);
        read_into(p, names[i]);
        for (size_t w = 0; w < ARRAY_SIZE(writers); w++) {
            _cleanup_(buf_finish) struct buf out;
            write_with(writers[w], p, &out);
            assert_contains(&out, "process 2");
            for (size_t s = 0; s < ARRAY_SIZE(secrets); s++) {
                /* file names, JSON's "cat" and the script hold some of the words rightly */
                if (w && strcmp(secrets[s], "hunter2") && strcmp(secrets[s], "--secret"))
                    continue;
                assert_contains_not(&out, secrets[s]);
            }
        }
    }
}

/* Command lines that seem to end in their middle: refused, so that their rest is not taken for
 * names of functions. */
static void broken_command_lines_are_refused(void **state)
{
    static const char *const rows[] = {
        "process 1:\"echo \"a\" 4\nsecret 5\n\";f (a.py:1) 7\n",
        "process 1:\"a\";secret b 4\nmore\";f (a.py:1) 1\n",
        "process 1:\"ok\";f (a.py:1) 1\nsecret 3\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        struct err err = ERR_INIT;
        profile_scrub_process_frames(p);
        assert_int_equal(profile_read_raw(p, str_of(rows[i]), &err), ERR_INVALID);
        assert_non_null(strstr(err.message, "a stack without its process"));
        assert_null(strstr(err.message, "secret"));
    }
}

static void command_lines_are_kept_when_wanted(void **state)
{
    static const char *const names[] = {"all.raw", "all.speedscope"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        _cleanup_(buf_finish) struct buf out;
        read_into(p, names[i]);
        write_with(profile_write_raw, p, &out);
        assert_contains(&out, "process 25191:\"/usr/local/bin/python app.py 6 fork "
                              "--secret=hunter2\";process 25193:\"");
    }
}

static void raw_lines(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"a (f.py:1);b (f.py:2) 17\n", "a (f.py:1);b (f.py:2) 17\n"},
        {"a (f.py:1) 1", "a (f.py:1) 1\n"},                 /* no line end */
        {"a (f.py:1) 1\na (f.py:1) 2\n", "a (f.py:1) 3\n"}, /* the same twice */
        {"b 1\n\na 2\n", "a 2\nb 1\n"},                     /* an empty line; sorted */
        {" 100\n", "(no frames) 100\n"},                    /* a thread without a stack */
        {"a (f);b (<string>:1) 1\n", "a (f);b (<string>:1) 1\n"},
        {"thread (12): Thread-1 (worker);f (a.py:1) 1\n",
         "thread (12): Thread-1 (worker);f (a.py:1) 1\n"},
        {"thread (12);f (a.py:1) 1\n", "thread (12);f (a.py:1) 1\n"},
        {"op() (const) (libx.so) 1\n", "op() (const) (libx.so) 1\n"},
        {"we\nird (a.py:1) 4\n", "we ird (a.py:1) 4\n"},
        {"process 1:\"sh -c a;b\";f 1\n", "process 1:\"sh -c a,b\";f 1\n"},
        {"process 1:\"a\";process 2:\"b;c\";f 1\n", "process 1:\"a\";process 2:\"b,c\";f 1\n"},
        {"process 1:\"x = 3\ny 4\";f (a.py:1) 9\n", "process 1:\"x = 3 y 4\";f (a.py:1) 9\n"},
        {"caf\xc3\xa9 (a.py:1) 1\n", "caf\xc3\xa9 (a.py:1) 1\n"},
        {"bad\xff (a.py:1) 1\n", "bad\xef\xbf\xbd (a.py:1) 1\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = from_raw(rows[i].in);
        _cleanup_(buf_finish) struct buf out;
        write_with(profile_write_raw, p, &out);
        assert_string_equal(buf_cstr(&out), rows[i].out);
    }
}

static void raw_errors_tell_the_line(void **state)
{
    static const struct {
        const char *in, *message;
    } rows[] = {
        {"hello", "line 1: a stack without a count"},
        {"a 1\nb 2\nhello\n", "line 3: a stack without a count"},
        {"a 1\n\nb 0\n", "line 3: a count that is not 1 to 4294967295"},
        {"a 99999999999\n", "line 1: a count that is not 1 to 4294967295"},
        {"a 1\nb 17x\n", "line 2: a stack without a count"},
        {"process 1:\"never closed 7\n", "line 1: a stack without a count"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        struct err err = ERR_INIT;
        assert_int_equal(profile_read_raw(p, str_of(rows[i].in), &err), ERR_INVALID);
        if (str_find(str_of(err.message), str_of(rows[i].message)) < 0)
            fail_msg("row %zu: %s", i, err.message);
    }
}

#define FRAMES "\"shared\":{\"frames\":[{\"name\":\"f\",\"file\":\"a.py\",\"line\":3}]}"
#define PROFILE(type, unit, samples, weights)                                                      \
    "{" FRAMES ",\"profiles\":[{\"type\":\"" type "\",\"name\":\"t\",\"unit\":\"" unit             \
    "\",\"samples\":" samples ",\"weights\":" weights "}]}"

static void speedscope_errors_tell_the_place(void **state)
{
    static const struct {
        const char *in, *message;
    } rows[] = {
        {"", "speedscope: cut off, an object expected"},
        {"[]", "line 1, byte 0: an object expected"},
        {"{\n\"a\" 1}", "line 2, byte 6: a colon expected"},
        {"{\"a\":1 \"b\":2}", "line 1, byte 7: a comma expected"},
        {"{\"a\":[1,2}", "byte 9: the other bracket expected"},
        {"{} x", "line 1, byte 3: the end of the text expected"},
        {"{\"profiles\":[]}", "no \"shared\""},
        {"{\"shared\":{}}", "no \"profiles\""},
        {"{\"shared\":{},\"profiles\":[]}", "no shared.frames"},
        {"{\"shared\":{\"frames\":[{\"file\":\"x\"}]},\"profiles\":[]}",
         "shared.frames[0]: a frame without a name"},
        {"{\"shared\":{\"frames\":[{\"name\":\"f\"},{\"name\":}]},\"profiles\":[]}",
         "shared.frames[1]: "},
        {"{\"shared\":{\"frames\":7},\"profiles\":[]}", "an array expected"},
        {"{" FRAMES ",\"profiles\":[{}]}", "profiles[0]: no \"type\""},
        {"{" FRAMES ",\"profiles\":{}}", "an array expected"},
        {PROFILE("evented", "seconds", "[]", "[]"), "only \"sampled\" is read"},
        {PROFILE("sampled", "bytes", "[]", "[]"), "unit \"bytes\""},
        {PROFILE("sampled", "none", "[[1]]", "[1]"), "no frame 1"},
        {PROFILE("sampled", "none", "[[-1]]", "[1]"), "an index expected"},
        {PROFILE("sampled", "none", "[[0.5]]", "[1]"), "an index expected"},
        {PROFILE("sampled", "none", "[[99999999999]]", "[1]"), "an index expected"},
        {PROFILE("sampled", "none", "[[0]]", "[]"), "as many weights as samples"},
        {PROFILE("sampled", "none", "[]", "[1]"), "as many weights as samples"},
        {PROFILE("sampled", "none", "[[0]]", "[0]"), "a sample that counts 0"},
        {PROFILE("sampled", "none", "[[0]]", "[\"1\"]"), "a number expected"},
        {PROFILE("sampled", "none", "[[0]]", "[-1]"), "a negative weight"},
        {PROFILE("sampled", "none", "[[0]]", "[nan]"), "a number expected"},
        {PROFILE("sampled", "none", "[[0]]", "[1e999]"), "a number expected"},
        {PROFILE("sampled", "none", "[[0", ""), "speedscope: "},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        struct err err = ERR_INIT;
        if (profile_read_speedscope(p, str_of(rows[i].in), &err) != ERR_INVALID)
            fail_msg("row %zu: read", i);
        if (str_find(str_of(err.message), str_of(rows[i].message)) < 0)
            fail_msg("row %zu: %s", i, err.message);
    }
}

static void too_much_nesting_is_refused(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf b = BUF_INIT(1000000);
    struct err err = ERR_INIT;

    (void)state;
    buf_append_cstr(&b, "{\"x\":");
    for (int i = 0; i < 100000; i++)
        buf_append_char(&b, '[');
    assert_int_equal(profile_read_speedscope(p, buf_str(&b), &err), ERR_INVALID);
}

/* A recording that is cut off anywhere is an error, never a shorter profile. */
static void cut_off_documents_are_refused(void **state)
{
    _cleanup_(buf_finish) struct buf text;

    (void)state;
    load("weird.speedscope", &text);
    struct str whole = str_trim(buf_str(&text));
    for (size_t len = 0; len < whole.len; len += 7) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        struct err err = ERR_INIT;
        assert_int_equal(profile_read_speedscope(p, str_sub(whole, 0, len), &err), ERR_INVALID);
    }
}

static void limits(void **state)
{
    static const struct {
        struct profile_limits limits;
        const char *message;
    } rows[] = {
        {{.max_frames = 2}, "more than 2 different frames"},
        {{.max_text = 2}, "names and files of more than 2 bytes"},
        {{.max_stacks = 1}, "more than 1 different stacks"},
        {{.max_samples = 1}, "more than 1 different stacks of threads"},
        {{.max_nodes = 3}, "a call tree of more than 3 nodes"},
        {{.max_input = 10}, "bytes are more than 10"},
    };
    static const char raw[] = "a;b 1\na;c 2\na;b 1\n";
    static const char speedscope[] =
        "{\"shared\":{\"frames\":[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"}]},"
        "\"profiles\":[{\"type\":\"sampled\",\"name\":\"t\",\"unit\":\"none\","
        "\"samples\":[[0,1],[0,2],[0,1]],\"weights\":[1,2,1]}]}";

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (int kind = 0; kind < 2; kind++) {
            _cleanup_(profile_destroyp) struct profile *p = profile_create(&rows[i].limits);
            struct err err = ERR_INIT;
            int r = kind ? profile_read_speedscope(p, str_of(speedscope), &err)
                         : profile_read_raw(p, str_of(raw), &err);
            assert_int_equal(r, ERR_TOO_LARGE);
            if (str_find(str_of(err.message), str_of(rows[i].message)) < 0)
                fail_msg("row %zu: %s", i, err.message);
        }
}

static void deep_stacks_lose_their_root(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p =
        profile_create(&(struct profile_limits){.max_depth = 2});
    _cleanup_(buf_finish) struct buf out;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(profile_read_raw(p, STR("a;b;c;d 5\n"), &err), 0);
    write_with(profile_write_raw, p, &out);
    assert_string_equal(buf_cstr(&out), "c;d 5\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_pyspy),
        cmocka_unit_test(weights_become_samples),
        cmocka_unit_test(command_lines_are_scrubbed),
        cmocka_unit_test(broken_command_lines_are_refused),
        cmocka_unit_test(command_lines_are_kept_when_wanted),
        cmocka_unit_test(raw_lines),
        cmocka_unit_test(raw_errors_tell_the_line),
        cmocka_unit_test(speedscope_errors_tell_the_place),
        cmocka_unit_test(too_much_nesting_is_refused),
        cmocka_unit_test(cut_off_documents_are_refused),
        cmocka_unit_test(limits),
        cmocka_unit_test(deep_stacks_lose_their_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
