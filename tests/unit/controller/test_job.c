/* The Job that is sent: what it may do, what it may not, and what the runner is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "controller/job.h"
#include "trees.h"

static const char profile_yaml[] =
    "{metadata: {name: slow, namespace: shop, uid: u-1}, spec: {target: {podName: web}, sampling: "
    "{duration: 40s}, startDeadlineSeconds: 60}}";
static const char pod_yaml[] =
    "{metadata: {name: web, namespace: shop, uid: pod-1}, spec: {nodeName: node1, "
    "runtimeClassName: gvisor, containers: [{name: zeta}, {name: alpha}, {name: idle}]}, status: "
    "{phase: Running, containerStatuses: ["
    "{name: alpha, containerID: 'containerd://aa', state: {running: {}}}, "
    "{name: idle, containerID: 'containerd://cc', state: {terminated: {}}}, "
    "{name: zeta, containerID: 'containerd://bb', state: {running: {}}}]}}";

static void decode(struct arena *arena, const char *profile_patch, const char *pod_patch,
                   struct pyspyprofile *profile, struct pod *pod)
{
    struct err err = ERR_INIT;
    if (pyspyprofile_decode(arena, tree_merged(arena, profile_yaml, profile_patch), profile,
                            &err) ||
        pod_decode(arena, tree_merged(arena, pod_yaml, pod_patch), pod, &err))
        fail_msg("%s", err.message);
}

static const struct json *render(struct arena *arena, const char *config, const char *profile_patch,
                                 const char *pod_patch)
{
    struct pyspyprofile profile;
    struct pod pod;
    const struct json *tree = NULL;
    struct err err = ERR_INIT;
    _cleanup_(config_destroyp) struct config *c = NULL;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(1u << 20);
    decode(arena, profile_patch, pod_patch, &profile, &pod);
    if (config_parse(str_of(config), STR("pyspy"), STR("p"), &c, &err) ||
        job_render(&out, c, &profile, &pod, STR("-----BEGIN CERTIFICATE-----\n"), &err) ||
        json_parse(arena, buf_str(&out), NULL, &tree, &err))
        fail_msg("%s", err.message);
    return tree;
}

static const struct json *pod_spec(const struct json *job)
{
    return json_at(job, "spec", "template", "spec", NULL);
}

static const struct json *container(const struct json *job)
{
    const struct json *list = json_get(pod_spec(job), "containers");
    assert_int_equal(json_len(list), 1);
    return json_item(list, 0);
}

static bool is_text(const struct json *v, const char *text)
{
    return v && str_is(json_text(v), text);
}

static bool is_false(const struct json *v)
{
    return v && v->type == JSON_BOOL && !v->boolean;
}

static void the_job_may_little(void **state)
{
    struct arena *arena = *state;
    const struct json *job = render(arena, "runner: {image: r}", NULL, NULL);
    const struct json *spec = pod_spec(job), *c = container(job);
    const struct json *security = json_get(c, "securityContext");
    const struct json *capabilities = json_get(security, "capabilities");
    assert_int_equal(json_int(json_get(security, "runAsUser"), -1), 0);
    assert_true(is_false(json_get(security, "privileged")));
    assert_true(is_false(json_get(security, "allowPrivilegeEscalation")));
    assert_true(json_is_true(json_get(security, "readOnlyRootFilesystem")));
    assert_true(is_text(json_item(json_get(capabilities, "drop"), 0), "ALL"));
    assert_int_equal(json_len(json_get(capabilities, "add")), 1);
    assert_true(is_text(json_item(json_get(capabilities, "add"), 0), "SYS_PTRACE"));
    assert_true(is_text(json_at(security, "seccompProfile", "type", NULL), "RuntimeDefault"));
    assert_true(is_text(json_at(security, "appArmorProfile", "type", NULL), "Unconfined"));
    assert_true(json_is_true(json_get(spec, "hostPID")));
    assert_null(json_get(spec, "hostNetwork"));
    assert_null(json_get(spec, "hostIPC"));
    assert_true(is_false(json_get(spec, "automountServiceAccountToken")));
    assert_true(is_false(json_get(spec, "enableServiceLinks")));
    assert_true(is_text(json_get(spec, "restartPolicy"), "Never"));
    assert_true(is_text(json_get(spec, "nodeName"), "node1"));
    assert_true(is_text(json_get(spec, "serviceAccountName"), "pyspy-runner"));
    assert_true(
        is_text(json_get(json_item(json_get(spec, "tolerations"), 0), "operator"), "Exists"));
    assert_null(json_get(spec, "priorityClassName"));
    assert_true(is_text(json_at(c, "resources", "requests", "cpu", NULL), "20m"));
    assert_true(is_text(json_at(c, "resources", "limits", "memory", NULL), "256Mi"));
    /* No volume reaches the node. */
    const struct json *volumes = json_get(spec, "volumes");
    assert_int_equal(json_len(volumes), 1);
    assert_non_null(json_get(json_item(volumes, 0), "projected"));
}

