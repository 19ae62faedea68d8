/* The frames of one thread, as they stood at one moment: all that the last look touched is read
 * again in one system call, whose pieces kernels fill in their order, and in the middle of it where
 * the innermost frame is. To wait for a stack that stands still while it is copied would prefer
 * those that do, so nothing more is asked of it than what tells its frames apart from others':
 * From 3.11 on all frames that C code does not own lie in one chunk, which is one piece and takes
 * less time to copy than a call; frames say whether they call, and so who is left over from before.
 * Up to 3.10 each frame is a piece. After one copy it is asked who the innermost frame is, and that
 * one is read at once with those that call it, until the pointer still leads to it behind; then the
 * others are, which must stand as in the copy before. What functions that take less time than that
 * do is caught by chance: in the next copies the pointer is read between each two of those that
 * were the innermost of late, and where two readings in a row lead to the one between them, it was
 * just then. A recursion may be faster than all that. Then those of its callers are enough that
 * stood in both copies, rather than a whole stack of some other time.
 * All that still prefers what takes long. So up to 3.10 a thread that was seen not to stand still
 * is held while it is read, where that can be done, and what was read counts if it did not run. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "sample/stack.h"

#define ATTEMPTS 24
/* Attempts after which less than all is better than nothing; fewer where the innermost frame is
 * asked for after each. */
#define LAST_RESORT          12
#define LAST_RESORT_FOLLOWED 3
#define FOLLOWED             3  /* times */
#define ROOTWARDS            3  /* which of those may first begin with the outermost frame */
#define ROOT_SEEN            8  /* times in a row */
#define ALONE_LOOKS          8  /* in a row */
#define SEEN_MAX             64 /* what was seen before counts half then */
#define SPARE                20 /* frames of earlier looks that are kept in view */
#define SLOWER               2 /* times the usual, and some more, shows that a copy was interrupted */
#define SLOWER_NS            INT64_C(100000) /* cold caches are no interruption */
#define ASIDE_NEW            16              /* of one look, the outermost ones */
#define INNER                64  /* of the innermost ones, in which they are looked for */
#define RESTLESS_LOOKS       100 /* without a try whether it stands still by itself */
#define HOLDS                2   /* of a reading, that may fail */
#define UNSTEADY_LOOKS       16  /* or fewer from one that saw a call to the next */
#define UNSTEADY_MAX         64

static size_t add_spare(const struct stack_memory *m, const uint64_t *objects, size_t n,
                        uint64_t *spares, size_t n_spares, uint64_t frame)
{
    bool known = n_spares == SPARE || stack_chunk_of(m, frame) < m->n_chunks;
    for (size_t k = 0; k < n && k < INNER && !known; k++)
        known = objects[k] == frame;
    for (size_t k = 0; k < n_spares && !known; k++)
        known = spares[k] == frame;
    if (!known)
        spares[n_spares++] = frame;
    return n_spares;
}

static void set_aside(struct stack_memory *m, uint64_t frame)
{
    size_t i = 0;
    while (i < m->n_aside && m->aside[i] != frame)
        i++;
    if (i == STACK_ASIDE)
        i--;
    m->n_aside += i == m->n_aside;
    memmove(m->aside + 1, m->aside, i * sizeof(*m->aside));
    m->aside[0] = frame;
}

/* One of those that were added to the other n objects is no memory any more. */
static void drop_aside(struct stack_memory *m, size_t n)
{
    memmove(m->objects, m->objects + (m->n_objects - n), n * sizeof(*m->objects));
    m->n_objects = n;
    m->n_aside = 0;
}

/* The outermost ones of what falls out of view. When such a frame is there again and nobody knows
 * of it, a way from the outermost frame inwards ends before it. */
