/* Memory of an interpreter of any version, made up and changed by a few bytes: what stands there at
 * first, what 3.13 and later say about it, and what changes while it is read, between any two
 * pieces. One at a time.
 *
 *   byte 0    version: 3.(8 + n % 7)
 *        1    1 free-threaded; 2 one code object a frame, not two for all; 4 only the lock's
 * holder; 8 all frames in the newest piece of the data stack; 16 a task; 32 else a thread's name 2
 * further threads, n % 4 3 frames of the first thread: n % 64 below 248, else (n - 247) * 128 4
 * pieces of its data stack: 1 + n % 64 5    each n-th frame is an object, as generators' are; 0:
 * none 6    statements about the layout that are changed (3.13 and 3.14) then for each of those:
 * which one, a limit, what is taken from it, a shift then changes: operation << 5 | when, a, b, c
 * (see changing.c) */
#pragma once

#include "../unit/sample/fake.h"

#define CHANGING_HEADER     7
#define CHANGING_FRAMES_MAX 1056
#define CHANGING_CODES_MAX  1056
#define CHANGING_CHUNKS_MAX 65
#define CHANGING_THREADS    4
#define CHANGING_OBJECTS    128

struct changing {
    struct memory_reader reader;
    struct fake fake;
    struct python_offsets offsets;
    unsigned minor;
    bool gil, tasks, names;
    uint64_t frames[CHANGING_FRAMES_MAX], codes[CHANGING_CODES_MAX], chunks[CHANGING_CHUNKS_MAX];
    uint64_t objects[CHANGING_OBJECTS]; /* one of each kind and more */
    struct fake_thread threads[CHANGING_THREADS];
    size_t n_frames, n_codes, n_chunks, n_objects, n_threads;
    uint64_t objects_from;   /* frames that lie here or behind are generators' */
    uint64_t hole, hole_len; /* cannot be read */
    const uint8_t *script;
    size_t script_len;
    unsigned look, waited; /* looks so far; pieces read since the last change */
    unsigned since;        /* look of the last change */
};

/* 0, or -1 when the layout is refused. The bytes stay the caller's. */
int changing_init(struct changing *m, const uint8_t *bytes, size_t len);
void changing_next_look(struct changing *m);
