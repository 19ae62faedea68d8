/* Whether a text is well-formed XML 1.0, as far as our own drawings go: tags that close, attributes
 * in double quotation marks, the five entities, CDATA, allowed characters. */
#pragma once

#include "base/str.h"

/* NULL, or what is wrong; *ret_at is then where. */
const char *xml_check(struct str s, size_t *ret_at);