static void set_lost_aside(struct stack_memory *m, const uint64_t *objects, size_t n)
{
    size_t first = m->n_objects > ASIDE_NEW ? m->n_objects - ASIDE_NEW : 0;
    for (size_t i = first; i < m->n_objects; i++) {
        bool known = false;
        for (size_t k = n; k-- > 0 && !known;)
            known = objects[k] == m->objects[i];
        if (!known)
            set_aside(m, m->objects[i]);
    }
}

/* What this look touched is read again next time, and before it some of what earlier ones did: who
 * was called of late will be called again. */
static void keep_objects(struct stack_memory *m, const uint64_t *objects, size_t n)
{
    size_t n_spares = 0;
    uint64_t spares[SPARE];
    for (size_t i = 0; i < m->n_tops; i++)
        n_spares = add_spare(m, objects, n, spares, n_spares, m->tops[i].frame);
    /* Deep ones are beyond those; those do not come and go. */
    for (size_t i = 0; i < m->n_objects && i < INNER; i++)
        n_spares = add_spare(m, objects, n, spares, n_spares, m->objects[i]);
    m->n_objects = 0;
    for (size_t i = 0; i < n_spares + n; i++)
        stack_remember_object(m, i < n_spares ? spares[i] : objects[i - n_spares], m->n_objects);
}

/* The attempts of this look have met more frames than should be read each time. */
static void keep_frames(struct stack_memory *m, struct stack_reader *r)
{
    for (size_t i = 0; i < r->depth; i++)
        r->objects[i] = r->frames[i].address;
    keep_objects(m, r->objects, r->depth);
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
            stack_remember_object(m, objects[i], m->n_objects - old);
    }
}

/* Something that was there at the last look has gone. */
static void forget(struct stack_memory *m)
{
    m->n_chunks = m->n_objects = m->codes.n = m->n_tops = m->n_aside = 0;
    m->window_size = 0;
    m->recent = 0;
    m->recent_end = 0;
}

/* Those seen most often come first; a new one takes the last place. */
static void see_top(struct stack_memory *m, uint64_t frame)
{
    size_t i = 0;
    while (i < m->n_tops && m->tops[i].frame != frame)
        i++;
    if (i == m->n_tops) {
        m->n_tops += m->n_tops < STACK_TOPS;
        i = m->n_tops - 1;
        m->tops[i] = (struct stack_top){.frame = frame};
    }
    if (++m->tops[i].seen == SEEN_MAX)
        for (size_t k = 0; k < m->n_tops; k++)
            m->tops[k].seen /= 2;
    for (; i > 0 && m->tops[i - 1].seen <= m->tops[i].seen; i--) {
        struct stack_top top = m->tops[i];
        m->tops[i] = m->tops[i - 1];
        m->tops[i - 1] = top;
    }
}

static void see_caller(struct stack_memory *m, uint64_t frame, uint64_t caller)
{
    for (size_t i = 0; i < m->n_tops; i++) {
        uint64_t *callers = m->tops[i].callers;
        if (m->tops[i].frame != frame || callers[0] == caller)
            continue;
        memmove(callers + 1, callers, (STACK_CALLERS - 1) * sizeof(*callers));
        callers[0] = caller;
    }
}

/* The innermost frame, where the pointer led to just behind and, where one of the near pieces was
 * read while it was the innermost, its bytes. AGAIN: it was in none of them at its time. */
