#include "sample/threads.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/clock.h"

#define REFRESH_NS   INT64_C(1000000000) /* the lists are walked at least this often */
#define MISSING_NS   INT64_C(100000000)  /* and while the kernel does not know all, this often */
#define SOUGHT_MAX   5    /* times that one is looked for as soon as possible: it may just begin */
#define KERNEL_SHARE 25   /* one part of time in so many may go into that */
#define PTHREAD_HEAD 1024 /* bytes of struct pthread that are searched for the thread's ID */
#define THREAD_MAX   4096 /* bytes of a thread state that are looked at */
#define AHEAD_LEAST  8    /* threads that are known, for their states to be read ahead */

static int read64(struct threads *ts, uint64_t address, uint64_t *ret)
{
    return memory_read(ts->reader, address, ret, sizeof(*ret));
}

/* musl, glibc. In this order, because with glibc the first is padding or a random guard, whereas
 * the second lies behind musl's structure, in memory of any content. */
#ifdef __aarch64__
static const uint32_t usual[] = {32, 208};
#else
static const uint32_t usual[] = {48, 720};
#endif

/* Before 3.11 the interpreter keeps only the address of struct pthread, whose layout is the C
 * library's own. The ID is the first number in it that is the ID of a thread, in all threads, and
 * not of the same one twice. */
static uint32_t find_pthread_id(struct threads *ts)
{
    uint8_t bytes[PTHREAD_HEAD];
    uint32_t candidates[PTHREAD_HEAD / 4 + ARRAY_SIZE(usual)];
    int32_t last[ARRAY_SIZE(candidates)] = {0};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
        candidates[n++] = usual[i];
    for (uint32_t at = 16; at < PTHREAD_HEAD; at += 4)
        candidates[n++] = at;
    for (size_t i = 0; i < ts->n && n; i++) {
        /* A thread has a state in each interpreter that it has been in. */
        if (i && ts->at[i]->pthread == ts->at[i - 1]->pthread)
            continue;
        /* The main thread's lies near the end of a mapping with some C libraries. */
        size_t len = sizeof(bytes);
        while (len >= 64 && memory_read(ts->reader, ts->at[i]->pthread, bytes, len) < 0)
            len /= 2;
        size_t left = 0;
        for (size_t k = 0; k < n; k++) {
            int32_t id = 0;
            if (candidates[k] + 4 <= len)
                memcpy(&id, bytes + candidates[k], sizeof(id));
            if (id <= 0 || id == last[k] || !kernel_find(ts->kernel, id))
                continue;
            candidates[left] = candidates[k];
            last[left++] = id;
        }
        n = left;
    }
    return n && ts->n ? candidates[0] : 0;
}

/* Threads that live for a moment are worth it for as long as there are few. What was not used of
 * the last moments may be used now. False: it must wait. */
static bool refresh_kernel(struct threads *ts)
{
    int64_t now = clock_read_ns(CLOCK_MONOTONIC);
    if (now < ts->kernel_next_ns)
        return false;
    int64_t begun = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
    for (size_t i = 0; i < ts->n; i++)
        ts->at[i]->kernel = NULL;
    kernel_refresh(ts->kernel, NULL);
    int64_t wait = (clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - begun) * KERNEL_SHARE;
    if (wait >= MISSING_NS)
        ts->kernel_next_ns = clock_read_ns(CLOCK_MONOTONIC) + MISSING_NS;
    else if (ts->kernel_next_ns < now - MISSING_NS)
        ts->kernel_next_ns = now - MISSING_NS + wait;
    else
        ts->kernel_next_ns += wait;
    return true;
}

