/* What the files of pkg/proc share: reading small files of a process with a cap, and the fields of
 * /proc/PID/stat. One thread at a time. */
#pragma once

#include "base/buf.h"
#include "proc/proc.h"

#define PROC_CGROUP_MAX  65536
#define PROC_STATUS_MAX  16384
#define PROC_COMMAND_MAX 1024

struct proc_stat {
    char state;
    pid_t parent;
    uint64_t cpu_ticks, start_time;
};

/* Fields of a stat text; the command in parentheses may hold anything. ERR_PROTOCOL. */
int proc_stat_parse(struct str text, struct proc_stat *ret, struct err *err);
/* proc/PATH, where PATH is made from the format. ESRCH and ENOENT are ERR_NOT_FOUND. At most
 * out->max bytes; what is behind is left out. */
int proc_read_text(int proc, struct buf *out, struct err *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int proc_stat_read(int proc, pid_t pid, struct proc_stat *ret, struct err *err);
/* Calls fn for each number that names an entry of the directory `path` below proc; stops when fn
 * returns non-zero and returns that. */
int proc_each_number(int proc, const char *path, int (*fn)(void *context, pid_t number),
                     void *context, struct err *err);

/* "3.11.2" from PY_VERSION_HEX, "3.11" from a name like "libpython3.11.so.1.0". */
bool proc_version_of_hex(uint64_t hex, char version[static 16]);
bool proc_version_of_path(struct str path, char version[static 16]);
/* What a process has mapped at `base` of a file that is not to be had any more. */
int proc_image_inspect(pid_t pid, uint64_t base, struct str path, struct proc_python *ret,
                       struct err *err);