static int find_innermost(struct stack_walk *w, uint64_t *ret, uint64_t *ret_after)
{
    const struct stack_reader *r = w->r;
    struct stack_memory *m = w->m;
    uint64_t frames[ARRAY_SIZE(r->cells)];
    size_t last = r->n_cells - 1, before = stack_has_near_chunk(m) ? last - 1 : last;
    bool always = true, known = true;
    for (size_t i = 0; i <= last && known; i++) {
        known = stack_innermost(r, m, &r->cells[i], &frames[i]) &&
                (frames[i] || stack_may_be_empty(r, m, &r->cells[i], w->thread));
        always = always && frames[i] == frames[0];
        if (known && frames[i])
            see_top(m, frames[i]);
    }
    for (size_t i = 0; i <= last; i++)
        stack_see_cframe(r, m, r->cells[i].cframe); /* the window moves */
    if (!known)
        return AGAIN;
    *ret = frames[before];
    *ret_after = frames[last];
    for (size_t i = 0; i < r->n_near; i++) {
        if (r->near[i].frame != frames[i] || frames[i] != frames[i + 1])
            continue;
        *ret = frames[i];
        w->innermost = r->copy + 2 * r->half + i * (STACK_CALLERS + 1) * r->offsets->frame_head;
        w->callers = r->near[i].callers;
        return FOUND;
    }
    return always || w->last_resort || stack_tells_calls(r->offsets) ? FOUND : AGAIN;
}

/* From 3.11 on: the innermost frame may have called another one before the chunk was copied. One
 * that is not in the chunk, and that C code called, tells nothing of its caller: the pointer to it
 * must have stayed. */
static int settle(struct stack_walk *w, uint64_t top, uint64_t after)
{
    uint64_t first = w->r->depth ? w->r->frames[0].address : 0, callee = first;
    if (!w->left && w->from_c && after != top && stack_chunk_of(w->m, top) != w->m->near_chunk)
        return AGAIN;
    int e = stack_find_callee(w, after, &callee);
    return e == FOUND && callee != first ? stack_follow(w, callee) : e;
}

/* While the innermost frame stays, so do all of its callers. Not so before 3.11, where a function's
 * frame is the same object at each of its calls. */
static bool still_there(const struct stack_walk *w, uint64_t top)
{
    struct stack_reader *r = w->r;
    uint64_t now = 0;
    r->n_cells = 0;
    int e = stack_add_cells(r, w->m, w->thread);
    int last = memory_batch_read(r->reader, &r->batch);
    return e == 0 && last == 0 && stack_innermost(r, w->m, &r->cells[0], &now) && now == top;
}

/* Who is interrupted in the middle of a copy has pieces of more than one moment, before and behind
 * which the innermost frame may be the same; not of a thread that is held. */
static bool was_interrupted(const struct stack_reader *r, struct stack_memory *m)
{
    if (r->held)
        return false;
    int64_t most = m->usual_ns * SLOWER + SLOWER_NS;
    bool interrupted = m->usual_ns && r->took_ns > most;
    if (!m->usual_ns || r->took_ns < m->usual_ns)
        m->usual_ns = r->took_ns;
    else if (!interrupted)
        m->usual_ns += m->usual_ns / 64;
    else /* or the stack has grown */
        m->usual_ns = m->usual_ns > r->took_ns / 8 ? 2 * m->usual_ns : r->took_ns / 4;
    return interrupted;
}

/* One way through the copy, and where the pointer led to. FOUND, AGAIN, or -errno. */
static int walk(struct stack_walk *w, bool last_resort, uint64_t *top)
{
    struct stack_reader *r = w->r;
    struct stack_memory *m = w->m;
    uint64_t after = 0;
    *w = (struct stack_walk){.r = r,
                             .m = m,
                             .thread = w->thread,
                             .last_resort = last_resort,
                             .only_certain = last_resort && !r->offsets->thread_chunk,
                             .objects = r->objects};
    int e = find_innermost(w, top, &after);
    if (e != FOUND)
        return e;
    w->led = true;
    size_t chunk = stack_chunk_of(m, *top);
    w->near = !*top || w->innermost || (r->offsets->thread_chunk && chunk == m->n_chunks) ||
              chunk == m->near_chunk;
    w->stayed = *top == after;
    e = stack_follow(w, *top);
    if (w->innermost)
        see_caller(m, *top, stack_get64(w->innermost + r->offsets->frame_previous));
    uint64_t innermost = r->depth ? r->frames[0].address : 0;
    if (e == FOUND && stack_tells_calls(r->offsets))
        e = settle(w, *top, after);
    w->same = innermost == (r->depth ? r->frames[0].address : 0);
    if (chunk < m->n_chunks)
        m->near_chunk = chunk;
    return e;
}

