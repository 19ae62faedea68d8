/* The pieces of one copy of a stack: which memory is read, and in which order. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "sample/stack.h"

#define CHUNK_MAX        (1u << 20) /* bytes of one piece of the data stack */
#define COPY_MAX         (8u << 20)
#define THREAD_STATE_MAX 1024 /* bytes of a PyThreadState in 3.11 and 3.12 */
#define OTHERS_MAX       200  /* frames that are read each time with the innermost one */
#define LATE_MAX         3    /* readings of the innermost frame that may come too late */
#define WINDOW_KEPT      1024 /* readings of where a cframe is, for which the window does not shrink */

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

static int add(struct stack_reader *r, uint64_t address, void *to, size_t len)
{
    if (memory_batch_add(&r->batch, address, to, len))
        return 0;
    int e = memory_batch_read(r->reader, &r->batch);
    r->took_ns += r->batch.took_ns;
    memory_batch_add(&r->batch, address, to, len);
    return e;
}

/* What a field of a cframe holds, as a reading shows it; false: it lies where nothing was read. */
static bool read_cframe(const struct stack_reader *r, const struct stack_memory *m,
                        const struct stack_cells *c, uint64_t field, uint64_t *ret)
{
    uint64_t at = field - m->window;
    if (!m->window_size || at > m->window_size - sizeof(*ret))
        return false;
    *ret = stack_get64(r->windows[c != r->cells] + at);
    return true;
}

/* What a cframe held stays on the C stack until the next call, so it is read after the pointer to
 * it: the other way round, a call between the two would look like the one before. */
int stack_add_cells(struct stack_reader *r, const struct stack_memory *m, uint64_t thread)
{
    struct stack_cells *c = &r->cells[r->n_cells];
    const struct python_offsets *o = r->offsets;
    bool behind = r->n_cells++ > 0; /* once, where there are cframes */
    c->frame = c->cframe = 0;
    if (!o->thread_cframe)
        return add(r, thread + o->thread_frame, &c->frame, sizeof(c->frame));
    int e = add(r, thread + o->thread_cframe, &c->cframe, sizeof(c->cframe));
    return e < 0 ? e : add(r, m->window, r->windows[behind], m->window_size);
}

bool stack_innermost(const struct stack_reader *r, const struct stack_memory *m,
                     const struct stack_cells *c, uint64_t *ret)
{
    *ret = c->frame;
    return !r->offsets->thread_cframe ||
           read_cframe(r, m, c, c->cframe + r->offsets->cframe_frame, ret);
}

static bool in_thread(uint64_t cframe, uint64_t thread)
{
    return cframe - thread < THREAD_STATE_MAX;
}

/* The thread's state holds the outermost cframe, without a frame. One without on the C stack is a
 * greenlet's if that is the one before it, or else of a call that begins or has ended. */
bool stack_may_be_empty(const struct stack_reader *r, const struct stack_memory *m,
                        const struct stack_cells *c, uint64_t thread)
{
    uint64_t previous = 0;
    return !r->offsets->thread_cframe || in_thread(c->cframe, thread) ||
           (read_cframe(r, m, c, c->cframe + r->offsets->cframe_previous, &previous) &&
            in_thread(previous, thread));
}

static void include(uint64_t *start, uint64_t *end, uint64_t first, uint64_t last)
{
    if (!*end || first < *start)
        *start = first;
    if (last > *end)
        *end = last;
}

/* Puts it into the window, with as much of what was there before as there is room for. What was of
 * no use for long goes. */
void stack_see_cframe(const struct stack_reader *r, struct stack_memory *m, uint64_t cframe)
{
    const struct python_offsets *o = r->offsets;
    uint64_t first = cframe + o->cframe_frame;
    uint64_t last = cframe + o->cframe_previous + sizeof(cframe);
    if (!o->thread_cframe)
        return;
    include(&m->recent_start, &m->recent_end, first, last);
    uint64_t start = m->window, end = m->window_size ? start + m->window_size : 0;
    bool over = ++m->recent >= WINDOW_KEPT;
    if (over) {
        start = m->recent_start;
        end = m->recent_end;
        m->recent_end = m->recent = 0;
    }
    include(&start, &end, first, last);
    if (end - start > 2 * STACK_WINDOW_MAX) {
        start = first; /* another stack, it may be */
        end = last;
    } else if (end - start > STACK_WINDOW_MAX && start == first) {
        end = start + STACK_WINDOW_MAX;
    } else if (end - start > STACK_WINDOW_MAX) {
        start = end - STACK_WINDOW_MAX;
    }
    m->window = start;
    m->window_size = (uint32_t)(end - start);
}

static void make_room(struct stack_reader *r, size_t need)
{
    if (need < r->cap)
        return;
    r->cap = need + need / 2 + 1; /* never none, so that r->copy can be counted on from */
    r->copy = xrealloc(r->copy, r->cap, 1);
}

size_t stack_object_at(const struct stack_reader *r, const struct stack_memory *m, size_t i)
{
    return r->half - (m->n_objects - i) * r->offsets->frame_head;
}

