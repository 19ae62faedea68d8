/* Text exposition format, https://prometheus.io/docs/instrumenting/exposition_formats/ */
#include <math.h>

#include "metrics/metrics_internal.h"

/* The shortest of the forms that read back as the same number. */
static void append_number(struct buf *out, double value)
{
    if (isnan(value)) {
        buf_append_cstr(out, "NaN");
    } else if (isinf(value)) {
        buf_append_cstr(out, value > 0 ? "+Inf" : "-Inf");
    } else if (value == floor(value) && fabs(value) < 1e15) {
        buf_appendf(out, "%.0f", value);
    } else {
        char text[40];
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(text, sizeof(text), "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
        buf_append_cstr(out, text);
    }
}

static void append_help(struct buf *out, const char *help)
{
    for (; *help; help++) {
        if (*help == '\n')
            buf_append_cstr(out, "\\n");
        else if (*help == '\\')
            buf_append_cstr(out, "\\\\");
        else
            buf_append_char(out, *help);
    }
}

static void append_histogram(struct buf *out, const struct metrics_series *s)
{
    const struct metrics_family *f = s->family;
    const char *comma = *s->labels ? "," : "";
    uint64_t count = 0;
    for (size_t i = 0; i <= f->buckets->n; i++) {
        count += atomic_load_explicit(&s->observations[i], memory_order_relaxed);
        buf_appendf(out, "%s_bucket{%s%sle=\"", f->name, s->labels, comma);
        append_number(out, i < f->buckets->n ? f->buckets->bounds[i] : (double)INFINITY);
        buf_appendf(out, "\"} %llu\n", (unsigned long long)count);
    }
    const char *open = *s->labels ? "{" : "", *close = *s->labels ? "}" : "";
    buf_appendf(out, "%s_sum%s%s%s ", f->name, open, s->labels, close);
    append_number(out, metrics_value(s));
    /* The count that the buckets gave, so that it never differs from the one up to +Inf. */
    buf_appendf(out, "\n%s_count%s%s%s %llu\n", f->name, open, s->labels, close,
                (unsigned long long)count);
}

static void append_series(struct buf *out, const struct metrics_series *s)
{
    if (s->family->type == METRICS_HISTOGRAM) {
        append_histogram(out, s);
        return;
    }
    buf_append_cstr(out, s->family->name);
    if (*s->labels)
        buf_appendf(out, "{%s}", s->labels);
    buf_append_char(out, ' ');
    append_number(out, metrics_value(s));
    buf_append_char(out, '\n');
}

void metrics_write(struct metrics_registry *r, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    for (size_t i = 0; i < r->n_hooks; i++)
        r->hooks[i].fn(r->hooks[i].context);
    struct metrics_family *f = atomic_load_explicit(&r->families, memory_order_acquire);
    for (; f; f = atomic_load_explicit(&f->next, memory_order_acquire)) {
        struct metrics_series *s = atomic_load_explicit(&f->series, memory_order_acquire);
        if (!s)
            continue;
        buf_appendf(out, "# HELP %s ", f->name);
        append_help(out, f->help);
        buf_appendf(out, "\n# TYPE %s %s\n", f->name, types[f->type]);
        for (; s; s = atomic_load_explicit(&s->next, memory_order_acquire))
            append_series(out, s);
    }
}