static void the_token_is_for_one_purpose(void **state)
{
    struct arena *arena = *state;
    const struct json *job = render(arena, "runner: {image: r}", NULL, NULL);
    const struct json *volume = json_item(json_get(pod_spec(job), "volumes"), 0);
    const struct json *token = json_get(json_item(json_at(volume, "projected", "sources", NULL), 0),
                                        "serviceAccountToken");
    const struct json *mount = json_item(json_get(container(job), "volumeMounts"), 0);
    assert_true(is_text(json_get(token, "audience"), TASK_TOKEN_AUDIENCE));
    assert_true(json_is_true(json_get(mount, "readOnly")));
    char *path = arena_printf(arena, "%.*s/%.*s", STR_ARG(json_text(json_get(mount, "mountPath"))),
                              STR_ARG(json_text(json_get(token, "path"))));
    assert_string_equal(path, TASK_TOKEN_PATH);
    /* It must outlive the longest Job but not by days. */
    int64_t lifetime = json_int(json_get(token, "expirationSeconds"), 0);
    assert_in_range(lifetime, 600, 86400);
}

static void the_job_runs_once(void **state)
{
    struct arena *arena = *state;
    const struct json *spec = json_get(render(arena, "runner: {image: r}", NULL, NULL), "spec");
    assert_int_equal(json_int(json_get(spec, "backoffLimit"), -1), 0);
    assert_int_equal(json_int(json_get(spec, "completions"), -1), 1);
    assert_int_equal(json_int(json_get(spec, "parallelism"), -1), 1);
    assert_int_equal(json_int(json_get(spec, "activeDeadlineSeconds"), -1), 60 + 40 + 90);
    assert_int_equal(json_int(json_get(spec, "ttlSecondsAfterFinished"), -1), 600);
    assert_true(is_text(json_get(spec, "podReplacementPolicy"), "Failed"));
}

static void configuration_is_followed(void **state)
{
    struct arena *arena = *state;
    const struct json *job =
        render(arena,
               "{runner: {image: 'reg/r:2', imagePullPolicy: Always, imagePullSecrets: [s], "
               "joinNamespaces: true, capabilities: [DAC_READ_SEARCH], tolerations: [{key: k}], "
               "priorityClassName: high, ttlSecondsAfterFinished: 5, serviceAccountName: sa, "
               "resources: {limits: {cpu: '', memory: 1Gi}}}}",
               NULL, NULL);
    const struct json *spec = pod_spec(job), *c = container(job);
    const struct json *add = json_at(c, "securityContext", "capabilities", "add", NULL);
    assert_int_equal(json_len(add), 4);
    assert_true(is_text(json_item(add, 1), "SYS_ADMIN"));
    assert_true(is_text(json_item(add, 2), "KILL"));
    assert_true(is_text(json_item(add, 3), "DAC_READ_SEARCH"));
    assert_true(is_text(json_get(c, "image"), "reg/r:2"));
    assert_true(is_text(json_get(c, "imagePullPolicy"), "Always"));
    assert_true(is_text(json_get(json_item(json_get(spec, "imagePullSecrets"), 0), "name"), "s"));
    assert_true(is_text(json_get(json_item(json_get(spec, "tolerations"), 0), "key"), "k"));
    assert_true(is_text(json_get(spec, "priorityClassName"), "high"));
    assert_true(is_text(json_get(spec, "serviceAccountName"), "sa"));
    assert_null(json_at(c, "resources", "limits", "cpu", NULL));
    assert_true(is_text(json_at(c, "resources", "limits", "memory", NULL), "1Gi"));
    assert_int_equal(json_int(json_at(job, "spec", "ttlSecondsAfterFinished", NULL), -1), 5);
}

/* Our own sampler has no use for the right to enter namespaces. */
static void namespaces_are_joined_for_py_spy_only(void **state)
{
    struct arena *arena = *state;
    for (int e = 0; sampling_engine_names[e]; e++) {
        const struct json *job = render(
            arena, "runner: {image: r, joinNamespaces: true}",
            arena_printf(arena, "spec: {sampling: {engine: %s}}", sampling_engine_names[e]), NULL);
        const struct json *c = container(job);
        struct task task;
        bool may = json_len(json_at(c, "securityContext", "capabilities", "add", NULL)) == 3;
        struct str text = json_text(json_get(json_item(json_get(c, "env"), 0), "value"));
        assert_int_equal(task_decode(arena, text, &task, NULL), 0);
        assert_int_equal(may, e != ENGINE_NATIVE);
        assert_int_equal(task.join_namespaces, may);
    }
}

