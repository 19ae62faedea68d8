#include "base/random.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/poison.h"

static void system_fill(struct random_source *self, void *bytes, size_t len)
{
    (void)self;
    char *to = bytes;
    while (len) {
        ssize_t n = getrandom(to, len, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            /* No safe way on: keys and names would be guessable. */
            abort();
        }
        to += n;
        len -= (size_t)n;
    }
}

struct random_source random_system = {system_fill};

void random_fill(struct random_source *r, void *bytes, size_t len)
{
    r->fill(r, bytes, len);
}

uint64_t random_u64(struct random_source *r)
{
    uint64_t value;
    random_fill(r, &value, sizeof(value));
    return value;
}

uint64_t random_below(struct random_source *r, uint64_t bound)
{
    /* The lowest 2^64 mod bound values are drawn again: what is left divides evenly. */
    uint64_t threshold = (0 - bound) % bound;
    uint64_t value;
    do {
        value = random_u64(r);
    } while (value < threshold);
    return value % bound;
}

/* 0 ≤ fraction < 1 */
static double fraction(struct random_source *r)
{
    return (double)(random_u64(r) >> 11) * 0x1p-53;
}

int64_t random_jitter(struct random_source *r, int64_t ms, double factor)
{
    if (ms <= 0 || factor <= 0)
        return ms;
    return ms + (int64_t)((double)ms * factor * fraction(r));
}

/* Von Neumann's method, by comparisons only: a run of falling numbers is of odd length with
 * probability exp(-first). log() would do as well, for half a megabyte of libm. */
double random_exponential(struct random_source *r)
{
    for (int whole = 0;; whole++) {
        double first = fraction(r), last = first, next;
        bool odd = true;
        while ((next = fraction(r)) < last) {
            last = next;
            odd = !odd;
        }
        if (odd)
            return whole + first;
    }
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void seeded_fill(struct random_source *self, void *bytes, size_t len)
{
    struct random_seeded *r = CONTAINER_OF(self, struct random_seeded, source);
    char *to = bytes;
    while (len) {
        uint64_t word = splitmix64(&r->state);
        size_t n = len < sizeof(word) ? len : sizeof(word);
        memcpy(to, &word, n);
        to += n;
        len -= n;
    }
}

void random_seed(struct random_seeded *r, uint64_t seed)
{
    *r = (struct random_seeded){{seeded_fill}, seed};
}
