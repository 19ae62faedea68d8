#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proc/proc_internal.h"

/* The pidfd is opened first and the number's meaning is checked after: from then on a match cannot
 * be another process, as the number is not given out again while the process lives. */
int proc_hold(int proc, const struct proc_process *process, struct str container_id,
              struct proc_handle *ret, struct err *err)
{
    struct proc_handle h = {.pid = process->pid, .start_time = process->start_time};
    h.pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0u);
    if (h.pidfd < 0 && errno == ESRCH)
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)process->pid);
    if (h.pidfd < 0)
        return err_set_errno(err, errno, "hold process %d", (int)process->pid);

    struct proc_stat stat;
    int r = proc_stat_read(proc, h.pid, &stat, err);
    if (r == 0 && (stat.start_time != h.start_time || stat.state == 'Z' || stat.state == 'X'))
        r = err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)h.pid);
    if (r == 0) {
        _cleanup_(buf_finish) struct buf cgroup = BUF_INIT(PROC_CGROUP_MAX);
        r = proc_read_text(proc, &cgroup, err, "%d/cgroup", (int)h.pid);
        if (r == 0 && !proc_cgroup_matches(buf_str(&cgroup), container_id))
            r = err_set(err, ERR_NOT_FOUND, "process %d has left the container", (int)h.pid);
    }
    if (r < 0) {
        close(h.pidfd);
        return r;
    }
    *ret = h;
    return 0;
}

void proc_release(struct proc_handle *h)
{
    if (h->pidfd >= 0)
        close(h->pidfd);
    h->pidfd = -1;
}

struct threads {
    int proc;
    pid_t pid;
    int all, stopped;
};

static int look_at_thread(void *context, pid_t tid)
{
    struct threads *t = context;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4096);
    struct proc_stat stat;
    if (proc_read_text(t->proc, &text, NULL, "%d/task/%d/stat", (int)t->pid, (int)tid) < 0 ||
        proc_stat_parse(buf_str(&text), &stat, NULL) < 0)
        return 0;
    t->all++;
    t->stopped += stat.state == 'T' || stat.state == 't';
    return 0;
}

static int count_threads(int proc, pid_t pid, struct threads *ret, struct err *err)
{
    char path[32];
    snprintf(path, sizeof(path), "%d/task", (int)pid);
    struct threads t = {.proc = proc, .pid = pid};
    int r = proc_each_number(proc, path, look_at_thread, &t, err);
    if (r == 0)
        *ret = t;
    return r;
}

int proc_stopped_threads(int proc, pid_t pid, int *ret, struct err *err)
{
    struct threads t;
    int r = count_threads(proc, pid, &t, err);
    if (r == 0)
        *ret = t.stopped;
    return r;
}

int proc_thread_count(int proc, pid_t pid, int *ret, struct err *err)
{
    struct threads t;
    int r = count_threads(proc, pid, &t, err);
    if (r == 0)
        *ret = t.all;
    return r;
}

int proc_cpu_ticks(int proc, pid_t pid, uint64_t *ret, struct err *err)
{
    struct proc_stat stat;
    int r = proc_stat_read(proc, pid, &stat, err);
    if (r == 0)
        *ret = stat.cpu_ticks;
    return r;
}
