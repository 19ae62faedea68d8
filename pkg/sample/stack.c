/* The frames of one thread. All that the last look touched is read again in one system call,
 * between two readings of the pointer to the innermost frame: when these differ, the stack changed
 * meanwhile and is read anew. Kernels fill the pieces of such a call in their order. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "sample/sample_internal.h"

#define ROOT_SEEN  5
#define ATTEMPTS   12
#define SLACK      1024       /* bytes behind the last frame seen that are read as well */
#define CHUNK_MAX  (1u << 20) /* bytes of one piece of the data stack */
#define COPY_MAX   (8u << 20)
#define OWNER_SHIM 3           /* this and above: no Python code */
#define SPARE      32          /* frames of earlier looks that are kept in view */
#define TAGS       UINT64_C(3) /* of references, from 3.14 on */

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

/* Pointers to the innermost frame, before or after all else. */
struct cells {
    uint64_t cframe, frame;
};

static int add_cells(struct stack_reader *r, const struct stack_memory *m, uint64_t thread,
                     struct cells *to)
{
    const struct python_offsets *o = r->offsets;
    *to = (struct cells){0};
    if (!o->thread_cframe)
        return add(r, thread + o->thread_frame, &to->frame, sizeof(to->frame));
    int e = add(r, thread + o->thread_cframe, &to->cframe, sizeof(to->cframe));
    return e < 0 ? e : add(r, m->cframe + o->cframe_frame, &to->frame, sizeof(to->frame));
}

static void make_room(struct stack_reader *r, size_t need)
{
    if (need <= r->cap)
        return;
    r->cap = need + need / 2;
    r->copy = xrealloc(r->copy, r->cap, 1);
}

static int capture(struct stack_reader *r, struct stack_memory *m, uint64_t thread,
                   struct cells *before, struct cells *after)
{
    size_t need = 0, head = r->offsets->frame_head;
    for (size_t i = 0; i < m->n_chunks; i++) {
        m->chunks[i].at = (uint32_t)need;
        need += m->chunks[i].used;
    }
    size_t objects = need;
    need += m->n_objects * head;
    if (need > COPY_MAX)
        return -E2BIG;
    make_room(r, need);

    int e = add_cells(r, m, thread, before);
    for (size_t i = 0; e == 0 && i < m->n_objects; i++)
        e = add(r, m->objects[i], r->copy + objects + i * head, head);
    for (size_t i = m->n_chunks; e == 0 && i-- > 0;)
        if (m->chunks[i].used)
            e = add(r, m->chunks[i].address, r->copy + m->chunks[i].at, m->chunks[i].used);
    if (e == 0)
        e = add_cells(r, m, thread, after);
    int last = memory_batch_read(r->reader, &r->batch);
    return e < 0 ? e : last;
}

