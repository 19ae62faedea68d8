/* The way through one copy of a stack, from the innermost frame to the outermost. */
#include <errno.h>

#include "sample/stack.h"

#define OWNER_GENERATOR 1
#define OWNER_SHIM      3          /* this and above: no Python code */
#define FULL_MAX        (1u << 16) /* bytes of a chunk of usual size */
#define OBJECTS_MAX     64         /* in which a callee is looked for */
#define CALLEES_MAX     512        /* steps from a frame to those that it has called since */
#define SHIMS_MAX       4          /* of one frame */
#define CERTAIN_STEPS   1000       /* and twice as many as there are objects, in all */
#define CALLEE_DISTANCE 8192 /* bytes from the end of a frame's stack to the one that it calls */

static bool is_same(const struct python_offsets *o, const uint8_t *a, const uint8_t *b, bool first)
{
    size_t n = o->thread_chunk ? 8 : 4;
    if (stack_get64(a + o->frame_previous) != stack_get64(b + o->frame_previous) ||
        stack_get64(a + o->frame_code) != stack_get64(b + o->frame_code))
        return false;
    return first || memcmp(a + o->frame_instruction, b + o->frame_instruction, n) == 0;
}

/* Before 3.11. */
static bool runs_or_calls(const struct python_offsets *o, const uint8_t *frame)
{
    return frame[o->frame_state] == (o->minor < 10);
}

/* Before 3.11: both copies show it running, or calling, at the same instruction. */
static bool stood(const struct stack_walk *w, size_t at)
{
    const struct python_offsets *o = w->r->offsets;
    const uint8_t *first = w->r->copy + at, *second = first + w->r->half;
    return is_same(o, first, second, false) && runs_or_calls(o, first) && runs_or_calls(o, second);
}

/* The callee, as one of the copies shows it: already, or still, called by the same frame. */
static bool is_live(const struct python_offsets *o, const uint8_t *callee, const uint8_t *copy)
{
    return is_same(o, callee, copy, true) && runs_or_calls(o, copy);
}

/* Before 3.11. A caller that stood in both copies while they both had its callee is the one that
 * called. So is one that was read next to its callee in one of them. */
static int bytes_of_caller(struct stack_walk *w, size_t at, const uint8_t **ret)
{
    const struct python_offsets *o = w->r->offsets;
    const uint8_t *first = w->r->copy + at, *second = first + w->r->half;
    *ret = second;
    if (w->callee_at == STACK_NOWHERE) {
        w->late = true; /* its callee was */
        return FOUND;
    }
    const uint8_t *callee = w->r->copy + w->callee_at;
    bool before = is_live(o, w->callee, callee);
    bool behind = is_live(o, w->callee, callee + w->r->half);
    if (before && behind && is_same(o, first, second, false))
        return FOUND;
    if (at != w->callee_at + o->frame_head)
        return AGAIN;
    *ret = behind ? second : first;
    return before || behind ? FOUND : AGAIN;
}

/* Between Python and C code, on the C stack, linked to a frame in the chunk. */
static bool is_shim(const struct stack_walk *w, const uint8_t *frame)
{
    const struct python_offsets *o = w->r->offsets;
    uint64_t previous = stack_get64(frame + o->frame_previous);
    return (frame[o->frame_owner] == OWNER_SHIM || frame[o->frame_owner] == OWNER_SHIM + 1) &&
           stack_has_near_chunk(w->m) && stack_chunk_of(w->m, previous) == w->m->near_chunk;
}

/* From 3.11 on, one that is not in the chunk: a generator's, or a shim. */
static int bytes_of_changed(struct stack_walk *w, const uint8_t *first, const uint8_t *second,
                            const uint8_t **ret)
{
    const struct python_offsets *o = w->r->offsets;
    *ret = second;
    if (w->callee) {
        bool before = is_shim(w, first), behind = is_shim(w, second);
        *ret = before ? first : second;
        return before != behind ? FOUND : AGAIN;
    }
    /* A generator that was the innermost frame has a caller, if not before or behind. */
    if (!stack_get64(second + o->frame_previous))
        *ret = first;
    return stack_get64(*ret + o->frame_previous) && (*ret)[o->frame_owner] == OWNER_GENERATOR &&
                   stack_get64(first + o->frame_code) == stack_get64(second + o->frame_code)
               ? FOUND
               : AGAIN;
}

