/* PySpyProfile: what is read of it, what is refused and with which words, and its status both ways.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../controller/trees.h"
#include "api/pyspyprofile.h"
#include "base/buf.h"

static const char base[] = "{metadata: {name: p, uid: u, creationTimestamp: "
                           "'2026-01-01T00:00:00Z'}, spec: {target: {podName: web}}}";

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *patch, *message;
    } rows[] = {
        {"{metadata: null}", "metadata"},
        {"{spec: null}", "spec"},
        {"{spec: {target: null}}", "spec.target"},
        {"{spec: {target: {podName: null}}}", "spec.target.podName"},
        {"{spec: {target: {podName: 7}}}", "spec.target.podName"},
        {"{spec: {target: {process: {select: Youngest}}}}", "spec.target.process.select"},
        {"{spec: {target: {process: {pid: 0}}}}", "spec.target.process.pid"},
        {"{spec: {target: {process: {hostPID: 4194305}}}}", "spec.target.process.hostPID"},
        {"{spec: {sampling: {duration: 999ms}}}", "spec.sampling.duration"},
        {"{spec: {sampling: {duration: 1500ms}}}", "spec.sampling.duration: 1500 ms"},
        {"{spec: {sampling: {duration: 1h1s}}}", "spec.sampling.duration"},
        {"{spec: {sampling: {duration: 30}}}", "spec.sampling.duration"},
        {"{spec: {sampling: {rate: 0}}}", "spec.sampling.rate"},
        {"{spec: {sampling: {rate: 1001}}}", "spec.sampling.rate"},
        {"{spec: {sampling: {rate: 1.5}}}", "spec.sampling.rate"},
        {"{spec: {sampling: {gil: 'yes'}}}", "spec.sampling.gil"},
        {"{spec: {sampling: {engine: Rust}}}", "spec.sampling.engine"},
        {"{spec: {formats: [raw, svg]}}", "spec.formats[1]: \"svg\""},
        {"{spec: {formats: [a, a, a, a, a, a, a, a, a]}}", "spec.formats"},
        {"{spec: {output: {configMap: {}, secret: {}}}}", "spec.output: at most one"},
        {"{spec: {startDeadlineSeconds: 0}}", "spec.startDeadlineSeconds"},
        {"{spec: {startDeadlineSeconds: 86401}}", "spec.startDeadlineSeconds"},
        {"{spec: {ttlSecondsAfterFinished: -1}}", "spec.ttlSecondsAfterFinished"},
        {"{status: {phase: Done}}", "status.phase"},
        {"{status: {startTime: today}}", "status.startTime"},
        {"{status: {conditions: [{status: 'True'}]}}", "status.conditions[0].type"},
    };
    struct arena *arena = *state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct pyspyprofile p = {.status = {.samples = 77}};
        struct err err = ERR_INIT;
        int r = pyspyprofile_decode(arena, tree_merged(arena, base, rows[i].patch), &p, &err);
        if (r != ERR_INVALID || !strstr(err.message, rows[i].message))
            fail_msg("%s: %d %s", rows[i].patch, r, err.message);
        assert_int_equal(p.status.samples, 77); /* untouched */
    }
}

