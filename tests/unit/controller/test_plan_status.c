/* What the plan writes into the status: all that a summary tells, within what the CRD lets in, and
 * conditions that keep their times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_rows.h"

static const struct target_status *target_of(const struct planned *p)
{
    assert_int_equal(p->plan.status.targets.len, 1);
    return p->plan.status.targets.items;
}

static void complete_status_has_all(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct planned p;
    world_plan(
        arena,
        &(struct world){.profile = RUNNING_SINCE_2S, .job = "{}", .summary = "{}", .now_s = 35},
        &p);
    const struct profile_status *s = &p.plan.status;
    const struct target_status *t = target_of(&p);
    const struct process_status *process = t->processes.items;
    const struct result_status *result = s->results.items;
    assert_true(str_is(s->summary, "1/1"));
    assert_int_equal(s->samples, 2987);
    assert_int_equal(s->start_ms, PLAN_EPOCH_MS + 3000); /* the runner knows better */
    assert_int_equal(s->completion_ms, PLAN_EPOCH_MS + 35000);
    assert_int_equal(s->observed_generation, 1);
    assert_true(str_is(t->pod_name, "web") && str_is(t->pod_uid, "pod-1"));
    assert_true(str_is(t->node_name, "node1") && str_is(t->job_name, "pyspy-1"));
    assert_true(str_is(t->container, "app") && str_is(t->engine, "PySpy"));
    assert_true(str_is(t->engine_reason, "UnsupportedPython"));
    assert_true(str_is(t->engine_message, "Python 3.7.16 is not supported"));
    assert_true(str_is(t->accuracy, "GILOnly") && str_is(t->cost_cpu_seconds, "0.41"));
    assert_int_equal(t->cost_max_memory_bytes, 7340032);
    assert_int_equal(t->processes.len, 1);
    assert_int_equal(process->host_pid, 31245);
    assert_int_equal(s->results.len, 1);
    assert_true(str_is(result->target, "web") && str_is(result->format, "flamegraph"));
    assert_true(str_is(result->config_map_name, "slow-1") && !result->secret_name.len);
    assert_true(str_is(result->config_map_key, "flamegraph.svg"));
    assert_int_equal(result->size_bytes, 48213);
    assert_true(str_is(p.plan.event_note, "2987 samples; 1 result in ConfigMap slow-1"));
    world_finish(&p);

    world_plan(
        arena,
        &(struct world){
            .profile = "{}", .job = "{}", .summary = "{receipt: {kind: Secret}}", .now_s = 35},
        &p);
    result = p.plan.status.results.items;
    assert_true(str_is(result->secret_name, "slow-1") && !result->config_map_name.len);
    assert_true(str_is(result->secret_key, "flamegraph.svg"));
    world_finish(&p);
}

/* What a runner says beyond what the CRD lets in must not make the status unwritable. */
static void summary_is_cut_to_the_schema(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    char command[3000];
    memset(command, 'x', sizeof(command) - 1);
    command[sizeof(command) - 1] = 0;
    const char *summary = arena_printf(
        arena,
        "{container: %.100s, engine: Rust, engineReason: Whim, engineMessage: %.1100s, accuracy: "
        "Perfect, samples: -1, cost: {cpuSeconds: "
        "much, maxMemoryBytes: -1}, processes: [{hostPID: -7, pid: -1, command: %s, "
        "pythonVersion: %.100s, engine: Go, samples: -1, errors: -1, late: -1, held: -1}, "
        "{hostPID: "
        "5000000000}]}",
        command, command, arena_printf(arena, "%.2000s", command), command);
    struct planned p;
    world_plan(
        arena,
        &(struct world){.profile = RUNNING_SINCE_2S, .job = "{}", .summary = summary, .now_s = 35},
        &p);
    assert_true(p.plan.write_status);
    const struct target_status *t = target_of(&p);
    const struct process_status *process = t->processes.items;
    assert_true(p.plan.status.samples >= 0);
    assert_true(t->container.len <= 63 && !t->engine.len && !t->accuracy.len);
    assert_true(!t->engine_reason.len && t->engine_message.len <= 1024 && !process->engine.len);
    assert_true(!t->cost_cpu_seconds.len && t->cost_max_memory_bytes >= 0);
    assert_true(process->command.len <= 1024 && process->command.len >= 256);
    assert_true(process->python_version.len <= 64);
    assert_int_equal(process->host_pid, 0);
    assert_int_equal(process->pid, 0);
    assert_true(process->samples == 0 && process->errors == 0 && process->late == 0 &&
                process->held == 0);
    assert_int_equal(process[1].host_pid, 0);
    world_finish(&p);
}

