/* struct str: a view of bytes with a length, not owned and not necessarily ended by NUL. Parsers
 * and comparisons on it never read past its length. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct str {
    const char *ptr; /* NULL only with len 0 */
    size_t len;      /* bytes */
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_NULL     ((struct str){NULL, 0})
/* For printf("%.*s"). */
#define STR_ARG(s) (int)(s).len, (s).len ? (s).ptr : ""

struct str str_of(const char *cstr); /* NULL gives an empty view */
bool str_eq(struct str a, struct str b);
bool str_is(struct str a, const char *cstr);
int str_cmp(struct str a, struct str b); /* by bytes, as memcmp */
bool str_starts_with(struct str s, struct str prefix);
bool str_ends_with(struct str s, struct str suffix);
struct str str_trim(struct str s); /* without ASCII white space at both ends */
struct str str_sub(struct str s, size_t from, size_t len); /* clamped */

/* Index of the byte or text, or -1. */
ssize_t str_find_char(struct str s, char c);
ssize_t str_rfind_char(struct str s, char c);
ssize_t str_find(struct str s, struct str needle);

/* Cuts *rest at the first `separator`: returns what is before it, *rest becomes what is behind it.
 * With no separator left, returns all and empties *rest (ptr NULL). Loop while rest.ptr. */
struct str str_cut(struct str *rest, char separator);

/* A copy that ends with NUL; free() it. Never NULL (aborts when out of memory). */
char *str_dup(struct str s);

/* The whole view as a number in the given range; ERR_INVALID otherwise. No white space, no '+'. */
int str_to_i64(struct str s, int64_t min, int64_t max, int64_t *ret);
int str_to_u64(struct str s, uint64_t max, uint64_t *ret);

/* Bytes of the valid UTF-8 sequence that s begins with (1 … 4), or 0 where it begins with none.
 * ret_rune may be NULL. */
size_t str_utf8_next(struct str s, uint32_t *ret_rune);

/* Whether all of it is valid UTF-8 (no surrogates, no over-long forms). */
bool str_is_utf8(struct str s);

/* C0 and C1 controls and DEL, which drive a terminal, and what Unicode ends a line with. */
bool rune_is_control(uint32_t rune);
/* Characters that show nothing but turn the text around them. */
bool rune_is_bidi(uint32_t rune);
/* Text from outside as it may be shown on a terminal or in a status: both of the above, and bytes
 * that are no UTF-8, are escaped ("\n", "\x1b", "\u202e"). Copies at most size - 1 bytes, cut
 * between characters, and a NUL; returns how many without it. */
size_t str_show(struct str s, char *to, size_t size);

uint64_t str_hash(struct str s); /* FNV-1a, 64 bits; not for untrusted keys, see base/map.h */
