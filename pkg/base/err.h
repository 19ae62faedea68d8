/* Errors: a code to branch on and a message for a person. `struct err` lives on the caller's stack
 * and owns nothing. Functions that can fail return 0 or a negative enum err_code; on failure they
 * leave their ret_ outputs untouched. Passing NULL as err is allowed: only the code is then told.
 * Any thread. */
#pragma once

#include <stdint.h>

#include "base/poison.h"

enum err_code {
    ERR_NONE = 0,
    ERR_NOT_FOUND = -1,    /* what was asked for does not exist (404) */
    ERR_CONFLICT = -2,     /* it changed in between (409 Conflict) */
    ERR_EXISTS = -3,       /* it exists already (409 AlreadyExists) */
    ERR_GONE = -4,         /* that version is no longer kept (410, Expired) */
    ERR_THROTTLED = -5,    /* asked to come back later (429, or 5xx with Retry-After) */
    ERR_UNAUTHORIZED = -6, /* who are you (401) */
    ERR_FORBIDDEN = -7,    /* you may not (403, EPERM, EACCES) */
    ERR_INVALID = -8,      /* the input is wrong; again will not help (400, 422) */
    ERR_IO = -9,           /* connection, file, process; again may help */
    ERR_PROTOCOL = -10,    /* the other side broke the protocol */
    ERR_TOO_LARGE = -11,   /* over a cap */
    ERR_CANCELLED = -12,   /* ended on request */
    ERR_TIMEOUT = -13,     /* a deadline passed */
};

struct err {
    int code;               /* enum err_code */
    int http_status;        /* 0 where no HTTP answer was involved */
    int64_t retry_after_ms; /* 0: not said */
    char reason[64];        /* the API's own reason (metav1.Status.reason), or "" */
    char message[512];      /* one line for a person; truncated, never NULL */
};

#define ERR_INIT ((struct err){0})

/* Fills err and returns code, so that failing is one line. */
int err_set(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and strerror(errnum) behind; the code follows from errnum (ENOENT
 * and ESRCH: NOT_FOUND, EACCES and EPERM: FORBIDDEN, EEXIST: EXISTS, others: IO). */
int err_set_errno(struct err *err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message of an error that is passed on. Returns err->code, or ERR_IO
 * where err is NULL. */
int err_wrap(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "NotFound", "Conflict", …: for logs and metrics. Never NULL. */
const char *err_code_name(int code);