static int bytes_in_copy(struct stack_walk *w, size_t at, const uint8_t **ret)
{
    const struct python_offsets *o = w->r->offsets;
    const uint8_t *first = w->r->copy + at, *second = first + w->r->half;
    *ret = second;
    if (w->only_certain) {
        w->certain = stood(w, at);
        return FOUND;
    }
    if (w->callee && !o->thread_chunk)
        return bytes_of_caller(w, at, ret);
    if (is_same(o, first, second, !w->callee))
        return FOUND;
    return o->thread_chunk ? bytes_of_changed(w, first, second, ret) : AGAIN;
}

static int bytes_in_chunk(struct stack_walk *w, size_t index, uint64_t address, const uint8_t **ret)
{
    struct stack_chunk *c = &w->m->chunks[index];
    size_t head = w->r->offsets->frame_head, at = (size_t)(address - c->address);
    if (at + head > c->size)
        return -EFAULT;
    size_t wanted = at + head + STACK_SLACK < c->size ? at + head + STACK_SLACK : c->size;
    if (wanted > w->used[index])
        w->used[index] = (uint32_t)wanted;
    if (at + head > c->used) {
        c->used = (uint32_t)wanted;
        /* Those below are full: not one after the other. */
        for (size_t i = index + 1; i < w->m->n_chunks; i++)
            if (w->m->chunks[i].size <= FULL_MAX)
                w->m->chunks[i].used = w->m->chunks[i].size;
        return AGAIN;
    }
    if (index != w->m->near_chunk)
        return bytes_in_copy(w, c->at + at, ret);
    *ret = w->r->copy + w->r->half + c->at + at;
    return FOUND;
}

/* STACK_NOWHERE: it is not among them. */
static size_t object_copy(struct stack_walk *w, uint64_t address)
{
    struct stack_memory *m = w->m;
    for (size_t k = 0; k < m->n_objects; k++) {
        size_t i = (w->cursor + k) % m->n_objects;
        if (m->objects[i] != address)
            continue;
        w->cursor = i;
        return stack_object_at(w->r, m, i);
    }
    return STACK_NOWHERE;
}

/* The bytes of a frame that is an object, or a generator's. AGAIN: the copy must be made anew, with
 * more in it. */
static int bytes_of_object(struct stack_walk *w, uint64_t address, const uint8_t **ret)
{
    struct stack_memory *m = w->m;
    size_t head = w->r->offsets->frame_head;
    size_t at = object_copy(w, address);
    if (at != STACK_NOWHERE)
        return bytes_in_copy(w, at, ret);
    if (w->r->offsets->thread_chunk && !w->searched) {
        w->searched = true;
        int e = stack_find_chunks(w->r, m, w->thread);
        if (e != FOUND)
            return e;
    }
    if (head > sizeof(w->single))
        return -EFAULT;
    w->late = true;
    w->certain = !w->only_certain;
    *ret = (const uint8_t *)w->single;
    int e = memory_read(w->r->reader, address, w->single, head);
    /* One that has ended may be linked to others that have. */
    return e == 0 && w->only_certain && !runs_or_calls(w->r->offsets, *ret) ? AGAIN : e;
}

static void add_raw(struct stack_reader *r, uint64_t address, const uint8_t *bytes)
{
    const struct python_offsets *o = r->offsets;
    struct raw_frame f = {.address = address,
                          .code = stack_reference(o, stack_get64(bytes + o->frame_code))};
    if (o->thread_chunk) {
        f.instruction = stack_get64(bytes + o->frame_instruction);
    } else {
        int32_t index;
        memcpy(&index, bytes + o->frame_instruction, sizeof(index));
        f.instruction = (uint64_t)(int64_t)index;
    }
    bool generator = o->frame_owner ? bytes[o->frame_owner] == OWNER_GENERATOR
                                    : stack_get64(bytes + o->frame_generator) != 0;
    r->suspended = generator && !stack_get64(bytes + o->frame_previous);
    r->frames[r->depth++] = f;
}

/* A call notes how far the caller's stack reaches, and its end takes that away. Up to 3.13 that is
 * for calls without C code in between. */
static bool runs_itself(const struct python_offsets *o, const uint8_t *frame)
{
    int32_t top = 0;
    if (!stack_tells_calls(o) || frame[o->frame_owner] >= OWNER_SHIM)
        return false;
    if (o->frame_stack_pointer)
        return stack_get64(frame + o->frame_stack_pointer) == 0;
    memcpy(&top, frame + o->frame_stack_top, sizeof(top));
    return top < 0;
}

