#include "profile/profile_internal.h"

#include "base/alloc.h"
#include "profile/scan.h"
#include "json/json.h"

/* py-spy writes "profiles" before the frames that they point to, so a first pass only notes where
 * things are. */
struct reader {
    struct profile *p;
    struct str text;
    uint32_t *frames; /* the document's index → ours */
    size_t n_frames, frames_cap;
    uint32_t *path;
    size_t path_cap;
    uint32_t no_frames; /* stands for an empty stack; NODE_NONE: not made yet */
};

/* A cursor over a part of the text, so that messages tell places of the whole. */
static struct scan cursor(const struct reader *r, struct str part)
{
    return (struct scan){.text = r->text, .pos = (size_t)(part.ptr - r->text.ptr)};
}

/* Where the values of `names` are (ptr NULL: absent; the last of a repeated name wins). */
static int members(struct scan *s, const char *const *names, struct str *values, size_t n,
                   struct err *err)
{
    bool first = true;
    int more, rc = scan_enter(s, '{', err);

    if (rc)
        return rc;
    while ((more = scan_next(s, '}', &first, err)) > 0) {
        struct str name, value;

        if ((rc = scan_name(s, &name, err)) || (rc = scan_value(s, &value, err)))
            return rc;
        name = str_sub(name, 1, name.len - 2);
        for (size_t i = 0; i < n; i++)
            if (str_is(name, names[i]))
                values[i] = value;
    }
    return more;
}

static int read_frame(struct reader *r, struct str text, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(512);
    const struct json *v;
    uint32_t index;
    int rc = json_parse(arena, text, NULL, &v, err);

    if (rc)
        return rc;
    struct profile_frame f = {
        .function = json_text(json_get(v, "name")),
        .file = json_text(json_get(v, "file")),
        .line = json_int(json_get(v, "line"), 0),
    };
    if (f.line < 0)
        f.line = 0;
    rc = profile_add_frame(r->p, &f, &index, err);
    if (rc)
        return rc;
    r->frames = grow(r->frames, &r->frames_cap, r->n_frames + 1, sizeof(*r->frames));
    r->frames[r->n_frames++] = index;
    return 0;
}

static int read_frames(struct reader *r, struct str shared, struct err *err)
{
    static const char *const names[] = {"frames"};
    struct scan s = cursor(r, shared);
    struct str frames = STR_NULL;
    bool first = true;
    int more, rc = members(&s, names, &frames, 1, err);

    if (rc)
        return rc;
    if (!frames.ptr)
        return err_set(err, ERR_INVALID, "no shared.frames");
    s = cursor(r, frames);
    if ((rc = scan_enter(&s, '[', err)))
        return rc;
    while ((more = scan_next(&s, ']', &first, err)) > 0) {
        struct str frame;

        if ((rc = scan_value(&s, &frame, err)))
            return rc;
        if (read_frame(r, frame, err))
            return err_wrap(err, "shared.frames[%zu]", r->n_frames);
    }
    return more;
}

/* [1,2,3] into r->path; an empty stack becomes one frame that says so. */
static int read_stack(struct reader *r, struct scan *s, size_t *ret_depth, struct err *err)
{
    size_t depth = 0;
    bool first = true;
    int more, rc = scan_enter(s, '[', err);

    if (rc)
        return rc;
    while ((more = scan_next(s, ']', &first, err)) > 0) {
        uint32_t i;

        if ((rc = scan_index(s, &i, err)))
            return rc;
        if (i >= r->n_frames)
            return err_set(err, ERR_INVALID, "byte %zu: no frame %u", s->pos, i);
        r->path = grow(r->path, &r->path_cap, depth + 1, sizeof(*r->path));
        r->path[depth++] = r->frames[i];
    }
    if (more < 0)
        return more;
    if (!depth) {
        struct profile_frame none = {.function = STR(NO_FRAMES)};

        if (r->no_frames == NODE_NONE && (rc = profile_add_frame(r->p, &none, &r->no_frames, err)))
            return rc;
        r->path = grow(r->path, &r->path_cap, 1, sizeof(*r->path));
        r->path[depth++] = r->no_frames;
    }
    *ret_depth = depth;
    return 0;
}

/* Seconds in the profile's unit; 0: the weights are counts. */
static int read_unit(struct str text, double *ret, struct err *err)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {
        {"\"seconds\"", 1},
        {"\"milliseconds\"", 1e-3},
        {"\"microseconds\"", 1e-6},
        {"\"nanoseconds\"", 1e-9},
        {"\"none\"", 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(units); i++)
        if (str_is(text, units[i].name)) {
            *ret = units[i].seconds;
            return 0;
        }
    return err_set(err, ERR_INVALID, "unit %.*s", STR_ARG(str_sub(text, 0, 40)));
}