static void every_enum(void **state)
{
    struct arena *arena = *state;
    struct pyspyprofile p;
    for (int i = 0; process_select_names[i]; i++)
        for (int j = 0; sampling_engine_names[j]; j++) {
            const char *patch = arena_printf(
                arena, "{spec: {target: {process: {select: %s}}, sampling: {engine: %s}}}",
                process_select_names[i], sampling_engine_names[j]);
            assert_int_equal(pyspyprofile_decode(arena, tree_merged(arena, base, patch), &p, NULL),
                             0);
            assert_int_equal(p.spec.target.process.select, i);
            assert_int_equal(p.spec.sampling.engine, j);
        }
    for (int i = 0; i < FORMAT_COUNT; i++) {
        const char *patch = arena_printf(arena, "{spec: {formats: [%s]}}", profile_format_names[i]);
        assert_int_equal(pyspyprofile_decode(arena, tree_merged(arena, base, patch), &p, NULL), 0);
        assert_int_equal(p.spec.formats, 1u << i);
    }
    for (int i = 0; profile_phase_names[i]; i++) {
        const char *patch = arena_printf(arena, "{status: {phase: %s}}", profile_phase_names[i]);
        assert_int_equal(pyspyprofile_decode(arena, tree_merged(arena, base, patch), &p, NULL), 0);
        assert_int_equal(p.status.phase, i);
        assert_int_equal(profile_phase_is_final(i), i >= PHASE_COMPLETED);
    }
    for (int i = 0; i < REASON_COUNT; i++)
        assert_int_equal(api_enum_find(profile_reason_names, str_of(profile_reason_names[i])), i);
    assert_int_equal(api_enum_find(profile_reason_names, STR("Nothing")), -1);
}

static void status_round_trip(void **state)
{
    struct arena *arena = *state;
    const char *status =
        "{status: {observedGeneration: 3, phase: Completed, reason: ProcessExited, message: "
        "\"a\\n\","
        " startTime: '2026-01-01T00:00:03Z', completionTime: '2026-01-01T00:00:35Z', "
        "summary: 1/1, samples: 0, targets: [{podName: web, podUID: p, nodeName: n, container: c, "
        "jobName: j, phase: Completed, reason: r, message: m, engine: PySpy, engineReason: "
        "NativeStacks, engineMessage: m, accuracy: Full, processes: [{hostPID: 1, pid: 2, command: "
        "x, pythonVersion: '3.11.2', engine: Native, samples: 1, errors: 2, late: 3, held: 4}], "
        "cost: "
        "{cpuSeconds: '0.41', maxMemoryBytes: 9}}], results: [{target: web, "
        "format: raw, mediaType: m, encoding: gzip, sizeBytes: 5, sha256: ab, configMapKeyRef: "
        "{name: a, key: b}}, {target: web, format: raw, mediaType: m, sizeBytes: 5, sha256: ab, "
        "secretKeyRef: {name: a, key: b}}], conditions: [{type: Ready, status: 'True', reason: "
        "Completed, message: '', lastTransitionTime: '2026-01-01T00:00:35Z', observedGeneration: "
        "3}]}}";
    const struct json *tree = tree_merged(arena, base, status);
    struct pyspyprofile p;
    struct err err = ERR_INIT;
    if (pyspyprofile_decode(arena, tree, &p, &err))
        fail_msg("%s", err.message);
    _cleanup_(buf_finish) struct buf out = BUF_INIT(1u << 16);
    struct json_writer w = JSON_WRITER(&out);
    profile_status_write(&w, NULL, &p.status);
    assert_string_equal(buf_cstr(&out), tree_text(arena, json_get(tree, "status")).ptr);
}

static void result_names(void **state)
{
    struct arena *arena = *state;
    struct str a = profile_result_name(arena, STR("slow"), STR("u-1"));
    assert_int_equal(a.len, strlen("slow-") + 8);
    assert_true(str_starts_with(a, STR("slow-")));
    assert_true(str_eq(a, profile_result_name(arena, STR("slow"), STR("u-1"))));
    assert_false(str_eq(a, profile_result_name(arena, STR("slow"), STR("u-2"))));
    char name[254];
    memset(name, 'x', 253);
    name[253] = 0;
    assert_int_equal(profile_result_name(arena, str_of(name), STR("u")).len, 253);
    name[243] = '.'; /* where it is cut: "x.-…" could not be stored */
    struct str cut = profile_result_name(arena, str_of(name), STR("u"));
    assert_int_equal(cut.len, 252);
    assert_true(str_find(cut, STR(".-")) < 0);
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
    const struct CMUnitTest tests[] = {TEST(mistakes_are_named), TEST(every_enum),
                                       TEST(status_round_trip), TEST(result_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
