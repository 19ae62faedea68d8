#include "metrics/metrics_internal.h"

#include <math.h>

#include "base/alloc.h"

const struct metrics_buckets metrics_buckets_requests = {
    (const double[]){.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, 11};
const struct metrics_buckets metrics_buckets_work = {
    (const double[]){1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100, 1000}, 12};

static _Noreturn void misuse(const char *name, const char *what)
{
    fprintf(stderr, "metric %s: %s\n", name, what);
    abort();
}

struct metrics_registry *metrics_registry_create(void)
{
    struct metrics_registry *r = xcalloc(1, sizeof(*r));
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

static void destroy_family(struct metrics_family *f)
{
    for (struct metrics_series *s = atomic_load(&f->series), *next; s; s = next) {
        next = atomic_load(&s->next);
        free(s->labels);
        free(s);
    }
    map_destroy(f->by_labels);
    free(f->labels);
    free(f);
}

void metrics_registry_destroy(struct metrics_registry *r)
{
    if (!r)
        return;
    for (struct metrics_family *f = atomic_load(&r->families), *next; f; f = next) {
        next = atomic_load(&f->next);
        destroy_family(f);
    }
    pthread_mutex_destroy(&r->lock);
    free(r->hooks);
    free(r);
}

/* [a-zA-Z_][a-zA-Z0-9_]*, for metrics with colons too. */
static bool is_name(const char *name, bool colons)
{
    for (const char *c = name; *c; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_';
        bool digit = *c >= '0' && *c <= '9';
        if (!letter && !(digit && c > name) && !(*c == ':' && colons))
            return false;
    }
    return *name != '\0';
}

static void check(enum metrics_type type, const char *name, const struct metrics_buckets *buckets,
                  const char *const *labels)
{
    if (!is_name(name, true))
        misuse(name, "bad name");
    for (const char *const *l = labels; *l; l++) {
        if (!is_name(*l, false) || strncmp(*l, "__", 2) == 0 ||
            (type == METRICS_HISTOGRAM && strcmp(*l, "le") == 0))
            misuse(name, "bad label");
    }
    if ((type == METRICS_HISTOGRAM) != (buckets != NULL))
        misuse(name, "buckets are for histograms");
    for (size_t i = 0; buckets && i < buckets->n; i++) {
        if (!isfinite(buckets->bounds[i]) ||
            (i > 0 && buckets->bounds[i] <= buckets->bounds[i - 1]))
            misuse(name, "bounds of buckets must grow");
    }
}

static bool same_labels(const struct metrics_family *f, const char *const *labels)
{
    for (size_t i = 0; i < f->n_labels; i++) {
        if (!labels[i] || strcmp(f->labels[i], labels[i]) != 0)
            return false;
    }
    return !labels[f->n_labels];
}

static struct metrics_family *create_family(struct metrics_registry *r, enum metrics_type type,
                                            const char *name, const char *help,
                                            const struct metrics_buckets *buckets,
                                            const char *const *labels)
{
    struct metrics_family *f = xcalloc(1, sizeof(*f));
    f->registry = r;
    f->type = type;
    f->name = name;
    f->help = help;
    f->buckets = buckets;
    while (labels[f->n_labels])
        f->n_labels++;
    f->labels = xcalloc(f->n_labels, sizeof(*f->labels));
    for (size_t i = 0; i < f->n_labels; i++)
        f->labels[i] = labels[i];
    f->max_series = METRICS_MAX_SERIES;
    f->by_labels = map_create();
    atomic_store_explicit(r->last ? &r->last->next : &r->families, f, memory_order_release);
    r->last = f;
    return f;
}

struct metrics_family *metrics_register(struct metrics_registry *r, enum metrics_type type,
                                        const char *name, const char *help,
                                        const struct metrics_buckets *buckets,
                                        const char *const *labels)
{
    check(type, name, buckets, labels);
    pthread_mutex_lock(&r->lock);
    struct metrics_family *f = atomic_load_explicit(&r->families, memory_order_relaxed);
    while (f && strcmp(f->name, name) != 0)
        f = atomic_load_explicit(&f->next, memory_order_relaxed);
    if (!f)
        f = create_family(r, type, name, help, buckets, labels);
    else if (f->type != type || f->buckets != buckets || !same_labels(f, labels))
        misuse(name, "registered twice, differently");
    pthread_mutex_unlock(&r->lock);
    if (f->n_labels == 0)
        metrics_find(f, NULL, 0);
    return f;
}

void metrics_limit(struct metrics_family *f, size_t max_series)
{
    pthread_mutex_lock(&f->registry->lock);
    f->max_series = max_series;
    pthread_mutex_unlock(&f->registry->lock);
}

/* What is no UTF-8 becomes U+FFFD: one bad byte would make a scraper refuse the whole page. */
static void append_value(struct buf *out, const char *value)
{
    struct str rest = {value, value ? strnlen(value, METRICS_MAX_LABEL_VALUE) : 0};
    while (rest.len) {
        size_t n = str_utf8_next(rest, NULL);
        if (n == 0)
            buf_append_cstr(out, "\xef\xbf\xbd");
        else if (*rest.ptr == '\n')
            buf_append_cstr(out, "\\n");
        else if (*rest.ptr == '"' || *rest.ptr == '\\')
            buf_append(out, (char[]){'\\', *rest.ptr}, 2);
        else
            buf_append(out, rest.ptr, n);
        rest = str_sub(rest, n ? n : 1, rest.len);
    }
}

/* values NULL: "overflow" for each. */
static char *render_labels(const struct metrics_family *f, const char *const *values)
{
    struct buf out = BUF_INIT(SIZE_MAX / 2);
    for (size_t i = 0; i < f->n_labels; i++) {
        buf_appendf(&out, "%s%s=\"", i ? "," : "", f->labels[i]);
        append_value(&out, values ? values[i] : "overflow");
        buf_append_char(&out, '"');
    }
    return buf_take(&out);
}

/* The registry's lock is held. */
static struct metrics_series *get_series(struct metrics_family *f, char *labels)
{
    struct metrics_series *s = map_get(f->by_labels, str_of(labels));
    if (s) {
        free(labels);
        return s;
    }
    size_t n = f->type == METRICS_HISTOGRAM ? f->buckets->n + 1 : 0;
    s = xcalloc(1, sizeof(*s) + n * sizeof(s->observations[0]));
    s->family = f;
    s->labels = labels;
    map_set(f->by_labels, str_of(labels), s);
    atomic_store_explicit(f->last ? &f->last->next : &f->series, s, memory_order_release);
    f->last = s;
    return s;
}

struct metrics_series *metrics_find(struct metrics_family *f, const char *const *values, size_t n)
{
    if (n != f->n_labels)
        misuse(f->name, "as many values as labels");
    _cleanup_(freep) char *labels = render_labels(f, values);
    pthread_mutex_lock(&f->registry->lock);
    struct metrics_series *s = map_get(f->by_labels, str_of(labels));
    if (!s && map_size(f->by_labels) >= f->max_series && n > 0) {
        if (!f->overflow)
            f->overflow = get_series(f, render_labels(f, NULL));
        s = f->overflow;
    }
    if (!s)
        s = get_series(f, TAKE(labels));
    pthread_mutex_unlock(&f->registry->lock);
    return s;
}

static void add(_Atomic double *to, double amount)
{
    double old = atomic_load_explicit(to, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(to, &old, old + amount, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void metrics_add(struct metrics_series *s, double amount)
{
    if (s->family->type == METRICS_HISTOGRAM)
        misuse(s->family->name, "is a histogram");
    if (s->family->type == METRICS_GAUGE || amount > 0)
        add(&s->value, amount);
}

void metrics_set(struct metrics_series *s, double value)
{
    if (s->family->type != METRICS_GAUGE)
        misuse(s->family->name, "is not a gauge");
    atomic_store_explicit(&s->value, value, memory_order_relaxed);
}

void metrics_observe(struct metrics_series *s, double value)
{
    if (s->family->type != METRICS_HISTOGRAM)
        misuse(s->family->name, "is not a histogram");
    if (isnan(value))
        return;
    const struct metrics_buckets *buckets = s->family->buckets;
    size_t i = 0;
    while (i < buckets->n && value > buckets->bounds[i])
        i++;
    atomic_fetch_add_explicit(&s->observations[i], 1, memory_order_relaxed);
    add(&s->value, value);
}

double metrics_value(const struct metrics_series *s)
{
    return atomic_load_explicit(&s->value, memory_order_relaxed);
}

void metrics_before_write(struct metrics_registry *r, void (*fn)(void *context), void *context)
{
    r->hooks = xrealloc(r->hooks, r->n_hooks + 1, sizeof(*r->hooks));
    r->hooks[r->n_hooks++] = (struct metrics_hook){fn, context};
}
