/* Objects for tests, written as YAML: a base and a patch on it (RFC 7386). All in the arena; a text
 * that cannot be read fails the test. One thread. */
#pragma once

#include "json/json.h"
#include "json/write.h"

const struct json *tree_of(struct arena *arena, const char *yaml);
/* patch NULL: the base as it is. */
const struct json *tree_merged(struct arena *arena, const char *base, const char *patch);
const struct json *tree_merge(struct arena *arena, const struct json *base,
                              const struct json *patch);
struct str tree_text(struct arena *arena, const struct json *tree); /* as JSON */
