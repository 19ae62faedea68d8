/* Writes JSON into a buffer: commas, quoting and escaping are taken care of; bytes that are not
 * UTF-8 become U+FFFD. Failures of the buffer are sticky; check buf_error() once. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "json/json.h"

struct json_writer {
    struct buf *out;
    bool need_comma;
    int depth;
};

#define JSON_WRITER(buf) ((struct json_writer){.out = (buf)})

/* name: the member's name inside an object, NULL inside an array or at the top. */
void json_begin_object(struct json_writer *w, const char *name);
void json_end_object(struct json_writer *w);
void json_begin_array(struct json_writer *w, const char *name);
void json_end_array(struct json_writer *w);
void json_put_str(struct json_writer *w, const char *name, struct str value);
void json_put_cstr(struct json_writer *w, const char *name, const char *value);
void json_putf(struct json_writer *w, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void json_put_int(struct json_writer *w, const char *name, int64_t value);
void json_put_double(struct json_writer *w, const char *name, double value); /* shortest exact */
void json_put_bool(struct json_writer *w, const char *name, bool value);
void json_put_null(struct json_writer *w, const char *name);
void json_put_time(struct json_writer *w, const char *name, int64_t wall_ms); /* RFC 3339 */
void json_put_tree(struct json_writer *w, const char *name, const struct json *value);
/* A member whose name comes from outside. */
void json_put_pair(struct json_writer *w, struct str name, struct str value);
/* Text that is JSON already. */
void json_put_raw(struct json_writer *w, const char *name, struct str json);
