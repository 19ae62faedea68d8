/* The flame graph as bytes: well-formed whatever the names are, complete without a script, nothing
 * from elsewhere, small. How it looks is for eyes. */
#include "profile_test.h"

#include "xml_check.h"

#define MAX_SVG 900000

static void check(const struct buf *svg)
{
    size_t at = 0;
    const char *wrong = xml_check(buf_str(svg), &at);

    if (wrong)
        fail_msg("byte %zu: %s: %.100s", at, wrong, svg->ptr + at);
    assert_in_range(svg->len, 1, MAX_SVG);
    /* One script, one style sheet, and no address but the names of XML's own languages. */
    assert_int_equal(count(svg, "<script"), 1);
    assert_int_equal(count(svg, "<style"), 1);
    assert_int_equal(count(svg, "://"), count(svg, "://www.w3.org/"));
    assert_contains_not(svg, "href=");
    assert_contains_not(svg, "src=");
    assert_contains_not(svg, "@import");
    assert_contains_not(svg, "url(");
    assert_contains_not(svg, "eval(");
    assert_contains_not(svg, "innerHTML");
}

static void draw(const struct profile *p, struct buf *svg)
{
    write_with(profile_write_flamegraph, p, svg);
    check(svg);
}

static void the_checker_finds_faults(void **state)
{
    static const char *const bad[] = {
        "",           "<a>",        "<a></b>",  "<a b=1/>",           "<a b=\"<\"/>",
        "<a>&</a>",   "<a>&x;</a>", "<a/><a/>", "<a>\x01</a>",        "<a>\xff</a>",
        "x<a/>",      "<a>]]></a>", "<a",       "<a b=\"\" b=\"\"/>", "<a><![CDATA[</a>",
        "<a>< b</a>",
    };
    size_t at;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (!xml_check(str_of(bad[i]), &at))
            fail_msg("%s passed", bad[i]);
    assert_null(xml_check(STR("<a b=\"1&lt;\"><c/>x &amp; y<![CDATA[<&]]></a>\n"), &at));
}

static void one_stack(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p =
        from_raw("main (app.py:3);f (app.py:7) 3\nmain (app.py:3);g (lib/x.py:1) 1\n");
    _cleanup_(buf_finish) struct buf svg;

    (void)state;
    about(p, "shop/checkout \xc2\xb7 app", 100);
    draw(p, &svg);
    assert_contains(&svg, "<title>Flame graph: shop/checkout \xc2\xb7 app</title>");
    assert_contains(&svg,
                    ">2025-12-31 23:59:59 UTC \xc2\xb7 30s at 100 Hz \xc2\xb7 4 samples \xc2\xb7 "
                    "2 stacks</text>");
    assert_contains(&svg, "<svg x=\"0%\" y=\"0\" width=\"100%\" height=\"17\" class=\"c0\">"
                          "<title>all\n4 samples \xc2\xb7 100 %</title><rect/>");
    assert_contains(&svg, "<svg x=\"0%\" y=\"18\" width=\"100%\"");
    assert_contains(&svg, "<svg x=\"0%\" y=\"36\" width=\"75%\"");
    assert_contains(&svg, "<title>f (app.py:7)\n3 samples \xc2\xb7 75 %</title><rect/>"
                          "<text x=\"4\" y=\"12.5\">f (app.py:7)</text></svg>");
    assert_contains(&svg, "<svg x=\"75%\" y=\"36\" width=\"25%\"");
    assert_contains(&svg, "<title>g (lib/x.py:1)\n1 sample \xc2\xb7 25 %</title>");
    assert_contains_not(&svg, "not drawn");
    assert_contains(&svg, "prefers-color-scheme: dark");
}

static void no_samples(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf svg;

    (void)state;
    about(p, "t", 100);
    draw(p, &svg);
    assert_contains(&svg, "No samples were taken");
    assert_contains(&svg, "0 samples");
    assert_contains_not(&svg, "<title>all");
}

static void recordings(void **state)
{
    static const char *const names[] = {
        "all.raw",     "all.speedscope",    "weird.raw",          "weird.speedscope",
        "hostile.raw", "native.speedscope", "hostile.speedscope", "shop.speedscope"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        _cleanup_(buf_finish) struct buf svg;

        read_into(p, names[i]);
        draw(p, &svg);
    }
}

