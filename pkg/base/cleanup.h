/* Scope-bound clean-up. `_cleanup_(x_destroyp)` runs the destroyer when the variable leaves its
 * scope; TAKE() moves a pointer out, so that the clean-up then finds NULL. Any thread. */
#pragma once

#include <stddef.h>
#include <stdlib.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* Moves the value out of pointer `p`, leaving NULL. The one statement expression of the project. */
#define TAKE(p)                                                                                    \
    ({                                                                                             \
        typeof(p) *take_ptr_ = &(p);                                                               \
        typeof(p) take_value_ = *take_ptr_;                                                        \
        *take_ptr_ = NULL;                                                                         \
        take_value_;                                                                               \
    })

/* Defines `name##p`, which takes a pointer to the variable, for use with _cleanup_. */
#define DEFINE_CLEANUP(type, name)                                                                 \
    static inline void name##p(type *p)                                                            \
    {                                                                                              \
        name(*p);                                                                                  \
    }                                                                                              \
    struct cleanup_semicolon_

static inline void freep(void *p)
{
    free(*(void **)p);
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The structure that holds `member` at `ptr`. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
