/* Samples the chosen processes, one py-spy each, at the same time; merges what they bring. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/sample.h"

static bool shares_namespace(const struct run *run, pid_t pid)
{
    struct stat own, its;
    const char *path = arena_printf(run->arena, "%d/ns/pid", (int)pid);
    return stat("/proc/self/ns/pid", &own) == 0 && fstatat(run->proc, path, &its, 0) == 0 &&
           own.st_dev == its.st_dev && own.st_ino == its.st_ino;
}

static bool all_ended(void *context)
{
    const struct run *run = context;
    for (size_t i = 0; i < run->n_samplers; i++) {
        if (run->samplers[i].state != SAMPLER_ENDED)
            return false;
    }
    return true;
}

/* Each ends with an outcome of its own. One that was idle beside others that worked is no failure;
 * anything else is told, with the process when there are several. */
static void judge_all(struct run *run)
{
    bool any = profile_samples(run->profile) > 0;
    for (size_t i = 0; i < run->n_samplers; i++) {
        const struct outcome *o = &run->samplers[i].outcome;
        if (o->reason == REASON_NONE || (any && o->reason == REASON_NO_SAMPLES))
            continue;
        if (run->n_samplers == 1)
            run->outcome = *o;
        else
            outcome_set(&run->outcome, o->reason, "process %lld: %s",
                        (long long)run->samplers[i].status.pid, o->message);
        return;
    }
}

/* One of them at a time is there twice; a single one never is. */
void sampler_hand_over(struct sampler *s, struct str prefix)
{
    struct run *run = s->run;
    struct err err = ERR_INIT;
    if (run->n_samplers == 1) {
        profile_destroy(run->profile);
        run->profile = TAKE(s->profile);
        return;
    }
    if (profile_merge(run->profile, s->profile, prefix, &err) < 0)
        outcome_set(&s->outcome, REASON_RESULT_TOO_LARGE,
                    "%s, with the other processes; what fits is kept", err.message);
    profile_destroy(TAKE(s->profile));
    malloc_trim(0);
}

static void merge(struct run *run)
{
    malloc_trim(0); /* of what the samplers had */
    for (size_t i = 0; i < run->n_samplers; i++) {
        struct sampler *s = &run->samplers[i];
        sampler_collect(s);
        struct str prefix = STR_NULL;
        if (run->n_samplers > 1)
            prefix =
                run->task.sampling.command_lines
                    ? str_of(arena_printf(run->arena, "process %lld:\"%.*s\"",
                                          (long long)s->status.pid, STR_ARG(s->status.command)))
                    : str_of(arena_printf(run->arena, "process %lld", (long long)s->status.pid));
        sampler_hand_over(s, prefix);
        log_info("sampled", LOG_I("hostPID", s->status.host_pid), LOG_I("pid", s->status.pid),
                 LOG_S("python", s->status.python_version),
                 LOG_C("engine", sampling_engine_names[s->engine]),
                 LOG_C("engineReason", engine_reason_names[s->engine_reason]),
                 LOG_C("engineMessage", s->engine_message), LOG_I("samples", s->status.samples),
                 LOG_I("errors", s->status.errors), LOG_I("late", s->status.late),
                 LOG_I("held", s->status.held),
                 LOG_C("reason", profile_reason_names[s->outcome.reason]),
                 LOG_C("message", s->outcome.message));
    }
}

/* They differ where a container holds several versions of Python: then the narrower accuracy
 * counts, and the engine that was not the preferred one, which is what there is something to tell
 * of. */
static void sum_up_engines(struct run *run)
{
    for (size_t i = 0; i < run->n_samplers; i++) {
        struct sampler *s = &run->samplers[i], *first = run->engine_from;
        if (s->accuracy && (!run->accuracy[0] || str_is(str_of(s->accuracy), "GILOnly")))
            run->accuracy = s->accuracy;
        if (s->engine == ENGINE_AUTO)
            continue;
        if (first && first->engine != s->engine)
            run->engines_differ = true;
        if (!first || (first->engine == ENGINE_NATIVE && s->engine == ENGINE_PYSPY) ||
            (first->engine == s->engine && !first->engine_message[0]))
            run->engine_from = s;
    }
    for (size_t i = 0; run->engines_differ && i < run->n_samplers; i++) {
        struct sampler *s = &run->samplers[i];
        if (s->engine != ENGINE_AUTO)
            s->status.engine = str_of(sampling_engine_names[s->engine]);
    }
}

int run_sample(struct run *run)
{
    run->same_namespace = shares_namespace(run, run->chosen.items[0].process.pid);
    bool own_namespace = run->same_namespace || run->task.join_namespaces;
    for (size_t i = 0; i < run->chosen.len; i++) {
        struct pyspy_request request = {
            .own_namespace = own_namespace,
            .joined = own_namespace && !run->same_namespace,
            .python = str_of(run->chosen.items[i].python.version),
        };
        if (pyspy_check_options(&run->task.sampling, &request, &run->outcome) < 0)
            return -1;
    }

    run->start_ms = clock_wall_ms(&clock_system);
    run->samplers = arena_array(run->arena, run->chosen.len, sizeof(*run->samplers));
    for (size_t i = 0; i < run->chosen.len; i++) {
        const struct candidate *c = &run->chosen.items[i];
        log_info("sampling", LOG_S("container", c->container), LOG_I("hostPID", c->process.pid),
                 LOG_I("pid", c->process.container_pid), LOG_C("python", c->python.version),
                 LOG_I("rate", run->task.sampling.rate),
                 LOG_I("durationMs", run->task.sampling.duration_ms));
        sampler_start(&run->samplers[i], run, c, own_namespace);
        run->n_samplers++;
    }
    if (!run_wait(run, all_ended, run, -1)) {
        for (size_t i = 0; i < run->n_samplers; i++)
            sampler_cancel(&run->samplers[i]);
        while (!all_ended(run)) {
            if (loop_step(run->loop, -1, NULL) < 0)
                break;
        }
    }
    run->end_ms = clock_wall_ms(&clock_system);
    sum_up_engines(run);
    merge(run);
    judge_all(run);
    if (run->cancelled)
        return run_fail(run, REASON_CANCELLED, "cancelled after %lld samples; they are not stored",
                        (long long)profile_samples(run->profile));
    return profile_samples(run->profile) > 0 ? 0 : -1;
}
