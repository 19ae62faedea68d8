/* The one builder of trees, fed by the JSON and the YAML reader. It enforces the caps, so that both
 * have the same ones. Private to pkg/json; one thread. */
#pragma once

#include "json/json.h"

#define JSON_DEFAULT_BYTES (16u << 20)
#define JSON_DEFAULT_DEPTH 64
#define JSON_DEFAULT_NODES 1000000u
#define JSON_MAX_DEPTH     1000 /* whatever the caller asks for: readers of the tree recurse */

/* A child of a container that is still open. */
struct json_slot {
    struct str name; /* in an object */
    int line;        /* of the name */
    struct json *value;
};

struct json_open {
    struct json *node;
    size_t first_slot;
};

struct json_builder {
    struct arena *arena;
    struct json_limits limits;
    bool refuse_repeated; /* names of an object; otherwise the last one wins */
    struct json_slot *slots;
    size_t slots_len, slots_cap;
    struct json_open *open;
    int depth, open_cap;
    size_t nodes;
    struct json *root;
    struct err error; /* why a call failed */
};

/* Limits with the defaults filled in. */
struct json_limits json_limits_effective(const struct json_limits *limits);

void json_builder_init(struct json_builder *b, struct arena *arena,
                       const struct json_limits *limits);
void json_builder_finish(struct json_builder *b);

/* All return 0, or a code with b->error filled in, line included. The caller feeds a well-formed
 * sequence: names only in objects, each followed by a value. */
int json_builder_begin(struct json_builder *b, enum json_type type, int line);
int json_builder_end(struct json_builder *b);
int json_builder_name(struct json_builder *b, struct str name, int line);
int json_builder_text(struct json_builder *b, enum json_type type, struct str text, int line);
int json_builder_bool(struct json_builder *b, bool value, int line);
int json_builder_null(struct json_builder *b, int line);

bool json_builder_in_object(const struct json_builder *b);
bool json_builder_wants_name(const struct json_builder *b);

static inline int json_hex_digit(char c) /* its value, or -1 */
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        return (c | 0x20) - 'a' + 10;
    return -1;
}
