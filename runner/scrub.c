/* py-spy's --subprocesses puts `process PID:"command line"` frames at the root. Command lines hold
 * secrets, and whoever reads a result is not always who may read the process. */
#include "runner/pyspy.h"

#define MARK "process "

static size_t digits(struct str s)
{
    size_t n = 0;
    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9')
        n++;
    return n;
}

/* Length of `process 7` where s begins with `process 7:"`; 0: it does not. */
static size_t process_frame(struct str s)
{
    if (!str_starts_with(s, STR(MARK)))
        return 0;
    size_t n = digits(str_sub(s, sizeof(MARK) - 1, s.len));
    size_t end = sizeof(MARK) - 1 + n;
    return n > 0 && str_starts_with(str_sub(s, end, s.len), STR(":\"")) ? end : 0;
}

/* A command line may hold what looks like the end of its frame (`";`), so everything up to the last
 * such end goes, but for the numbers of the processes: rather a frame too few. It may hold line
 * ends, too: what has no such end is a piece of it. */
static void scrub_line(struct str line, struct buf *out)
{
    size_t end = 0; /* behind the last `";` */
    for (struct str rest = line; rest.len > 0; rest = str_sub(line, end, line.len)) {
        ssize_t at = str_find(rest, STR("\";"));
        if (at < 0)
            break;
        end += (size_t)at + 2;
    }
    if (end == 0)
        return;
    bool at_start = true;
    for (size_t i = 0; i < end; i++) {
        struct str rest = str_sub(line, i, end - i);
        size_t frame = at_start ? process_frame(rest) : 0;
        if (frame > 0) {
            buf_append_str(out, str_sub(rest, 0, frame));
            buf_append_char(out, ';');
        }
        at_start = line.ptr[i] == ';' && i > 0 && line.ptr[i - 1] == '"';
    }
    buf_append_str(out, str_sub(line, end, line.len));
    buf_append_char(out, '\n');
}

void scrub_raw(struct str text, struct buf *out)
{
    while (text.ptr && text.len > 0)
        scrub_line(str_cut(&text, '\n'), out);
}
