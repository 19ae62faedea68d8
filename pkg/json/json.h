/* JSON as an arena tree: parsed once, never changed. Numbers keep their text until they are
 * decoded. The arena owns all nodes and texts. Any thread may read a tree that no thread builds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
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
    int line; /* of the source, from 1; for YAML also useful to people; 0: unknown */
    union {
        bool boolean;
        struct str text; /* JSON_STRING: unescaped UTF-8; JSON_NUMBER: as written */
        struct {
            const struct json *const *items;
            size_t len;
        } array;
        struct {
            const struct json_member *members; /* in source order; the last of a repeated name wins */
            size_t len;
        } object;
    };
};

/* Caps; 0 takes the default in brackets. */
struct json_limits {
    size_t max_bytes; /* of the document [16 MiB] */
    int max_depth;    /* [64] */
    size_t max_nodes; /* values in all [1,000,000] */
};

/* Parses one document that fills all of `text`. ERR_INVALID with line and what was wrong, or
 * ERR_TOO_LARGE. NUL bytes in strings (\u0000) are refused. */
int json_parse(struct arena *arena, struct str text, const struct json_limits *limits,
               const struct json **ret, struct err *err);

/* YAML (one document; anchors and aliases are refused; 1.2 core schema for plain scalars) into the
 * same tree, with the lines of the source. */
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
size_t json_len(const struct json *v); /* of an array or object, else 0 */
const struct json *json_item(const struct json *v, size_t index);
const char *json_type_name(enum json_type type); /* "an object", "a string", … for messages */

/* Frames a stream of concatenated documents (a watch): feed bytes as they come, get one call for
 * each whole document's text. Linear in the input. A document over max_bytes fails with
 * ERR_TOO_LARGE. */
struct json_stream;
typedef int (*json_stream_document)(void *context, struct str text, struct err *err);
struct json_stream *json_stream_create(const struct json_limits *limits,
                                       json_stream_document on_document, void *context);
void json_stream_destroy(struct json_stream *s);
int json_stream_feed(struct json_stream *s, struct str bytes, struct err *err);
/* At the end: ERR_PROTOCOL when a document was cut off. */
int json_stream_end(struct json_stream *s, struct err *err);
