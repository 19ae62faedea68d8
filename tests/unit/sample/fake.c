#include "fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINES      16
#define FRAME_SIZE 128
#define CHUNK_HEAD 24 /* previous, size, top */

static ssize_t fake_read(struct memory_reader *self, const struct iovec *local,
                         const struct iovec *remote, size_t n)
{
    const struct fake *f = (const struct fake *)(const void *)self;
    ssize_t got = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)(uintptr_t)remote[i].iov_base - f->base;
        if (at > f->used || remote[i].iov_len > f->used - at)
            return got ? got : -EFAULT;
        memcpy(local[i].iov_base, f->bytes + at, remote[i].iov_len);
        got += (ssize_t)remote[i].iov_len;
    }
    return got;
}

uint64_t fake_alloc(struct fake *f, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (size > f->len - f->used)
        abort();
    uint64_t address = f->base + f->used;
    memset(f->bytes + f->used, 0, size);
    f->used += size;
    return address;
}

void fake_put(struct fake *f, uint64_t address, const void *bytes, size_t len)
{
    if (address - f->base > f->len || len > f->len - (address - f->base))
        abort();
    memcpy(f->bytes + (address - f->base), bytes, len);
}

void fake_put64(struct fake *f, uint64_t address, uint64_t value)
{
    fake_put(f, address, &value, sizeof(value));
}

void fake_init(struct fake *f, unsigned minor, uint8_t *bytes, size_t len, uint64_t base)
{
    fake_init_as(f, offsets_find(minor), bytes, len, base);
}

void fake_init_as(struct fake *f, const struct python_offsets *offsets, uint8_t *bytes, size_t len,
                  uint64_t base)
{
    *f = (struct fake){.reader = {.read = fake_read}, .bytes = bytes, .len = len, .base = base};
    f->offsets = offsets;
    if (!f->offsets)
        abort();
    f->runtime = fake_alloc(f, 8192);
    f->interpreter = fake_alloc(f, 8192);
    f->code_type = fake_alloc(f, 512);
    fake_put64(f, f->runtime + f->offsets->runtime_interpreters, f->interpreter);
    if (f->offsets->interpreter_gil)
        fake_put64(f, f->interpreter + f->offsets->interpreter_gil, fake_alloc(f, 512));
}

uint64_t fake_text(struct fake *f, const char *text)
{
    const struct python_offsets *o = f->offsets;
    uint32_t state = 1u << 2 | 32 | 64; /* one byte a character, compact, ASCII */
    uint64_t at = fake_alloc(f, o->text_ascii + strlen(text) + 1);
    fake_put64(f, at + o->text_length, strlen(text));
    fake_put(f, at + o->text_state, &state, sizeof(state));
    fake_put(f, at + o->text_ascii, text, strlen(text));
    return at;
}

static uint64_t line_table(struct fake *f)
{
    const struct python_offsets *o = f->offsets;
    uint8_t table[LINES * 3];
    size_t len = 0;
    for (int i = 0; i < LINES; i++) {
        if (o->minor >= 11) {
            table[len++] = (uint8_t)(128 | (10 + (i > 0)) << 3); /* one unit, this line or next */
            table[len++] = 0;
            table[len++] = 0;
        } else {
            table[len++] = o->minor == 10 ? 2 : i ? 2 : 0; /* bytes of code */
            table[len++] = i > 0;
        }
    }
    uint64_t at = fake_alloc(f, o->bytes_bytes + len);
    fake_put64(f, at + o->bytes_length, len);
    fake_put(f, at + o->bytes_bytes, table, len);
    return at;
}

void fake_name(struct fake *f, uint64_t code, uint64_t text)
{
    const struct python_offsets *o = f->offsets;
    fake_put64(f, code + o->code_name, text);
    if (o->code_qualname)
        fake_put64(f, code + o->code_qualname, text);
}

uint64_t fake_clone(struct fake *f, uint64_t code)
{
    size_t size = f->offsets->code_head + (size_t)LINES * 2;
    uint64_t at = fake_alloc(f, size);
    fake_put(f, at, f->bytes + (code - f->base), size);
    return at;
}

uint64_t fake_code(struct fake *f, const char *function, const char *file, int first_line)
{
    const struct python_offsets *o = f->offsets;
    uint64_t at = fake_alloc(f, o->code_head + (size_t)LINES * 2);
    int32_t line = first_line;
    fake_put64(f, at + o->object_type, f->code_type);
    if (o->code_bytes)
        fake_put64(f, at + o->object_type + 8, LINES);
    fake_put(f, at + o->code_first_line, &line, sizeof(line));
    fake_name(f, at, fake_text(f, function));
    fake_put64(f, at + o->code_file, fake_text(f, file));
    fake_put64(f, at + o->code_lines, line_table(f));
    return at;
}

void fake_thread(struct fake *f, struct fake_thread *ret, uint64_t native, size_t frames_max)
{
    const struct python_offsets *o = f->offsets;
    struct fake_thread t = {.address = fake_alloc(f, 1024), .room = frames_max * FRAME_SIZE};
    fake_put64(f, t.address + o->thread_interpreter, f->interpreter);
    if (o->thread_native)
        fake_put64(f, t.address + o->thread_native, native);
    t.innermost = t.address + o->thread_frame;
    if (o->thread_cframe) {
        uint64_t cframe = fake_alloc(f, 64);
        fake_put64(f, t.address + o->thread_cframe, cframe);
        t.innermost = cframe + o->cframe_frame;
    }
    t.frames = fake_alloc(f, t.room + CHUNK_HEAD);
    if (o->thread_chunk) {
        fake_put64(f, t.address + o->thread_chunk, t.frames);
        fake_put64(f, t.frames + 8, t.room + CHUNK_HEAD);
        t.frames += CHUNK_HEAD;
    }
    *ret = t;
}

void fake_threads(struct fake *f, const struct fake_thread *const *threads, size_t n)
{
    const struct python_offsets *o = f->offsets;
    uint64_t next = 0;
    for (size_t i = n; i-- > 0;) {
        fake_put64(f, threads[i]->address + o->thread_next, next);
        next = threads[i]->address;
    }
    fake_put64(f, f->interpreter + o->interpreter_threads, next);
}

void fake_stack(struct fake *f, const struct fake_thread *t, const uint64_t *codes, size_t n,
                unsigned line)
{
    const struct python_offsets *o = f->offsets;
    uint64_t previous = 0;
    if (n > t->room / FRAME_SIZE)
        abort();
    for (size_t i = 0; i < n; i++) {
        uint64_t at = t->frames + i * FRAME_SIZE;
        int32_t index = (int32_t)(o->minor >= 10 ? line : line * 2);
        fake_put64(f, at + o->frame_previous, previous);
        fake_put64(f, at + o->frame_code, codes[i]);
        if (o->code_bytes)
            fake_put64(f, at + o->frame_instruction, codes[i] + o->code_bytes + line * 2u);
        else
            fake_put(f, at + o->frame_instruction, &index, sizeof(index));
        int32_t top = i + 1 < n ? 1 : -1;
        uint8_t state = o->minor < 10;
        if (o->frame_stack_top)
            fake_put(f, at + o->frame_stack_top, &top, sizeof(top));
        if (o->frame_state)
            fake_put(f, at + o->frame_state, &state, sizeof(state));
        previous = at;
    }
    fake_put64(f, t->innermost, previous);
}
