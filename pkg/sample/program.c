/* Which program a process runs. exec() of the same file shows only in what the kernel notes of the
 * new image. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "sample/sample_internal.h"

#define STAT_MAX    4096
#define START_CODE  26 /* numbers of fields, as in proc(5) */
#define START_STACK 28

static uint64_t field(const char *behind_name, int number)
{
    struct str rest = str_of(behind_name);
    for (int i = 3; i < number; i++)
        str_cut(&rest, ' ');
    uint64_t value = 0;
    struct str text = str_cut(&rest, ' ');
    for (size_t i = 0; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++)
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    return value;
}

int program_read(int proc, pid_t pid, struct program *ret, struct err *err)
{
    char path[32];
    struct stat st;
    snprintf(path, sizeof(path), "%d/exe", (int)pid);
    if (fstatat(proc, path, &st, 0) < 0)
        return err_set_errno(err, errno == ESRCH ? ENOENT : errno, "process %d", (int)pid);
    *ret = (struct program){.device = st.st_dev, .inode = st.st_ino};
    _cleanup_(buf_finish) struct buf text = BUF_INIT(STAT_MAX);
    snprintf(path, sizeof(path), "%d/stat", (int)pid);
    int r = buf_read_file_at(&text, proc, path, err);
    if (r < 0)
        return r;
    const char *name_end = strrchr(buf_cstr(&text), ')');
    if (name_end && name_end[1] == ' ') {
        ret->start_code = field(name_end + 2, START_CODE);
        ret->start_stack = field(name_end + 2, START_STACK);
    }
    return 0;
}

bool program_same(const struct program *a, const struct program *b)
{
    return a->device == b->device && a->inode == b->inode && a->start_code == b->start_code &&
           a->start_stack == b->start_stack;
}
