#include "profile/profile_internal.h"

#include "base/alloc.h"
#include "json/write.h"

/* The "JSON Array Format" of the Trace Event Format, read by chrome://tracing and Perfetto. A
 * frame that stays from one sample to the next is one slice. py-spy's samples carry no times, only
 * their order within a thread: a thread's n-th sample stands at n / rate, and looks at which it was
 * idle are not there unless idle ones were recorded. */

struct ids {
    int64_t pid, tid;
};

static bool number_after(struct str s, struct str word, int64_t *ret)
{
    ssize_t at = str_find(s, word);
    size_t end = 0;

    if (at < 0)
        return false;
    s = str_sub(s, (size_t)at + word.len, s.len);
    while (end < s.len && s.ptr[end] >= '0' && s.ptr[end] <= '9')
        end++;
    return !str_to_i64(str_sub(s, 0, end), 1, INT32_MAX, ret);
}

/* The process of `Process 12 Thread 34 "name"`, perhaps behind a prefix. Threads are numbered by
 * their place in the profile: py-spy tells pthread_self() where it knows no thread ID, Perfetto
 * takes 32 bits only, and merged profiles may hold the same ID twice. The name says the real one.
 */
static struct ids ids_of(const struct thread *t, size_t index)
{
    struct ids ids = {.pid = 1, .tid = (int64_t)index + 1};
    ssize_t quote = str_find_char(t->label, '"');

    number_after(quote < 0 ? t->label : str_sub(t->label, 0, (size_t)quote), STR("Process "),
                 &ids.pid);
    return ids;
}

static void put_ids(struct json_writer *w, const char *phase, struct ids ids)
{
    json_put_cstr(w, "ph", phase);
    json_put_int(w, "pid", ids.pid);
    json_put_int(w, "tid", ids.tid);
}

static void put_metadata(struct json_writer *w, struct ids ids, const char *name, const char *key,
                         struct str value)
{
    json_begin_object(w, NULL);
    json_put_cstr(w, "name", name);
    put_ids(w, "M", ids);
    json_begin_object(w, "args");
    json_put_str(w, key, value);
    json_end_object(w);
    json_end_object(w);
}

static void put_begin(struct json_writer *w, struct ids ids, int64_t ts, struct profile_frame f)
{
    json_begin_object(w, NULL);
    json_put_str(w, "name", f.function);
    json_put_cstr(w, "cat", "python");
    put_ids(w, "B", ids);
    json_put_int(w, "ts", ts);
    if (f.file.len) {
        json_begin_object(w, "args");
        json_put_str(w, "file", f.file);
        if (f.line)
            json_put_int(w, "line", f.line);
        json_end_object(w);
    }
    json_end_object(w);
}

static void put_end(struct json_writer *w, struct ids ids, int64_t ts)
{
    json_begin_object(w, NULL);
    put_ids(w, "E", ids);
    json_put_int(w, "ts", ts);
    json_end_object(w);
}

static void put_thread(const struct profile *p, const struct thread *t, struct ids ids,
                       struct json_writer *w)
{
    _cleanup_(freep) uint32_t *path = NULL;
    _cleanup_(freep) uint32_t *open = NULL;
    size_t path_cap = 0, open_cap = 0, n_open = 0;
    int64_t rate = p->rate ? p->rate : 1, seen = 0;

    for (size_t i = 0; i < t->len && !w->out->failed; i++) {
        size_t depth = profile_path(p, t->runs[i].node, &path, &path_cap), same = 0;
        int64_t ts = seen * 1000000 / rate;

        while (same < depth && same < n_open && path[same] == open[same])
            same++;
        for (; n_open > same; n_open--)
            put_end(w, ids, ts);
        open = grow(open, &open_cap, depth, sizeof(*open));
        for (; n_open < depth; n_open++) {
            open[n_open] = path[n_open];
            put_begin(w, ids, ts, profile_frame_at(p, path[n_open]));
        }
        seen += t->runs[i].weight;
    }
    for (; n_open > 0; n_open--)
        put_end(w, ids, seen * 1000000 / rate);
}

int profile_write_chrometrace(const struct profile *p, struct buf *out, struct err *err)
{
    struct json_writer w = JSON_WRITER(out);
    int64_t named = -1;

    json_begin_array(&w, NULL);
    for (size_t i = 0; i < p->n_threads && !out->failed; i++) {
        const struct thread *t = &p->threads[i];
        struct ids ids = ids_of(t, i);

        if (!t->len)
            continue;
        if (ids.pid != named) {
            put_metadata(&w, ids, "process_name", "name", str_of(p->title));
            if (p->note[0])
                put_metadata(&w, ids, "process_labels", "labels", str_of(p->note));
            named = ids.pid;
        }
        put_metadata(&w, ids, "thread_name", "name",
                     t->label.len ? t->label : STR("all threads, not in the order of time"));
        put_thread(p, t, ids, &w);
    }
    json_end_array(&w);
    return buf_error(out, "the chrome trace", err);
}
