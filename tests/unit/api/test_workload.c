/* Objects as a real cluster gave them (Kubernetes 1.34): what is read of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../controller/trees.h"
#include "api/workload.h"
#include "base/buf.h"

static const struct json *recorded(struct arena *arena, const char *name)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 20);
    const struct json *tree = NULL;
    const char *path = arena_printf(arena, TEST_DATA "/k8s/%s", name);
    assert_int_equal(buf_read_file(&text, path, NULL), 0);
    assert_int_equal(json_parse(arena, buf_str(&text), NULL, &tree, NULL), 0);
    return tree;
}

static void pod_of_two(void **state)
{
    struct arena *arena = *state;
    struct pod pod;
    assert_int_equal(pod_decode(arena, recorded(arena, "pod-two-containers.json"), &pod, NULL), 0);
    assert_true(str_is(pod.meta.name, "two") && pod.meta.uid.len == 36);
    assert_true(str_is(pod.phase, "Running") && str_starts_with(pod.node_name, STR("node")));
    assert_true(str_is(pod.default_container, "app"));
    /* The kubelet sorts by name; the spec's order counts. */
    const struct container_status *c = pod.statuses.items;
    assert_int_equal(pod.statuses.len, 2);
    assert_true(str_is(pod.container_names.items[0], "sidecar"));
    assert_true(str_is(c[0].name, "sidecar") && str_is(c[1].name, "app"));
    assert_int_equal(c[0].state, CONTAINER_TERMINATED);
    assert_int_equal(c[0].exit_code, 3);
    assert_true(str_is(c[0].message, "last words") && str_is(c[0].reason, "Error"));
    assert_true(c[0].finished_ms >= c[0].started_ms && c[0].started_ms > 1600000000000);
    assert_int_equal(c[1].state, CONTAINER_RUNNING);
    assert_true(str_starts_with(c[1].container_id, STR("containerd://")));
    assert_true(c[1].started_ms > 1600000000000);
    assert_false(pod.disrupted);
    assert_ptr_equal(pod_container(&pod, STR("app")), &c[1]);
    assert_null(pod_container(&pod, STR("ap")));
}

static void pod_that_waits(void **state)
{
    struct arena *arena = *state;
    struct pod pod;
    assert_int_equal(pod_decode(arena, recorded(arena, "pod-waiting.json"), &pod, NULL), 0);
    const struct container_status *c = pod_container(&pod, STR("app"));
    assert_true(str_is(pod.phase, "Pending"));
    assert_int_equal(c->state, CONTAINER_WAITING);
    assert_true(str_is(c->reason, "ErrImageNeverPull") && c->message.len);
    assert_int_equal(c->container_id.len, 0);
}

static void pods_that_are_odd(void **state)
{
    struct arena *arena = *state;
    struct pod pod;
    assert_int_equal(
        pod_decode(arena,
                   tree_of(arena,
                           "{metadata: {name: p}, spec: {containers: [{name: a}, {name: b}]}, "
                           "status: {containerStatuses: [{name: c}, {name: b}], conditions: "
                           "[{type: DisruptionTarget, status: 'True', message: m}]}}"),
                   &pod, NULL),
        0);
    assert_int_equal(pod.statuses.len, 1); /* of containers that the spec has */
    assert_int_equal(pod_container(&pod, STR("b"))->state, CONTAINER_UNKNOWN);
    assert_true(pod.disrupted && str_is(pod.disruption_message, "m"));

    assert_int_equal(pod_decode(arena, tree_of(arena, "{metadata: {name: p}}"), &pod, NULL), 0);
    assert_int_equal(pod.statuses.len, 0);
    assert_false(pod.disrupted);

    struct err err = ERR_INIT;
    assert_int_equal(pod_decode(arena, tree_of(arena, "{spec: {}}"), &pod, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "metadata"));
    assert_int_equal(pod_decode(arena,
                                tree_of(arena, "{metadata: {}, status: {containerStatuses: "
                                               "[{state: {running: {startedAt: soon}}}]}}"),
                                &pod, &err),
                     ERR_INVALID);
    assert_non_null(strstr(err.message, "status.containerStatuses[0].state.running.startedAt"));
}

