/* Changed copies of JSON trees, as an API server makes them: the changed spine is new, the rest is
 * shared with the original. Everything is allocated in the arena given. */
#pragma once

#include "json/json.h"

bool sim_json_equal(const struct json *a, const struct json *b);
const struct json *sim_json_text(struct arena *a, struct str text);
/* v (an object, or NULL for an empty one) with member `name` set, or removed where value is NULL.
 */
const struct json *sim_json_set(struct arena *a, const struct json *v, struct str name,
                                const struct json *value);
/* The same two levels down. */
const struct json *sim_json_set2(struct arena *a, const struct json *v, const char *first,
                                 const char *second, const struct json *value);
/* RFC 7386. */
const struct json *sim_json_merge(struct arena *a, const struct json *v, const struct json *patch);
/* RFC 6902: test, add, replace, remove. ERR_INVALID. */
int sim_json_patch(struct arena *a, const struct json *v, const struct json *patch,
                   const struct json **ret, struct err *err);
