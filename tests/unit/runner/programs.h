/* pyspy-runner as a person runs it, and the programs that it looks at. RUNNER is its path. */
#pragma once

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/buf.h"

#define SPIN "def spin():\n    while True: pass\nprint(1, flush=1)\nspin()\n"

struct program {
    pid_t pid;
    int out, err;
    struct buf text, complaints; /* what it says there */
};

/* Of those that are started from now on. */
extern rlim_t program_descriptors; /* 0: as many as we */
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
