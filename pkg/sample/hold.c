#include "sample/hold.h"

#include <sched.h>

#include "base/cleanup.h"

/* It cannot be made to wait, most likely because it sleeps: who runs for so short a time would
 * rarely be found running, so for a while nobody goes there. */
static void give_up(struct hold *h)
{
    h->slept = true;
    h->waited = false;
    core_refuse(&h->core);
}

/* It sleeps, and has done so since before it was read. One that runs again has waited, as far as is
 * known. */
static bool has_slept(const struct hold *h)
{
    return kernel_thread_same_turn(h->thread, &h->place) && kernel_thread_state(h->thread) != 'R' &&
           kernel_thread_same_turn(h->thread, &h->place);
}

static bool visit(struct stack_holder *holder, void (*work)(void *context), void *context)
{
    struct hold *h = CONTAINER_OF(holder, struct hold, holder);
    if (!kernel_thread_place(h->kernel, h->thread, &h->place) ||
        !core_visit(&h->core, h->place.core, work, context))
        return false;
    /* To ask for the state there would keep it half as long again. */
    if (h->waited && has_slept(h))
        give_up(h);
    return true;
}

/* Its turns were counted, then its core was asked for, and then core_visit() brought us there: so
 * at that moment it did not run, and without another turn it has not run since. */
static bool begin(struct stack_holder *holder)
{
    struct hold *h = CONTAINER_OF(holder, struct hold, holder);
    int core = h->place.core;
    h->waited = false;
    if (kernel_thread_same_turn(h->thread, &h->place))
        return true;
    if (!kernel_thread_place(h->kernel, h->thread, &h->place)) {
        give_up(h);
        return false;
    }
    return h->place.core == core && sched_getcpu() == core; /* we may have been moved ourselves */
}

static bool held(struct stack_holder *holder)
{
    struct hold *h = CONTAINER_OF(holder, struct hold, holder);
    return h->waited = kernel_thread_same_turn(h->thread, &h->place);
}

void hold_init(struct hold *h, struct kernel *kernel, struct visitor **visitor)
{
    *h = (struct hold){.holder = {.visit = visit, .begin = begin, .held = held},
                       .kernel = kernel,
                       .core.visitor = visitor};
}

void hold_begin(struct hold *h, struct kernel_thread *thread)
{
    h->thread = thread;
    h->slept = h->waited = false;
}
