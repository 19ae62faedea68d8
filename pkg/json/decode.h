/* Decode tables: a structure is described by rows of (name, type, offset, presence), and a JSON
 * tree is checked and stored by them. Errors name the path: "spec.sampling.rate: 2000 is more than
 * 1000". Texts point into the tree's arena; arrays are allocated there. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json/json.h"

enum json_kind {
    JSON_F_STR,        /* struct str */
    JSON_F_BOOL,       /* bool */
    JSON_F_INT,        /* int64_t, within min … max; max 0: no upper bound, both 0: any */
    JSON_F_DOUBLE,     /* double */
    JSON_F_DURATION,   /* int64_t milliseconds from Go's duration text; min … max in ms alike */
    JSON_F_TIME,       /* int64_t wall milliseconds from RFC 3339 */
    JSON_F_ENUM,       /* int, from .names (NULL-ended); the index */
    JSON_F_OBJECT,     /* a structure inside, by .table */
    JSON_F_OBJECT_PTR, /* pointer to a structure of .size bytes by .table; NULL when absent */
    JSON_F_ARRAY,      /* struct json_array of structures of .size bytes by .table */
    JSON_F_STR_ARRAY,  /* struct json_str_array; each item at most 4096 bytes */
    JSON_F_STR_MAP,    /* struct json_str_map: object whose values are all strings, of any length */
    JSON_F_RAW,        /* const struct json * as it is */
};

struct json_array {
    void *items; /* .size bytes each */
    size_t len;
};

struct json_str_array {
    struct str *items;
    size_t len;
};

struct json_str_pair {
    struct str name, value;
};

struct json_str_map {
    struct json_str_pair *items; /* in source order */
    size_t len;
};

struct str json_str_map_get(const struct json_str_map *m, struct str name); /* ptr NULL: none */

enum json_flags {
    JSON_OPTIONAL = 0,
    JSON_REQUIRED = 1,
};

struct json_field {
    const char *name; /* NULL ends the table */
    enum json_kind kind;
    size_t offset;
    int flags;
    size_t present; /* offset of a bool that tells "was there"; 0: none */
    int64_t min, max;
    size_t max_len; /* bytes of a text, items of an array or map; 0: 4096, 1000 */
    /* JSON_F_ENUM; for JSON_F_STR and _STR_ARRAY: nothing else is let in. */
    const char *const *names;
    const struct json_field *table;
    size_t size;
};

/* Rows are written with designated initialisers:
 *   {"rate", JSON_F_INT, offsetof(struct sampling, rate), .min = 1, .max = 1000},
 * .present defaults to 0, which means none: put no presence flag at offset 0. */

enum json_unknown { JSON_UNKNOWN_IGNORE, JSON_UNKNOWN_REFUSE };

/* Fills *target, which the caller has set to its defaults: absent and null members leave it alone.
 * `path` prefixes messages ("" for none). With JSON_UNKNOWN_REFUSE an unknown name is an error that
 * says its line. v NULL or null counts as an empty object. Fails with ERR_INVALID only; *target is
 * then partly filled. */
int json_decode(struct arena *arena, const struct json *v, const struct json_field *table,
                const char *path, enum json_unknown unknown, void *target, struct err *err);