/* Long messages of others are cut, not lost. */
static void long_messages_are_cut(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    char text[20000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    const struct world worlds[] = {
        {.profile = RUNNING_SINCE_2S,
         .asked_runner = true,
         .node = "{}",
         .now_s = 30,
         .job = arena_printf(arena,
                             "{status: {conditions: [{type: Failed, status: 'True', reason: R, "
                             "message: %s}]}}",
                             text)},
        {.profile = RUNNING_SINCE_2S,
         .job = "{}",
         .now_s = 30,
         .runner = arena_printf(arena,
                                "{status: {conditions: [{type: DisruptionTarget, status: 'True', "
                                "message: %s}]}}",
                                text)},
        {.profile = RUNNING_SINCE_2S,
         .job = "{}",
         .now_s = 30,
         .runner = arena_printf(arena,
                                "{status: {containerStatuses: [{name: runner, state: {terminated: "
                                "{message: %s}}}]}}",
                                text)},
        {.profile = "{}",
         .job = "{}",
         .now_s = 3,
         .runner = arena_printf(
             arena, "{status: {phase: Failed, message: %s, containerStatuses: null}}", text)},
        {.profile = "{}",
         .job = "{}",
         .now_s = 3,
         .runner = arena_printf(arena,
                                "{status: {containerStatuses: [{name: runner, state: {waiting: "
                                "{reason: ErrImagePull, message: %s}}}]}}",
                                text)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(worlds); i++) {
        struct planned p;
        world_plan(arena, &worlds[i], &p);
        assert_true(p.plan.write_status);
        assert_true(str_find(p.plan.status.message, STR("xxxxxxxxxxxxxxxxxxxxx")) >= 0);
        assert_true(p.plan.status.message.len < 1024);
        world_finish(&p);
    }
}

static void expect_conditions_kept(const struct profile_status *before,
                                   const struct profile_status *now)
{
    const struct condition *a = before->conditions.items, *b = now->conditions.items;
    for (size_t i = 0; i < before->conditions.len; i++)
        for (size_t j = 0; j < now->conditions.len; j++)
            if (str_eq(a[i].type, b[j].type) && str_eq(a[i].status, b[j].status))
                assert_int_equal(a[i].last_transition_ms, b[j].last_transition_ms);
}

static void conditions_keep_their_time(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const char *profile =
        "{metadata: {generation: 2}, status: {phase: Pending, reason: PodNotRunning, "
        "message: m, observedGeneration: 1, conditions: [{type: TargetResolved, status: 'False', "
        "reason: PodNotRunning, message: m, lastTransitionTime: '2026-01-01T00:00:01Z', "
        "observedGeneration: 1}]}}";
    struct planned p;
    world_plan(arena, &(struct world){.profile = profile, .target_missing = true, .now_s = 9}, &p);
    const struct condition *c = p.plan.status.conditions.items;
    assert_int_equal(c->last_transition_ms, PLAN_EPOCH_MS + 1000); /* still False */
    assert_int_equal(c->observed_generation, 2);
    assert_true(str_is(c->reason, "TargetNotFound"));
    expect_conditions_kept(&p.profile.status, &p.plan.status);
    world_finish(&p);

    world_plan(arena, &(struct world){.profile = profile, .job = "{}", .runner = "{}", .now_s = 9},
               &p);
    c = p.plan.status.conditions.items;
    assert_true(str_is(c->status, "True"));
    assert_int_equal(c->last_transition_ms, PLAN_EPOCH_MS + 9000);
    world_finish(&p);
}

/* Conditions that others put there, or more than we know, are neither lost nor overrun. */
static void foreign_conditions_stay(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct planned p;
    world_plan(arena,
               &(struct world){
                   .profile = "{status: {phase: Pending, conditions: [{type: A, status: 'True'}, "
                              "{type: B, status: 'True'}, {type: C, status: 'True'}, "
                              "{type: D, status: 'True'}, {type: E, status: 'True'}, "
                              "{type: F, status: 'True'}, {type: G, status: 'True'}, "
                              "{type: H, status: 'True'}, {type: I, status: 'True'}]}, "
                              "spec: {cancel: true}}",
                   .now_s = 9},
               &p);
    assert_true(p.plan.write_status);
    const struct condition *c = p.plan.status.conditions.items;
    bool complete = false;
    for (size_t i = 0; i < p.plan.status.conditions.len; i++)
        complete = complete || str_is(c[i].type, "Failed");
    assert_true(complete); /* what ends the profile is always told */
    world_finish(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(complete_status_has_all), cmocka_unit_test(summary_is_cut_to_the_schema),
        cmocka_unit_test(long_messages_are_cut),   cmocka_unit_test(conditions_keep_their_time),
        cmocka_unit_test(foreign_conditions_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
