#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proc/proc_internal.h"

#define MAPS_MAX      (8u << 20)
#define LIBRARIES_MAX 8 /* mapped files named libpython* that are looked into */

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* path as the target sees it. A link in the target's files must not lead into ours, hence openat2;
 * what is no regular file (a FIFO, a device) may block or act when it is opened, hence O_PATH
 * first; *ret stays -1 then. */
int proc_open_in_root(int proc, pid_t pid, struct arena *arena, struct str path, int *ret,
                      struct err *err)
{
    char link[32];
    snprintf(link, sizeof(link), "%d/root", (int)pid);
    _cleanup_(close_fdp) int root = openat(proc, link, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "open /proc/%s", link);

    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    _cleanup_(close_fdp) int found =
        (int)syscall(SYS_openat2, root, arena_cstr(arena, path), &how, sizeof(how));
    struct stat st;
    if (found < 0 || fstat(found, &st) < 0)
        return err_set_errno(err, errno, "read %.*s in the container", STR_ARG(path));
    if (!S_ISREG(st.st_mode))
        return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", found);
    int fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set_errno(err, errno, "read %.*s in the container", STR_ARG(path));
    *ret = fd;
    return 0;
}

/* A line of maps is "address perms offset dev inode   path": the path of an executable mapping of a
 * file named libpython*, or an empty view. */
static struct str line_library(struct str line)
{
    struct str rest = line;
    str_cut(&rest, ' ');
    struct str perms = str_cut(&rest, ' ');
    if (str_find_char(perms, 'x') < 0 || !rest.ptr)
        return STR_NULL;
    ssize_t at = str_find_char(rest, '/');
    if (at < 0)
        return STR_NULL;
    struct str path = str_sub(rest, (size_t)at, rest.len);
    struct str name = str_sub(path, (size_t)str_rfind_char(path, '/') + 1, path.len);
    return str_starts_with(name, STR("libpython")) ? path : STR_NULL;
}

uint64_t proc_mapped_at(struct str maps, struct str path)
{
    while (maps.ptr) {
        struct str line = str_cut(&maps, '\n'), fields = line;
        struct str range = str_cut(&fields, ' ');
        str_cut(&fields, ' ');
        struct str offset = str_cut(&fields, ' ');
        ssize_t slash = str_find_char(fields, '/');
        if (slash < 0 || !str_eq(str_sub(fields, (size_t)slash, fields.len), path) ||
            !str_is(offset, "00000000"))
            continue;
        char hex[20];
        struct str first = str_cut(&range, '-');
        snprintf(hex, sizeof(hex), "%.*s", STR_ARG(first));
        return strtoull(hex, NULL, 16);
    }
    return 0;
}

/* A package that was upgraded while the process runs takes the file away, not what is mapped. */
static int inspect_replaced(struct arena *arena, pid_t pid, struct str maps, struct str path,
                            struct proc_python *ret, struct err *err)
{
    struct proc_python python = {0};
    uint64_t base = proc_mapped_at(maps, path);
    if (!base)
        return err_set(err, ERR_NOT_FOUND, "%.*s: replaced while the process runs", STR_ARG(path));
    int r = proc_image_inspect(pid, base, path, &python, err);
    if (r < 0)
        return err_wrap(err, "%.*s", STR_ARG(path));
    python.library = arena_str(arena, path);
    *ret = python;
    return 0;
}

static int inspect_library(int proc, struct arena *arena, pid_t pid, struct str maps,
                           struct str path, struct proc_python *ret, struct err *err)
{
    if (path.len >= PATH_MAX)
        return err_set(err, ERR_INVALID, "a mapped file's path is too long");
    if (str_ends_with(path, STR(" (deleted)")))
        return inspect_replaced(arena, pid, maps, path, ret, err);
    _cleanup_(close_fdp) int fd = -1;
    int r = proc_open_in_root(proc, pid, arena, path, &fd, err);
    if (r < 0)
        return r;
    struct proc_python python = {0};
    if (fd < 0) {
        *ret = python;
        return 0;
    }
    r = proc_elf_python(fd, path, &python, err);
    if (r < 0)
        return r;
    python.library = arena_str(arena, path);
    *ret = python;
    return 0;
}

/* The first mapped libpython that proves to be one. What may not be read is an error only when none
 * of the others is Python. */
static int inspect_maps(int proc, struct arena *arena, pid_t pid, struct proc_python *ret,
                        struct err *err)
{
    _cleanup_(buf_finish) struct buf maps = BUF_INIT(MAPS_MAX);
    int r = proc_read_text(proc, &maps, err, "%d/maps", (int)pid);
    if (r < 0)
        return r;

    struct err first = ERR_INIT;
    struct str last = STR_NULL;
    size_t looked = 0;
    for (struct str rest = buf_str(&maps); rest.ptr && looked < LIBRARIES_MAX;) {
        struct str path = line_library(str_cut(&rest, '\n'));
        if (path.len == 0 || str_eq(path, last))
            continue;
        last = path;
        looked++;
        struct proc_python python = {0};
        struct err one = ERR_INIT;
        r = inspect_library(proc, arena, pid, buf_str(&maps), path, &python, &one);
        if (r < 0 && first.code == 0)
            first = one;
        if (r == 0 && python.is_python) {
            *ret = python;
            return 0;
        }
    }
    if (first.code != 0) {
        if (err)
            *err = first;
        return first.code;
    }
    *ret = (struct proc_python){0};
    return 0;
}

int proc_inspect_python(int proc, struct arena *arena, pid_t pid, struct proc_python *ret,
                        struct err *err)
{
    char path[32], link[PATH_MAX];
    snprintf(path, sizeof(path), "%d/exe", (int)pid);
    ssize_t n = readlinkat(proc, path, link, sizeof(link));
    if (n < 0)
        return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "read the link /proc/%s", path);
    struct str executable = arena_str(arena, (struct str){link, (size_t)n});

    /* The link leads to the file itself: directories above it that we may not enter do not matter,
     * neither does a file that was replaced. */
    _cleanup_(close_fdp) int fd = openat(proc, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "read %.*s in the container",
                             STR_ARG(executable));
    struct proc_python python;
    int r = proc_elf_python(fd, executable, &python, err);
    if (r < 0)
        return err_wrap(err, "%.*s", STR_ARG(executable));
    if (!python.is_python)
        return inspect_maps(proc, arena, pid, ret, err);
    python.library = executable;
    *ret = python;
    return 0;
}
