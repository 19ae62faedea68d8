#include "plan_world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "trees.h"

static const char profile_base[] =
    "metadata: {name: slow, namespace: shop, uid: u-1, resourceVersion: '5', generation: 1,\n"
    "  creationTimestamp: '2026-01-01T00:00:00Z'}\n"
    "spec: {target: {podName: web}, startDeadlineSeconds: 120, sampling: {duration: 30s}}\n"
    "status: {phase: Pending}\n";

static const char job_base[] = "metadata: {name: pyspy-1, namespace: pyspy, uid: j-1,\n"
                               "  creationTimestamp: '2026-01-01T00:00:01Z',\n"
                               "  annotations: {profiling.pyspy.dev/target-uid: pod-1}}\n"
                               "spec: {template: {spec: {nodeName: node1}}}\n";

static const char runner_base[] =
    "metadata: {name: pyspy-1-x, namespace: pyspy, uid: r-1}\n"
    "spec: {nodeName: node1, containers: [{name: runner}]}\n"
    "status: {phase: Running, containerStatuses: [\n"
    "  {name: runner, state: {running: {startedAt: '2026-01-01T00:00:02Z'}}}]}\n";

static const char target_base[] =
    "metadata: {name: web, namespace: shop, uid: pod-1}\n"
    "spec: {nodeName: node1, containers: [{name: app}, {name: side}]}\n"
    "status: {phase: Running, containerStatuses: [\n"
    "  {name: app, containerID: 'containerd://aa', state: {running: {}}},\n"
    "  {name: side, containerID: 'containerd://bb', state: {running: {}}}]}\n";

static const char node_base[] = "metadata: {name: node1}\n"
                                "status: {conditions: [{type: Ready, status: 'True'}]}\n";

static const char summary_base[] =
    "version: 1\n"
    "container: app\n"
    "engine: PySpy\n"
    "engineReason: UnsupportedPython\n"
    "engineMessage: Python 3.7.16 is not supported\n"
    "accuracy: GILOnly\n"
    "startTime: '2026-01-01T00:00:03Z'\n"
    "samples: 2987\n"
    "processes: [{hostPID: 31245, pid: 7, command: app.py, pythonVersion: 3.11.2, samples: 2987}]\n"
    "cost: {cpuSeconds: '0.41', maxMemoryBytes: 7340032}\n"
    "receipt: {kind: ConfigMap, name: slow-1, mac: m, files: [{format: flamegraph,\n"
    "  key: flamegraph.svg, mediaType: image/svg+xml, sizeBytes: 48213, sha256: ab}]}\n";

static bool receipt_valid(void *context, struct str uid, const struct receipt *receipt)
{
    const struct world *w = ((const struct planned *)context)->world;
    assert_true(str_is(uid, "u-1"));
    return !w->bad_mac && str_is(receipt->mac, "m");
}

static int64_t live_jobs_on(void *context, struct str node)
{
    return str_is(node, "node1") ? ((const struct planned *)context)->world->jobs_on_node1 : 0;
}

static const struct json *ended_runner(struct planned *p)
{
    struct arena *arena = p->arena;
    struct str text = tree_text(arena, tree_merged(arena, summary_base, p->world->summary));
    _cleanup_(buf_finish) struct buf patch = BUF_INIT(1u << 20);
    struct json_writer w = JSON_WRITER(&patch);
    json_begin_object(&w, NULL);
    json_begin_object(&w, "status");
    json_begin_array(&w, "containerStatuses");
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "name", "runner");
    json_begin_object(&w, "state");
    json_begin_object(&w, "terminated");
    json_put_str(&w, "message", text);
    json_end_object(&w);
    json_end_object(&w);
    json_end_object(&w);
    json_end_array(&w);
    json_end_object(&w);
    json_end_object(&w);
    return tree_merge(arena, tree_merged(arena, runner_base, p->world->runner),
                      tree_of(arena, buf_cstr(&patch)));
}

static void decode_world(struct planned *p)
{
    const struct world *w = p->world;
    struct arena *arena = p->arena;
    struct err err = ERR_INIT;
    int r = 0;
    if (w->profile) {
        if (!p->profile_tree)
            p->profile_tree = tree_merged(arena, profile_base, w->profile);
        r = pyspyprofile_decode(arena, p->profile_tree, &p->profile, &err);
        p->in.profile = &p->profile;
    }
    if (r == 0 && w->job) {
        r = job_decode(arena, tree_merged(arena, job_base, w->job), &p->job, &err);
        p->in.job = &p->job;
    }
    if (r == 0 && (w->runner || w->summary)) {
        const struct json *tree =
            w->summary ? ended_runner(p) : tree_merged(arena, runner_base, w->runner);
        r = pod_decode(arena, tree, &p->runner, &err);
        p->in.runner = &p->runner;
    }
    if (r == 0 && w->target) {
        r = pod_decode(arena, tree_merged(arena, target_base, w->target), &p->target, &err);
        p->in.target = &p->target;
    }
    if (r == 0 && w->node) {
        r = node_decode(arena, tree_merged(arena, node_base, w->node), &p->node, &err);
        p->in.node = &p->node;
    }
    if (r < 0)
        fail_msg("%s", err.message);
}

