/* Randomness through a seam, so that simulations replay from a seed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct random_source {
    void (*fill)(struct random_source *self, void *bytes, size_t len);
};

extern struct random_source random_system; /* getrandom(2); any thread */

void random_fill(struct random_source *r, void *bytes, size_t len);
uint64_t random_u64(struct random_source *r);
uint64_t random_below(struct random_source *r, uint64_t bound); /* 0 … bound-1; bound > 0 */
/* d plus up to factor·d more (wait.Jitter of apimachinery); milliseconds. */
int64_t random_jitter(struct random_source *r, int64_t ms, double factor);
/* Exponentially distributed with mean 1: the gaps of a Poisson process. */
double random_exponential(struct random_source *r);

/* A seeded source (splitmix64) for tests and simulations. */
struct random_seeded {
    struct random_source source;
    uint64_t state;
};
void random_seed(struct random_seeded *r, uint64_t seed);
