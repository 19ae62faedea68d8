/* Which of the target's Python processes to sample: spec.target.process narrows, select picks. */
#include <regex.h>

#include "runner/run.h"

#define BUSIEST_OVER_MS 1000

static void regfreep(regex_t **r)
{
    if (*r)
        regfree(*r);
}

static int narrow(struct run *run)
{
    const struct process_spec *spec = &run->task.process;
    regex_t regex;
    _cleanup_(regfreep) regex_t *compiled = NULL;
    if (spec->command.len > 0) {
        int r = regcomp(&regex, arena_cstr(run->arena, spec->command), REG_EXTENDED | REG_NOSUB);
        if (r != 0) {
            char message[128];
            regerror(r, &regex, message, sizeof(message));
            return run_fail(run, REASON_PROCESS_NOT_FOUND,
                            "process.command is no POSIX extended regular expression: %s", message);
        }
        compiled = &regex;
    }

    struct candidates *chosen = &run->chosen;
    chosen->items = arena_array(run->arena, run->found.len, sizeof(*chosen->items));
    for (size_t i = 0; i < run->found.len; i++) {
        const struct candidate *c = &run->found.items[i];
        if (spec->pid > 0 && c->process.container_pid != spec->pid)
            continue;
        if (spec->host_pid > 0 && c->process.pid != spec->host_pid)
            continue;
        if (compiled &&
            regexec(compiled, arena_cstr(run->arena, c->process.command), 0, NULL, 0) != 0)
            continue;
        chosen->items[chosen->len++] = *c;
    }
    return 0;
}

/* process.pid or process.hostPID may name one that runs in the container but is not Python. */
static int none_left(struct run *run)
{
    const struct process_spec *spec = &run->task.process;
    struct str container = run->found.items[0].container;
    if (spec->host_pid > 0)
        return run_fail(run, REASON_PROCESS_NOT_PYTHON,
                        "process.hostPID: process %lld is not a Python process of container %.*s",
                        (long long)spec->host_pid, STR_ARG(container));
    if (spec->pid > 0 && spec->command.len == 0) {
        struct proc_process *all;
        size_t n;
        if (proc_find_container(run->proc, run->arena, run->found.items[0].container_id,
                                RUN_SCAN_MAX, &all, &n, NULL) == 0) {
            for (size_t i = 0; i < n; i++) {
                if (all[i].container_pid == spec->pid)
                    return run_fail(run, REASON_PROCESS_NOT_PYTHON,
                                    "process.pid: process %lld of container %.*s is not CPython",
                                    (long long)spec->pid, STR_ARG(container));
            }
        }
        return run_fail(run, REASON_PROCESS_NOT_FOUND,
                        "process.pid: container %.*s has no process %lld", STR_ARG(container),
                        (long long)spec->pid);
    }
    return run_fail(run, REASON_PROCESS_NOT_FOUND,
                    "none of the %zu Python processes of container %.*s fits process.command%s",
                    run->found.len, STR_ARG(container), spec->pid > 0 ? " and process.pid" : "");
}

/* Ends that disappear in between count as idle; holding them will tell. */
static int pick_busiest(struct run *run)
{
    struct candidates *chosen = &run->chosen;
    uint64_t *before = arena_array(run->arena, chosen->len, sizeof(*before));
    for (size_t i = 0; i < chosen->len; i++)
        proc_cpu_ticks(run->proc, chosen->items[i].process.pid, &before[i], NULL);
    run_wait(run, NULL, NULL, BUSIEST_OVER_MS);
    if (run->cancelled)
        return run_fail(run, REASON_CANCELLED, "cancelled before sampling began");

    size_t best = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < chosen->len; i++) {
        uint64_t after = 0;
        proc_cpu_ticks(run->proc, chosen->items[i].process.pid, &after, NULL);
        if (after > before[i] && after - before[i] > most) {
            most = after - before[i];
            best = i;
        }
    }
    chosen->items[0] = chosen->items[best];
    chosen->len = 1;
    return 0;
}

int run_choose(struct run *run)
{
    int r = narrow(run);
    if (r < 0)
        return r;
    struct candidates *chosen = &run->chosen;
    if (chosen->len == 0)
        return none_left(run);
    if (chosen->len == 1)
        return 0;
    switch ((enum process_select)run->task.process.select) {
    case SELECT_OLDEST:
        chosen->len = 1; /* they came in that order */
        return 0;
    case SELECT_BUSIEST:
        return pick_busiest(run);
    case SELECT_ALL:
        if (chosen->len > RUN_PROCESSES_MAX) {
            log_warn("more processes than are sampled at once", LOG_I("processes", chosen->len),
                     LOG_I("sampled", RUN_PROCESSES_MAX));
            chosen->len = RUN_PROCESSES_MAX;
        }
        return 0;
    }
    return run_fail(run, REASON_INVALID, "process.select is unknown");
}
