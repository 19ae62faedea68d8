/* The interpreters of this machine that tests run on, by name, and children that run them. The
 * names: "debian", "pyenv-3.8" and so on, and those of hack/pythons. Tests only. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define PYTHONS_SKIPPED 77 /* exit status: this machine does not have the interpreter */

/* The path, which the caller frees; NULL: there is none, which it says on stderr. */
char *pythons_find(const char *name);

struct child {
    pid_t pid;
    int out; /* what it prints, behind "ready" */
};
/* Runs the program and waits until it has printed a line that begins with "ready"; fails the test
 * otherwise. */
struct child child_start(const char *python, const char *program);
void child_end(struct child *c);
