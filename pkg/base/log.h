/* Structured logging to a file descriptor, one line a call, JSON or logfmt. Libraries never log:
 * only programs call this, and the program's one logger is process-wide. Values are escaped, lines
 * are capped at 8 KiB; a line is one write(2), so lines of several threads do not mix. Any thread
 * after log_setup(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

void log_setup(int fd, enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
int log_level_parse(struct str s, enum log_level *ret);   /* debug info warn error */
int log_format_parse(struct str s, enum log_format *ret); /* logfmt json */

enum log_type { LOG_TYPE_STR, LOG_TYPE_INT, LOG_TYPE_BOOL, LOG_TYPE_DOUBLE };

struct log_field {
    const char *key;
    enum log_type type;
    struct str text;
    int64_t number;
    double real;
};

#define LOG_S(k, v)  ((struct log_field){.key = (k), .type = LOG_TYPE_STR, .text = (v)})
#define LOG_C(k, v)  ((struct log_field){.key = (k), .type = LOG_TYPE_STR, .text = str_of(v)})
#define LOG_I(k, v)  ((struct log_field){.key = (k), .type = LOG_TYPE_INT, .number = (int64_t)(v)})
#define LOG_B(k, v)  ((struct log_field){.key = (k), .type = LOG_TYPE_BOOL, .number = (v)})
#define LOG_D(k, v)  ((struct log_field){.key = (k), .type = LOG_TYPE_DOUBLE, .real = (v)})
#define LOG_ERR(err) LOG_C("err", (err)->message)

/* log_write(LOG_INFO, "job created", LOG_C("job", name), LOG_I("attempt", n)); */
#define log_write(level, message, ...)                                                             \
    log_write_fields(level, message, (struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.key = NULL}})
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

/* fields: ended by one whose key is NULL. */
void log_write_fields(enum log_level level, const char *message, const struct log_field *fields);
