#include "profile/profile_internal.h"

#include <inttypes.h>

/* py-spy 0.4.3 replaces neither ';' nor line ends in names. A record therefore reaches over lines
 * until one ends in a count; this many at most, so that garbage is refused early. */
#define MAX_RECORD_LINES 256
#define MAX_RECORD_BYTES ((size_t)1 << 20)

static bool all_digits(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return s.len > 0;
}

/* "thread (123): name" and "thread (123)": no file is meant by these brackets. */
static bool is_thread(struct str s)
{
    return str_starts_with(s, STR("thread (")) && s.len > 8 && s.ptr[8] >= '0' && s.ptr[8] <= '9';
}

static void parse_frame(struct str s, struct profile_frame *f)
{
    *f = (struct profile_frame){.function = s};
    if (is_thread(s) || !str_ends_with(s, STR(")")))
        return;

    size_t open = s.len;
    while (open > 1 && !(s.ptr[open - 1] == '(' && s.ptr[open - 2] == ' '))
        open--;
    if (open <= 2)
        return;
    struct str file = str_sub(s, open, s.len - 1 - open);
    ssize_t colon = str_rfind_char(file, ':');
    int64_t line = 0;

    if (!file.len)
        return;
    if (colon > 0 && !str_to_i64(str_sub(file, (size_t)colon + 1, file.len), 0, INT32_MAX, &line))
        file = str_sub(file, 0, (size_t)colon);
    *f = (struct profile_frame){str_sub(s, 0, open - 2), file, line};
}

static bool is_process(struct str s)
{
    size_t i = 8;

    if (!str_starts_with(s, STR("process ")))
        return false;
    while (i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9')
        i++;
    return i > 8 && str_starts_with(str_sub(s, i, s.len), STR(":\""));
}

/* Bytes of the process frames at the front. A command line may hold anything, `";` included: the
 * last `";` of the record is taken as the end, so that none of it is ever taken for a function. */
static size_t processes_len(struct str stack)
{
    if (!is_process(stack))
        return 0;
    for (size_t i = stack.len; i >= 2; i--)
        if (stack.ptr[i - 1] == ';' && stack.ptr[i - 2] == '"')
            return i;
    return stack.len;
}

struct reader {
    struct profile *p;
    uint32_t thread;
    uint32_t *path;
    size_t depth, cap;
    size_t with_process, without_process; /* records */
};

static int push(struct reader *r, const struct profile_frame *f, struct err *err)
{
    uint32_t index;
    int rc = profile_add_frame(r->p, f, &index, err);

    if (rc)
        return rc;
    r->path = grow(r->path, &r->cap, r->depth + 1, sizeof(*r->path));
    r->path[r->depth++] = index;
    return 0;
}

/* `process 1:"a";process 2:"b";` */
static int push_processes(struct reader *r, struct str s, struct err *err)
{
    int rc = 0;

    if (str_ends_with(s, STR(";")))
        s.len--;
    while (!rc && s.len) {
        size_t end = s.len;

        for (size_t i = 2; i < s.len; i++)
            if (s.ptr[i - 2] == '"' && s.ptr[i - 1] == ';' && is_process(str_sub(s, i, s.len))) {
                end = i - 1;
                break;
            }
        rc = push(r, &(struct profile_frame){.function = str_sub(s, 0, end)}, err);
        s = str_sub(s, end + 1, s.len);
    }
    return rc;
}

static int read_record(struct reader *r, struct str record, struct err *err)
{
    ssize_t space = str_rfind_char(record, ' ');
    int64_t count;

    if (str_to_i64(str_sub(record, (size_t)space + 1, record.len), 1, UINT32_MAX, &count))
        return err_set(err, ERR_INVALID, "a count that is not 1 to 4294967295");
    struct str stack = str_sub(record, 0, (size_t)space);
    size_t processes = processes_len(stack);

    /* With --subprocesses every stack begins with its process. One that does not is the rest of a
     * command line that looked finished in its middle: better no profile than that as frames. */
    r->with_process += processes > 0;
    r->without_process += processes == 0;
    if (r->p->scrub && r->with_process && r->without_process)
        return err_set(err, ERR_INVALID, "a stack without its process among stacks with theirs");
    int rc = push_processes(r, str_sub(stack, 0, processes), err);

    stack = str_sub(stack, processes, stack.len);
    while (!rc && stack.len) {
        struct profile_frame f;
        struct str part = str_cut(&stack, ';');

        if (!part.len) /* ';' at the end, or twice: from a name */
            continue;
        parse_frame(part, &f);
        rc = push(r, &f, err);
    }
    if (!rc && !r->depth)
        rc = push(r, &(struct profile_frame){.function = STR(NO_FRAMES)}, err);
    if (rc)
        return rc;
    return profile_add_sample(r->p, r->thread, r->path, r->depth, count, err);
}

static bool is_complete(struct str record, struct str last_line)
{
    ssize_t space = str_rfind_char(last_line, ' ');

    if (space < 0 || !all_digits(str_sub(last_line, (size_t)space + 1, last_line.len)))
        return false;
    /* A command line that goes on: its quotation mark is not closed yet. */
    struct str stack = str_sub(record, 0, record.len - (last_line.len - (size_t)space));
    size_t processes = processes_len(stack);
    return processes < stack.len || !processes || str_ends_with(stack, STR("\""));
}

static int read_records(struct reader *r, struct str text, struct err *err)
{
    size_t line = 1, pos = 0;

    while (pos < text.len) {
        size_t first = line, start = pos, end;
        struct str record;

        for (;;) {
            ssize_t nl = str_find_char(str_sub(text, pos, text.len), '\n');
            end = nl < 0 ? text.len : pos + (size_t)nl;
            record = str_sub(text, start, end - start);
            line++;
            if (!record.len || is_complete(record, str_sub(text, pos, end - pos)))
                break;
            pos = end + 1;
            if (pos >= text.len || line - first >= MAX_RECORD_LINES ||
                record.len > MAX_RECORD_BYTES)
                return err_set(err, ERR_INVALID, "py-spy raw, line %zu: a stack without a count",
                               first);
        }
        pos = end + 1;
        if (!record.len)
            continue;
        r->depth = 0;
        if (read_record(r, record, err))
            return err_wrap(err, "py-spy raw, line %zu", first);
    }
    return 0;
}

int profile_read_raw(struct profile *p, struct str text, struct err *err)
{
    struct reader r = {.p = p};

    if (text.len > p->limits.max_input)
        return err_set(err, ERR_TOO_LARGE, "py-spy raw: %zu bytes are more than %zu", text.len,
                       p->limits.max_input);
    int rc = profile_add_thread(p, STR_NULL, &r.thread, err);
    if (!rc)
        rc = read_records(&r, text, err);
    free(r.path);
    return rc;
}
