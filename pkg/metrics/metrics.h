/* Counters, gauges and histograms with labels, and their Prometheus text. The registry owns its
 * families and they their series; none goes before the registry does, so pointers to them may be
 * kept. Any thread: updates are relaxed atomics and never wait, writing the text takes no lock,
 * finding or making a series takes a short one. Names, labels and types are the program's own:
 * wrong ones abort. */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define METRICS_CONTENT_TYPE    "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_MAX_SERIES      1000 /* of one family */
#define METRICS_MAX_LABEL_VALUE 256  /* bytes; longer ones are cut */

struct metrics_registry;
struct metrics_family;
struct metrics_series;

struct metrics_registry *metrics_registry_create(void);
void metrics_registry_destroy(struct metrics_registry *r); /* NULL is fine */
DEFINE_CLEANUP(struct metrics_registry *, metrics_registry_destroy);

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

/* Upper bounds of a histogram's buckets, growing, without +Inf. */
struct metrics_buckets {
    const double *bounds;
    size_t n;
};

extern const struct metrics_buckets metrics_buckets_requests; /* 5 ms … 10 s, Prometheus' default */
extern const struct metrics_buckets metrics_buckets_work; /* 10 ns·10ⁿ … 1000 s, client-go's */

/* metrics_counter(registry, "x_total", "What it counts.", "label", …). Without labels its one
 * series is there from the start, at 0. Again with the same arguments gives the same family. */
#define metrics_counter(registry, name, help, ...)                                                 \
    metrics_register(registry, METRICS_COUNTER, name, help, NULL, METRICS_STRINGS_(__VA_ARGS__))
#define metrics_gauge(registry, name, help, ...)                                                   \
    metrics_register(registry, METRICS_GAUGE, name, help, NULL, METRICS_STRINGS_(__VA_ARGS__))
#define metrics_histogram(registry, name, help, buckets, ...)                                      \
    metrics_register(registry, METRICS_HISTOGRAM, name, help, buckets,                             \
                     METRICS_STRINGS_(__VA_ARGS__))

#define METRICS_STRINGS_(...)                                                                      \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__ __VA_OPT__(, ) NULL                                                            \
    }

/* name, help, buckets and labels (ended by NULL) must outlive the registry; the array of labels
 * itself is copied. */
struct metrics_family *metrics_register(struct metrics_registry *r, enum metrics_type type,
                                        const char *name, const char *help,
                                        const struct metrics_buckets *buckets,
                                        const char *const *labels);

/* How many series the family may have, from now on; METRICS_MAX_SERIES at first. */
void metrics_limit(struct metrics_family *f, size_t max_series);

/* metrics_series(family, "value of the first label", …): the series, made if need be. Over the
 * family's limit it is one whose label values are all "overflow". Never NULL; a value may be NULL
 * (""). */
#define metrics_series(family, ...)                                                                \
    metrics_find(family, METRICS_STRINGS_(__VA_ARGS__),                                            \
                 ARRAY_SIZE((METRICS_STRINGS_(__VA_ARGS__))) - 1)

struct metrics_series *metrics_find(struct metrics_family *f, const char *const *values, size_t n);

/* For counters (what is not positive is ignored) and gauges. */
void metrics_add(struct metrics_series *s, double amount);
void metrics_set(struct metrics_series *s, double value);     /* gauges */
void metrics_observe(struct metrics_series *s, double value); /* histograms; NaN is ignored */
double metrics_value(const struct metrics_series *s);         /* a histogram's sum */

/* Calls fn(context) at the start of every metrics_write(), on its thread, to set what is only known
 * by looking. Before other threads use the registry. */
void metrics_before_write(struct metrics_registry *r, void (*fn)(void *context), void *context);

/* process_cpu_seconds_total, process_resident_memory_bytes and the others that every Prometheus
 * client has, of this process. */
void metrics_process(struct metrics_registry *r);

/* Text exposition format 0.0.4; families without series are left out. See buf_error(). */
void metrics_write(struct metrics_registry *r, struct buf *out);
