/* Work on the core of another thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct visitor; /* a thread of ours that waits until there is something to do on some core */

struct core {
    struct visitor **visitor; /* made when it is needed first; may be others' as well */
    int64_t next_ns;          /* monotonic; it may go again */
};
/* Does the work on that core, while the caller waits. number: of the core; -1: not known. False: it
 * was not done: the core is not among those that the caller may use, or it is too early: neither
 * getting there nor being there may take too large a part of the time. True: it was, and whatever
 * ran there had to wait, for as long as the kernel liked. */
bool core_visit(struct core *c, int number, void (*work)(void *context), void *context);
/* Not again for a second. */
void core_refuse(struct core *c);
void visitor_destroy(struct visitor *v); /* NULL is fine */