void world_plan(struct arena *arena, const struct world *w, struct planned *ret)
{
    struct err err = ERR_INIT;
    *ret = (struct planned){.arena = arena, .world = w};
    const char *text = arena_printf(arena, "runner: {image: r}\n%s\n", w->config ? w->config : "");
    if (config_parse(str_of(text), STR("pyspy"), STR("pyspy-0"), &ret->config, &err) < 0)
        fail_msg("%s", err.message);
    ret->in = (struct plan_input){
        .config = ret->config,
        .now_ms = PLAN_EPOCH_MS + (int64_t)(w->now_s * 1000),
        .job_expected = w->job_expected,
        .last_error = str_of(w->error),
        .namespace_denied = w->denied,
        .target_lookup = w->target           ? LOOKUP_FOUND
                         : w->target_missing ? LOOKUP_MISSING
                                             : LOOKUP_NOT_ASKED,
        .node_lookup = w->node           ? LOOKUP_FOUND
                       : w->node_missing ? LOOKUP_MISSING
                                         : LOOKUP_NOT_ASKED,
        .job_lookup = !w->asked_job ? LOOKUP_NOT_ASKED
                      : w->job      ? LOOKUP_FOUND
                                    : LOOKUP_MISSING,
        .runner_lookup = !w->asked_runner          ? LOOKUP_NOT_ASKED
                         : w->runner || w->summary ? LOOKUP_FOUND
                                                   : LOOKUP_MISSING,
        .live_jobs = w->jobs,
        .live_jobs_on = live_jobs_on,
        .receipts_known = !w->receipts_unknown,
        .receipt_valid = receipt_valid,
        .context = ret,
    };
    decode_world(ret);
    plan_profile(arena, &ret->in, &ret->plan);
}

void world_finish(struct planned *p)
{
    config_destroy(p->config);
}

void world_written(struct planned *p)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 20);
    struct json_writer w = JSON_WRITER(&text);
    json_begin_object(&w, NULL);
    json_begin_object(&w, "metadata");
    json_put_cstr(&w, "resourceVersion", "6");
    json_end_object(&w);
    profile_status_write(&w, "status", &p->plan.status);
    json_end_object(&w);
    assert_false(text.failed);
    const struct json *patch = NULL, *bare;
    assert_int_equal(json_parse(p->arena, buf_str(&text), NULL, &patch, NULL), 0);
    /* A PUT of the status replaces it as a whole. */
    bare = tree_merge(p->arena, p->profile_tree, tree_of(p->arena, "{status: null}"));
    p->profile_tree = tree_merge(p->arena, bare, patch);
    decode_world(p);
}

struct str plan_text(struct arena *arena, const struct plan *plan)
{
    _cleanup_(buf_finish) struct buf out = BUF_INIT(1u << 16);
    if (plan->get_target)
        buf_append_cstr(&out, "get-target ");
    if (plan->get_node)
        buf_append_cstr(&out, "get-node ");
    if (plan->get_job)
        buf_append_cstr(&out, "get-job ");
    if (plan->get_runner)
        buf_append_cstr(&out, "get-runner ");
    if (plan->create_job)
        buf_append_cstr(&out, "create ");
    if (plan->delete_job)
        buf_append_cstr(&out, "delete ");
    if (plan->write_status) {
        const struct profile_status *s = &plan->status;
        const struct condition *c = s->conditions.items;
        buf_appendf(&out, "%s/%.*s ", profile_phase_names[s->phase], STR_ARG(s->reason));
        for (size_t i = 0; i < s->conditions.len; i++)
            buf_appendf(&out, "%.*s=%.*s:%.*s ", STR_ARG(c[i].type), STR_ARG(c[i].status),
                        STR_ARG(c[i].reason));
    }
    if (plan->look_again_ms >= 0)
        buf_appendf(&out, "look=%" PRId64 " ", plan->look_again_ms);
    if (plan->event != PLAN_EVENT_NONE)
        buf_appendf(&out, "%s:%s ", plan->event == PLAN_EVENT_NORMAL ? "Normal" : "Warning",
                    plan->event_reason);
    return str_trim(arena_str(arena, buf_str(&out)));
}
