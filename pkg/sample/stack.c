/* The frames of one thread. All that the last look touched is read again in one system call, twice,
 * between two readings of the pointer to the innermost frame: kernels fill the pieces of such a
 * call in their order. Only a chain of frames that stood in both copies counts, under a pointer
 * that stayed; otherwise the stack changed meanwhile and is read anew. A frame that calls others
 * all the time may be the innermost one at both readings and not between them, where it stands at
 * a call; so the pointer is read a third time just before its second copy, which ends the call. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "sample/sample_internal.h"

#define ATTEMPTS        24
#define ROOT_SEEN       8          /* times in a row */
#define ALONE_LOOKS     8          /* in a row */
#define PATIENCE        8          /* attempts after which less than two whole copies will do */
#define NEAR            4          /* objects that the second copy ends with, under one pointer */
#define SLACK           1024       /* bytes behind the last frame seen that are read as well */
#define CHUNK_MAX       (1u << 20) /* bytes of one piece of the data stack */
#define COPY_MAX        (8u << 20)
#define OWNER_GENERATOR 1
#define OWNER_SHIM      3  /* this and above: no Python code */
#define SPARE           32 /* frames of earlier looks that are kept in view */

void stack_memory_finish(struct stack_memory *m)
{
    free(m->objects);
    *m = (struct stack_memory){0};
}