static struct kernel_thread *match(struct threads *ts, struct thread *thread)
{
    struct kernel_thread *k =
        thread->native ? kernel_find(ts->kernel, (pid_t)thread->native) : NULL;
    if (k || !thread->pthread)
        return k;
    /* A child of fork() may still hold its parent's native ID; struct pthread is always right. */
    if (!ts->pthread_id && !ts->pthread_tried) {
        ts->pthread_tried = true;
        ts->pthread_id = find_pthread_id(ts);
    }
    int32_t id = 0;
    if (!ts->pthread_id || memory_read(ts->reader, thread->pthread + ts->pthread_id, &id, 4) < 0)
        return NULL;
    return id > 0 ? kernel_find(ts->kernel, id) : NULL;
}

/* Up to 3.11 a state names the thread that made it until the new one has begun, which is then
 * another's in the same interpreter. False: this is such a state. */
static bool claim(struct thread *thread)
{
    void **owner = kernel_thread_owner(thread->kernel);
    struct thread *other = *owner;
    if (other && other != thread && other->interpreter == thread->interpreter) {
        struct thread *newer = other->place < thread->place ? other : thread;
        newer->kernel = NULL;
        *owner = newer == other ? thread : other;
        return false;
    }
    *owner = thread;
    return true;
}

/* Whether all have a thread of their own. */
static bool claim_all(struct threads *ts)
{
    bool all = true;
    for (size_t i = 0; i < ts->n; i++)
        if (ts->at[i]->kernel)
            *kernel_thread_owner(ts->at[i]->kernel) = NULL;
    for (size_t i = 0; i < ts->n; i++)
        all = (!ts->at[i]->kernel || claim(ts->at[i])) && all;
    return all;
}

static bool is_wanted(const struct thread *thread, int64_t now)
{
    return !thread->kernel &&
           (thread->sought < SOUGHT_MAX || now - thread->sought_ns >= MISSING_NS);
}

/* With what is known of the kernel's threads, or, if `seek` and need be, after looking for them. */
static void match_threads(struct threads *ts, bool seek)
{
    int64_t now = clock_read_ns(CLOCK_MONOTONIC);
    bool missing = false, wanted = false, sought = false;
    if (!ts->kernel)
        return;
    for (int again = 0; again < 2; again++) {
        missing = wanted = ts->pthread_tried = false;
        for (size_t i = 0; i < ts->n; i++) {
            struct thread *thread = ts->at[i];
            if (!thread->kernel)
                thread->kernel = match(ts, thread);
            if (sought && is_wanted(thread, now)) {
                thread->sought++;
                thread->sought_ns = now;
            }
            missing = missing || !thread->kernel;
            wanted = wanted || is_wanted(thread, now);
        }
        if (!wanted || again)
            break;
        sought = seek && refresh_kernel(ts);
        if (!sought)
            break;
    }
    ts->wanted = wanted;
    if (!claim_all(ts) || missing) {
        int64_t next = wanted ? ts->kernel_next_ns : now + MISSING_NS;
        ts->next_ns = next < ts->next_ns ? next : ts->next_ns;
    }
}

static void free_thread(struct threads *ts, struct thread *thread)
{
    ts->objects -= thread->memory.cap_objects;
    if (ts->shared)
        ts->shared->threads--;
    stack_memory_finish(&thread->memory);
    free(thread);
}

static struct thread *thread_at(struct threads *ts, uint64_t address, size_t *hint)
{
    for (size_t k = 0; k < ts->n; k++) {
        size_t i = (*hint + k) % ts->n;
        if (ts->at[i]->address == address) {
            *hint = i + 1;
            return ts->at[i];
        }
    }
    return NULL;
}

static size_t threads_share(const struct sample_shared *s)
{
    return SAMPLE_ALL_THREADS_MAX / (s->parts ? s->parts : 1);
}

