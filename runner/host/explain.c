/* Why a process cannot be opened, and what to do. */
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runner/host/host.h"

static bool has_ptrace(int proc)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
    buf_read_file_at(&text, proc, "self/status", NULL);
    ssize_t at = str_find(buf_str(&text), STR("\nCapEff:\t"));
    return at >= 0 && strtoull(text.ptr + at + 9, NULL, 16) >> CAP_SYS_PTRACE & 1;
}

/* -1: no such thing here. */
static int ptrace_scope(int proc)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(64);
    int64_t scope;
    return buf_read_file_at(&text, proc, "sys/kernel/yama/ptrace_scope", NULL) == 0 &&
                   str_to_i64(str_trim(buf_str(&text)), 0, 9, &scope) == 0
               ? (int)scope
               : -1;
}

static int forbidden(int proc, int pid, struct err *err)
{
    char path[32];
    struct stat st;
    snprintf(path, sizeof(path), "%d", pid);
    bool same = fstatat(proc, path, &st, 0) == 0 && st.st_uid == geteuid();
    int scope = ptrace_scope(proc);
    if (scope == 3)
        return err_set(
            err, ERR_FORBIDDEN,
            "may not read process %d: kernel.yama.ptrace_scope is 3, by which nobody may", pid);
    if (has_ptrace(proc))
        return err_set(
            err, ERR_FORBIDDEN,
            "may not read process %d in spite of SYS_PTRACE: a security module (AppArmor, "
            "SELinux) forbids it, or it belongs to another user namespace",
            pid);
    if (geteuid() == 0)
        return err_set(err, ERR_FORBIDDEN,
                       "may not read process %d: root lacks the capability SYS_PTRACE, as in most "
                       "containers; give it to this one (--cap-add SYS_PTRACE)",
                       pid);
    if (same && scope > 0)
        return err_set(err, ERR_FORBIDDEN,
                       "may not read process %d: kernel.yama.ptrace_scope is %d; run this as root "
                       "(sudo)%s",
                       pid, scope, scope == 1 ? ", or set it to 0 with sysctl" : "");
    return err_set(err, ERR_FORBIDDEN, "may not read process %d%s: run this as root (sudo)", pid,
                   same ? ", which has been given rights" : " of another user");
}

int host_explain(int proc, const struct host_arguments *a, struct err *err)
{
    int pid = (int)a->pid;
    char path[32], link[8];
    if (err->code == ERR_FORBIDDEN)
        return forbidden(proc, pid, err);
    if (err->code != ERR_NOT_FOUND)
        return err->code;
    snprintf(path, sizeof(path), "%d", pid);
    if (faccessat(proc, path, F_OK, 0) < 0)
        return err_set(err, ERR_NOT_FOUND, "there is no process %d", pid);
    snprintf(path, sizeof(path), "%d/exe", pid);
    if (readlinkat(proc, path, link, sizeof(link)) < 0)
        return err_set(err, ERR_NOT_FOUND,
                       "process %d runs no program: it has ended, or is the kernel's", pid);
    return err->code;
}
