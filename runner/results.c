/* The formats that were asked for, made from one profile and packed to fit one object. */
#include "runner/run.h"

#define TEXT_MAX   (900 << 10) /* stored as it is; larger is gzipped */
#define FORMAT_MAX (48 << 20)  /* before gzip */

struct format {
    const char *key, *media_type;
    int (*write)(const struct profile *p, struct buf *out, struct err *err);
};

static const struct format formats[FORMAT_COUNT] = {
    [FORMAT_FLAMEGRAPH] = {"flamegraph.svg", "image/svg+xml", profile_write_flamegraph},
    [FORMAT_SPEEDSCOPE] = {"speedscope.json", "application/json", profile_write_speedscope},
    [FORMAT_RAW] = {"raw.txt", "text/plain; charset=utf-8", profile_write_raw},
    [FORMAT_CHROMETRACE] = {"chrometrace.json", "application/json", profile_write_chrometrace},
};

/* One file in the making; `stored` are the bytes that go into the object. */
struct packed {
    const struct format *format;
    const char *name;
    struct buf stored;
    bool gzipped;
};

struct pack {
    struct packed items[FORMAT_COUNT];
    size_t len;
};

static void pack_finish(struct pack *p)
{
    for (size_t i = 0; i < p->len; i++)
        buf_finish(&p->items[i].stored);
}

/* Once is enough to tell. */
static void leave_out(struct run *run, const char *name, const char *why)
{
    if (run->outcome.reason != REASON_RESULT_TOO_LARGE)
        outcome_set(&run->outcome, REASON_RESULT_TOO_LARGE,
                    "%s: %s; output.s3 would take it, or fewer formats, a shorter duration, a "
                    "lower rate",
                    name, why);
}

/* Of what does not fit alone no more is kept than it takes to know. */
static int gzip(struct run *run, struct packed *p, struct err *err)
{
    struct buf out = BUF_INIT((size_t)run->task.max_result_bytes);
    int r = profile_gzip(buf_str(&p->stored), &out, err);
    if (r < 0) {
        buf_finish(&out);
        return r;
    }
    buf_finish(&p->stored);
    p->stored = out;
    p->gzipped = true;
    return 0;
}

static int make(struct run *run, enum profile_format format, struct packed *p, struct err *err)
{
    *p = (struct packed){.format = &formats[format],
                         .name = profile_format_names[format],
                         .stored = BUF_INIT(FORMAT_MAX)};
    int r = formats[format].write(run->profile, &p->stored, err);
    if (r < 0)
        return r;
    /* What is no UTF-8 cannot be a text in JSON; the writers see to that, a hash must not depend on
     * it. */
    if (p->stored.len > TEXT_MAX || !str_is_utf8(buf_str(&p->stored)))
        return gzip(run, p, err);
    return 0;
}

static void add(struct run *run, enum profile_format format, struct pack *pack)
{
    struct packed p;
    struct err err = ERR_INIT;
    if (make(run, format, &p, &err) == 0) {
        pack->items[pack->len++] = p;
        return;
    }
    buf_finish(&p.stored);
    leave_out(run, p.name, err.message);
}

static size_t total(const struct pack *pack)
{
    size_t sum = 0;
    for (size_t i = 0; i < pack->len; i++)
        sum += pack->items[i].stored.len;
    return sum;
}

static struct packed *largest(struct pack *pack, bool text_only)
{
    struct packed *best = NULL;
    for (size_t i = 0; i < pack->len; i++) {
        struct packed *p = &pack->items[i];
        if (text_only && p->gzipped)
            continue;
        if (!best || p->stored.len > best->stored.len)
            best = p;
    }
    return best;
}

static void drop(struct pack *pack, struct packed *p)
{
    buf_finish(&p->stored);
    size_t index = (size_t)(p - pack->items);
    pack->len--;
    memmove(p, p + 1, (pack->len - index) * sizeof(*p));
}

/* All files share the object: texts are compressed, the largest first, until they fit; what does
 * not fit even so is left out, and the outcome says so. */
static void fit(struct run *run, struct pack *pack)
{
    size_t max = (size_t)run->task.max_result_bytes;
    while (total(pack) > max) {
        struct packed *p = largest(pack, true);
        struct err err = ERR_INIT;
        if (p && gzip(run, p, &err) == 0)
            continue;
        if (!p) {
            p = largest(pack, false);
            err_set(&err, ERR_TOO_LARGE,
                    "%zu bytes compressed, with %zu for all formats in one "
                    "object",
                    p->stored.len, max);
        }
        leave_out(run, p->name, err.message);
        drop(pack, p);
    }
}

static void add_file(struct run *run, struct packed *p, struct upload_file *ret)
{
    *ret = (struct upload_file){
        .format = str_of(p->name),
        .key = str_of(arena_printf(run->arena, "%s%s", p->format->key, p->gzipped ? ".gz" : "")),
        .media_type = str_of(p->format->media_type),
        .encoding = p->gzipped ? STR("gzip") : STR_NULL,
        .size_bytes = (int64_t)p->stored.len,
        .content = arena_str(run->arena, buf_str(&p->stored)),
    };
}

/* What a reader of the picture must know of what it shows. */
static struct str accuracy_note(const char *accuracy)
{
    struct str name = str_of(accuracy);
    if (str_is(name, "GILOnly"))
        return STR("Accuracy GILOnly: the thread that holds the GIL; neither waiting nor native "
                   "code that has released it");
    if (str_is(name, "IdleCounted"))
        return STR("Accuracy IdleCounted: waiting threads count like running ones");
    return STR("Accuracy Full: every thread that runs");
}

static void describe(struct run *run)
{
    const struct task *t = &run->task;
    profile_set_about(run->profile,
                      &(struct profile_about){
                          .title = str_of(arena_printf(
                              run->arena, "%.*s/%.*s · %.*s", STR_ARG(t->pod_namespace),
                              STR_ARG(t->pod_name), STR_ARG(run->chosen.items[0].container))),
                          .start_ms = run->start_ms,
                          .duration_ms = run->end_ms - run->start_ms,
                          .rate = t->sampling.rate,
                          .note = accuracy_note(run->accuracy),
                      });
}

int run_make_results(struct run *run)
{
    _cleanup_(pack_finish) struct pack pack = {0};
    describe(run);
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (run->task.formats & 1u << f)
            add(run, (enum profile_format)f, &pack);
    fit(run, &pack);
    if (pack.len == 0)
        return -1;
    struct upload_file *files = arena_array(run->arena, pack.len, sizeof(*files));
    for (size_t i = 0; i < pack.len; i++)
        add_file(run, &pack.items[i], &files[i]);
    run->upload = (struct upload){.version = 1, .files = {files, pack.len}};
    return 0;
}
