#include "base/err.h"

#include <errno.h>
#include <stdarg.h>

#include "base/str.h"

/* Twice the message, so that the byte at which a long one is cut is known. The text is made aside
 * also because the arguments may point into the err that is filled. */
enum { DRAFT = 2 * sizeof(((struct err *)NULL)->message) };

/* Puts the draft into err->message: one line that may go into a status or to a terminal as it is,
 * whatever it quotes. */
static void keep(struct err *err, char *draft)
{
    for (char *c = draft; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    str_show(str_of(draft), err->message, sizeof(err->message));
}

static void append(char draft[static DRAFT], const char *text)
{
    size_t len = strlen(draft);
    size_t n = strnlen(text, DRAFT - 1 - len);
    memcpy(draft + len, text, n);
    draft[len + n] = '\0';
}

int err_set(struct err *err, int code, const char *format, ...)
{
    if (!err)
        return code;
    char draft[DRAFT];
    va_list args;
    va_start(args, format);
    vsnprintf(draft, sizeof(draft), format, args);
    va_end(args);
    *err = (struct err){.code = code};
    keep(err, draft);
    return code;
}

static int code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ESRCH:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_FORBIDDEN;
    case EEXIST:
        return ERR_EXISTS;
    default:
        return ERR_IO;
    }
}

int err_set_errno(struct err *err, int errnum, const char *format, ...)
{
    int code = code_of_errno(errnum);
    if (!err)
        return code;
    char draft[DRAFT], text[128];
    va_list args;
    va_start(args, format);
    vsnprintf(draft, sizeof(draft), format, args);
    va_end(args);
    append(draft, ": ");
    append(draft, strerror_r(errnum, text, sizeof(text)));
    *err = (struct err){.code = code};
    keep(err, draft);
    return code;
}

int err_wrap(struct err *err, const char *format, ...)
{
    if (!err)
        return ERR_IO;
    char draft[DRAFT];
    va_list args;
    va_start(args, format);
    vsnprintf(draft, sizeof(draft), format, args);
    va_end(args);
    append(draft, ": ");
    append(draft, err->message);
    keep(err, draft);
    return err->code;
}

const char *err_code_name(int code)
{
    switch ((enum err_code)code) {
    case ERR_NONE:
        return "None";
    case ERR_NOT_FOUND:
        return "NotFound";
    case ERR_CONFLICT:
        return "Conflict";
    case ERR_EXISTS:
        return "Exists";
    case ERR_GONE:
        return "Gone";
    case ERR_THROTTLED:
        return "Throttled";
    case ERR_UNAUTHORIZED:
        return "Unauthorized";
    case ERR_FORBIDDEN:
        return "Forbidden";
    case ERR_INVALID:
        return "Invalid";
    case ERR_IO:
        return "IO";
    case ERR_PROTOCOL:
        return "Protocol";
    case ERR_TOO_LARGE:
        return "TooLarge";
    case ERR_CANCELLED:
        return "Cancelled";
    case ERR_TIMEOUT:
        return "Timeout";
    }
    return "Unknown";
}
