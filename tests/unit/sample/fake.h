/* An interpreter made up in memory: what CPython would hold there, as far as the sampler looks.
 * Simulations change it between looks; fuzzers do within a look; a hostile program holds one that
 * lies. The bytes are the caller's; addresses are those that the target would see. */
#pragma once

#include "sample/memory.h"
#include "sample/offsets.h"

struct fake {
    struct memory_reader reader; /* reads it, and nothing else */
    const struct python_offsets *offsets;
    uint8_t *bytes;
    uint64_t base; /* address of the first byte */
    size_t len, used;
    uint64_t runtime, interpreter, code_type;
};

struct fake_thread {
    uint64_t address;
    uint64_t innermost; /* where the pointer to the innermost frame lies */
    uint64_t frames;    /* where frames go */
    size_t room;        /* bytes there */
};

/* One interpreter of 3.8 to 3.12, without threads. Aborts when `len` bytes do not suffice for what
 * follows. */
void fake_init(struct fake *f, unsigned minor, uint8_t *bytes, size_t len, uint64_t base);
/* With a layout of one's own. */
void fake_init_as(struct fake *f, const struct python_offsets *offsets, uint8_t *bytes, size_t len,
                  uint64_t base);
uint64_t fake_alloc(struct fake *f, size_t size);
void fake_put(struct fake *f, uint64_t address, const void *bytes, size_t len);
void fake_put64(struct fake *f, uint64_t address, uint64_t value);

uint64_t fake_text(struct fake *f, const char *text);
/* A function whose n-th instruction is on line first_line + n, for 16 lines. */
uint64_t fake_code(struct fake *f, const char *function, const char *file, int first_line);
uint64_t fake_clone(struct fake *f, uint64_t code);           /* at another address */
void fake_name(struct fake *f, uint64_t code, uint64_t text); /* gives it another name */
void fake_thread(struct fake *f, struct fake_thread *ret, uint64_t native, size_t frames_max);
/* Links the threads, newest first. */
void fake_threads(struct fake *f, const struct fake_thread *const *threads, size_t n);
/* codes: outermost first. Each stands on its line first_line + line. */
void fake_stack(struct fake *f, const struct fake_thread *t, const uint64_t *codes, size_t n,
                unsigned line);