/* Or has just returned. */
static bool is_calling(const struct python_offsets *o, const uint8_t *frame)
{
    return stack_tells_calls(o) && frame[o->frame_owner] < OWNER_SHIM && !runs_itself(o, frame);
}

/* From 3.14 on a frame that returns loses its code. */
static bool has_returned(const struct python_offsets *o, const uint8_t *frame)
{
    return o->frame_stack_pointer && frame[o->frame_owner] < OWNER_SHIM &&
           !stack_reference(o, stack_get64(frame + o->frame_code));
}

static bool is_called_by_python(const struct python_offsets *o, const uint8_t *frame)
{
    return stack_tells_calls(o) && frame[o->frame_owner] < OWNER_SHIM &&
           !(o->frame_entry && frame[o->frame_entry]);
}

/* AGAIN: next time it is read near its callee. */
static int bytes_of_near_caller(struct stack_walk *w, uint64_t frame, const uint8_t **ret)
{
    for (size_t i = 0; i < STACK_CALLERS; i++)
        if (w->callers[i] == frame) {
            *ret = w->innermost + (i + 1) * w->r->offsets->frame_head;
            return FOUND;
        }
    return w->only_certain ? bytes_of_object(w, frame, ret) : AGAIN;
}

/* A frame that seems to be called by one whose own code runs is left over from before: that one is
 * the innermost. It shows within one copy, however often the stack was the same at its readings.
 * But throw() links a generator that delegates to its caller as if that had called it, while it
 * runs C code: so it is where the innermost frame was there all the time, and says itself that it
 * runs; or where it looks so again and again. */
int stack_follow(struct stack_walk *w, uint64_t frame)
{
    struct stack_reader *r = w->r;
    const struct python_offsets *o = r->offsets;
    uint64_t mark = 0, last_in_chunk = 0;
    size_t steps = 0, next_mark = 1, last_chunk = SIZE_MAX;
    bool direct = false; /* the last frame was called by the one that comes now, not by C */
    bool runs = false;   /* the first one */
    r->depth = w->n_objects = 0;
    w->left = w->from_c = r->cut = false;
    w->callee = NULL;
    while (frame) {
        const uint8_t *bytes;
        size_t chunk = stack_chunk_of(w->m, frame);
        int e = FOUND;
        w->certain = true;
        if (steps == 0 && w->innermost)
            bytes = w->innermost;
        else if (steps == 1 && w->innermost)
            e = bytes_of_near_caller(w, frame, &bytes);
        else
            e = chunk < w->m->n_chunks ? bytes_in_chunk(w, chunk, frame, &bytes)
                                       : bytes_of_object(w, frame, &bytes);
        if (e != FOUND)
            return e;
        if (steps == 1)
            w->from_c = !direct || bytes[o->frame_owner] >= OWNER_SHIM;
        if (steps == 0)
            runs = runs_itself(o, bytes) && chunk == w->m->near_chunk;
        if (direct && runs_itself(o, bytes)) {
            if (!w->stayed || w->callee[o->frame_owner] != OWNER_GENERATOR) {
                r->depth = 0;
                w->left = true;
            } else if (!runs && !w->last_resort) {
                return AGAIN;
            }
        }
        w->callee = bytes;
        w->callee_at = o->thread_chunk ? STACK_NOWHERE : object_copy(w, frame);
        direct = is_called_by_python(o, bytes);
        if (chunk == w->m->n_chunks) {
            if (w->n_objects < ARRAY_SIZE(r->objects))
                w->objects[w->n_objects++] = frame;
        } else {
            /* A stack: who calls lies below. */
            if (last_chunk != SIZE_MAX &&
                (chunk < last_chunk || (chunk == last_chunk && frame >= last_in_chunk)))
                return -EFAULT;
            last_chunk = chunk;
            last_in_chunk = frame;
        }
        if (!w->certain) {
            r->depth = 0;
        } else if (r->depth == 0 && has_returned(o, bytes)) {
            w->left = true;
        } else if (!o->frame_owner || bytes[o->frame_owner] < OWNER_SHIM) {
            r->cut = r->depth == STACK_DEPTH_MAX;
            if (r->cut)
                return FOUND;
            add_raw(r, frame, bytes);
        }
        frame = stack_get64(bytes + o->frame_previous);
        /* Brent's way to notice that a list has no end. */
        if (frame && frame == mark)
            return -ELOOP;
        if (++steps == next_mark) {
            mark = frame;
            next_mark *= 2;
        }
        if (steps > 2 * STACK_DEPTH_MAX)
            return -ELOOP;
    }
    return 0;
}

