/* The calling thread's way to the core of another one, and back. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CORES_MAX 1024
struct core {
    uint64_t own[CORES_MAX / 64]; /* where the caller may run; a bit for each */
    bool known;                   /* what that is */
    bool away;
    int from, number; /* where the caller was, and is, while it is away */
    int64_t since_ns; /* monotonic; away */
    int64_t next_ns;  /* may it go again */
};
/* number: of the core; -1: not known. False: it is not among those that the caller may use, or it
 * is too early: neither getting there nor being there may take too large a part of the time. True:
 * the caller is there, and whatever ran there waits, for as long as the kernel likes. */
bool core_join(struct core *c, int number);
void core_leave(struct core *c);
/* Not again for a second. */
void core_refuse(struct core *c);
