/* A made-up /proc for the runner's tests: processes of one container, of which some are CPython by
 * the symbols of their executables. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define TREE_ID    "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"
#define TREE_OTHER "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

struct tree {
    char root[64];
};

struct tree_process {
    pid_t pid;
    int container_pid;
    char state;
    int start, ticks;
    const char *command; /* one argument */
    const char *id;      /* container */
    bool python;
};

void tree_create(struct tree *t);
void tree_destroy(struct tree *t);
void tree_put(const struct tree *t, const struct tree_process *p); /* or replaces it */
/* A process that lives: all as the kernel tells it, but for the container. */
void tree_put_living(const struct tree *t, pid_t pid, const char *id);
void tree_remove(const struct tree *t, pid_t pid);
void tree_put_file(const struct tree *t, const char *name, const void *bytes, size_t len, int mode);