/* Index of the object that comes as the k-th one of a copy. */
static size_t kth_object(const struct stack_reader *r, const struct stack_memory *m, size_t k,
                         bool second)
{
    bool outwards = r->offsets->thread_chunk ? second : !second;
    return outwards ? k : m->n_objects - 1 - k;
}

static int add_objects(struct stack_reader *r, const struct stack_memory *m, bool second)
{
    uint8_t *to = r->copy + (second ? r->half : 0);
    size_t head = r->offsets->frame_head;
    int e = 0;
    for (size_t k = 0; e == 0 && k < m->n_objects; k++) {
        size_t i = kth_object(r, m, k, second);
        e = add(r, m->objects[i], to + stack_object_at(r, m, i), head);
    }
    return e;
}

static int add_chunks(struct stack_reader *r, const struct stack_memory *m, bool second)
{
    uint8_t *to = r->copy + (second ? r->half : 0);
    int e = 0;
    for (size_t i = m->n_chunks; e == 0 && i-- > 0;)
        if (m->chunks[i].used && i != m->near_chunk)
            e = add(r, m->chunks[i].address, to + m->chunks[i].at, m->chunks[i].used);
    return e;
}

/* Which chunk holds the address; n_chunks: none. */
size_t stack_chunk_of(const struct stack_memory *m, uint64_t address)
{
    size_t i = 0;
    while (i < m->n_chunks && address - m->chunks[i].address >= m->chunks[i].size)
        i++;
    return i;
}

bool stack_has_near_chunk(const struct stack_memory *m)
{
    return m->near_chunk < m->n_chunks && m->chunks[m->near_chunk].used;
}

/* A frame that may be the innermost one, with its callers, and the pointer behind it. */
static int add_top(struct stack_reader *r, const struct stack_memory *m, uint64_t thread,
                   const struct stack_top *top)
{
    size_t head = r->offsets->frame_head;
    uint8_t *to = r->copy + 2 * r->half + r->n_near * (STACK_CALLERS + 1) * head;
    r->near[r->n_near++] = *top;
    int e = 0;
    for (size_t k = 0; e == 0 && k < STACK_CALLERS; k++)
        if (top->callers[k])
            e = add(r, top->callers[k], to + (k + 1) * head, head);
    if (e == 0)
        e = add(r, top->frame, to, head);
    return e < 0 ? e : stack_add_cells(r, m, thread);
}

/* The pieces that the innermost frame may be in, each between two readings of the pointer to it:
 * the chunk, or frames with their callers. */
static int add_near(struct stack_reader *r, const struct stack_memory *m, uint64_t thread)
{
    size_t wanted = r->offsets->thread_chunk || r->held ? 0 : STACK_NEAR;
    r->n_cells = r->n_near = 0;
    int e = stack_add_cells(r, m, thread);
    for (size_t i = 0; e == 0 && i < m->n_tops && i < wanted; i++)
        e = add_top(r, m, thread, &m->tops[i]);
    if (e < 0 || !stack_has_near_chunk(m))
        return e;
    const struct stack_chunk *c = &m->chunks[m->near_chunk];
    e = add(r, c->address, r->copy + r->half + c->at, c->used);
    return e < 0 ? e : stack_add_cells(r, m, thread);
}

/* Tells whether the innermost frame goes on. */
static int add_tail(struct stack_reader *r, const struct stack_memory *m)
{
    r->tail_len = 0;
    if (!stack_has_near_chunk(m) || !m->n_tops ||
        stack_chunk_of(m, m->tops[0].frame) != m->near_chunk)
        return 0;
    const struct stack_chunk *c = &m->chunks[m->near_chunk];
    size_t at = (size_t)(m->tops[0].frame - c->address), left = at < c->used ? c->used - at : 0;
    r->tail_len = left < STACK_TAIL ? left : STACK_TAIL;
    return r->tail_len ? add(r, m->tops[0].frame, r->tail, r->tail_len) : 0;
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
    r->codes = 2 * need + STACK_NEAR * (STACK_CALLERS + 1) * o->frame_head;
    r->n_codes = m->codes.n;
    make_room(r, r->codes + r->n_codes * o->code_head);
    r->prepared = NULL;

    bool once = r->held; /* nothing changes between the two copies */
    int e = once ? 0 : add_objects(r, m, false);
    if (e == 0 && !once)
        e = add_chunks(r, m, false);
    if (e == 0)
        e = add_near(r, m, thread);
    if (e == 0)
        e = add_chunks(r, m, true);
    if (e == 0)
        e = add_objects(r, m, true);
    if (e == 0)
        e = add_tail(r, m);
    for (size_t i = 0; e == 0 && i < r->n_codes; i++)
        e = add(r, m->codes.addresses[i], r->copy + r->codes + i * o->code_head, o->code_head);
    return e;
}

static bool knows(const struct stack_reader *r, const struct stack_memory *m)
{
    return !r->offsets->thread_cframe || m->window_size;
}