static size_t read_ahead_some(struct threads *ts, size_t interpreter, size_t from, size_t len,
                              uint8_t *to)
{
    _cleanup_(freep) struct memory_batch *b = xcalloc(1, sizeof(*b));
    size_t i = from;
    for (; i < ts->n && b->n < MEMORY_PIECES_MAX; i++)
        if (ts->at[i]->interpreter == interpreter)
            memory_batch_add(b, ts->at[i]->address, to + i * len, len);
    bool read = b->n && memory_batch_read(ts->reader, b) == 0;
    for (size_t k = from; k < i; k++)
        ts->at[k]->ahead = read && ts->at[k]->interpreter == interpreter ? to + k * len : NULL;
    return i;
}

/* Mostly the list is what it was, but for its first ones. To read a thousand one by one takes
 * longer than a look. NULL: it is not worth it. */
static uint8_t *read_ahead(struct threads *ts, size_t interpreter, size_t len)
{
    if (ts->n < AHEAD_LEAST)
        return NULL;
    uint8_t *states = xcalloc(ts->n, len);
    for (size_t i = 0; i < ts->n;)
        i = read_ahead_some(ts, interpreter, i, len, states);
    return states;
}

static int find_threads(struct threads *ts, size_t interpreter, uint64_t head)
{
    const struct python_offsets *o = ts->offsets;
    uint8_t single[THREAD_MAX];
    size_t len = o->thread_pthread > o->thread_native ? o->thread_pthread : o->thread_native;
    size_t hint = 0, steps = 0;
    len = (len > o->thread_interpreter ? len : o->thread_interpreter) + 8;
    if (len > sizeof(single) || o->thread_next + 8 > len)
        return -EFAULT;
    _cleanup_(freep) uint8_t *states = read_ahead(ts, interpreter, len);
    for (uint64_t at = head; at;) {
        uint64_t owner, pthread, native = 0, next;
        if (++steps > SAMPLE_THREADS_MAX)
            break;
        struct thread *thread = thread_at(ts, at, &hint);
        const uint8_t *bytes = thread && states ? thread->ahead : NULL;
        int e = bytes ? 0 : memory_read(ts->reader, at, single, len);
        if (e < 0)
            return e;
        bytes = bytes ? bytes : single;
        memcpy(&owner, bytes + o->thread_interpreter, 8);
        memcpy(&next, bytes + o->thread_next, 8);
        memcpy(&pthread, bytes + o->thread_pthread, 8);
        if (o->thread_native)
            memcpy(&native, bytes + o->thread_native, 8);
        if (owner != ts->interpreters[interpreter].address)
            return -EFAULT;
        if (thread && thread->found)
            return -ELOOP;
        if (!thread) {
            if (ts->n >= SAMPLE_THREADS_MAX ||
                (ts->shared && ts->shared->threads >= threads_share(ts->shared)))
                break;
            if (ts->n == ts->cap) {
                ts->cap = ts->cap ? ts->cap * 2 : 16;
                ts->at = xrealloc(ts->at, ts->cap, sizeof(struct thread *));
            }
            thread = xcalloc(1, sizeof(*thread));
            ts->at[ts->n++] = thread;
            if (ts->shared)
                ts->shared->threads++;
        }
        if (thread->native != native || thread->pthread != pthread) {
            thread->kernel = NULL;
            thread->sought = 0;
            thread->came_first = false;
        }
        thread->address = at;
        thread->pthread = pthread;
        thread->native = native;
        thread->interpreter = interpreter;
        thread->place = steps;
        thread->found = true;
        thread->ahead = NULL; /* ends with this walk */
        at = next;
    }
    return 0;
}

static int compare_states(const void *a, const void *b)
{
    const struct thread *const *x = a, *const *y = b;
    uintptr_t k = (uintptr_t)(*x)->kernel, l = (uintptr_t)(*y)->kernel;
    if (k != l)
        return k < l ? -1 : 1;
    return ((*x)->interpreter > (*y)->interpreter) - ((*x)->interpreter < (*y)->interpreter);
}

