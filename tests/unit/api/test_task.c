/* What controller and runner say to each other survives the way, and never fails for what is in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../controller/trees.h"
#include "api/task.h"

static void task_round_trip(void **state)
{
    struct arena *arena = *state;
    struct task_container containers[] = {{STR("app"), STR("aa")}, {STR("side\"car"), STR("bb")}};
    const struct task task = {
        .profile_namespace = STR("shop"),
        .profile_name = STR("slow"),
        .profile_uid = STR("u"),
        .pod_namespace = STR("shop"),
        .pod_name = STR("web"),
        .pod_uid = STR("p"),
        .node_name = STR("node1"),
        .runtime = STR("containerd"),
        .runtime_class = STR("gvisor"),
        .containers = {containers, 2},
        .process = {.select = SELECT_ALL, .command = STR("^a\n\\.b"), .pid = 7, .host_pid = 31245},
        .sampling = {.duration_ms = 90000,
                     .rate = 1000,
                     .native = true,
                     .idle = true,
                     .functions = true,
                     .async_tasks = true,
                     .engine = ENGINE_PYSPY},
        .formats = 1u << FORMAT_RAW | 1u << FORMAT_CHROMETRACE,
        .join_namespaces = true,
        .max_result_bytes = 1024000,
        .upload_url = STR("https://x/v1/results/shop/slow/u"),
        .ca = STR("-----BEGIN\n"),
    };
    _cleanup_(buf_finish) struct buf once = BUF_INIT(TASK_MAX), twice = BUF_INIT(TASK_MAX);
    struct task back;
    struct err err = ERR_INIT;
    task_write(&once, &task);
    if (task_decode(arena, buf_str(&once), &back, &err) < 0)
        fail_msg("%s", err.message);
    task_write(&twice, &back);
    assert_string_equal(buf_cstr(&once), buf_cstr(&twice));
    assert_int_equal(back.sampling.duration_ms, 90000);
    assert_int_equal(back.formats, task.formats);
    assert_int_equal(back.process.select, SELECT_ALL);
    assert_true(str_eq(back.process.command, task.process.command));
    assert_true(back.sampling.native && !back.sampling.gil && back.join_namespaces);
    assert_true(back.sampling.async_tasks);
    assert_int_equal(back.containers.len, 2);
}

static const char task_base[] =
    "{version: 1, profileNamespace: a, profileName: b, profileUID: c, podNamespace: d, podName: e, "
    "podUID: f, containers: [{name: a, id: b}], sampling: {durationSeconds: 30, rate: 100}, "
    "formats: [raw], maxResultBytes: 1, uploadURL: u, ca: c}";

static void tasks_are_refused(void **state)
{
    static const struct {
        const char *patch, *message;
    } rows[] = {
        {"{version: 2}", "version"},
        {"{version: null}", "version"},
        {"{profileUID: null}", "profileUID"},
        {"{podUID: 7}", "podUID"},
        {"{containers: []}", "containers"},
        {"{containers: [{name: a}]}", "containers[0].id"},
        {"{sampling: {durationSeconds: 0}}", "sampling.durationSeconds"},
        {"{sampling: {durationSeconds: 3601}}", "sampling.durationSeconds"},
        {"{sampling: {rate: 1001}}", "sampling.rate"},
        {"{sampling: {engine: Rust}}", "sampling.engine"},
        {"{process: {select: Youngest}}", "process.select"},
        {"{formats: []}", "formats"},
        {"{formats: [svg]}", "formats[0]: \"svg\""},
        {"{maxResultBytes: 0}", "maxResultBytes"},
        {"{rate: 1}", "rate"},
    };
    struct arena *arena = *state;
    struct task task;
    struct err err = ERR_INIT;
    struct str good = tree_text(arena, tree_of(arena, task_base));
    assert_int_equal(task_decode(arena, good, &task, &err), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str text = tree_text(arena, tree_merged(arena, task_base, rows[i].patch));
        assert_int_equal(task_decode(arena, text, &task, &err), ERR_INVALID);
        if (!strstr(err.message, rows[i].message))
            fail_msg("%s: %s", rows[i].patch, err.message);
    }
    assert_int_equal(task_decode(arena, STR("{"), &task, &err), ERR_INVALID);
}

static struct upload_file upload_files[] = {
    {STR("raw"), STR("raw.txt"), STR("text/plain"), STR_NULL, 3, STR("ab"), STR("a;b 1\n")},
    {STR("flamegraph"), STR("f.svg.gz"), STR("image/svg+xml"), STR("gzip"), 9, STR("cd"),
     STR("H4sI")},
};

static void upload_round_trip(void **state)
{
    struct arena *arena = *state;
    _cleanup_(buf_finish) struct buf once = BUF_INIT(1u << 20), twice = BUF_INIT(1u << 20);
    struct upload back;
    upload_write(&once, &(struct upload){.files = {upload_files, 2}});
    assert_int_equal(upload_decode(arena, buf_str(&once), &back, NULL), 0);
    upload_write(&twice, &back);
    assert_string_equal(buf_cstr(&once), buf_cstr(&twice));
    assert_int_equal(back.files.len, 2);

    struct err err = ERR_INIT;
    const char *const bad[] = {"{}",
                               "{version: 1}",
                               "{version: 2, files: []}",
                               "[]",
                               "{version: 1, files: [{}]}",
                               "{version: 1, files: [], more: 1}"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(
            upload_decode(arena, tree_text(arena, tree_of(arena, bad[i])), &back, &err),
            ERR_INVALID);
}

static void receipt_round_trip(void **state)
{
    struct arena *arena = *state;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 16);
    struct json_writer w = JSON_WRITER(&text);
    const struct json *tree;
    struct receipt back;
    receipt_write(&w, NULL,
                  &(struct receipt){STR("Secret"), STR("n"), {upload_files, 2}, STR("00")});
    assert_int_equal(str_find(buf_str(&text), STR("H4sI")), -1); /* the content stays at home */
    assert_int_equal(json_parse(arena, buf_str(&text), NULL, &tree, NULL), 0);
    assert_int_equal(receipt_decode(arena, tree, &back, NULL), 0);
    assert_true(str_is(back.kind, "Secret") && str_is(back.mac, "00"));
    assert_int_equal(back.files.len, 2);
    /* What the runner's summary carries gives the bytes that were signed. */
    _cleanup_(buf_finish) struct buf a = BUF_INIT(1u << 16), b = BUF_INIT(1u << 16);
    receipt_mac_input(&a, STR("u"),
                      &(struct receipt){STR("Secret"), STR("n"), {upload_files, 2}, STR("00")});
    receipt_mac_input(&b, STR("u"), &back);
    assert_true(str_eq(buf_str(&a), buf_str(&b)));
}

