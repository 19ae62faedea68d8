/* The interpreters of this machine that tests run on, by name, and children that run them. The
 * names: "debian", "pyenv-3.8" and so on, and those of hack/pythons. Tests only. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "sample/target.h"

#define PYTHONS_SKIPPED 77 /* exit status: this machine does not have the interpreter */

extern char *python; /* the path of the one that this program tests on */
extern int proc;     /* /proc */

/* Sets both, until the program ends; false: there is no such interpreter, which it says on
 * stderr. */
bool pythons_begin(const char *name);

struct child {
    pid_t pid;
    int out; /* what it prints, behind "ready" */
};
/* Runs the program and waits until it has printed a line that begins with "ready"; fails the test
 * otherwise. */
struct child child_start(const char *path, const char *program);
void child_end(struct child *c);

/* A target that can be opened, or the test fails; target_close() ends it. */
struct target *pythons_open(pid_t pid, const struct sample_options *options);
