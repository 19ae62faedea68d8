/* Starts other programs with nothing of ours but what is named here. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define SPAWN_FD         3 /* the first of those that are passed */
#define SPAWN_FDS_MAX    4
#define SPAWN_EXIT_SETUP 126 /* the child failed before it became the program */

struct spawn {
    const char *const *argv;        /* NULL-ended; argv[0] is the file */
    const char *const *environment; /* NULL-ended */
    const int *fds; /* become SPAWN_FD and the ones above it; they stay the caller's */
    size_t n_fds;
    int output;     /* becomes standard output and error; -1: error is ours, output nobody's */
    int complaints; /* the child's descriptor for why it failed before the exec */
    uint64_t capabilities; /* bits 1 << CAP_X that are kept, of those that we have */
    uint64_t file_max;     /* bytes of one file that it may write; 0: any */
    bool hold_term;        /* SIGTERM waits until the program asks for it */
    int join;              /* pidfd of the process whose PID namespace to enter, or -1 */
};
/* The child is killed when we die. ERR_FORBIDDEN: a namespace may not be entered. */
int spawn_program(const struct spawn *s, pid_t *ret, struct err *err);