/* Whether somebody called, or returned, while the copy was made. */
static bool saw_call(const struct stack_reader *r)
{
    for (size_t i = 1; i < r->n_cells; i++)
        if (r->cells[i].frame != r->cells[0].frame)
            return true;
    return false;
}

/* One copy and the ways through it. The first one of a look is not asked who the innermost frame
 * was: it took long, with cold caches, and what stands that long would be preferred. resort:
 * the number of this attempt among those for which less than all is enough; 0: not yet. 0, AGAIN,
 * or -errno. */
static int try_once(struct stack_reader *r, struct stack_memory *m, uint64_t thread, bool first,
                    int resort)
{
    struct stack_walk w = {.r = r, .m = m, .thread = thread};
    uint64_t top = 0;
    bool by_frame = !r->offsets->thread_chunk;
    bool known = m->n_chunks || m->n_objects || m->codes.n || m->window_size;
    size_t n_before = m->n_objects;
    if (resort == 1 && by_frame)
        keep_late(m, m->aside, m->n_aside);
    int e = stack_capture(r, m, thread);
    if (e == -ETIME)
        return e;
    if (e < 0 && m->n_objects > n_before) {
        drop_aside(m, n_before);
        return AGAIN;
    }
    if (e < 0) {
        forget(m);
        return known ? AGAIN : e;
    }
    if (was_interrupted(r, m) && !resort)
        return AGAIN;
    bool followed = stack_is_followed(r, m);
    r->calls = r->calls || (!r->held && saw_call(r));
    e = followed && first ? AGAIN : walk(&w, resort, &top);
    for (int i = 0; i < FOLLOWED && e == AGAIN && !w.late && followed; i++) {
        r->moving = i > 1;
        int c = stack_capture_innermost(r, m, thread);
        r->calls = r->calls || saw_call(r);
        if (c == -EAGAIN)
            break;
        if (c < 0)
            return c == -ETIME ? c : AGAIN;
        e = walk(&w, resort, &top);
    }
    if (!w.led && !followed)
        return e;
    if (e == FOUND) {
        if (by_frame)
            set_lost_aside(m, r->objects, w.n_objects);
        keep_objects(m, r->objects, w.n_objects);
        keep_chunks(m, w.used);
        if (w.late && !by_frame && !resort && w.same && still_there(&w, top))
            return 0;
        if (w.only_certain)
            return r->depth || !top ? 0 : AGAIN;
        return w.late || !w.near ? AGAIN : 0; /* next time it is among the copies */
    }
    if (w.only_certain && resort >= ROOTWARDS && stack_follow_certain(&w) == FOUND) {
        if (!followed)
            keep_frames(m, r);
        return 0;
    }
    r->moving = r->moving || (!r->held && !first && !w.late);
    if (w.late)
        keep_late(m, r->objects, w.n_objects);
    for (size_t i = 0; i < m->n_tops; i++)
        if (stack_chunk_of(m, m->tops[i].frame) == m->n_chunks)
            keep_late(m, &m->tops[i].frame, 1);
    return e;
}

/* A generator's frame is linked to its caller only while it runs. Caught between two runs, or on
 * the way there by a processor that does something else now, the stack seems to begin with it.
 * From 3.12 on a shim stands below whatever C code runs, so that this is never a stack.
 * Before, one that a thread's C code runs first of all has no caller: look after look says so. */
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

/* The attempts of one look. */
struct look {
    struct stack_reader *r;
    struct stack_memory *m;
    uint64_t thread;
    int attempt, resort;
    int lost;           /* attempts, because the thread ran meanwhile */
    uint64_t candidate; /* the outermost frame, if another one than last time's */
    int seen;           /* of it, in a row */
    bool visiting;      /* the thread's core */
    bool hold;          /* it should be held, and may be */
    bool may_hold;
    int result; /* 0 or -errno */
};