void stack_reader_finish(struct stack_reader *r)
{
    free(r->copy);
    r->copy = NULL;
    r->cap = 0;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static int add(struct stack_reader *r, uint64_t address, void *to, size_t len)
{
    if (memory_batch_add(&r->batch, address, to, len))
        return 0;
    int e = memory_batch_read(r->reader, &r->batch);
    memory_batch_add(&r->batch, address, to, len);
    return e;
}

static int add_frame_cell(struct stack_reader *r, const struct stack_memory *m, uint64_t thread,
                          uint64_t *to)
{
    const struct python_offsets *o = r->offsets;
    uint64_t at = o->thread_cframe ? m->cframe + o->cframe_frame : thread + o->thread_frame;
    return add(r, at, to, sizeof(*to));
}

static void make_room(struct stack_reader *r, size_t need)
{
    if (need < r->cap)
        return;
    r->cap = need + need / 2 + 1; /* never none, so that r->copy can be counted on from */
    r->copy = xrealloc(r->copy, r->cap, 1);
}

/* What changes most is read last. */
static int add_frames(struct stack_reader *r, const struct stack_memory *m, uint64_t thread,
                      bool second)
{
    uint8_t *to = r->copy + (second ? r->half : 0);
    size_t head = r->offsets->frame_head, near = m->n_objects < NEAR ? m->n_objects : NEAR;
    int e = 0;
    for (size_t i = m->n_objects; e == 0; i--) {
        if (second && i == near)
            e = add_frame_cell(r, m, thread, &r->cells.middle);
        if (i == 0)
            break;
        if (e == 0)
            e = add(r, m->objects[i - 1], to + r->half - (m->n_objects - i + 1) * head, head);
    }
    for (size_t i = m->n_chunks; e == 0 && i-- > 0;)
        if (m->chunks[i].used)
            e = add(r, m->chunks[i].address, to + m->chunks[i].at, m->chunks[i].used);
    return e;
}

static int add_all(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    const struct python_offsets *o = r->offsets;
    size_t need = 0;
    for (size_t i = 0; i < m->n_chunks; i++) {
        m->chunks[i].at = (uint32_t)need;
        need += m->chunks[i].used;
    }
    need += m->n_objects * o->frame_head;
    if (need > COPY_MAX)
        return -E2BIG;
    r->half = need;
    r->codes = 2 * need;
    r->n_codes = m->codes.n;
    make_room(r, r->codes + r->n_codes * o->code_head);
    r->prepared = NULL;
    r->cells = (struct stack_cells){0};

    int e = add_frame_cell(r, m, thread, &r->cells.first);
    if (e == 0)
        e = add_frames(r, m, thread, false);
    if (e == 0)
        e = add_frames(r, m, thread, true);
    if (e == 0)
        e = add_frame_cell(r, m, thread, &r->cells.last);
    if (e == 0 && o->thread_cframe)
        e = add(r, thread + o->thread_cframe, &r->cells.cframe, sizeof(r->cells.cframe));
    for (size_t i = 0; e == 0 && i < r->n_codes; i++)
        e = add(r, m->codes.addresses[i], r->copy + r->codes + i * o->code_head, o->code_head);
    return e;
}

static bool knows(const struct stack_reader *r, const struct stack_memory *m)
{
    return !r->offsets->thread_cframe || m->cframe;
}

bool stack_prepare(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    size_t pieces = 2 * (m->n_objects + m->n_chunks) + m->codes.n + 4;
    if (!knows(r, m) || pieces > MEMORY_PIECES_MAX / 2 || add_all(r, m, thread) < 0)
        return false;
    r->prepared = m;
    return true;
}

static int capture(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    if (r->prepared == m) {
        r->prepared = NULL;
        return 0;
    }
    int e = knows(r, m) ? 0
                        : memory_read(r->reader, thread + r->offsets->thread_cframe, &m->cframe,
                                      sizeof(m->cframe));
    if (e == 0)
        e = add_all(r, m, thread);
    int last = memory_batch_read(r->reader, &r->batch);
    return e < 0 ? e : last;
}

enum { FOUND = 0, AGAIN = 1 };

/* The data stack's pieces, newest first: previous, size, top, then frames. FOUND: they are those
 * that are known; AGAIN: others, so that no copy of before means anything. */
static int find_chunks(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    uint64_t address, header[2];
    size_t n = 0;
    int e = memory_read(r->reader, thread + r->offsets->thread_chunk, &address, sizeof(address));
    struct stack_chunk found[STACK_CHUNKS_MAX];
    bool same = true;
    for (; e == 0 && address && n < STACK_CHUNKS_MAX; address = header[0]) {
        e = memory_read(r->reader, address, header, sizeof(header));
        if (e < 0)
            return e;
        if (header[1] < 64 || header[1] > CHUNK_MAX)
            return -EFAULT;
        struct stack_chunk c = {.address = address, .size = (uint32_t)header[1]};
        for (size_t i = 0; i < n; i++)
            if (found[i].address == address)
                return -ELOOP;
        for (size_t i = 0; i < m->n_chunks; i++)
            if (m->chunks[i].address == c.address)
                c.used = m->chunks[i].used < c.size ? m->chunks[i].used : c.size;
        same = same && n < m->n_chunks && m->chunks[n].address == c.address &&
               m->chunks[n].size == c.size;
        found[n++] = c;
    }
    if (e < 0)
        return e;
    if (same && n == m->n_chunks)
        return FOUND;
    memcpy(m->chunks, found, n * sizeof(found[0]));
    m->n_chunks = n;
    return AGAIN;
}

static void remember_object(struct stack_memory *m, uint64_t address, size_t at)
{
    if (m->n_objects == m->cap_objects) {
        m->cap_objects = m->cap_objects ? m->cap_objects * 2 : 32;
        m->objects = xrealloc(m->objects, m->cap_objects, sizeof(*m->objects));
    }
    memmove(m->objects + at + 1, m->objects + at, (m->n_objects - at) * sizeof(*m->objects));
    m->objects[at] = address;
    m->n_objects++;
}

/* One way through a copy. */
struct walk {
    struct stack_reader *r;
    struct stack_memory *m;
    uint64_t thread;
    size_t cursor; /* where the next object is expected */
    bool strict;   /* instructions of callers must stand in both copies, too */
    bool live;     /* and callers must not be found running their own code */
    bool late;     /* something was read after the copy was made */
    bool far;      /* the innermost frame's copy is not among the last */
    bool searched; /* for chunks */
    uint32_t used[STACK_CHUNKS_MAX];
    uint64_t *objects; /* addresses of the frames outside of chunks, as they come */
    size_t n_objects;
    uint64_t single[64];
};

static bool is_same(const struct walk *w, const uint8_t *a, const uint8_t *b, bool innermost)
{
    const struct python_offsets *o = w->r->offsets;
    size_t n = o->thread_chunk ? 8 : 4;
    if (get64(a + o->frame_previous) != get64(b + o->frame_previous) ||
        get64(a + o->frame_code) != get64(b + o->frame_code))
        return false;
    return innermost || !w->strict ||
           memcmp(a + o->frame_instruction, b + o->frame_instruction, n) == 0;
}

static int bytes_in_copy(const struct walk *w, size_t at, const uint8_t **ret)
{
    const uint8_t *first = w->r->copy + at, *second = first + w->r->half;
    *ret = second;
    return is_same(w, first, second, w->r->depth == 0) ? FOUND : AGAIN;
}

/* Which chunk holds the address; n_chunks: none. */
static size_t chunk_of(const struct stack_memory *m, uint64_t address)
{
    size_t i = 0;
    while (i < m->n_chunks && address - m->chunks[i].address >= m->chunks[i].size)
        i++;
    return i;
}

static int bytes_in_chunk(struct walk *w, size_t index, uint64_t address, const uint8_t **ret)
{
    struct stack_chunk *c = &w->m->chunks[index];
    size_t head = w->r->offsets->frame_head, at = (size_t)(address - c->address);
    if (at + head > c->size)
        return -EFAULT;
    size_t wanted = at + head + SLACK < c->size ? at + head + SLACK : c->size;
    if (wanted > w->used[index])
        w->used[index] = (uint32_t)wanted;
    if (at + head <= c->used)
        return bytes_in_copy(w, c->at + at, ret);
    c->used = (uint32_t)wanted;
    return AGAIN;
}

/* The bytes of a frame that is an object, or a generator's. AGAIN: the copy must be made anew, with
 * more in it. */
static int bytes_of_object(struct walk *w, uint64_t address, const uint8_t **ret)
{
    struct stack_memory *m = w->m;
    size_t head = w->r->offsets->frame_head;
    for (size_t k = 0; k < m->n_objects; k++) {
        size_t i = (w->cursor + k) % m->n_objects;
        if (m->objects[i] != address)
            continue;
        w->cursor = i + 1;
        w->far = w->far || (w->r->depth == 0 && i >= NEAR);
        return bytes_in_copy(w, w->r->half - (m->n_objects - i) * head, ret);
    }
    if (w->r->offsets->thread_chunk && !w->searched) {
        w->searched = true;
        int e = find_chunks(w->r, m, w->thread);
        if (e != FOUND)
            return e;
    }
    if (head > sizeof(w->single))
        return -EFAULT;
    w->late = true;
    *ret = (const uint8_t *)w->single;
    return memory_read(w->r->reader, address, w->single, head);
}

bool stack_moved(const struct stack_reader *r, const struct stack_memory *m)
{
    const struct stack_cells *cells = &r->cells;
    if (r->prepared != m || (r->offsets->thread_cframe && cells->cframe != m->cframe))
        return false;
    if (cells->first != cells->last)
        return true;
    size_t chunk = chunk_of(m, cells->first), head = r->offsets->frame_head, at, len = 0;
    if (chunk < m->n_chunks) {
        at = m->chunks[chunk].at;
        len = m->chunks[chunk].used;
    }
    for (size_t i = 0; len == 0 && i < m->n_objects; i++) {
        if (m->objects[i] != cells->first)
            continue;
        at = r->half - (m->n_objects - i) * head;
        len = head;
    }
    return len && memcmp(r->copy + at, r->copy + r->half + at, len) != 0;
}

static int add_raw(struct stack_reader *r, uint64_t address, const uint8_t *bytes)
{
    const struct python_offsets *o = r->offsets;
    struct raw_frame f = {.address = address,
                          .code = stack_reference(o, get64(bytes + o->frame_code))};
    if (o->thread_chunk) {
        f.instruction = get64(bytes + o->frame_instruction);
    } else {
        int32_t index;
        memcpy(&index, bytes + o->frame_instruction, sizeof(index));
        f.instruction = (uint64_t)(int64_t)index;
    }
    bool generator = o->frame_owner ? bytes[o->frame_owner] == OWNER_GENERATOR
                                    : get64(bytes + o->frame_generator) != 0;
    r->suspended = generator && !get64(bytes + o->frame_previous);
    if (r->depth == STACK_DEPTH_MAX)
        return -E2BIG;
    r->frames[r->depth++] = f;
    return 0;
}

/* A call without C code in between notes how far the caller's stack reaches, and its end takes that
 * away: a frame that seems to be called by one whose own code runs is left over from before. That
 * shows within one copy, however often the stack was the same at its readings. */
static bool is_left_over(const struct python_offsets *o, const uint8_t *caller)
{
    int32_t top;
    if (!o->frame_stack_top || caller[o->frame_owner] >= OWNER_SHIM)
        return false;
    memcpy(&top, caller + o->frame_stack_top, sizeof(top));
    return top < 0;
}

static bool is_called_by_python(const struct python_offsets *o, const uint8_t *frame)
{
    return o->frame_stack_top && frame[o->frame_owner] < OWNER_SHIM &&
           !(o->frame_entry && frame[o->frame_entry]);
}

/* Follows the frames from the innermost one. 0, AGAIN, or -errno. */
static int follow(struct walk *w, uint64_t frame)
{
    struct stack_reader *r = w->r;
    const struct python_offsets *o = r->offsets;
    uint64_t mark = 0, last_in_chunk = 0;
    size_t steps = 0, next_mark = 1, last_chunk = SIZE_MAX;
    bool direct = false; /* the last frame was called by the one that comes now, not by C */
    r->depth = 0;
    while (frame) {
        const uint8_t *bytes;
        size_t chunk = chunk_of(w->m, frame);
        int e = chunk < w->m->n_chunks ? bytes_in_chunk(w, chunk, frame, &bytes)
                                       : bytes_of_object(w, frame, &bytes);
        if (e != FOUND)
            return e;
        if (direct && w->live && is_left_over(o, bytes))
            return AGAIN;
        direct = is_called_by_python(o, bytes);
        if (chunk == w->m->n_chunks) {
            if (w->n_objects < STACK_DEPTH_MAX)
                w->objects[w->n_objects++] = frame;
        } else {
            /* A stack: who calls lies below. */
            if (last_chunk != SIZE_MAX &&
                (chunk < last_chunk || (chunk == last_chunk && frame >= last_in_chunk)))
                return -EFAULT;
            last_chunk = chunk;
            last_in_chunk = frame;
        }
        if ((!o->frame_owner || bytes[o->frame_owner] < OWNER_SHIM) && add_raw(r, frame, bytes) < 0)
            return 0;
        frame = get64(bytes + o->frame_previous);
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

/* What this look touched comes first next time; some of what earlier ones did stays. */
static void keep_objects(struct stack_memory *m, const uint64_t *objects, size_t n)
{
    size_t spare = 0, old_n = m->n_objects;
    uint64_t old[SPARE];
    for (size_t i = 0; i < old_n && spare < SPARE; i++) {
        bool again = false;
        for (size_t k = 0; k < n && k < 64 && !again; k++)
            again = objects[k] == m->objects[i];
        /* Deep ones are beyond the window above; those do not come and go. */
        if (!again && i < 64)
            old[spare++] = m->objects[i];
    }
    m->n_objects = 0;
    for (size_t i = 0; i < n; i++)
        remember_object(m, objects[i], m->n_objects);
    for (size_t i = 0; i < spare; i++)
        remember_object(m, old[i], m->n_objects);
}

/* What a deep recursion needed once is not read for ever. */
static void keep_chunks(struct stack_memory *m, const uint32_t *used)
{
    for (size_t i = 0; i < m->n_chunks; i++)
        if (m->chunks[i].used / 2 > used[i])
            m->chunks[i].used -= m->chunks[i].used / 8;
}

/* What a way that led nowhere met on it: the next copy has it. */
static void keep_late(struct stack_memory *m, const uint64_t *objects, size_t n)
{
    size_t old = m->n_objects;
    for (size_t i = 0; i < n && m->n_objects < 2 * STACK_DEPTH_MAX; i++) {
        bool known = false;
        for (size_t k = m->n_objects - old; k < m->n_objects && !known; k++)
            known = m->objects[k] == objects[i];
        if (!known)
            remember_object(m, objects[i], m->n_objects - old);
    }
}

/* Something that was there at the last look has gone. */
static void forget(struct stack_memory *m)
{
    m->n_chunks = m->n_objects = m->codes.n = 0;
    m->cframe = 0;
}

/* One copy and one way through it. 0, AGAIN, or -errno. */
static int try_once(struct stack_reader *r, struct stack_memory *m, uint64_t thread, int attempt)
{
    uint64_t *objects = r->objects;
    bool known = m->n_chunks || m->n_objects || m->codes.n || m->cframe;
    int e = capture(r, m, thread);
    if (e == -ETIME)
        return e;
    if (e < 0) {
        forget(m);
        return known ? AGAIN : e;
    }
    if (r->offsets->thread_cframe && r->cells.cframe != m->cframe) {
        m->cframe = r->cells.cframe;
        return AGAIN;
    }
    if (r->cells.first != r->cells.last || r->cells.first != r->cells.middle)
        return AGAIN;
    struct walk w = {.r = r,
                     .m = m,
                     .thread = thread,
                     .strict = attempt < PATIENCE,
                     .live = attempt < 2 * PATIENCE,
                     .objects = objects};
    e = follow(&w, r->cells.first);
    if (e != 0 && w.late)
        keep_late(m, objects, w.n_objects);
    if (e != 0)
        return e;
    keep_objects(m, objects, w.n_objects);
    keep_chunks(m, w.used);
    if ((w.late || w.far) && attempt < PATIENCE)
        return AGAIN; /* next time it is in the copies, and among the last */
    if (!w.late)
        return 0;
    uint64_t now = 0;
    e = add_frame_cell(r, m, thread, &now);
    int last = memory_batch_read(r->reader, &r->batch);
    return e < 0 || last < 0 || now != r->cells.first ? AGAIN : 0;
}

/* A generator's frame is linked to its caller only while it runs. Caught between two runs, or on
 * the way there by a processor that does something else now, the stack seems to begin with it. From
 * 3.12 on a shim stands below whatever C code runs, so that this is never a stack. Before, one that
 * a thread's C code runs first of all has no caller: look after look says so. */
static bool is_torn(const struct stack_reader *r, struct stack_memory *m)
{
    if (!r->depth || !r->suspended)
        return false;
    if (r->offsets->minor >= 12)
        return true;
    if (!m->root)
        return false;
    if (++m->alone < ALONE_LOOKS)
        return true;
    m->root = 0;
    return false;
}

int stack_read(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    uint64_t candidate = 0;
    int seen = 0, result = -EAGAIN;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        int e = try_once(r, m, thread, attempt);
        if (e == -ETIME || (e < 0 && !m->n_chunks && !m->n_objects && !m->cframe))
            return e;
        result = e == AGAIN ? -EAGAIN : e;
        if (result < 0)
            continue;
        uint64_t root = r->depth ? r->frames[r->depth - 1].address : 0;
        if (root != m->root || (r->depth && r->suspended)) {
            /* Another beginning than last time's must show several times in a row. */
            seen = root == candidate ? seen + 1 : 1;
            candidate = root;
            result = -EAGAIN;
            if (seen < ROOT_SEEN)
                continue;
            if (is_torn(r, m))
                return result;
        }
        if (!r->depth || !r->suspended) {
            m->root = root;
            m->alone = 0;
        }
        return 0;
    }
    return result;
}
