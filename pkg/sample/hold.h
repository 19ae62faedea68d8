/* To read a thread's stack while it waits for its core, because we run there. */
#pragma once

#include <stdbool.h>

#include "sample/core.h"
#include "sample/sample_internal.h"

struct hold {
    struct stack_holder holder;
    struct kernel *kernel;
    struct kernel_thread *thread; /* the one whose stack is read */
    struct kernel_place place;    /* where it waits */
    bool waited;                  /* after a visit: it did, while it was read */
    bool slept;                   /* after a visit: or ended, instead of waiting */
    struct core core;
};
/* visitor: as in struct core. */
void hold_init(struct hold *h, struct kernel *kernel, struct visitor **visitor);
/* Whom it is about from now on. */
void hold_begin(struct hold *h, struct kernel_thread *thread);
