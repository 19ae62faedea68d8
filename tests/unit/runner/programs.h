/* pyspy-runner as a person runs it, and the programs that it looks at. RUNNER is its path. */
#pragma once

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/buf.h"

#define SPIN "def spin():\n    while True: pass\nprint(1, flush=1)\nspin()\n"

/* Memory that somebody should bring, but does not; then what lies in it. */
#define ABSENT(what)                                                                               \
    "import ctypes, fcntl, os, platform, struct\n"                                                 \
    "libc = ctypes.CDLL(None)\n"                                                                   \
    "number = {'x86_64': 323, 'aarch64': 282}[platform.machine()]\n"                               \
    "fd = libc.syscall(number, os.O_CLOEXEC)\n"                                                    \
    "if fd < 0: os._exit(77)\n"                                                                    \
    "def spin():\n"                                                                                \
    "    while True: pass\n"                                                                       \
    "table = bytes(4 << 20)\n"                                                                     \
    "start, size = (id(table) + (1 << 20)) & -65536, 1 << 20\n"                                    \
    "libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), 4)\n"                             \
    "fcntl.ioctl(fd, 0xc018aa3f, struct.pack('3Q', 0xaa, 0, 0))\n"                                 \
    "fcntl.ioctl(fd, 0xc020aa00, struct.pack('4Q', start, size, 1, 0))\n" what                     \
    "print('ready', flush=True)\n"                                                                 \
    "spin()\n"
#define HANGING ABSENT("spin.__code__ = spin.__code__.replace(co_linetable=table)\n")
/* `next` of the only thread, which nothing else reads as long as it stays the only one. */
#define HANGING_AT_ONCE ABSENT(ABSENT_NEXT)
#define ABSENT_NEXT                                                                                \
    "get = ctypes.pythonapi.PyThreadState_Get\n"                                                   \
    "get.restype = ctypes.c_void_p\n"                                                              \
    "(ctypes.c_size_t * 2).from_address(get())[1] = start\n"
/* For two seconds: then it is brought. */
#define HANGING_FOR_2_S                                                                            \
    ABSENT(ABSENT_NEXT "import signal\n"                                                           \
                       "def bring(*a):\n"                                                          \
                       "    (ctypes.c_size_t * 2).from_address(get())[1] = 0\n"                    \
                       "    fcntl.ioctl(fd, 0xc020aa04, struct.pack('4Q', start, size, 0, 0))\n"   \
                       "signal.signal(signal.SIGALRM, bring)\n"                                    \
                       "signal.setitimer(signal.ITIMER_REAL, 2)\n")

struct program {
    pid_t pid;
    int out, err;
    struct buf text, complaints; /* what it says there */
};

/* Of those that are started from now on. */
extern rlim_t program_descriptors; /* of which none is inherited; 0: as many as we */
extern const char *program_output; /* NULL: ->out; "": closed; else a path */

/* Words apart by one space, behind "pyspy-runner". */
int program_arguments(const char *line, char *argv[static 16]);
/* argv[0] is a path. */
void program_start(struct program *p, char *const *argv);
/* Waits until it has said that it is ready. False: there is no such program. */
bool program_start_ready(struct program *p, char *const *argv);
/* Of /usr/bin/python3. */
bool program_python(struct program *p, const char *code);
/* pyspy-runner; "%p" in the line is the PID. */
void program_run(struct program *p, const char *line, pid_t pid);
/* What it says next. */
void program_take(int *fd, struct buf *to);
/* All that it says, to its end. Its exit status. */
int program_finish(struct program *p);
int program_finished(const char *line, pid_t pid, struct program *p);
void program_kill(struct program *p);
