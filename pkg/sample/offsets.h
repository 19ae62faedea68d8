/* Where the fields of CPython's structures lie, for one minor version. 3.8 to 3.12 come from a
 * table that hack/offsets makes from the headers; 3.13 and later tell by themselves at the
 * beginning of _PyRuntime (_Py_DebugOffsets). Plain values; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Bytes from the beginning of the structure named first. 0 means "not in this version" for those
 * marked with it; none of them is first in its structure. */
struct python_offsets {
    uint32_t minor;
    uint32_t runtime_interpreters; /* first interpreter */
    uint32_t runtime_gil;          /* the lock itself; 0: interpreter_gil */
    uint32_t interpreter_next;
    uint32_t interpreter_threads; /* newest thread */
    uint32_t interpreter_gil;     /* pointer to its lock; 0: runtime_gil */
    uint32_t interpreter_modules; /* sys.modules; 0: not told */
    uint32_t gil_holder;          /* last thread that had it */
    uint32_t gil_locked;
    uint32_t thread_next;
    uint32_t thread_interpreter;
    uint32_t thread_frame;  /* innermost frame; 0: thread_cframe */
    uint32_t thread_cframe; /* pointer to a pointer to the innermost frame; 0: thread_frame */
    uint32_t cframe_frame;
    uint32_t cframe_previous; /* the one below it on the C stack */
    uint32_t thread_pthread;
    uint32_t thread_native; /* the kernel's ID; 0: none */
    uint32_t thread_status; /* of free-threaded builds, whose lock tells nothing; 0: none */
    uint32_t thread_chunk;  /* data stack; 0: frames are objects */
    uint32_t frame_previous;
    uint32_t frame_code;
    uint32_t frame_instruction; /* pointer; with frames that are objects: index (int) */
    uint32_t frame_owner;       /* one byte; 0: none */
    uint32_t frame_generator;   /* pointer to the generator whose frame it is; 0: frame_owner */
    uint32_t frame_state; /* one byte: its code runs, or calls, if 1, from 3.10 on 0; 0: not told */
    uint32_t frame_stack_top; /* int; -1 while the frame's own code, or C's, runs; 0: not told */
    uint32_t frame_stack_pointer; /* pointer; none while the frame's own code runs; 0: not told */
    uint32_t frame_entry;         /* one byte: called by C; 0: a frame in between tells */
    uint32_t frame_head;          /* bytes that hold all of the above */
    uint32_t code_file;
    uint32_t code_name;
    uint32_t code_qualname; /* 0: none */
    uint32_t code_lines;
    uint32_t code_first_line;
    uint32_t code_bytes; /* first instruction; 0: a separate object */
    uint32_t code_head;  /* bytes that hold all of the above but the instructions */
    uint32_t object_type;
    uint32_t text_length, text_state;
    uint32_t text_ascii, text_compact; /* where the characters begin */
    uint32_t bytes_length, bytes_bytes;
};

/* 3.8 to 3.12; NULL otherwise. */
const struct python_offsets *offsets_find(unsigned minor);

#define OFFSETS_DEBUG_MAX 1024 /* bytes of _Py_DebugOffsets that are looked at */
/* What _PyRuntime says about itself. ERR_NOT_FOUND: nothing (before 3.13). ERR_INVALID: a build
 * that is not supported (free-threaded 3.14, unknown version) or values out of all proportion. */
int offsets_from_runtime(const uint8_t *bytes, size_t len, struct python_offsets *ret,
                         struct err *err);

extern const struct python_offsets offsets_table[];
extern const size_t offsets_table_len;
