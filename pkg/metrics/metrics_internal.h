/* What metrics.c and text.c share. Lists only grow at their end, entry by entry published with
 * release order, so that text.c walks them without a lock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/map.h"
#include "metrics/metrics.h"

struct metrics_series {
    _Atomic(struct metrics_series *) next;
    const struct metrics_family *family;
    char *labels;                    /* `a="x",b="y"`, escaped; "" without labels */
    _Atomic double value;            /* a histogram's sum */
    _Atomic uint64_t observations[]; /* histograms: per bucket, and the one up to +Inf */
};

struct metrics_family {
    _Atomic(struct metrics_family *) next;
    struct metrics_registry *registry;
    enum metrics_type type;
    const char *name, *help;
    const struct metrics_buckets *buckets; /* histograms */
    const char **labels;                   /* names */
    size_t n_labels;
    size_t max_series;     /* under the lock, as are the three below */
    struct map *by_labels; /* rendered labels → series */
    struct metrics_series *last;
    struct metrics_series *overflow;
    _Atomic(struct metrics_series *) series;
};

struct metrics_hook {
    void (*fn)(void *context);
    void *context;
};

struct metrics_registry {
    pthread_mutex_t lock;
    _Atomic(struct metrics_family *) families;
    struct metrics_family *last;
    struct metrics_hook *hooks;
    size_t n_hooks;
};