/* A recursion always changes the one that is called by the last frame that stood, or calls none. */
static bool is_within(const struct stack_walk *w, uint64_t frame)
{
    const struct stack_reader *r = w->r;
    const struct python_offsets *o = r->offsets;
    for (size_t i = 0; i < r->n_cells; i++)
        if (r->cells[i].frame == frame)
            return true;
    for (size_t i = 0; i < w->m->n_objects; i++) {
        const uint8_t *first = r->copy + stack_object_at(r, w->m, i), *second = first + r->half;
        bool called = stack_get64(first + o->frame_previous) == frame ||
                      stack_get64(second + o->frame_previous) == frame;
        if (called &&
            (!is_same(o, first, second, false) || first[o->frame_state] != second[o->frame_state]))
            return true;
    }
    return false;
}

int stack_follow_certain(struct stack_walk *w)
{
    struct stack_reader *r = w->r;
    const struct stack_memory *m = w->m;
    size_t n = m->n_objects, i = n, steps = 0, most = 2 * n + CERTAIN_STEPS;
    uint64_t caller = 0;
    r->depth = 0;
    r->cut = false;
    for (size_t tried = 0; tried < n && steps < most && r->depth < STACK_DEPTH_MAX; steps++) {
        i = i ? i - 1 : n - 1; /* the innermost one is the first */
        size_t at = stack_object_at(r, m, i);
        tried++;
        if (stack_get64(r->copy + at + r->offsets->frame_previous) != caller || !stood(w, at) ||
            (!caller && m->objects[i] != m->root))
            continue;
        caller = m->objects[i];
        add_raw(r, caller, r->copy + at);
        tried = 0;
    }
    for (size_t k = 0; k < r->depth / 2; k++) {
        struct raw_frame f = r->frames[k];
        r->frames[k] = r->frames[r->depth - 1 - k];
        r->frames[r->depth - 1 - k] = f;
    }
    return r->depth && is_within(w, caller) ? FOUND : AGAIN;
}

/* NULL: it is not in the copy of the near chunk. */
static const uint8_t *bytes_near(const struct stack_walk *w, uint64_t frame)
{
    const struct stack_chunk *c = &w->m->chunks[w->m->near_chunk];
    if (!stack_has_near_chunk(w->m) || stack_chunk_of(w->m, frame) != w->m->near_chunk ||
        frame - c->address + w->r->offsets->frame_head > c->used)
        return NULL;
    return w->r->copy + w->r->half + c->at + (frame - c->address);
}

/* The first frame at or behind an offset of the near chunk that names this one as its caller, and
 * says whether C code is in between. 0: none. */
static uint64_t find_callee(const struct stack_walk *w, uint64_t from, uint64_t caller, bool by_c)
{
    const struct python_offsets *o = w->r->offsets;
    const struct stack_chunk *c = &w->m->chunks[w->m->near_chunk];
    const uint8_t *chunk = w->r->copy + w->r->half + c->at;
    if (from > c->used)
        return 0;
    for (uint64_t at = from; at < from + CALLEE_DISTANCE && at + o->frame_head <= c->used; at += 8)
        if (stack_get64(chunk + at + o->frame_previous) == caller &&
            chunk[at + o->frame_owner] < OWNER_SHIM &&
            (!o->frame_entry || (chunk[at + o->frame_entry] != 0) == by_c) &&
            !has_returned(o, chunk + at))
            return c->address + at;
    return 0;
}

/* The frame that one in the near chunk has called, if that is in it, too: it lies behind what the
 * caller's stack holds. 0: there is none. */
static uint64_t callee_in_chunk(const struct stack_walk *w, uint64_t caller, const uint8_t *bytes)
{
    const struct python_offsets *o = w->r->offsets;
    uint64_t chunk = w->m->chunks[w->m->near_chunk].address, end;
    if (o->frame_stack_pointer) {
        end = stack_get64(bytes + o->frame_stack_pointer) - chunk;
    } else {
        uint32_t top;
        memcpy(&top, bytes + o->frame_stack_top, sizeof(top));
        end = caller - chunk + o->frame_head + UINT64_C(8) * top;
    }
    return find_callee(w, end, caller, false);
}