bool stack_prepare(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    size_t near = 2 * ARRAY_SIZE(r->cells) + (STACK_CALLERS + 1) * STACK_NEAR + 1;
    size_t pieces = 2 * (m->n_objects + m->n_chunks) + near + m->codes.n;
    if (!knows(r, m) || m->restless || pieces > MEMORY_PIECES_MAX / 2 || add_all(r, m, thread) < 0)
        return false;
    r->prepared = m;
    return true;
}

int stack_capture(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    if (r->prepared == m) {
        r->prepared = NULL;
        return 0;
    }
    int e = 0;
    if (!knows(r, m)) {
        uint64_t cframe = 0;
        e = memory_read(r->reader, thread + r->offsets->thread_cframe, &cframe, sizeof(cframe));
        if (e == 0)
            stack_see_cframe(r, m, cframe);
    }
    r->took_ns = 0;
    if (e == 0)
        e = add_all(r, m, thread);
    int last = memory_batch_read(r->reader, &r->batch);
    r->took_ns += r->batch.took_ns;
    if (r->held && last == 0)
        memcpy(r->copy, r->copy + r->half, r->half);
    return e < 0 ? e : last;
}

/* The one that the pointer leads to, with those that have called it of late. */
static struct stack_top top_of(const struct stack_reader *r, const struct stack_memory *m,
                               uint64_t frame)
{
    struct stack_top top = {.frame = frame};
    uint64_t caller = 0;
    for (size_t i = 0; i < m->n_tops; i++)
        if (m->tops[i].frame == frame)
            top = m->tops[i];
    for (size_t i = 0; i < m->n_objects; i++)
        if (m->objects[i] == frame)
            caller = stack_get64(r->copy + r->half + stack_object_at(r, m, i) +
                                 r->offsets->frame_previous);
    if (caller && caller != top.callers[0]) {
        top.callers[1] = top.callers[0];
        top.callers[0] = caller;
    }
    return top;
}

bool stack_is_followed(const struct stack_reader *r, const struct stack_memory *m)
{
    return !r->offsets->thread_chunk && m->n_objects <= OTHERS_MAX && !r->held;
}

int stack_capture_innermost(struct stack_reader *r, const struct stack_memory *m, uint64_t thread)
{
    r->n_cells = 0;
    int e = stack_add_cells(r, m, thread);
    int last = memory_batch_read(r->reader, &r->batch);
    bool there = false;
    uint64_t now = r->cells[0].frame;
    for (int i = 0; i < LATE_MAX && e == 0 && last == 0 && now && !there; i++) {
        struct stack_top top = top_of(r, m, now);
        r->n_cells = r->n_near = 0;
        e = stack_add_cells(r, m, thread);
        if (e == 0)
            e = add_top(r, m, thread, &top);
        last = memory_batch_read(r->reader, &r->batch);
        there = r->cells[0].frame == top.frame && r->cells[1].frame == top.frame;
        now = r->cells[1].frame;
    }
    if (e < 0 || last < 0 || !there)
        return e < 0 ? e : last < 0 ? last : -EAGAIN;
    memcpy(r->copy, r->copy + r->half, r->half);
    e = add_objects(r, m, true);
    last = memory_batch_read(r->reader, &r->batch);
    return e < 0 ? e : last;
}

/* The data stack's pieces, newest first: previous, size, top, then frames. FOUND: they are those
 * that are known; AGAIN: others, so that no copy of before means anything. */
int stack_find_chunks(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
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
    m->near_chunk = 0;
    return AGAIN;
}

void stack_remember_object(struct stack_memory *m, uint64_t address, size_t at)
{
    if (m->n_objects == m->cap_objects) {
        m->cap_objects = m->cap_objects ? m->cap_objects * 2 : 32;
        m->objects = xrealloc(m->objects, m->cap_objects, sizeof(*m->objects));
    }
    memmove(m->objects + at + 1, m->objects + at, (m->n_objects - at) * sizeof(*m->objects));
    m->objects[at] = address;
    m->n_objects++;
}

bool stack_moved(const struct stack_reader *r, const struct stack_memory *m)
{
    uint64_t top, again;
    if (r->prepared != m || !stack_innermost(r, m, &r->cells[0], &top))
        return false;
    for (size_t i = 1; i < r->n_cells; i++)
        if (stack_innermost(r, m, &r->cells[i], &again) && again != top)
            return true;
    size_t head = r->offsets->frame_head;
    if (r->tail_len && top == m->tops[0].frame) {
        const struct stack_chunk *c = &m->chunks[m->near_chunk];
        return memcmp(r->copy + r->half + c->at + (top - c->address), r->tail, r->tail_len) != 0;
    }
    for (size_t i = 0; i < m->n_objects; i++) {
        size_t at = stack_object_at(r, m, i);
        if (m->objects[i] == top)
            return memcmp(r->copy + at, r->copy + r->half + at, head) != 0;
    }
    return false;
}