/* A weight in samples: a time is as many as the rate makes of it; without a rate it is one look. */
static int64_t weight_samples(const struct profile *p, double weight, double unit)
{
    double n = unit > 0 ? weight * unit * (double)p->rate : weight;

    if (unit > 0 && !(n >= 1))
        return 1;
    return n < 4e9 ? (int64_t)(n + 0.5) : (int64_t)4e9 * 2; /* refused by profile_add_run() */
}

static int read_samples(struct reader *r, uint32_t thread, struct str samples, struct str weights,
                        double unit, struct err *err)
{
    struct scan s = cursor(r, samples), w = cursor(r, weights);
    bool first_s = true, first_w = true;
    int rc, more_s, more_w;

    if ((rc = scan_enter(&s, '[', err)) || (rc = scan_enter(&w, '[', err)))
        return rc;
    for (;;) {
        size_t depth = 0;
        double weight = 0;

        if ((more_s = scan_next(&s, ']', &first_s, err)) < 0)
            return more_s;
        if ((more_w = scan_next(&w, ']', &first_w, err)) < 0)
            return more_w;
        if (more_s != more_w)
            return err_set(err, ERR_INVALID, "byte %zu: as many weights as samples expected",
                           more_s ? w.pos : s.pos);
        if (!more_s)
            return 0;
        if ((rc = scan_number(&w, &weight, err)) || (rc = read_stack(r, &s, &depth, err)))
            return rc;
        if (weight < 0)
            return err_set(err, ERR_INVALID, "byte %zu: a negative weight", w.pos);
        rc = profile_add_sample(r->p, thread, r->path, depth, weight_samples(r->p, weight, unit),
                                err);
        if (rc)
            return rc;
    }
}

static int read_profile(struct reader *r, struct str text, struct err *err)
{
    static const char *const names[] = {"type", "name", "unit", "samples", "weights"};
    enum { TYPE, NAME, UNIT, SAMPLES, WEIGHTS };
    struct str v[ARRAY_SIZE(names)] = {0};
    struct scan s = cursor(r, text);
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(512);
    const struct json *name;
    double unit;
    uint32_t thread;
    int rc = members(&s, names, v, ARRAY_SIZE(names), err);

    if (rc)
        return rc;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!v[i].ptr)
            return err_set(err, ERR_INVALID, "no \"%s\"", names[i]);
    if (!str_is(v[TYPE], "\"sampled\""))
        return err_set(err, ERR_INVALID, "type %.*s, only \"sampled\" is read",
                       STR_ARG(str_sub(v[TYPE], 0, 40)));
    if ((rc = json_parse(arena, v[NAME], NULL, &name, err)) ||
        (rc = read_unit(v[UNIT], &unit, err)))
        return rc;
    if (name->type != JSON_STRING)
        return err_set(err, ERR_INVALID, "a name that is no string");
    rc = profile_add_thread(r->p, json_text(name), &thread, err);
    if (rc)
        return rc;
    return read_samples(r, thread, v[SAMPLES], v[WEIGHTS], unit, err);
}

static int read_document(struct reader *r, struct err *err)
{
    static const char *const names[] = {"shared", "profiles"};
    struct str v[2] = {0};
    struct scan s = {.text = r->text};
    bool first = true;
    size_t n = 0;
    int more, rc = members(&s, names, v, 2, err);

    if (rc || (rc = scan_end(&s, err)))
        return rc;
    if (!v[0].ptr || !v[1].ptr)
        return err_set(err, ERR_INVALID, "no \"%s\"", names[v[0].ptr ? 1 : 0]);
    if ((rc = read_frames(r, v[0], err)))
        return rc;
    s = cursor(r, v[1]);
    if ((rc = scan_enter(&s, '[', err)))
        return rc;
    for (; (more = scan_next(&s, ']', &first, err)) > 0; n++) {
        struct str profile;

        if ((rc = scan_value(&s, &profile, err)))
            return rc;
        if (read_profile(r, profile, err))
            return err_wrap(err, "profiles[%zu]", n);
    }
    return more;
}

int profile_read_speedscope(struct profile *p, struct str text, struct err *err)
{
    struct reader r = {.p = p, .text = text, .no_frames = NODE_NONE};

    if (text.len > p->limits.max_input)
        return err_set(err, ERR_TOO_LARGE, "speedscope: %zu bytes are more than %zu", text.len,
                       p->limits.max_input);
    int rc = read_document(&r, err);
    free(r.frames);
    free(r.path);
    return rc ? err_wrap(err, "speedscope") : 0;
}
