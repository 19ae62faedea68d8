/* Which processes of the target are Python: the containers in the task's order, the first that
 * holds one. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/buf.h"
#include "runner/run.h"

#define CAP_BIT_DAC_READ_SEARCH 2
#define CAP_BIT_SYS_PTRACE      19

struct search {
    size_t processes;  /* of the target, seen */
    struct err denied; /* first one that could not be looked into */
    pid_t denied_pid;
    struct str others; /* commands of the first that are not Python, for the message */
    size_t n_others;
};

static bool have_capability(int bit)
{
    _cleanup_(buf_finish) struct buf status = BUF_INIT(16384);
    if (buf_read_file(&status, "/proc/self/status", NULL) < 0)
        return false;
    ssize_t at = str_find(buf_str(&status), STR("CapEff:\t"));
    if (at < 0)
        return false;
    unsigned long long bits = strtoull(buf_cstr(&status) + at + 8, NULL, 16);
    return bits >> bit & 1;
}

/* gVisor and Kata keep a Pod's processes in a kernel of their own; no name list is complete, so any
 * RuntimeClass is mentioned. */
static void hint_sandbox(const struct run *run, struct buf *out)
{
    if (run->task.runtime_class.len > 0)
        buf_appendf(out,
                    "; the Pod's RuntimeClass is %.*s, and sandboxed runtimes (gVisor, Kata) hide "
                    "their processes from the node",
                    STR_ARG(run->task.runtime_class));
}

static void name_containers(const struct run *run, struct buf *out)
{
    const struct task_container *containers = run->task.containers.items;
    for (size_t i = 0; i < run->task.containers.len && i < 8; i++)
        buf_appendf(out, "%s%.*s", i ? ", " : "", STR_ARG(containers[i].name));
}

static int deny(struct run *run, pid_t pid, const struct err *err)
{
    if (!have_capability(CAP_BIT_SYS_PTRACE))
        return run_fail(run, REASON_PERMISSION_DENIED,
                        "process %d: %s: the runner lacks the capability SYS_PTRACE "
                        "(runner.capabilities)",
                        (int)pid, err->message);
    if (!have_capability(CAP_BIT_DAC_READ_SEARCH))
        return run_fail(run, REASON_PERMISSION_DENIED,
                        "process %d: %s: only its owner may read it; add DAC_READ_SEARCH to "
                        "runner.capabilities in the operator's configuration",
                        (int)pid, err->message);
    return run_fail(run, REASON_PERMISSION_DENIED,
                    "process %d: %s: a security module such as AppArmor or SELinux may forbid it",
                    (int)pid, err->message);
}

/* Adds the process to the found ones when it is Python. */
static void look_at(struct run *run, struct search *search, const struct proc_process *process,
                    const struct task_container *container, size_t room)
{
    struct proc_python python;
    struct err err = ERR_INIT;
    search->processes++;
    int r = proc_inspect_python(run->proc, run->arena, process->pid, &python, &err);
    if (r == ERR_FORBIDDEN && search->denied.code == 0) {
        search->denied = err;
        search->denied_pid = process->pid;
    }
    if (r < 0) {
        log_debug("process not readable", LOG_I("pid", process->pid), LOG_ERR(&err));
        return;
    }
    if (!python.is_python) {
        if (search->n_others++ < 4) {
            struct str rest = process->command;
            struct str name = str_cut(&rest, ' '); /* arguments may hold secrets */
            search->others = str_of(arena_printf(run->arena, "%.*s%s%.*s", STR_ARG(search->others),
                                                 search->others.len ? ", " : "", STR_ARG(name)));
        }
        return;
    }
    if (run->found.len < room)
        run->found.items[run->found.len++] = (struct candidate){
            .process = *process,
            .python = python,
            .container = container->name,
            .container_id = container->id,
        };
}