/* Moving a byte from any text to its neighbour, or any change at all, changes the signed bytes. */
static void mac_input_is_unambiguous(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "a", "1:a", ":", "12", "1;"};
    enum { N = 6, TEXTS = 9 };
    struct buf seen[TEXTS * N + 4] = {{0}};
    size_t n = 0;
    for (size_t field = 0; field < TEXTS; field++)
        for (size_t value = 0; value < N; value++) {
            struct str t[TEXTS];
            for (size_t i = 0; i < TEXTS; i++)
                t[i] = i == field ? str_of(texts[value]) : STR("zz");
            struct upload_file files[2] = {{t[0], t[1], t[2], t[3], 5, t[4], STR_NULL},
                                           {t[5], t[6], t[2], t[3], 5, t[4], STR_NULL}};
            seen[n] = BUF_INIT(4096);
            receipt_mac_input(&seen[n++], t[7], &(struct receipt){t[8], t[0], {files, 2}, STR("")});
        }
    struct upload_file one = {STR("f"), STR("k"), STR("m"), STR_NULL, 1, STR("s"), STR_NULL};
    for (int i = 0; i < 4; i++) {
        struct upload_file two[2] = {one, one};
        two[0].size_bytes = i;
        seen[n] = BUF_INIT(4096);
        receipt_mac_input(&seen[n++], STR("u"),
                          &(struct receipt){STR("k"), STR("n"), {two, (size_t)(i % 2)}, STR("")});
        if (i >= 2) /* two receipts with no files, whose sizes do not count, are the same */
            buf_append_char(&seen[n - 1], (char)('0' + i));
    }
    for (size_t i = 0; i < n; i++) {
        assert_false(seen[i].failed);
        for (size_t j = 0; j < i; j++)
            assert_false(str_eq(buf_str(&seen[i]), buf_str(&seen[j])));
    }
    for (size_t i = 0; i < n; i++)
        buf_finish(&seen[i]);
}

/* Whatever a process is called, the summary fits the termination message and can be read. */
static void summary_always_fits(void **state)
{
    struct arena *arena = *state;
    static const struct str names[] = {
        STR("python app.py"),    STR("\xff\xfe\xfd\xfc"), STR("\"\\\x01\x02\x1f"), STR("a\0b\0c"),
        STR("\xf0\x9f\x90\x8d"), STR("\xed\xa0\x80"),     STR("</script>"),        STR(""),
    };
    static const size_t counts[] = {0, 1, 2, 7, 30, 1000};
    struct process_status *processes = arena_array(arena, 1000, sizeof(*processes));
    struct receipt receipt = {STR("ConfigMap"), STR("n"), {upload_files, 2}, STR("00")};
    for (size_t name = 0; name < ARRAY_SIZE(names); name++)
        for (size_t repeat = 1; repeat <= 4096; repeat *= 16)
            for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
                _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 20);
                for (size_t i = 0; i < repeat; i++)
                    buf_append_str(&text, names[name]);
                for (size_t i = 0; i < counts[c]; i++)
                    processes[i] = (struct process_status){
                        .host_pid = 1, .command = buf_str(&text), .python_version = STR("3.11")};
                const struct summary summary = {.reason = REASON_PROFILER_FAILED,
                                                .message = buf_str(&text),
                                                .container = STR("app"),
                                                .engine = STR("PySpy"),
                                                .engine_reason = STR("UnsupportedPython"),
                                                .engine_message = buf_str(&text),
                                                .samples = 7,
                                                .processes = {processes, counts[c]},
                                                .receipt = &receipt};
                _cleanup_(buf_finish) struct buf out = BUF_INIT(1u << 16);
                summary_write(&out, &summary);
                assert_false(out.failed);
                assert_true(out.len <= SUMMARY_MAX && str_is_utf8(buf_str(&out)));
                struct summary back;
                struct err err = ERR_INIT;
                if (summary_decode(arena, buf_str(&out), &back, &err) < 0)
                    fail_msg("name %zu × %zu, %zu processes: %s", name, repeat, counts[c],
                             err.message);
                assert_int_equal(back.reason, REASON_PROFILER_FAILED);
                assert_int_equal(back.samples, 7);
                assert_true(str_is(back.engine_reason, "UnsupportedPython"));
                assert_int_equal((int64_t)back.processes.len + back.processes_omitted, counts[c]);
                assert_non_null(back.receipt);
            }
}

static int set_up(void **state)
{
    *state = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    arena_destroy(*state);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(task_round_trip),    TEST(tasks_are_refused),        TEST(upload_round_trip),
        TEST(receipt_round_trip), TEST(mac_input_is_unambiguous), TEST(summary_always_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
