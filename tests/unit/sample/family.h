/* Programs of some Python of this machine, each with all that it forks, one at a time, and what the
 * kernel tells of them. Tests only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

extern char *python, *other_python; /* paths; of another version, or NULL where there is none */
extern int proc;                    /* /proc */

/* Sets them, until the test program ends; false: there is no Python, which it says. */
bool family_pythons(void);

extern const char spin[]; /* a program that works without an end, in "spin" */

/* Returns when it has printed something. argument: its sys.argv[1]; NULL: none. */
pid_t family_start(const char *program, const char *argument);
/* With all that it forked. */
void family_end(pid_t pid);

char state_of(pid_t pid); /* 'R' and so on; 0: there is no such process */
size_t descriptors(void); /* of the test itself */