static void jobs_as_recorded(void **state)
{
    static const struct {
        const char *file, *reason;
        bool complete, failed;
    } rows[] = {
        {"job-complete.json", "", true, false},
        {"job-failed.json", "BackoffLimitExceeded", false, true},
        {"job-deadline.json", "DeadlineExceeded", false, true},
    };
    struct arena *arena = *state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct job job;
        assert_int_equal(job_decode(arena, recorded(arena, rows[i].file), &job, NULL), 0);
        assert_int_equal(job.complete, rows[i].complete);
        assert_int_equal(job.failed, rows[i].failed);
        assert_true(str_is(job.reason, rows[i].reason));
        assert_true(job.finished_ms > job.meta.creation_ms && job_finished(&job));
        assert_int_equal(job.node_name.len, 0);
    }
}

#define CONDITION(type, status)                                                                    \
    "{type: " type ", status: '" status "', reason: R, message: M, lastTransitionTime: "           \
    "'2026-01-01T00:00:01Z'}"

static void jobs_on_their_way(void **state)
{
    static const struct {
        const char *conditions;
        bool complete, failed;
    } rows[] = {
        {"[]", false, false},
        {"[" CONDITION("Complete", "False") "]", false, false},
        {"[" CONDITION("Suspended", "True") "]", false, false},
        {"[" CONDITION("SuccessCriteriaMet", "True") "]", true, false},
        {"[" CONDITION("Complete", "True") "]", true, false},
        {"[" CONDITION("FailureTarget", "True") "]", false, true},
        {"[" CONDITION("FailureTarget", "False") "]", false, false},
        {"[" CONDITION("Failed", "False") ", " CONDITION("FailureTarget", "True") "]", false, true},
        {"[" CONDITION("FailureTarget", "True") ", " CONDITION("Failed", "True") "]", false, true},
    };
    struct arena *arena = *state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct job job;
        const char *yaml = arena_printf(
            arena,
            "{metadata: {name: j}, spec: {template: {spec: {nodeName: n}}}, status: {conditions: "
            "%s}}",
            rows[i].conditions);
        assert_int_equal(job_decode(arena, tree_of(arena, yaml), &job, NULL), 0);
        assert_int_equal(job.complete, rows[i].complete);
        assert_int_equal(job.failed, rows[i].failed);
        assert_int_equal(job.finished_ms, job_finished(&job) ? 1767225601000 : 0);
        assert_true(str_is(job.message, job.failed ? "M" : ""));
        assert_true(str_is(job.node_name, "n"));
    }
}

static void nodes(void **state)
{
    struct arena *arena = *state;
    struct node node;
    const struct json *tree = recorded(arena, "node-ready.json");
    assert_int_equal(node_decode(arena, tree, &node, NULL), 0);
    assert_true(node.ready && str_is(node.meta.name, "node1") && node.message.len);
    const char *const not_ready[] = {
        "{status: {conditions: [{type: Ready, status: 'False', message: m}]}}",
        "{status: {conditions: [{type: Ready, status: Unknown}]}}",
        "{status: {conditions: [{type: DiskPressure, status: 'True'}]}}",
        "{status: null}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(not_ready); i++) {
        assert_int_equal(
            node_decode(arena, tree_merge(arena, tree, tree_of(arena, not_ready[i])), &node, NULL),
            0);
        assert_false(node.ready);
    }
}

static void token_reviews(void **state)
{
    struct arena *arena = *state;
    struct token_review review;
    assert_int_equal(
        token_review_decode(arena, recorded(arena, "tokenreview-good.json"), &review, NULL), 0);
    assert_true(review.authenticated);
    assert_true(str_is(review.username, "system:serviceaccount:recording:default"));
    assert_true(str_is(review.pod_name, "two") && review.pod_uid.len == 36);
    assert_int_equal(review.audiences.len, 1);
    assert_true(str_is(review.audiences.items[0], "pyspy-results"));
    assert_int_equal(
        token_review_decode(arena, recorded(arena, "tokenreview-bad.json"), &review, NULL), 0);
    assert_false(review.authenticated);
    assert_true(review.error.len && !review.pod_uid.len && !review.audiences.len);
    assert_int_equal(token_review_decode(arena, tree_of(arena, "{}"), &review, NULL), ERR_INVALID);
    /* Not what extra looks like: then it is nobody's Pod. */
    assert_int_equal(
        token_review_decode(arena,
                            tree_of(arena, "{status: {authenticated: true, user: {extra: "
                                           "{authentication.kubernetes.io/pod-uid: text}}}}"),
                            &review, NULL),
        0);
    assert_int_equal(review.pod_uid.len, 0);
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
        TEST(pod_of_two),       TEST(pod_that_waits),    TEST(pods_that_are_odd),
        TEST(jobs_as_recorded), TEST(jobs_on_their_way), TEST(nodes),
        TEST(token_reviews),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
