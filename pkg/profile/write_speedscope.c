#include "profile/profile_internal.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "json/write.h"

/* Source: https://www.speedscope.app/file-format-schema.json. Samples that follow one another with
 * the same stack are written as one with their weights added, which the format defines to mean the
 * same and makes the file a fraction of py-spy's. */

static int by_node(const void *a, const void *b)
{
    uint32_t x = ((const struct run *)a)->node, y = ((const struct run *)b)->node;

    return x < y ? -1 : x > y;
}

static void put_frames(const struct profile *p, struct json_writer *w)
{
    json_begin_object(w, "shared");
    json_begin_array(w, "frames");
    for (size_t i = 0; i < p->n_frames && !w->out->failed; i++) {
        struct profile_frame f = profile_frame_at(p, i);

        json_begin_object(w, NULL);
        json_put_str(w, "name", f.function);
        if (f.file.len)
            json_put_str(w, "file", f.file);
        if (f.line)
            json_put_int(w, "line", f.line);
        json_end_object(w);
    }
    json_end_array(w);
    json_end_object(w);
}

static void put_samples(const struct profile *p, const struct run *runs, size_t len,
                        struct json_writer *w)
{
    _cleanup_(freep) uint32_t *path = NULL;
    size_t cap = 0;

    json_begin_array(w, "samples");
    for (size_t i = 0; i < len && !w->out->failed; i++) {
        size_t depth = profile_path(p, runs[i].node, &path, &cap);

        json_begin_array(w, NULL);
        for (size_t j = 0; j < depth; j++)
            json_put_int(w, NULL, path[j]);
        json_end_array(w);
    }
    json_end_array(w);
    json_begin_array(w, "weights");
    for (size_t i = 0; i < len && !w->out->failed; i++) {
        if (p->rate)
            json_put_double(w, NULL, (double)runs[i].weight / (double)p->rate);
        else
            json_put_int(w, NULL, runs[i].weight);
    }
    json_end_array(w);
}

static void put_thread(const struct profile *p, const struct thread *t, struct json_writer *w)
{
    _cleanup_(freep) struct run *sorted = NULL;
    const struct run *runs = t->runs;

    if (!t->label.len && t->len) { /* no order to keep */
        sorted = xcalloc(t->len, sizeof(*sorted));
        memcpy(sorted, t->runs, t->len * sizeof(*sorted));
        qsort(sorted, t->len, sizeof(*sorted), by_node);
        runs = sorted;
    }
    json_begin_object(w, NULL);
    json_put_cstr(w, "type", "sampled");
    json_put_str(w, "name", t->label.len ? t->label : STR("all threads"));
    json_put_cstr(w, "unit", p->rate ? "seconds" : "none");
    json_put_int(w, "startValue", 0);
    if (p->rate)
        json_put_double(w, "endValue", (double)t->samples / (double)p->rate);
    else
        json_put_int(w, "endValue", t->samples);
    put_samples(p, runs, t->len, w);
    json_end_object(w);
}

int profile_write_speedscope(const struct profile *p, struct buf *out, struct err *err)
{
    struct json_writer w = JSON_WRITER(out);
    size_t busiest = 0, written = 0, active = 0;

    json_begin_object(&w, NULL);
    json_put_cstr(&w, "$schema", "https://www.speedscope.app/file-format-schema.json");
    json_put_str(&w, "name", p->title[0] ? str_of(p->title) : STR("Python profile"));
    json_put_cstr(&w, "exporter", "pyspy-operator");
    put_frames(p, &w);
    json_begin_array(&w, "profiles");
    for (size_t i = 0; i < p->n_threads && !out->failed; i++) {
        if (!p->threads[i].len)
            continue;
        if (p->threads[i].samples > p->threads[busiest].samples) {
            busiest = i;
            active = written;
        }
        put_thread(p, &p->threads[i], &w);
        written++;
    }
    json_end_array(&w);
    if (written)
        json_put_int(&w, "activeProfileIndex", (int64_t)active);
    json_end_object(&w);
    return buf_error(out, "the speedscope profile", err);
}