static void hostile_names(void **state)
{
    static const struct {
        const char *name, *drawn;
    } rows[] = {
        {"<script>alert(1)</script>", "<title>&lt;script&gt;alert(1)&lt;/script&gt;\n"},
        {"]]></style><b>", "<title>]]&gt;&lt;/style&gt;&lt;b&gt;\n"},
        {"&amp;\"'", "<title>&amp;amp,&quot;'\n"},
        {"\x01\x1b[31m\x7f\t", "<title>  [31m  \n"},
        {"\xff\xc0\x80\xed\xa0\x80", "<title>\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xef\xbf\xbe", "<title>\xef\xbf\xbd\n"},
        {"\xe2\x80\xaetxt.exe", "<title>\\u202etxt.exe\n"},
        {"a\xe2\x81\xa6z\xd8\x9c", "<title>a\\u2066z\\u061c\n"},
        {"\xd8\xa7\xd9\x84\xd8\xb7", "<title>\xd8\xa7\xd9\x84\xd8\xb7\n"},
        {"x\xe2\x80\xa8y\xc2\x85z", "<title>x y z\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        _cleanup_(buf_finish) struct buf svg;
        struct err err = ERR_INIT;
        uint32_t frame, thread;

        assert_int_equal(profile_add_thread(p, STR("t"), &thread, &err), 0);
        assert_int_equal(
            profile_add_frame(p, &(struct profile_frame){.function = str_of(rows[i].name)}, &frame,
                              &err),
            0);
        assert_int_equal(profile_add_sample(p, thread, &frame, 1, 1, &err), 0);
        about(p, rows[i].name, 100);
        draw(p, &svg);
        assert_contains(&svg, rows[i].drawn);
    }
}

static void long_names_are_cut_between_characters(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf svg, text = BUF_INIT(100000);
    struct err err = ERR_INIT;
    uint32_t frame, thread;

    (void)state;
    for (int i = 0; i < 10000; i++)
        buf_append_cstr(&text, "\xe6\xb3\xa8");
    assert_int_equal(profile_add_thread(p, STR("t"), &thread, &err), 0);
    assert_int_equal(
        profile_add_frame(p, &(struct profile_frame){.function = buf_str(&text)}, &frame, &err), 0);
    assert_int_equal(profile_add_sample(p, thread, &frame, 1, 1, &err), 0);
    about(p, buf_cstr(&text), 100);
    draw(p, &svg);
    assert_in_range(svg.len, 1, 20000);
    assert_int_equal(count(&svg, "\xe6\xb3\xa8\xe2\x80\xa6\n1 sample"), 1);
}

/* Drawn frames lie within their parents, and siblings do not overlap. */
static void frames_are_in_their_places(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf svg;
    double left[600] = {0}, right[600] = {0}, filled[600] = {0};
    size_t frames = 0;

    (void)state;
    read_into(p, "shop.speedscope");
    draw(p, &svg);
    for (char *at = svg.ptr; (at = strstr(at, "<svg x=\"")); frames++) {
        char *end;
        double x = strtod(at + 8, &end), y, w;

        if (!strncmp(end, "%\" y=\"89\"", 8) && strstr(at, "id=\"g\"") == at + 5)
            continue;
        assert_memory_equal(end, "%\" y=\"", 6);
        y = strtod(end + 6, &end);
        assert_memory_equal(end, "\" width=\"", 9);
        w = strtod(end + 9, &end);
        assert_memory_equal(end, "%\" height=\"17\"", 14);
        size_t depth = (size_t)y / 18;
        assert_in_range(depth, 0, 599);
        assert_true(w >= 0.099);
        assert_true(x >= filled[depth] - 1e-3);
        if (depth) {
            assert_true(x >= left[depth - 1] - 1e-3);
            assert_true(x + w <= right[depth - 1] + 1e-3);
        }
        left[depth] = x;
        right[depth] = filled[depth] = x + w;
        at = end;
    }
    assert_in_range(frames, 100, 1000);
}

/* 20,000 stacks that have nothing in common but their root. */
static void many_stacks_stay_small(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf svg, text = BUF_INIT(MAX_OUT);
    struct err err = ERR_INIT;
    uint64_t seed = 1;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        buf_append_cstr(&text, "main (app.py:1)");
        for (int depth = 0; depth < 20; depth++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            buf_appendf(&text, ";function_%d (package_%d/module.py:%d)",
                        (int)((seed >> 33) % (depth < 3 ? 3 : 500)), (int)((seed >> 45) % 9),
                        (int)((seed >> 40) % 5) + 1);
        }
        buf_appendf(&text, " %d\n", 1 + i % 17);
    }
    assert_int_equal(profile_read_raw(p, buf_str(&text), &err), 0);
    assert_int_equal(profile_stacks(p), 20000);
    draw(p, &svg);
    assert_contains(&svg, " % are not drawn.");
}