/* The stack of one attempt: whether it is what was looked for. */
static bool is_settled(struct look *l)
{
    struct stack_reader *r = l->r;
    struct stack_memory *m = l->m;
    if (r->cut) /* the outermost frame is another one with each call */
        return true;
    uint64_t root = r->depth ? r->frames[r->depth - 1].address : 0;
    if ((root != m->root && !r->held) || (r->depth && r->suspended)) {
        /* Another beginning than last time's must show several times in a row. */
        l->seen = root == l->candidate ? l->seen + 1 : 1;
        l->candidate = root;
        l->result = -EAGAIN;
        if (l->seen < ROOT_SEEN)
            return false;
        if (is_torn(r, m))
            return true;
    }
    if (!r->depth || !r->suspended) {
        m->root = root;
        m->alone = 0;
    }
    l->result = 0;
    return true;
}

static void make_attempt(struct look *l)
{
    struct stack_reader *r = l->r;
    struct stack_memory *m = l->m;
    bool by_frame = !r->offsets->thread_chunk;
    int limit = stack_is_followed(r, m) ? LAST_RESORT_FOLLOWED : LAST_RESORT;
    r->moving = false;
    l->resort += l->resort || l->attempt - l->lost >= limit;
    int e = try_once(r, m, l->thread, l->attempt == 0, l->resort);
    if (r->held && !r->holder->held(r->holder)) {
        e = e == 0 ? AGAIN : e;
        l->lost++;
    }
    /* At first, what was met on the way may just have been unknown. */
    r->moving = by_frame && (r->moving || (!r->held && e == AGAIN && l->attempt > 1));
    if (r->moving && r->holder)
        m->restless = RESTLESS_LOOKS;
    l->hold = r->moving || r->held;
    l->result = e == AGAIN ? -EAGAIN : e;
    bool nothing = e < 0 && !m->n_chunks && !m->n_objects && !m->window_size; /* is known */
    bool last = e == -ETIME || nothing || (e == 0 && is_settled(l));
    l->attempt = last ? ATTEMPTS : l->attempt + 1;
}

/* As long as they are to be made here: where the thread is held, or at home. */
static void make_attempts(void *context)
{
    struct look *l = context;
    struct stack_holder *holder = l->r->holder;
    while (l->attempt < ATTEMPTS && l->visiting == (l->hold && l->may_hold)) {
        if (l->visiting)
            l->may_hold = l->r->held = l->lost < HOLDS && holder->begin(holder);
        if (l->visiting == l->r->held)
            make_attempt(l);
    }
    l->r->held = false;
}

static int read_stack(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    struct look l = {.r = r, .m = m, .thread = thread, .hold = m->restless, .may_hold = r->holder};
    while (l.attempt < ATTEMPTS) {
        l.visiting = l.hold && l.may_hold;
        if (l.visiting)
            l.may_hold = r->holder->visit(r->holder, make_attempts, &l) && l.may_hold;
        else
            make_attempts(&l);
    }
    return l.result;
}

/* What is seen to call time and again mostly does so unseen. */
static void judge(const struct stack_reader *r, struct stack_memory *m)
{
    if (m->restless)
        m->restless--;
    else if (r->calls && r->holder && !r->offsets->thread_chunk)
        m->unsteady += UNSTEADY_LOOKS;
    else if (m->unsteady)
        m->unsteady--;
    if (m->unsteady >= UNSTEADY_MAX) {
        m->restless = RESTLESS_LOOKS;
        m->unsteady = 0;
    }
}

int stack_read(struct stack_reader *r, struct stack_memory *m, uint64_t thread)
{
    r->doubtful = 0;
    r->held = r->calls = false;
    int e = read_stack(r, m, thread);
    judge(r, m);
    return e;
}
