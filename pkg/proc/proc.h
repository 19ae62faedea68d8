/* Processes of a node as /proc shows them, and which container they belong to. Reads through a
 * given root (a directory descriptor of /proc, or a recorded tree in tests); every file is capped.
 * Knows nothing of Kubernetes but what a container ID is. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

struct proc_process {
    pid_t pid;           /* as this /proc numbers it */
    pid_t container_pid; /* innermost of NSpid; 0 unknown */
    pid_t parent;
    uint64_t start_time;   /* clock ticks since boot; with pid it names a process for good */
    uint64_t cpu_ticks;    /* user and system */
    struct str command;    /* command line with spaces; of at most 1024 bytes; UTF-8 made valid */
    struct str program;    /* the same without what may be a secret: "python3 /app/server.py …" */
    struct str executable; /* link of exe, "" unreadable */
    struct str cgroup_id;  /* container ID that its cgroup names; "" none */
    char state;            /* R S D Z T t … */
};

/* The container ID (64 hex digits) that a /proc/PID/cgroup text names: cgroup v1 and v2, cgroupfs
 * and systemd drivers, containerd, CRI-O and Docker forms, also as seen from inside another cgroup
 * namespace ("/../../…"). The innermost when several are nested. Empty when none. A view of text.
 */
struct str proc_cgroup_container(struct str text);

/* Whether a /proc/PID/cgroup text names this container, at any depth: groups that a container makes
 * below its own are part of it. Whole IDs only: a prefix could be another container's. */
bool proc_cgroup_matches(struct str text, struct str container_id);

/* All living processes whose cgroup names container_id, by start time. proc: descriptor of a /proc.
 * Processes that vanish meanwhile and zombies are left out. At most max; ERR_TOO_LARGE beyond. */
int proc_find_container(int proc, struct arena *arena, struct str container_id, size_t max,
                        struct proc_process **ret, size_t *ret_len, struct err *err);
/* One process. ERR_NOT_FOUND when it is gone. */
int proc_read(int proc, struct arena *arena, pid_t pid, struct proc_process *ret, struct err *err);

/* Python, by its executable or a mapped libpython, never by the name alone: an ELF file with the
 * symbols of CPython. */
struct proc_python {
    bool is_python;
    char version[16];   /* "3.11.2", "3.11" when only that is known, "" unknown */
    struct str library; /* path of the file that holds CPython, as the target sees it */
    uint64_t
        image; /* where that begins in memory, if the file was replaced since; 0: it is there */
};
/* What is behind an open ELF file; path is only for the version that it may carry in its name.
 * A file that is no ELF of this machine's class and byte order is not Python. ret->library stays
 * empty. ERR_IO, ERR_TOO_LARGE: symbol tables beyond the caps. */
int proc_elf_python(int fd, struct str path, struct proc_python *ret, struct err *err);
/* Opens /proc/PID/exe and, where that is not CPython itself, the mapped files named libpython*,
 * inside the target's root. ERR_FORBIDDEN names the file that may not be read; ERR_NOT_FOUND: the
 * process or the mapped file is gone. */
int proc_inspect_python(int proc, struct arena *arena, pid_t pid, struct proc_python *ret,
                        struct err *err);

/* Memory of a process, or of a test. read: all of it, or -errno. */
struct proc_memory {
    int (*read)(void *context, uint64_t address, void *to, size_t len);
    void *context;
};
struct proc_symbol {
    const char *name;
    uint64_t value; /* address in the process; 0: not defined */
};
/* The dynamic symbols of an ELF file whose first byte is mapped at `base`. ERR_INVALID: there is
 * none, or it has no such symbols. */
int proc_image_symbols(const struct proc_memory *memory, uint64_t base, struct proc_symbol *symbols,
                       size_t n, struct err *err);
/* As proc_elf_python(), for such a file. */
int proc_image_python(const struct proc_memory *memory, uint64_t base, struct str path,
                      struct proc_python *ret, struct err *err);
/* The address at which a text of /proc/PID/maps has the first byte of the file; 0: it is not there.
 */
uint64_t proc_mapped_at(struct str maps, struct str path);

/* Opens for reading a regular file by a path as the target sees it, in its own root: its links do
 * not lead out of it. The caller closes *ret, which stays as it is where the file is no regular
 * one.
 */
int proc_open_in_root(int proc, pid_t pid, struct arena *arena, struct str path, int *ret,
                      struct err *err);

/* A process held by pidfd, so that its number cannot come to mean another. */
struct proc_handle {
    int pidfd;
    pid_t pid;
    uint64_t start_time;
};
/* Opens and checks that it is still the process that was read (start time, container).
 * ERR_NOT_FOUND when it is not. */
int proc_hold(int proc, const struct proc_process *process, struct str container_id,
              struct proc_handle *ret, struct err *err);
void proc_release(struct proc_handle *h);

/* Threads of pid in state T or t (*ret); after a killed tracer, SIGCONT is due only when there are
 * some. */
int proc_stopped_threads(int proc, pid_t pid, int *ret, struct err *err);
/* Number of threads of pid. */
int proc_thread_count(int proc, pid_t pid, int *ret, struct err *err);
/* User and system ticks since start, for choosing the busiest. */
int proc_cpu_ticks(int proc, pid_t pid, uint64_t *ret, struct err *err);