/* What is left over from before neither runs nor calls what does. */
static bool is_alive(const struct stack_walk *w, uint64_t frame, size_t *steps)
{
    for (; frame && *steps < CALLEES_MAX; ++*steps) {
        const uint8_t *bytes = bytes_near(w, frame);
        if (!bytes || runs_itself(w->r->offsets, bytes))
            return bytes != NULL;
        frame = callee_in_chunk(w, frame, bytes);
    }
    return false;
}

/* Up to 3.13: the frame in the near chunk that C code has called, which one in it runs. From 3.12
 * on a shim stands in between. 0: there is none, or not certainly. */
static uint64_t callee_of_c(const struct stack_walk *w, uint64_t caller, size_t *steps)
{
    const struct python_offsets *o = w->r->offsets;
    const struct stack_memory *m = w->m;
    uint64_t from = caller - m->chunks[m->near_chunk].address + o->frame_head, found = 0;
    if (o->frame_entry)
        found = find_callee(w, from, caller, true);
    for (size_t i = 0, shims = 0; !o->frame_entry && i < m->n_objects && i < OBJECTS_MAX; i++) {
        const uint8_t *bytes = w->r->copy + w->r->half + stack_object_at(w->r, m, i);
        if (!is_shim(w, bytes) || stack_get64(bytes + o->frame_previous) != caller)
            continue;
        found = find_callee(w, from, m->objects[i], true);
        if (found || ++shims == SHIMS_MAX)
            break;
    }
    return found && is_alive(w, found, steps) ? found : 0;
}

/* Of those that were called of late. */
static uint64_t callee_in_objects(const struct stack_walk *w, uint64_t caller)
{
    const struct python_offsets *o = w->r->offsets;
    const struct stack_memory *m = w->m;
    uint64_t found = 0;
    for (size_t i = 0; i < m->n_objects && i < OBJECTS_MAX; i++) {
        const uint8_t *bytes = w->r->copy + w->r->half + stack_object_at(w->r, m, i);
        /* What was a shim is other code's part of the C stack by now, and may hold anything. */
        if (stack_get64(bytes + o->frame_previous) == caller &&
            bytes[o->frame_owner] == OWNER_GENERATOR && is_called_by_python(o, bytes))
            found = m->objects[i];
    }
    return found;
}

static bool is_known(const struct stack_walk *w, uint64_t frame)
{
    bool known = !frame || stack_chunk_of(w->m, frame) < w->m->n_chunks;
    for (size_t i = 0; i < w->m->n_objects && i < OBJECTS_MAX && !known; i++)
        known = w->m->objects[i] == frame;
    return known;
}

/* Which of two that a frame seems to have called, in the chunk and outside, it is calling. 0: none,
 * or not certain. One in the chunk may be left over, of the call that made a generator or of any;
 * but one that runs itself is not. AGAIN: it may be either. */
static int choose_callee(const struct stack_walk *w, uint64_t a, uint64_t b, uint64_t after,
                         uint64_t *ret)
{
    const struct python_offsets *o = w->r->offsets;
    const uint8_t *bytes = a ? bytes_near(w, a) : NULL; /* NULL where chunks lie in one another */
    bool runs = bytes && runs_itself(o, bytes);
    *ret = b ? b : a;
    if (a && b)
        return runs ? AGAIN : FOUND;
    if (a && !runs && a != after && o->frame_stack_pointer)
        *ret = 0;
    return FOUND;
}

int stack_find_callee(const struct stack_walk *w, uint64_t after, uint64_t *frame)
{
    const struct python_offsets *o = w->r->offsets;
    uint64_t now = *frame, next;
    for (size_t steps = 0; steps < CALLEES_MAX; steps++, now = next) {
        const uint8_t *bytes = bytes_near(w, now);
        bool calling = bytes && is_calling(o, bytes);
        next = bytes && !calling ? callee_of_c(w, now, &steps) : 0;
        if (next)
            continue;
        if (!calling) {
            *frame = now;
            return FOUND;
        }
        uint64_t a = callee_in_chunk(w, now, bytes), b = callee_in_objects(w, now);
        int e = choose_callee(w, a, b, after, &next);
        if (e != FOUND)
            return e;
        if (next)
            continue;
        if (o->frame_stack_pointer && !a && is_known(w, after)) {
            *frame = now; /* it calls C code */
            return FOUND;
        }
        /* It has returned, or its callee has and is being cleared away, which may take long; so may
         * a debugger's hook between two instructions, and whoever waits for a processor. */
        bool still = w->r->doubtful == now;
        w->r->doubtful = now;
        return (a || still || w->last_resort) && after == *frame ? FOUND : AGAIN;
    }
    return AGAIN;
}
