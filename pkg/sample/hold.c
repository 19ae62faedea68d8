#include "sample/hold.h"

#include <sched.h>

#include "base/cleanup.h"

/* Who runs for so short a time would rarely be seen to. */
static void give_up(struct hold *h)
{
    h->slept = true;
    h->waited = false;
    core_refuse(&h->core);
}

/* It did nothing but sleep since its turns were counted. One that runs again has waited, as far as
 * is known. */
static bool only_slept(const struct hold *h)
{
    return kernel_thread_waited(h->thread, &h->place) && kernel_thread_state(h->thread) != 'R' &&
           kernel_thread_waited(h->thread, &h->place);
}

static bool visit(struct stack_holder *holder, void (*work)(void *context), void *context)
{
    struct hold *h = CONTAINER_OF(holder, struct hold, holder);
    if (!kernel_thread_place(h->kernel, h->thread, &h->place) ||
        !core_visit(&h->core, h->place.core, work, context))
        return false;
    /* To ask for that there would have kept it half as long again. */
    if (h->waited && only_slept(h))
        give_up(h);
    return true;
}

/* Where it was when its turns were counted it does not run, because we do; and without another turn
 * it has not begun to anywhere else. */
static bool begin(struct stack_holder *holder)
{
    struct hold *h = CONTAINER_OF(holder, struct hold, holder);
    int core = h->place.core;
    h->waited = false;
    if (sched_getcpu() != core)
        return false; /* we were moved ourselves */
    if (kernel_thread_waited(h->thread, &h->place))
        return true;
    if (!kernel_thread_place(h->kernel, h->thread, &h->place)) {
        give_up(h);
        return false;
    }
    return h->place.core == core && sched_getcpu() == core;
}

static bool held(struct stack_holder *holder)
{
    struct hold *h = CONTAINER_OF(holder, struct hold, holder);
    return h->waited = kernel_thread_waited(h->thread, &h->place);
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
