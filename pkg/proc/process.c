#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "proc/proc_internal.h"

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

int proc_read_text(int proc, struct buf *out, struct err *err, const char *format, ...)
{
    char path[128];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, sizeof(path), format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(path))
        return err_set(err, ERR_INVALID, "a path in /proc is too long");

    _cleanup_(close_fdp) int fd = openat(proc, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "open /proc/%s", path);
    while (out->len < out->max) {
        size_t room = out->max - out->len;
        if (room > 4096)
            room = 4096;
        char *to = buf_reserve(out, room);
        if (!to)
            break;
        ssize_t got = read(fd, to, room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "read /proc/%s", path);
        if (got == 0)
            break;
        out->len += (size_t)got;
    }
    return 0;
}

/* proc(5): pid (comm) state ppid … utime(14) stime(15) … starttime(22). comm may hold spaces and
 * parentheses, so counting begins behind the last ')'. */
int proc_stat_parse(struct str text, struct proc_stat *ret, struct err *err)
{
    ssize_t end = str_rfind_char(text, ')');
    if (end < 0 || (size_t)end + 2 >= text.len)
        return err_set(err, ERR_PROTOCOL, "/proc/PID/stat without a command");

    struct proc_stat stat = {0};
    uint64_t number[20] = {0}; /* fields 4 … 22 at [1] … [19] */
    struct str rest = str_trim(str_sub(text, (size_t)end + 2, text.len));
    for (size_t i = 0; i < ARRAY_SIZE(number); i++) {
        if (!rest.ptr)
            return err_set(err, ERR_PROTOCOL, "/proc/PID/stat is cut off");
        struct str field = str_cut(&rest, ' ');
        if (i == 0) {
            stat.state = field.len == 1 ? field.ptr[0] : '?';
            continue;
        }
        bool wanted = i == 1 || i == 11 || i == 12 || i == 19;
        if (wanted && str_to_u64(field, UINT64_MAX, &number[i]) < 0)
            return err_set(err, ERR_PROTOCOL, "/proc/PID/stat: field %zu is no number", i + 3);
    }
    if (number[1] > INT_MAX)
        return err_set(err, ERR_PROTOCOL, "/proc/PID/stat: parent out of range");
    stat.parent = (pid_t)number[1];
    stat.cpu_ticks = number[11] + number[12];
    stat.start_time = number[19];
    *ret = stat;
    return 0;
}

int proc_stat_read(int proc, pid_t pid, struct proc_stat *ret, struct err *err)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4096);
    int r = proc_read_text(proc, &text, err, "%d/stat", (int)pid);
    if (r < 0)
        return r;
    return proc_stat_parse(buf_str(&text), ret, err);
}

/* Innermost PID of "NSpid:\t31245\t7"; the line is missing in kernels without PID namespaces. */
static pid_t status_container_pid(struct str status)
{
    while (status.ptr) {
        struct str line = str_cut(&status, '\n');
        if (!str_starts_with(line, STR("NSpid:")))
            continue;
        ssize_t tab = str_rfind_char(line, '\t');
        int64_t pid = 0;
        if (tab >= 0 && str_to_i64(str_sub(line, (size_t)tab + 1, line.len), 1, INT_MAX, &pid) == 0)
            return (pid_t)pid;
    }
    return 0;
}

/* Arguments are separated by NUL; a process may also have written a title over them, with a tail
 * of NULs (setproctitle: "gunicorn: worker [app]"). Control characters would break lines or turn
 * them. */
static struct str clean_command(struct arena *arena, struct str raw)
{
    while (raw.len > 0 && raw.ptr[raw.len - 1] == '\0')
        raw.len--;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(PROC_COMMAND_MAX);
    while (raw.len > 0) {
        uint32_t c = 0;
        size_t n = str_utf8_next(raw, &c);
        struct str piece = n == 0                                  ? STR("\xEF\xBF\xBD")
                           : rune_is_control(c) || rune_is_bidi(c) ? STR(" ")
                                                                   : str_sub(raw, 0, n);
        if (out.len + piece.len > PROC_COMMAND_MAX)
            break;
        buf_append_str(&out, piece);
        raw = str_sub(raw, n ? n : 1, raw.len);
    }
    return arena_str(arena, str_trim(buf_str(&out)));
}

/* Flags of the python command that take no value. */
static bool is_plain_flag(struct str arg)
{
    if (arg.len < 2 || arg.ptr[0] != '-')
        return false;
    for (size_t i = 1; i < arg.len; i++)
        if (!strchr("bBdEiIOPqsSuv", arg.ptr[i]))
            return false;
    return true;
}

/* The arguments of what runs may be secrets, its name is none. A title that the process wrote
 * itself is one text and stays as it is. */
static struct str program_of(struct arena *arena, struct str raw)
{
    while (raw.len > 0 && raw.ptr[raw.len - 1] == '\0')
        raw.len--;
    struct str rest = raw;
    struct str name = str_cut(&rest, '\0');
    if (!rest.ptr)
        return clean_command(arena, name);
    ssize_t slash = str_rfind_char(name, '/');
    struct str what = STR_NULL;
    const char *by = " ";
    if (str_starts_with(str_sub(name, (size_t)(slash + 1), name.len), STR("python"))) {
        what = str_cut(&rest, '\0');
        while (rest.ptr && is_plain_flag(what))
            what = str_cut(&rest, '\0');
        if (rest.ptr && str_is(what, "-m")) {
            by = " -m ";
            what = str_cut(&rest, '\0');
        }
        if (str_starts_with(what, STR("-")))
            what = STR_NULL;
    }
    bool more = rest.ptr || !what.len;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(2 * PROC_COMMAND_MAX);
    buf_append_str(&text, name);
    if (what.len) {
        buf_append_cstr(&text, by);
        buf_append_str(&text, what);
    }
    if (more)
        buf_append_cstr(&text, " …");
    return clean_command(arena, buf_str(&text));
}