static int look_into(struct run *run, struct search *search, const struct task_container *container)
{
    struct proc_process *processes;
    size_t n;
    struct err err = ERR_INIT;
    int r = proc_find_container(run->proc, run->arena, container->id, RUN_SCAN_MAX, &processes, &n,
                                &err);
    if (r < 0)
        return run_fail(run,
                        r == ERR_FORBIDDEN ? REASON_PERMISSION_DENIED : REASON_PROCESS_NOT_FOUND,
                        "%s", err.message);
    run->found.items = arena_array(run->arena, n + 1, sizeof(*run->found.items));
    for (size_t i = 0; i < n; i++)
        look_at(run, search, &processes[i], container, n);
    return 0;
}

/* process.hostPID names a process of the whole node: nothing is looked at, nor told, of one that
 * does not belong to the target. */
static int check_host_pid(struct run *run)
{
    struct task_container *containers = run->task.containers.items;
    int64_t pid = run->task.process.host_pid;
    struct proc_process process;
    struct err err = ERR_INIT;
    int r = pid > INT32_MAX ? ERR_NOT_FOUND
                            : proc_read(run->proc, run->arena, (pid_t)pid, &process, &err);
    if (r == ERR_NOT_FOUND)
        return run_fail(run, REASON_PROCESS_NOT_FOUND,
                        "process.hostPID: the node has no process "
                        "%lld",
                        (long long)pid);
    if (r < 0)
        return run_fail(run, REASON_PERMISSION_DENIED, "process.hostPID: %s", err.message);

    _cleanup_(buf_finish) struct buf cgroup = BUF_INIT(65536);
    const char *path = arena_printf(run->arena, "%lld/cgroup", (long long)pid);
    if (buf_read_file_at(&cgroup, run->proc, path, &err) < 0)
        return run_fail(run, REASON_PROCESS_NOT_FOUND, "process.hostPID: %s", err.message);
    for (size_t i = 0; i < run->task.containers.len; i++) {
        if (proc_cgroup_matches(buf_str(&cgroup), containers[i].id)) {
            run->task.containers = (struct json_array){&containers[i], 1};
            return 0;
        }
    }
    return run_fail(run, REASON_PROCESS_NOT_IN_TARGET,
                    "process.hostPID: process %lld is none of Pod %.*s", (long long)pid,
                    STR_ARG(run->task.pod_name));
}

static int find_once(struct run *run, struct search *search)
{
    const struct task_container *containers = run->task.containers.items;
    for (size_t i = 0; i < run->task.containers.len; i++) {
        int r = look_into(run, search, &containers[i]);
        if (r < 0 || run->found.len > 0)
            return r;
    }
    return 0;
}

int run_find(struct run *run)
{
    if (run->task.process.host_pid > 0) {
        int r = check_host_pid(run);
        if (r < 0)
            return r;
    }
    struct search search = {0};
    /* A container that has just started may still be in its shell or its launcher. */
    for (int tries = 0; tries < 8; tries++) {
        search = (struct search){0};
        int r = find_once(run, &search);
        if (r < 0)
            return r;
        if (run->found.len > 0)
            return 0;
        run_wait(run, NULL, NULL, 250);
        if (run->cancelled)
            return run_fail(run, REASON_CANCELLED, "cancelled before sampling began");
    }

    if (search.denied.code != 0)
        return deny(run, search.denied_pid, &search.denied);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(700);
    if (search.processes == 0) {
        buf_append_cstr(&text, "no process of container ");
        name_containers(run, &text);
        buf_append_cstr(&text, " on this node");
        hint_sandbox(run, &text);
        return run_fail(run, REASON_PROCESS_NOT_FOUND, "%s", buf_cstr(&text));
    }
    buf_appendf(&text, "none of %zu processes in container ", search.processes);
    name_containers(run, &text);
    buf_appendf(&text, " is CPython: %.*s%s", STR_ARG(search.others),
                search.n_others > 4 ? ", …" : "");
    return run_fail(run, REASON_PROCESS_NOT_PYTHON, "%s", buf_cstr(&text));
}
