#include "runner/host/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

/* A new file beside the one that it is to become: its name, to free(); NULL: it failed. */
static char *open_beside(const char *path, int *ret_fd, struct err *err)
{
    ssize_t slash = str_rfind_char(str_of(path), '/');
    _cleanup_(freep) char *name =
        xasprintf("%.*s.pyspy-XXXXXX", (int)(slash < 0 ? 0 : slash + 1), path);
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd < 0) {
        err_set_errno(err, errno, "write %s", path);
        return NULL;
    }
    *ret_fd = fd;
    return TAKE(name);
}

static mode_t mask(void)
{
    mode_t m = umask(0);
    umask(m);
    return m;
}

static int write_all(int fd, struct str text)
{
    while (text.len) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0 && errno != EINTR)
            return -errno;
        text = str_sub(text, n > 0 ? (size_t)n : 0, text.len);
    }
    return 0;
}

static int check(const char *path, const struct stat *st, struct err *err)
{
    if (S_ISDIR(st->st_mode))
        return err_set_errno(err, EISDIR, "write %s", path);
    if (S_ISLNK(st->st_mode))
        return err_set(err, ERR_INVALID,
                       "%s is a symbolic link: name the file itself, or - for standard output",
                       path);
    if (!S_ISREG(st->st_mode) && !S_ISCHR(st->st_mode) && !S_ISFIFO(st->st_mode))
        return err_set(err, ERR_INVALID, "%s is no file, pipe or device", path);
    /* Replacing it would need no right to it. */
    if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
        return err_set_errno(err, errno, "write %s", path);
    return 0;
}

int outfile_open(const char *path, struct outfile *ret, struct err *err)
{
    struct stat st;
    struct outfile f = {.fd = -1};
    if (str_is(str_of(path), "-")) {
        int flags = fcntl(STDOUT_FILENO, F_GETFL);
        if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
            return err_set_errno(err, EBADF, "standard output");
        f.fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        if (f.fd < 0)
            return err_set_errno(err, errno, "standard output");
    } else if (lstat(path, &st) == 0) {
        int r = check(path, &st, err);
        if (r < 0)
            return r;
        if (!S_ISREG(st.st_mode)) {
            f.fd = open(path, O_WRONLY | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
            if (f.fd < 0)
                return err_set_errno(err, errno, "write %s", path);
        }
    }
    if (f.fd < 0) {
        int fd = -1;
        _cleanup_(freep) char *name = open_beside(path, &fd, err);
        if (!name)
            return err->code;
        close(fd);
        unlink(name); /* nothing is left of it, however we end */
    }
    f.path = xstrdup(str_is(str_of(path), "-") ? "standard output" : path);
    *ret = f;
    return 0;
}

int outfile_write(struct outfile *f, struct str text, struct err *err)
{
    if (f->fd >= 0) {
        int e = write_all(f->fd, text);
        return e < 0 ? err_set_errno(err, -e, "write %s", f->path) : 0;
    }
    struct stat st;
    mode_t mode =
        lstat(f->path, &st) == 0 && S_ISREG(st.st_mode) ? st.st_mode & 0777 : 0666 & ~mask();
    int fd = -1;
    _cleanup_(freep) char *name = open_beside(f->path, &fd, err);
    if (!name)
        return err->code;
    int e = fchmod(fd, mode) < 0 ? -errno : write_all(fd, text);
    if (close(fd) < 0 && e == 0)
        e = -errno;
    if (e == 0 && rename(name, f->path) < 0)
        e = -errno;
    if (e == 0)
        return 0;
    unlink(name);
    return err_set_errno(err, -e, "write %s", f->path);
}

void outfile_finish(struct outfile *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    *f = (struct outfile){.fd = -1};
}