static void the_task_says_all(void **state)
{
    struct arena *arena = *state;
    const struct json *job = render(
        arena, "runner: {image: r, joinNamespaces: true}",
        "{spec: {formats: [raw, flamegraph], target: {process: {select: Busiest, pid: 7}}}}", NULL);
    const struct json *env = json_item(json_get(container(job), "env"), 0);
    struct task task;
    struct err err = ERR_INIT;
    assert_int_equal(json_len(json_get(container(job), "env")), 1);
    assert_true(is_text(json_get(env, "name"), TASK_VARIABLE));
    if (task_decode(arena, json_text(json_get(env, "value")), &task, &err))
        fail_msg("%s", err.message);
    assert_true(str_is(task.profile_uid, "u-1") && str_is(task.pod_uid, "pod-1"));
    assert_true(str_is(task.upload_url,
                       "https://pyspy-controller.pyspy.svc:8443/v1/results/shop/slow/u-1"));
    assert_true(str_is(task.runtime, "containerd") && str_is(task.runtime_class, "gvisor"));
    assert_true(str_is(task.ca, "-----BEGIN CERTIFICATE-----\n") && task.join_namespaces);
    assert_int_equal(task.sampling.duration_ms, 40000);
    assert_int_equal(task.process.select, SELECT_BUSIEST);
    assert_int_equal(task.process.pid, 7);
    assert_int_equal(task.formats, 1u << FORMAT_RAW | 1u << FORMAT_FLAMEGRAPH);
    assert_int_equal(task.max_result_bytes, 1024000);
    const struct task_container *containers = task.containers.items;
    assert_int_equal(task.containers.len, 2); /* running ones, in the spec's order */
    assert_true(str_is(containers[0].name, "zeta") && str_is(containers[0].id, "bb"));
    assert_true(str_is(containers[1].name, "alpha"));
}

static void containers_are_chosen(void **state)
{
    static const struct {
        const char *container, *annotation, *chosen;
        int code;
    } rows[] = {
        {"", "", "zeta", 0},
        {"", "alpha", "alpha", 0},
        {"zeta", "alpha", "zeta", 0}, /* the spec before the annotation */
        {"", "idle", NULL, ERR_CONFLICT},
        {"idle", "", NULL, ERR_CONFLICT},
        {"none", "", NULL, ERR_NOT_FOUND},
        {"", "none", NULL, ERR_NOT_FOUND},
    };
    struct arena *arena = *state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct pyspyprofile profile;
        struct pod pod;
        decode(arena, NULL, NULL, &profile, &pod);
        profile.spec.target.container = str_of(rows[i].container);
        pod.default_container = str_of(rows[i].annotation);
        struct json_array chosen;
        struct str runtime;
        int r = job_containers(arena, &profile.spec.target, &pod, &chosen, &runtime, NULL);
        assert_int_equal(r, rows[i].code);
        if (!r)
            assert_true(str_is(((struct task_container *)chosen.items)->name, rows[i].chosen));
    }
}

static const char *long_name(struct arena *arena, const char *tail)
{
    return arena_printf(arena, "{metadata: {name: '%s%s%s'}}",
                        "abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklmnopqrstuvwxyz", tail);
}

static void names_fit(void **state)
{
    struct arena *arena = *state;
    static const struct {
        const char *tail; /* behind 62 bytes */
        size_t len;
    } rows[] = {{"", 62}, {"x", 63}, {"xyz", 63}, {".z", 62}, {"-z", 62}, {".", 62}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct json *job =
            render(arena, "runner: {image: r}", long_name(arena, rows[i].tail), NULL);
        const struct json *labels = json_at(job, "metadata", "labels", NULL);
        assert_int_equal(json_text(json_get(labels, LABEL_PROFILE_NAME)).len, rows[i].len);
        assert_true(is_text(json_get(labels, LABEL_PROFILE_UID), "u-1"));
        struct str full =
            json_text(json_at(job, "metadata", "annotations", ANNOTATION_PROFILE_NAME, NULL));
        assert_int_equal(full.len, strlen("shop/") + 62 + strlen(rows[i].tail));
        const struct json *of_pod = json_at(job, "spec", "template", "metadata", "labels", NULL);
        assert_true(is_text(json_get(of_pod, LABEL_PROFILE_UID), "u-1"));
    }

    char a[JOB_NAME_MAX], b[JOB_NAME_MAX];
    job_name(STR("u-1"), STR("pod-1"), a);
    job_name(STR("u-1"), STR("pod-1"), b);
    assert_string_equal(a, b);
    assert_int_equal(strlen(a), strlen("pyspy-") + 20);
    job_name(STR("u-1"), STR("pod-2"), b);
    assert_string_not_equal(a, b);
    job_name(STR("u-2"), STR("pod-1"), b);
    assert_string_not_equal(a, b);
    assert_true(is_text(
        json_at(render(arena, "runner: {image: r}", NULL, NULL), "metadata", "name", NULL), a));
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
        TEST(the_job_may_little),
        TEST(the_token_is_for_one_purpose),
        TEST(the_job_runs_once),
        TEST(configuration_is_followed),
        TEST(namespaces_are_joined_for_py_spy_only),
        TEST(the_task_says_all),
        TEST(containers_are_chosen),
        TEST(names_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
