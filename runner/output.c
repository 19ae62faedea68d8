#include <unistd.h>

#include "runner/pyspy.h"

#define PREFIX "py-spy> "

void pyspy_output_init(struct pyspy_output *o)
{
    *o = (struct pyspy_output){.line = BUF_INIT(PYSPY_LINE_MAX)};
}

void pyspy_output_finish(struct pyspy_output *o)
{
    buf_finish(&o->line);
}

static void keep(char to[static PYSPY_LINE_MAX], struct str line)
{
    snprintf(to, PYSPY_LINE_MAX, "%.*s", STR_ARG(line));
}

/* "… Samples: 119 Errors: 194" */
static void take_errors(struct pyspy_output *o, struct str line)
{
    ssize_t at = str_find(line, STR(" Errors: "));
    if (at < 0)
        return;
    struct str rest = str_sub(line, (size_t)at + 9, line.len);
    int64_t errors;
    if (str_to_i64(str_trim(str_cut(&rest, ' ')), 0, INT64_MAX, &errors) == 0)
        o->errors = errors;
}

static void progress(struct pyspy_output *o, struct str line)
{
    if (str_starts_with(line, STR("Sampling process")))
        o->started = true;
    else if (str_starts_with(line, STR("Stopped sampling because process exited")))
        o->process_exited = true;
    else if (str_find(line, STR("behind in sampling")) >= 0)
        o->late++;
    else if (str_starts_with(line, STR("Wrote ")))
        take_errors(o, line);
}

/* An error's causes follow it, numbered when there are several: "Error: a", "Caused by:", "0: b",
 * "1: c". A panic's message is in the line behind "thread 'main' panicked at file:line". */
static void complain(struct pyspy_output *o, struct str line)
{
    keep(o->last, line);
    if (str_starts_with(line, STR("Stack backtrace:")) || str_starts_with(line, STR("note: "))) {
        o->in_causes = o->in_panic = false;
    } else if (str_starts_with(line, STR("Error: ")) && !o->error[0]) {
        keep(o->error, str_sub(line, 7, line.len));
    } else if (str_starts_with(line, STR("thread '")) &&
               str_find(line, STR(" panicked at ")) >= 0) {
        keep(o->error, line);
        o->in_panic = true;
    } else if (str_is(line, "Caused by:")) {
        o->in_causes = true;
    } else if (o->in_causes || o->in_panic) {
        struct str cause = line;
        if (cause.len > 3 && cause.ptr[0] >= '0' && cause.ptr[0] <= '9' && cause.ptr[1] == ':')
            cause = str_trim(str_sub(cause, 2, cause.len));
        struct str known = str_of(o->error);
        if (!str_ends_with(known, cause))
            snprintf(o->error + known.len, sizeof(o->error) - known.len, ": %.*s", STR_ARG(cause));
        o->in_panic = false;
    }
}

static void take_line(struct pyspy_output *o)
{
    struct str line = str_trim(buf_str(&o->line));
    if (str_starts_with(line, STR(PREFIX)))
        progress(o, str_trim(str_sub(line, sizeof(PREFIX) - 1, line.len)));
    else if (line.len > 0)
        complain(o, line);
    buf_clear(&o->line);
}

void pyspy_output_feed(struct pyspy_output *o, struct str bytes)
{
    for (struct str rest = bytes; rest.len > 0;) {
        ssize_t end = str_find_char(rest, '\n');
        struct str part = end < 0 ? rest : str_sub(rest, 0, (size_t)end);
        size_t room = o->line.max - o->line.len; /* what is longer is cut */
        buf_append_str(&o->line, str_sub(part, 0, room));
        if (end < 0)
            return;
        take_line(o);
        rest = str_sub(rest, (size_t)end + 1, rest.len);
    }
}

void pyspy_output_end(struct pyspy_output *o)
{
    if (o->line.len > 0)
        take_line(o);
}
