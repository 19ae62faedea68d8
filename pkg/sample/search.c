/* _PyRuntime where nothing names it: files without symbols of CPython before 3.10, which has no
 * section of its own for it yet. In it lie side by side the newest interpreter, the main one and
 * the number of the next one; the interpreters lead to threads, and those back. */
#include <errno.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "sample/sample_internal.h"

#define SEARCH_MAX   (16u << 20) /* bytes */
#define SEARCH_CHUNK (64u << 10)
#define SEARCH_MS    1000
#define TRIES_MAX    10000
#define NUMBER_MAX   1000000 /* of interpreters that there ever were */

struct heads {
    uint64_t newest, main;
    int64_t next_number;
};

static bool plausible(const struct heads *h)
{
    return h->newest && h->main && h->newest % 8 == 0 && h->main % 8 == 0 && h->newest >> 47 == 0 &&
           h->main >> 47 == 0 && h->next_number > 0 && h->next_number <= NUMBER_MAX;
}

static bool proven(struct memory_reader *reader, const struct python_offsets *o,
                   const struct heads *h)
{
    uint64_t thread, owner, at = h->newest;
    for (int i = 0; i < SAMPLE_INTERPRETERS_MAX && at; i++) {
        if (memory_read(reader, at + o->interpreter_threads, &thread, sizeof(thread)) < 0)
            return false;
        if (thread &&
            (memory_read(reader, thread + o->thread_interpreter, &owner, sizeof(owner)) < 0 ||
             owner != at))
            return false;
        if (thread && at == h->main)
            return true;
        if (memory_read(reader, at + o->interpreter_next, &at, sizeof(at)) < 0)
            return false;
    }
    return false;
}

static uint64_t search_chunk(struct memory_reader *reader, const struct python_offsets *o,
                             const uint8_t *bytes, size_t len, uint64_t address, unsigned *tries)
{
    struct heads h;
    for (size_t i = 0; i + sizeof(h) <= len && *tries < TRIES_MAX; i += sizeof(uint64_t)) {
        memcpy(&h, bytes + i, sizeof(h));
        if (!plausible(&h))
            continue;
        ++*tries;
        if (proven(reader, o, &h))
            return address + i - o->runtime_interpreters;
    }
    return 0;
}

uint64_t runtime_search(struct memory_reader *reader, const struct python_offsets *o,
                        uint64_t start, uint64_t len)
{
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, SEARCH_CHUNK);
    int64_t deadline = reader->deadline_ms;
    uint64_t found = 0;
    unsigned tries = 0;
    reader->deadline_ms = memory_now_ms() + SEARCH_MS;
    if (len > SEARCH_MAX)
        len = SEARCH_MAX;
    /* Chunks overlap by what is looked at together. */
    for (uint64_t at = 0; at < len && !found; at += SEARCH_CHUNK - sizeof(struct heads)) {
        size_t n = len - at < SEARCH_CHUNK ? (size_t)(len - at) : SEARCH_CHUNK;
        if (memory_read(reader, start + at, bytes, n) == 0)
            found = search_chunk(reader, o, bytes, n, start + at, &tries);
    }
    reader->deadline_ms = deadline;
    return found;
}