static struct str read_executable(int proc, struct arena *arena, pid_t pid)
{
    char path[32], link[PATH_MAX];
    snprintf(path, sizeof(path), "%d/exe", (int)pid);
    ssize_t n = readlinkat(proc, path, link, sizeof(link));
    if (n <= 0)
        return STR_NULL;
    return arena_str(arena, (struct str){link, (size_t)n});
}

int proc_read(int proc, struct arena *arena, pid_t pid, struct proc_process *ret, struct err *err)
{
    struct proc_stat stat;
    int r = proc_stat_read(proc, pid, &stat, err);
    if (r < 0)
        return r;
    _cleanup_(buf_finish) struct buf cgroup = BUF_INIT(PROC_CGROUP_MAX);
    r = proc_read_text(proc, &cgroup, err, "%d/cgroup", (int)pid);
    if (r < 0)
        return r;
    _cleanup_(buf_finish) struct buf status = BUF_INIT(PROC_STATUS_MAX);
    r = proc_read_text(proc, &status, err, "%d/status", (int)pid);
    if (r < 0)
        return r;
    _cleanup_(buf_finish) struct buf command = BUF_INIT(PROC_COMMAND_MAX);
    r = proc_read_text(proc, &command, err, "%d/cmdline", (int)pid);
    if (r < 0)
        return r;

    *ret = (struct proc_process){
        .pid = pid,
        .container_pid = status_container_pid(buf_str(&status)),
        .parent = stat.parent,
        .start_time = stat.start_time,
        .cpu_ticks = stat.cpu_ticks,
        .command = clean_command(arena, buf_str(&command)),
        .program = program_of(arena, buf_str(&command)),
        .executable = read_executable(proc, arena, pid),
        .cgroup_id = arena_str(arena, proc_cgroup_container(buf_str(&cgroup))),
        .state = stat.state,
    };
    return 0;
}

static void close_dirp(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

int proc_each_number(int proc, const char *path, int (*fn)(void *context, pid_t number),
                     void *context, struct err *err)
{
    int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "open directory %s of /proc",
                             path);
    _cleanup_(close_dirp) DIR *dir = fdopendir(fd);
    if (!dir) {
        int saved = errno;
        close(fd);
        return err_set_errno(err, saved, "read directory %s of /proc", path);
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno == ESRCH || errno == ENOENT)
                return err_set(err, ERR_NOT_FOUND, "the process is gone");
            if (errno != 0)
                return err_set_errno(err, errno, "read directory %s of /proc", path);
            return 0;
        }
        int64_t number;
        if (str_to_i64(str_of(entry->d_name), 1, INT_MAX, &number) < 0)
            continue;
        int r = fn(context, (pid_t)number);
        if (r != 0)
            return r;
    }
}

struct find {
    int proc;
    struct arena *arena;
    struct str container_id;
    struct proc_process *found;
    size_t len, cap, max;
    struct err *err;
};

static int find_one(void *context, pid_t pid)
{
    struct find *f = context;
    _cleanup_(buf_finish) struct buf cgroup = BUF_INIT(PROC_CGROUP_MAX);
    if (proc_read_text(f->proc, &cgroup, NULL, "%d/cgroup", (int)pid) < 0)
        return 0; /* gone, or a process that hides: not ours then */
    if (!proc_cgroup_matches(buf_str(&cgroup), f->container_id))
        return 0;

    struct proc_process process;
    if (proc_read(f->proc, f->arena, pid, &process, NULL) < 0)
        return 0;
    if (process.state == 'Z' || process.state == 'X')
        return 0;
    if (f->len == f->max)
        return err_set(f->err, ERR_TOO_LARGE, "the container has more than %zu processes", f->max);
    if (f->len == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 16;
        f->found = xrealloc(f->found, f->cap, sizeof(*f->found));
    }
    f->found[f->len++] = process;
    return 0;
}

/* A PID decides between processes that were started within one clock tick. */
static int compare_start(const void *a, const void *b)
{
    const struct proc_process *x = a, *y = b;
    if (x->start_time != y->start_time)
        return x->start_time < y->start_time ? -1 : 1;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

int proc_find_container(int proc, struct arena *arena, struct str container_id, size_t max,
                        struct proc_process **ret, size_t *ret_len, struct err *err)
{
    struct find f = {
        .proc = proc, .arena = arena, .container_id = container_id, .max = max, .err = err};
    int r = proc_each_number(proc, ".", find_one, &f, err);
    if (r < 0) {
        free(f.found);
        return r;
    }
    struct proc_process *processes = NULL;
    if (f.len > 0) {
        qsort(f.found, f.len, sizeof(*f.found), compare_start);
        processes = arena_array(arena, f.len, sizeof(*processes));
        memcpy(processes, f.found, f.len * sizeof(*processes));
    }
    free(f.found);
    *ret = processes;
    *ret_len = f.len;
    return 0;
}
