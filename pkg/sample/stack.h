/* Between the copies of a stack (stack_copy.c), the way through one (stack_walk.c) and what makes a
 * stack of both (stack.c). */
#pragma once

#include <string.h>

#include "sample/sample_internal.h"

#define STACK_NOWHERE SIZE_MAX
#define STACK_SLACK   1024 /* bytes behind the last frame seen that are read as well */

enum { FOUND = 0, AGAIN = 1 }; /* AGAIN: a new copy is needed */

static inline uint64_t stack_get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* From 3.11 on frames tell, within one copy, who calls and who is left over from before. */
static inline bool stack_tells_calls(const struct python_offsets *o)
{
    return o->frame_stack_top || o->frame_stack_pointer;
}

/* One copy of all that is known of a stack. 0 or -errno. */
int stack_capture(struct stack_reader *r, struct stack_memory *m, uint64_t thread);
/* Before 3.11, not held, and few enough frames: stack_capture_innermost() is worth it. */
bool stack_is_followed(const struct stack_reader *r, const struct stack_memory *m);
/* After a copy: whoever is the innermost frame now is read with those that called it of late, and
 * once more until it was so before and behind; then the others are. What the copy had read behind
 * is what lies before this one. 0 or -errno: -EAGAIN: there is none, or none for long enough. */
int stack_capture_innermost(struct stack_reader *r, const struct stack_memory *m, uint64_t thread);
/* One reading of the pointer to the innermost frame, into r->cells. */
int stack_add_cells(struct stack_reader *r, const struct stack_memory *m, uint64_t thread);
/* False: it lies where nothing was read. */
bool stack_innermost(const struct stack_reader *r, const struct stack_memory *m,
                     const struct stack_cells *c, uint64_t *ret);
/* Whether a pointer to no frame says that the thread runs no Python code. */
bool stack_may_be_empty(const struct stack_reader *r, const struct stack_memory *m,
                        const struct stack_cells *c, uint64_t thread);
void stack_see_cframe(const struct stack_reader *r, struct stack_memory *m, uint64_t cframe);
/* Which chunk holds the address; m->n_chunks: none. */
size_t stack_chunk_of(const struct stack_memory *m, uint64_t address);
bool stack_has_near_chunk(const struct stack_memory *m);
/* Where the i-th object begins in the first copy. */
size_t stack_object_at(const struct stack_reader *r, const struct stack_memory *m, size_t i);
/* Reads the list of chunks. FOUND: they are those that are known. AGAIN: others, so that no copy of
 * before means anything. */
int stack_find_chunks(struct stack_reader *r, struct stack_memory *m, uint64_t thread);
void stack_remember_object(struct stack_memory *m, uint64_t address, size_t at);

/* One way through a copy, from the innermost frame into r->frames. */
struct stack_walk {
    struct stack_reader *r;
    struct stack_memory *m;
    uint64_t thread;
    bool last_resort;         /* it has failed often */
    bool only_certain;        /* so leave out what lies above a frame that did not stand */
    bool stayed;              /* the pointer to the innermost frame, while the chunk was copied */
    const uint8_t *innermost; /* its bytes, and behind them those of its callers of late; NULL */
    const uint64_t *callers;  /* which ones */
    uint64_t *objects;        /* addresses of the frames outside of chunks, as they come */
    size_t n_objects;
    uint32_t used[STACK_CHUNKS_MAX]; /* bytes of chunks up to the last frame and some more */
    bool late;                       /* something was read after the copy was made */
    bool left;                       /* frames were left over, with which the way had begun */
    bool from_c;                     /* C code called the innermost frame */
    bool led;                        /* it is known where the pointer led to */
    bool near;                       /* the innermost frame was read where it is looked for */
    bool same;                       /* it had called nobody since */
    /* Within the way. */
    bool certain;          /* this frame stood in both copies */
    size_t cursor;         /* where the next object is expected */
    const uint8_t *callee; /* the frame before; NULL: none */
    size_t callee_at;      /* where it is in the first copy, as an object */
    bool searched;         /* for chunks */
    uint64_t single[64];
};
/* FOUND, AGAIN, or -errno. */
int stack_follow(struct stack_walk *w, uint64_t frame);
/* Before 3.11: from the outermost frame of the last look inwards, the frames that are the same in
 * both copies, as far as the objects go; so is one that was called again from the same line. FOUND,
 * or AGAIN: there are none, or nothing shows that the thread is within them: a greenlet that does
 * not run stands best of all. */
int stack_follow_certain(struct stack_walk *w);
/* The frame that one in the near chunk had called when that was copied. FOUND: it was calling none,
 * or *frame is the innermost one of those that it had called; after: where the pointer led to just
 * behind. AGAIN: which one is not known. */
int stack_find_callee(const struct stack_walk *w, uint64_t after, uint64_t *frame);
