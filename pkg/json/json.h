/* JSON as an arena tree: parsed once, never changed. Numbers keep their text until they are
 * decoded. The arena owns all nodes and texts. Any thread may read a tree that no thread builds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/str.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json;

struct json_member {
    struct str name;
    const struct json *value;
};

struct json {
    enum json_type type;
    int line; /* of the source, from 1; of a member: the line of its name */
    union {
        bool boolean;
        struct str text; /* JSON_STRING: unescaped UTF-8; JSON_NUMBER: as written */
        struct {
            const struct json *const *items;
            size_t len;
        } array;
        struct {
            /* In source order; of a repeated name, only the last. */
            const struct json_member *members;
            size_t len;
        } object;
    };
};

/* Caps; 0 takes the default in brackets. */
struct json_limits {
    size_t max_bytes; /* of the document [16 MiB] */
    int max_depth;    /* [64], at most 1000 */
    size_t max_nodes; /* values in all [1,000,000] */
};

/* Parses one document that fills all of `text`; the tree does not point into it. ERR_INVALID with
 * line and what was wrong, or ERR_TOO_LARGE. Refused beyond RFC 8259: NUL bytes in strings
 * (\u0000), and escapes of half a surrogate pair. */
int json_parse(struct arena *arena, struct str text, const struct json_limits *limits,
               const struct json **ret, struct err *err);

/* YAML into the same tree: at most one document (none gives JSON_NULL), the 1.2 core schema for
 * plain scalars, numbers rewritten as JSON writes them. Refused, with the line: anchors, aliases,
 * tags but !!str !!map !!seq, repeated or non-scalar keys, .inf and .nan. */
int json_parse_yaml(struct arena *arena, struct str text, const struct json_limits *limits,
                    const struct json **ret, struct err *err);

/* Member `name` of an object; NULL when v is NULL, no object, or has none. A JSON null counts as
 * none. */
const struct json *json_get(const struct json *v, const char *name);
/* json_get along a path: json_at(v, "metadata", "name", NULL). */
const struct json *json_at(const struct json *v, ...) __attribute__((sentinel));
const struct json *json_get_str(const struct json *v, struct str name);

/* The value when it is of that type, else an empty view / the fallback / ERR_INVALID. */
struct str json_text(const struct json *v);
bool json_is_true(const struct json *v);
int64_t json_int(const struct json *v, int64_t fallback);
/* Whole numbers however they are written (100, 1e2), up to 2^53 where they have a point or an
 * exponent; ERR_INVALID for what is none, or not finite as a double. */
int json_number_int(const struct json *v, int64_t *ret);
int json_number_double(const struct json *v, double *ret);
size_t json_len(const struct json *v); /* of an array or object, else 0 */
const struct json *json_item(const struct json *v, size_t index);
const char *json_type_name(enum json_type type); /* "an object", "a string", … for messages */

/* Frames a stream of concatenated objects or arrays (a watch): feed bytes as they come, get one
 * call for each whole document's text, which lives for that call only and is yet to be parsed.
 * Linear in the input. A document over max_bytes or max_depth fails with ERR_TOO_LARGE, anything
 * but white space between documents with ERR_PROTOCOL. What on_document returns other than 0 ends
 * the stream and is returned; after a failure only destroying it is left. on_document must not
 * destroy it. */
struct json_stream;
typedef int (*json_stream_document)(void *context, struct str text, struct err *err);
struct json_stream *json_stream_create(const struct json_limits *limits,
                                       json_stream_document on_document, void *context);
void json_stream_destroy(struct json_stream *s); /* NULL is fine */
DEFINE_CLEANUP(struct json_stream *, json_stream_destroy);
int json_stream_feed(struct json_stream *s, struct str bytes, struct err *err);
/* At the end: ERR_PROTOCOL when a document was cut off. */
int json_stream_end(struct json_stream *s, struct err *err);
