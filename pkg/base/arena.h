/* Arena: many small allocations that live and die together, e.g. one parsed document. Freed as a
 * whole; aborts when out of memory (callers cap their input). One thread at a time. */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

struct arena;

struct arena *arena_create(size_t first_chunk); /* bytes of the first chunk; 0: a default */
void arena_destroy(struct arena *a);            /* NULL is fine */
DEFINE_CLEANUP(struct arena *, arena_destroy);

void *arena_alloc(struct arena *a, size_t size);           /* zeroed, aligned for any type */
void *arena_array(struct arena *a, size_t n, size_t size); /* zeroed; aborts on overflow */
struct str arena_str(struct arena *a, struct str s);       /* a copy, followed by NUL */
char *arena_cstr(struct arena *a, struct str s);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
size_t arena_size(const struct arena *a); /* bytes taken from the heap */
