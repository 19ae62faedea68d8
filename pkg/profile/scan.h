/* Finds the extents of values in JSON text without building anything, for documents too large for
 * a tree; what is found is then small enough for json_parse() or is plain numbers. Views point into
 * the text. One thread. */
#pragma once

#include "base/err.h"
#include "base/str.h"

struct scan {
    struct str text;
    size_t pos;
};

/* The next value, whole; the cursor is then behind it. Nesting at most 64. */
int scan_value(struct scan *s, struct str *ret, struct err *err);
/* Enters an object or array: `{` or `[`. */
int scan_enter(struct scan *s, char bracket, struct err *err);
/* Inside one: 1 with the next member or item ahead, 0 after its end. *first is true at first. */
int scan_next(struct scan *s, char close, bool *first, struct err *err);
/* The member's name with its quotation marks, and the ':' behind it. */
int scan_name(struct scan *s, struct str *ret, struct err *err);
int scan_index(struct scan *s, uint32_t *ret, struct err *err);
int scan_number(struct scan *s, double *ret, struct err *err);
/* Only white space may be left. */
int scan_end(struct scan *s, struct err *err);