/* Where even the frames of 0.1 % are too many, wider ones only are drawn, and it says so. */
static void the_threshold_rises_until_it_fits(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf svg, text = BUF_INIT(MAX_OUT);
    struct buf small = BUF_INIT(40000), tiny = BUF_INIT(10000);
    struct err err = ERR_INIT;

    (void)state;
    for (int i = 0; i < 900; i++) {
        for (int depth = 0; depth < 30; depth++)
            buf_appendf(&text, "%sfunction_%d_%d (module.py:%d)", depth ? ";" : "", i, depth, i);
        buf_appendf(&text, " %d\n", i < 9 ? 20 : 9);
    }
    assert_int_equal(profile_read_raw(p, buf_str(&text), &err), 0);
    draw(p, &svg);
    assert_contains_not(&svg, "under 0.1 %");
    assert_contains(&svg, "under 0.2 % are not drawn.");
    assert_int_equal(count(&svg, "<rect/>"), 1 + 9 * 30);
    assert_int_equal(profile_write_flamegraph(p, &small, &err), 0);
    assert_contains(&small, "under 0.4 % are not drawn.");
    assert_int_equal(profile_write_flamegraph(p, &tiny, &err), ERR_TOO_LARGE);
    buf_finish(&small);
    buf_finish(&tiny);
}

static void a_deep_stack_has_its_rows(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf svg, text = BUF_INIT(MAX_OUT);
    struct err err = ERR_INIT;

    (void)state;
    for (int i = 0; i < 500; i++)
        buf_appendf(&text, "walk (tree.py:%d);", i % 3 + 1);
    buf_append_cstr(&text, "leaf (tree.py:9) 5\n");
    assert_int_equal(profile_read_raw(p, buf_str(&text), &err), 0);
    draw(p, &svg);
    assert_int_equal(count(&svg, "<rect/>"), 502);
    assert_contains(&svg, "<svg x=\"0%\" y=\"9018\" width=\"100%\"");
}

/* Colours follow from the package alone: the same in every profile. */
static void colours_are_stable(void **state)
{
    static const struct {
        const char *file;
        char kind; /* w: warm, c: cool, n: neutral */
    } rows[] = {
        {"/srv/app/main.py", 'w'},
        {"/usr/lib/python3.11/json/decoder.py", 'c'},
        {"/opt/v/lib/python3.12/site-packages/django/http.py", 'c'},
        {"<frozen importlib._bootstrap>", 'c'},
        {"/usr/lib/libc.so.6", 'n'},
        {"", 'n'},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
        _cleanup_(buf_finish) struct buf svg;
        struct err err = ERR_INIT;
        uint32_t frame, thread;

        assert_int_equal(profile_add_thread(p, STR("t"), &thread, &err), 0);
        assert_int_equal(profile_add_frame(p,
                                           &(struct profile_frame){
                                               .function = STR("f"),
                                               .file = str_of(rows[i].file),
                                           },
                                           &frame, &err),
                         0);
        assert_int_equal(profile_add_sample(p, thread, &frame, 1, 1, &err), 0);
        draw(p, &svg);
        const char *at = strstr(svg.ptr, "y=\"18\"");
        assert_non_null(at);
        at = strstr(at, "class=\"c");
        assert_non_null(at);
        long hue = strtol(at + 8, NULL, 10);
        assert_int_equal(hue == 0 ? 'n' : hue <= 5 ? 'w' : 'c', rows[i].kind);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checker_finds_faults),
        cmocka_unit_test(one_stack),
        cmocka_unit_test(no_samples),
        cmocka_unit_test(recordings),
        cmocka_unit_test(hostile_names),
        cmocka_unit_test(long_names_are_cut_between_characters),
        cmocka_unit_test(frames_are_in_their_places),
        cmocka_unit_test(many_stacks_stay_small),
        cmocka_unit_test(the_threshold_rises_until_it_fits),
        cmocka_unit_test(a_deep_stack_has_its_rows),
        cmocka_unit_test(colours_are_stable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
