/* To read a thread while it does not run, without stopping it: to come to the core on which it
 * runs, as any program may that has work to do. Where the kernel lets us run at once the thread
 * waits there; where we have to wait, as with a small share of a busy core, we had better not. */
#include "sample/core.h"

#include <sched.h>
#include <string.h>

#include "base/clock.h"

#define REFUSED_NS INT64_C(1000000000)
#define SHARE      5 /* one part of time in so many may go into getting there, and into being there */

_Static_assert(sizeof(cpu_set_t) == sizeof((struct core){0}.own), "a bit for each core");

/* Who was not pinned by anybody shall not be, when the container gets other cores. */
static bool learn(struct core *c)
{
    cpu_set_t own, most, all;
    memset(&all, 0xff, sizeof(all));
    if (sched_getaffinity(0, sizeof(own), &own) < 0 ||
        sched_setaffinity(0, sizeof(all), &all) < 0 ||
        sched_getaffinity(0, sizeof(most), &most) < 0)
        return false;
    bool pinned = !CPU_EQUAL(&own, &most);
    if (pinned && sched_setaffinity(0, sizeof(own), &own) < 0)
        return false;
    memcpy(c->own, pinned ? &own : &all, sizeof(c->own));
    return c->known = true;
}

static bool go(int number)
{
    cpu_set_t there;
    CPU_ZERO(&there);
    CPU_SET((size_t)number, &there);
    return sched_setaffinity(0, sizeof(there), &there) == 0;
}

bool core_join(struct core *c, int number)
{
    int64_t begun = clock_read_ns(CLOCK_MONOTONIC);
    if (c->away && number == c->number)
        return true;
    if (number < 0 || number >= CORES_MAX || begun < c->next_ns)
        return false;
    if ((!c->known && !learn(c)) || !(c->own[number / 64] >> (number % 64) & 1))
        return false;
    int from = sched_getcpu();
    if (!go(number)) {
        core_refuse(c);
        return false;
    }
    int64_t now = clock_read_ns(CLOCK_MONOTONIC);
    c->next_ns = now + (now - begun) * (SHARE - 1);
    c->since_ns = c->away ? c->since_ns : now;
    c->from = c->away ? c->from : from;
    c->away = true;
    c->number = number;
    return true;
}

void core_refuse(struct core *c)
{
    c->next_ns = clock_read_ns(CLOCK_MONOTONIC) + REFUSED_NS;
}

/* Whoever just becomes free to run elsewhere stays, and is in the way. */
void core_leave(struct core *c)
{
    cpu_set_t own;
    if (!c->away)
        return;
    c->away = false;
    int64_t now = clock_read_ns(CLOCK_MONOTONIC);
    int64_t next = now + (now - c->since_ns) * (SHARE - 1);
    c->next_ns = c->next_ns > next ? c->next_ns : next;
    if (c->from >= 0 && c->from != c->number)
        go(c->from);
    memcpy(&own, c->own, sizeof(own));
    if (sched_setaffinity(0, sizeof(own), &own) == 0)
        return;
    memset(&own, 0xff, sizeof(own)); /* the container has lost all of those */
    sched_setaffinity(0, sizeof(own), &own);
    c->known = false;
}