size_t threads_states(const struct threads *ts, size_t i)
{
    size_t n = 1;
    if (ts->n_interpreters > 1 && ts->at[i]->kernel)
        while (i + n < ts->n && ts->at[i + n]->kernel == ts->at[i]->kernel)
            n++;
    return n;
}

static void sort_states(struct threads *ts)
{
    if (ts->n_interpreters > 1 && ts->n)
        qsort(ts->at, ts->n, sizeof(struct thread *), compare_states);
}

int threads_refresh(struct threads *ts)
{
    const struct python_offsets *o = ts->offsets;
    uint64_t at;
    int e = read64(ts, ts->runtime + o->runtime_interpreters, &at);
    if (e < 0)
        return e;
    ts->interpreters_head = at;
    ts->n_interpreters = 0;
    for (size_t i = 0; i < ts->n; i++)
        ts->at[i]->found = false;
    while (e == 0 && at && ts->n_interpreters < SAMPLE_INTERPRETERS_MAX) {
        struct interpreter *ip = &ts->interpreters[ts->n_interpreters];
        uint64_t head = 0;
        *ip = (struct interpreter){.address = at,
                                   .gil = o->runtime_gil ? ts->runtime + o->runtime_gil : 0};
        e = read64(ts, at + o->interpreter_threads, &head);
        if (e == 0 && o->interpreter_gil)
            e = read64(ts, at + o->interpreter_gil, &ip->gil);
        ip->head = head;
        if (e == 0)
            e = find_threads(ts, ts->n_interpreters, head);
        ts->n_interpreters++;
        if (e == 0)
            e = read64(ts, at + o->interpreter_next, &at);
        if (e == 0 && at == ts->interpreters_head)
            e = -ELOOP;
    }
    size_t left = 0;
    for (size_t i = 0; i < ts->n; i++) {
        /* After a torn walk all stay: the next one sorts it out. */
        if (ts->at[i]->found || e < 0)
            ts->at[left++] = ts->at[i];
        else
            free_thread(ts, ts->at[i]);
    }
    ts->n = left;
    ts->next_ns = clock_read_ns(CLOCK_MONOTONIC) + REFRESH_NS;
    match_threads(ts, false);
    sort_states(ts);
    return e;
}

bool threads_holder_first(struct threads *ts)
{
    bool first = false;
    for (size_t i = 0; i < ts->n; i++) {
        struct thread *thread = ts->at[i];
        const struct interpreter *ip = &ts->interpreters[thread->interpreter];
        if (thread->kernel || thread->came_first || ip->locked != 1 ||
            ip->holder != thread->address)
            continue;
        first = thread->came_first = true;
    }
    return first;
}

void threads_seek(struct threads *ts)
{
    if (!ts->wanted)
        return;
    match_threads(ts, true);
    sort_states(ts);
}

bool threads_stale(const struct threads *ts)
{
    return clock_read_ns(CLOCK_MONOTONIC) >= ts->next_ns;
}

bool threads_renew(struct threads *ts, struct thread *thread)
{
    const struct python_offsets *o = ts->offsets;
    uint64_t native = 0, pthread;
    /* States of one thread stand side by side, which must stay so during a look. */
    if (ts->n_interpreters != 1 ||
        memory_read(ts->reader, thread->address + o->thread_pthread, &pthread, 8) < 0 ||
        (o->thread_native &&
         memory_read(ts->reader, thread->address + o->thread_native, &native, 8) < 0) ||
        (native && native == thread->native))
        return false;
    thread->native = native;
    thread->pthread = pthread;
    thread->kernel = NULL;
    thread->sought = 0;
    thread->came_first = false;
    match_threads(ts, true);
    return thread->kernel;
}

void threads_expire(struct threads *ts)
{
    ts->next_ns = 0;
}

void threads_finish(struct threads *ts)
{
    for (size_t i = 0; i < ts->n; i++)
        free_thread(ts, ts->at[i]);
    free(ts->at);
    ts->at = NULL;
    ts->n = ts->cap = 0;
}
