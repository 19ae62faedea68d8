#include "sample/offsets.h"

#include <string.h>

#include "base/alloc.h"

const struct python_offsets *offsets_find(unsigned minor)
{
    for (size_t i = 0; i < offsets_table_len; i++)
        if (offsets_table[i].minor == minor)
            return &offsets_table[i];
    return NULL;
}

/* _Py_DebugOffsets: eight bytes "xdebugpy", then 64-bit words, grouped by structure. 3.14 has more
 * of them: threads_main and two generations in the group of the interpreter, stackpointer and
 * tlbc_index in the frame's, co_tlbc in the code's, and the group of sets between lists and dicts.
 */
enum {
    WORD_VERSION = 1,
    WORD_FREE_THREADED,
    WORD_RUNTIME_SIZE,
    WORD_RUNTIME_FINALIZING,
    WORD_RUNTIME_INTERPRETERS,
    WORD_INTERPRETER, /* size, id, next, threads_head, … */
};

struct words {
    const uint8_t *bytes;
    size_t len, at; /* in words */
    bool wrong;
};

/* No structure of CPython's is larger than the interpreter's, which is about 250 KB. */
#define OFFSET_MAX (8u << 20)

static uint64_t word_at(struct words *w, size_t at)
{
    uint64_t value = 0;
    if ((at + 1) * sizeof(value) > w->len) {
        w->wrong = true;
        return 0;
    }
    memcpy(&value, w->bytes + at * sizeof(value), sizeof(value));
    return value;
}

static uint32_t next(struct words *w)
{
    uint64_t value = word_at(w, w->at++);
    if (value > OFFSET_MAX) {
        w->wrong = true;
        return 0;
    }
    return (uint32_t)value;
}

static void skip(struct words *w, size_t n)
{
    w->at += n;
}

int offsets_from_runtime(const uint8_t *bytes, size_t len, struct python_offsets *ret,
                         struct err *err)
{
    if (len < 8 || memcmp(bytes, "xdebugpy", 8) != 0)
        return err_set(err, ERR_NOT_FOUND, "this Python does not describe itself");
    struct words w = {.bytes = bytes, .len = len, .at = WORD_RUNTIME_INTERPRETERS};
    uint64_t version = word_at(&w, WORD_VERSION);
    unsigned major = (unsigned)(version >> 24), minor = (unsigned)(version >> 16) & 0xff;
    if (major != 3 || minor < 13 || minor > 14)
        return err_set(err, ERR_INVALID, "Python %u.%u is not known to this version", major, minor);
    bool newer = minor >= 14, free_threaded = word_at(&w, WORD_FREE_THREADED) != 0;
    /* From 3.14 on each thread runs its own copy of the instructions. */
    if (free_threaded && newer)
        return err_set(err, ERR_INVALID, "free-threaded builds of Python 3.%u are not supported",
                       minor);

    struct python_offsets o = {.minor = minor, .runtime_interpreters = next(&w)};
    skip(&w, 2); /* size, id */
    o.interpreter_next = next(&w);
    o.interpreter_threads = next(&w);
    skip(&w, newer ? 2 : 1); /* [threads_main], gc */
    o.interpreter_modules = next(&w);
    skip(&w, 2); /* sysdict, builtins */
    o.interpreter_gil = next(&w);
    uint32_t own_gil = next(&w);
    skip(&w, 1); /* enabled */
    uint32_t locked = next(&w), holder = next(&w);
    skip(&w, newer ? 2 : 0); /* generations */
    skip(&w, 2);             /* size, prev */
    o.thread_next = next(&w);
    o.thread_interpreter = next(&w);
    o.thread_frame = next(&w);
    o.thread_pthread = next(&w);
    o.thread_native = next(&w);
    o.thread_chunk = next(&w);
    uint32_t status = next(&w);
    skip(&w, 1); /* size */
    o.frame_previous = next(&w);
    o.frame_code = next(&w);
    o.frame_instruction = next(&w);
    o.frame_head = next(&w); /* locals come behind all else */
    o.frame_owner = next(&w);
    /* Behind the instruction, which 3.13 does not tell. */
    o.frame_stack_top = newer ? 0 : o.frame_instruction + 8;
    o.frame_stack_pointer = newer ? next(&w) : 0;
    skip(&w, newer ? 2 : 1); /* [tlbc_index], size */
    o.code_file = next(&w);
    o.code_name = next(&w);
    o.code_qualname = next(&w);
    o.code_lines = next(&w);
    o.code_first_line = next(&w);
    skip(&w, 3); /* argcount, localsplusnames, localspluskinds */
    o.code_bytes = o.code_head = next(&w);
    skip(&w, newer ? 2 : 1); /* [co_tlbc], size */
    o.object_type = next(&w);
    skip(&w, 4 + 3 + 3 + (newer ? 4 : 0) + 3 + 2 + 3); /* type to int */
    skip(&w, 1);
    o.bytes_length = next(&w);
    o.bytes_bytes = next(&w);
    skip(&w, 1);
    o.text_state = next(&w);
    o.text_length = next(&w);
    o.text_ascii = next(&w);
    o.text_compact = o.text_ascii + 16; /* the UTF-8 form and its length */

    o.gil_locked = locked - own_gil;
    o.gil_holder = holder - own_gil;
    o.thread_status = free_threaded ? status : 0;
    if (w.wrong || locked < own_gil || holder < own_gil || o.gil_locked > 256 ||
        o.gil_holder > 256 || o.frame_head > 512 || o.frame_previous + 8 > o.frame_head ||
        o.frame_code + 8 > o.frame_head || o.frame_instruction + 8 > o.frame_head ||
        o.frame_owner >= o.frame_head || o.frame_stack_top + 4 > o.frame_head ||
        o.frame_stack_pointer + 8 > o.frame_head || o.code_head > 1024 ||
        o.code_file + 8 > o.code_head || o.code_name + 8 > o.code_head ||
        o.code_qualname + 8 > o.code_head || o.code_lines + 8 > o.code_head ||
        o.code_first_line + 4 > o.code_head || o.object_type + 16 > o.code_head ||
        o.text_length < o.object_type + 8 || o.text_state < o.object_type + 8 ||
        o.bytes_length < o.object_type + 8 || o.text_ascii > 256 ||
        o.text_length + 8 > o.text_ascii || o.text_state + 4 > o.text_ascii ||
        o.bytes_bytes > 256 || o.bytes_length + 8 > o.bytes_bytes || !o.thread_frame ||
        !o.thread_chunk || !o.thread_native || !o.frame_owner || !o.interpreter_gil ||
        !o.code_qualname || (free_threaded && !o.thread_status))
        return err_set(err, ERR_INVALID, "Python 3.%u describes itself in a strange way", minor);
    *ret = o;
    return 0;
}