/* The data stack's pieces, newest first: previous, size, top, then frames. */
static int find_chunks(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    uint64_t address, header[2];
    size_t n = 0;
    int e = memory_read(r->reader, thread + r->offsets->thread_chunk, &address, sizeof(address));
    struct stack_chunk found[STACK_CHUNKS_MAX];
    for (; e == 0 && address && n < STACK_CHUNKS_MAX; address = header[0]) {
        e = memory_read(r->reader, address, header, sizeof(header));
        if (e < 0 || header[1] < 64 || header[1] > CHUNK_MAX)
            return -EFAULT;
        struct stack_chunk c = {.address = address, .size = (uint32_t)header[1]};
        for (size_t i = 0; i < m->n_chunks; i++)
            if (m->chunks[i].address == c.address)
                c.used = m->chunks[i].used < c.size ? m->chunks[i].used : c.size;
        found[n++] = c;
    }
    if (e < 0)
        return e;
    memcpy(m->chunks, found, n * sizeof(found[0]));
    m->n_chunks = n;
    return 0;
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

struct walk {
    struct stack_reader *r;
    struct stack_memory *m;
    uint64_t thread;
    size_t n_copied; /* objects that are in the copy, in this order */
    size_t cursor;   /* where the next object is expected */
    bool late;       /* something was read after the copy was made */
    bool searched;   /* for chunks */
    uint64_t single[64];
};

enum { FOUND = 0, AGAIN = 1 };

/* The bytes of the frame at `address`. AGAIN: the copy must be made anew, with more in it. */
static int frame_bytes(struct walk *w, uint64_t address, const uint8_t **ret)
{
    struct stack_memory *m = w->m;
    size_t head = w->r->offsets->frame_head;
    for (size_t i = 0; i < m->n_chunks; i++) {
        struct stack_chunk *c = &m->chunks[i];
        uint64_t at = address - c->address;
        if (address < c->address || at >= c->size)
            continue;
        if (at + head > c->size)
            return -EFAULT;
        if (at + head > c->used) {
            c->used = at + head + SLACK < c->size ? (uint32_t)(at + head + SLACK) : c->size;
            return AGAIN;
        }
        *ret = w->r->copy + c->at + at;
        return FOUND;
    }
    size_t base = 0;
    for (size_t i = 0; i < m->n_chunks; i++)
        base += m->chunks[i].used;
    for (size_t k = 0; k < w->n_copied; k++) {
        size_t i = (w->cursor + k) % w->n_copied;
        if (m->objects[i] != address)
            continue;
        w->cursor = i + 1;
        *ret = w->r->copy + base + i * head;
        return FOUND;
    }
    if (w->r->offsets->thread_chunk && !w->searched) {
        w->searched = true;
        size_t before = m->n_chunks;
        uint64_t first = before ? m->chunks[0].address : 0;
        int e = find_chunks(w->r, m, w->thread);
        if (e < 0)
            return e;
        if (m->n_chunks != before || (before && m->chunks[0].address != first))
            return AGAIN;
    }
    if (head > sizeof(w->single))
        return -EFAULT;
    w->late = true;
    int e = memory_read(w->r->reader, address, w->single, head);
    *ret = (const uint8_t *)w->single;
    return e;
}

/* Follows the frames; their addresses outside of chunks go into `objects`. */
static int follow(struct walk *w, uint64_t frame, uint64_t *objects, size_t *n_objects)
{
    struct stack_reader *r = w->r;
    const struct python_offsets *o = r->offsets;
    uint64_t mark = 0, last_in_chunk = 0;
    size_t steps = 0, next_mark = 1, last_chunk = SIZE_MAX;
    r->depth = 0;
    r->cut = false;
    while (frame) {
        const uint8_t *bytes;
        int e = frame_bytes(w, frame, &bytes);
        if (e != FOUND)
            return e;
        size_t chunk = 0;
        while (chunk < w->m->n_chunks &&
               frame - w->m->chunks[chunk].address >= w->m->chunks[chunk].size)
            chunk++;
        if (chunk == w->m->n_chunks) {
            if (*n_objects < STACK_DEPTH_MAX)
                objects[(*n_objects)++] = frame;
        } else {
            /* A stack: who calls lies below. */
            if (last_chunk != SIZE_MAX &&
                (chunk < last_chunk || (chunk == last_chunk && frame >= last_in_chunk)))
                return -EFAULT;
            last_chunk = chunk;
            last_in_chunk = frame;
        }
        if (!o->frame_owner || bytes[o->frame_owner] < OWNER_SHIM) {
            struct raw_frame f = {.address = frame, .code = get64(bytes + o->frame_code)};
            if (o->minor >= 14)
                f.code &= ~TAGS;
            if (o->thread_chunk) {
                f.instruction = get64(bytes + o->frame_instruction);
            } else {
                int32_t index;
                memcpy(&index, bytes + o->frame_instruction, sizeof(index));
                f.instruction = (uint64_t)(int64_t)index;
            }
            if (r->depth == STACK_DEPTH_MAX) {
                r->cut = true;
                return 0;
            }
            r->frames[r->depth++] = f;
        }
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

int stack_read(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    uint64_t objects[STACK_DEPTH_MAX];
    uint64_t candidate = 0;
    int seen = 0;
    int result = -EAGAIN;
    if (r->offsets->thread_cframe && !m->cframe &&
        memory_read(r->reader, thread + r->offsets->thread_cframe, &m->cframe, sizeof(m->cframe)) <
            0)
        return -EFAULT;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct cells before = {0}, after = {0};
        int e = capture(r, m, thread, &before, &after);
        if (e == -ETIME)
            return e;
        if (e < 0) {
            /* Something that was there at the last look has gone. */
            bool known = m->n_chunks || m->n_objects || m->cframe;
            m->n_chunks = m->n_objects = 0;
            m->cframe = 0;
            if (!known)
                return e;
            if (r->offsets->thread_cframe &&
                memory_read(r->reader, thread + r->offsets->thread_cframe, &m->cframe,
                            sizeof(m->cframe)) < 0)
                return -EFAULT;
            result = e;
            continue;
        }
        if (before.cframe != m->cframe || after.cframe != m->cframe) {
            m->cframe = after.cframe;
            result = -EAGAIN;
            continue;
        }
        if (before.frame != after.frame) {
            result = -EAGAIN;
            continue;
        }
        struct walk w = {.r = r, .m = m, .thread = thread, .n_copied = m->n_objects};
        size_t n = 0;
        e = follow(&w, before.frame, objects, &n);
        if (e == AGAIN) {
            result = -EAGAIN;
            continue;
        }
        if (e == 0)
            keep_objects(m, objects, n);
        if (e == 0 && w.late) {
            struct cells now;
            e = add_cells(r, m, thread, &now);
            int last = memory_batch_read(r->reader, &r->batch);
            if (e < 0 || last < 0 || now.frame != before.frame)
                e = -EAGAIN;
        }
        /* A generator's frame is linked to its caller only while it runs: caught between two runs,
         * the stack seems to begin with it. So another beginning than last time's must show several
         * times in a row. */
        uint64_t root = e == 0 && r->depth ? r->frames[r->depth - 1].address : 0;
        if (e == 0 && root != m->root) {
            seen = root == candidate ? seen + 1 : 1;
            candidate = root;
            if (seen < ROOT_SEEN)
                e = -EAGAIN;
        }
        if (e == 0) {
            m->root = root;
            return 0;
        }
        result = e;
    }
    return result;
}
