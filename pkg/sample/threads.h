/* The interpreters of a process and their threads, as the lists in its memory say, each thread with
 * what the kernel knows of it. One thread at a time. */
#pragma once

#include "sample/sample_internal.h"

struct thread {
    uint64_t address, pthread;
    uint64_t native; /* as the thread sees it; 0: not known yet */
    uint32_t status; /* as just read, of free-threaded builds */
    size_t interpreter;
    size_t place; /* in its interpreter's list: the newest is the first */
    struct kernel_thread *kernel;
    unsigned sought; /* how often in vain since it is who it is */
    bool came_first; /* it was read before it was looked for */
    int64_t sought_ns;
    struct stack_memory memory;
    bool found;
    const uint8_t *ahead; /* its state, read before the walk comes to it; NULL: not read */
};

struct interpreter {
    uint64_t address, gil;
    uint64_t head, holder; /* as just read */
    int32_t locked;        /* behind holder, as in the lock itself */
};

struct threads {
    /* The caller's; kernel: NULL for an image of memory; shared: may be NULL. */
    struct memory_reader *reader;
    const struct python_offsets *offsets;
    uint64_t runtime; /* _PyRuntime */
    struct kernel *kernel;
    struct sample_shared *shared;

    struct interpreter interpreters[SAMPLE_INTERPRETERS_MAX];
    size_t n_interpreters;
    uint64_t interpreters_head;
    struct thread **at; /* with several interpreters: those of one kernel_thread side by side */
    size_t n, cap;
    uint32_t pthread_id;             /* where the ID lies in struct pthread; 0: not known */
    bool wanted;                     /* some, that the kernel is not yet known to have */
    bool pthread_tried;              /* to find out, in this round of matching */
    size_t objects;                  /* addresses that the memories of all threads have room for */
    int64_t next_ns, kernel_next_ns; /* of CLOCK_MONOTONIC: of the walk, and of asking the kernel */
};

/* Walks all lists; what the kernel knows is as of before. 0, or -errno: what was found until then
 * stays, and so do the threads that were known before. */
int threads_refresh(struct threads *ts);
/* After a walk, and with the locks as just read: whether to read stacks before threads_seek(). Who
 * has a lock runs, whatever the kernel knows of it, and might have ended by then. Once for each. */
bool threads_holder_first(struct threads *ts);
/* After a walk: looks for those that the kernel is not known to have, if it is time to. */
void threads_seek(struct threads *ts);
/* Whether the last walk is so long ago that there should be another. */
bool threads_stale(const struct threads *ts);
/* When the kernel no longer knows it: whether another one has its place in memory, and which.
 * False: none that is known. */
bool threads_renew(struct threads *ts, struct thread *thread);
/* The next look begins with a walk. */
void threads_expire(struct threads *ts);
/* How many of those from at[i] on are states of the same thread, in interpreters from the newest to
 * the oldest; 1 at least. */
size_t threads_states(const struct threads *ts, size_t i);
void threads_finish(struct threads *ts);
