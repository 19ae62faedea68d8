#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>

#include "base/alloc.h"

enum { FIRST_CHUNK = 1024, LARGEST_CHUNK = 256 * 1024 };

struct chunk {
    struct chunk *next;
    size_t used, size; /* of bytes */
    alignas(max_align_t) char bytes[];
};

struct arena {
    struct chunk *chunks; /* the first is the one with room */
    size_t next_size;     /* of the next chunk's bytes */
    size_t total;
};

struct arena *arena_create(size_t first_chunk)
{
    struct arena *a = xcalloc(1, sizeof(*a));
    a->next_size = first_chunk ? first_chunk : FIRST_CHUNK;
    a->total = sizeof(*a);
    return a;
}

void arena_destroy(struct arena *a)
{
    if (!a)
        return;
    for (struct chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
}

static struct chunk *add_chunk(struct arena *a, size_t size)
{
    bool oversized = size > a->next_size;
    size_t bytes = oversized ? size : a->next_size;
    if (bytes > SIZE_MAX - sizeof(struct chunk))
        abort();
    struct chunk *c = xcalloc(1, sizeof(*c) + bytes);
    c->size = bytes;
    a->total += sizeof(*c) + bytes;
    if (oversized && a->chunks) {
        /* Behind the current one, whose room stays in use. */
        c->next = a->chunks->next;
        a->chunks->next = c;
        return c;
    }
    c->next = a->chunks;
    a->chunks = c;
    if (a->next_size < LARGEST_CHUNK)
        a->next_size *= 2;
    return c;
}

/* Chunks come zeroed and no byte is given out twice. */
static void *take(struct arena *a, size_t size, size_t align)
{
    struct chunk *c = a->chunks;
    size_t start = c ? (c->used + align - 1) & ~(align - 1) : 0;
    if (!c || start > c->size || size > c->size - start) {
        c = add_chunk(a, size);
        start = 0;
    }
    c->used = start + size;
    return c->bytes + start;
}

void *arena_alloc(struct arena *a, size_t size)
{
    return take(a, size, alignof(max_align_t));
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        abort();
    return arena_alloc(a, bytes);
}

char *arena_cstr(struct arena *a, struct str s)
{
    if (s.len == SIZE_MAX)
        abort();
    char *copy = take(a, s.len + 1, 1);
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

struct str arena_str(struct arena *a, struct str s)
{
    return (struct str){arena_cstr(a, s), s.len};
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        abort();
    char *text = take(a, (size_t)n + 1, 1);
    vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

size_t arena_size(const struct arena *a)
{
    return a->total;
}
