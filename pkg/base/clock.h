/* Time through a seam, so that tests own it. Monotonic time is for durations and deadlines, wall
 * time only for what people and the API read. Any thread for the system's clock. */
#pragma once

#include <stdint.h>
#include <time.h>

#include "base/str.h"

struct clock {
    int64_t (*monotonic_ms)(const struct clock *self);
    int64_t (*wall_ms)(const struct clock *self); /* milliseconds since 1970 UTC */
};

/* Nanoseconds of one of the kernel's clocks, for what is not tested with made-up time. */
int64_t clock_read_ns(clockid_t id);

extern const struct clock clock_system;

static inline int64_t clock_monotonic_ms(const struct clock *c)
{
    return c->monotonic_ms(c);
}

static inline int64_t clock_wall_ms(const struct clock *c)
{
    return c->wall_ms(c);
}

#define TIME_RFC3339_MAX 32

/* "2026-01-31T23:59:59Z" (metav1.Time) and "….123456Z" (metav1.MicroTime). */
void time_format(int64_t wall_ms, char out[static TIME_RFC3339_MAX]);
void time_format_micro(int64_t wall_ms, char out[static TIME_RFC3339_MAX]);
/* RFC 3339 with Z or an offset, fraction optional. */
int time_parse(struct str s, int64_t *ret_wall_ms);

/* Go's duration text ("1h30m", "1.5s", "300ms") to milliseconds; whole text, not negative,
 * fractions of a millisecond dropped. ERR_INVALID when it is none or over 2^53 ms.
 * Source: time.ParseDuration. */
int duration_parse(struct str s, int64_t *ret_ms);
/* "1h30m0s", "45s", "300ms", as Go prints it, for whole milliseconds. */
void duration_format(int64_t ms, char out[static TIME_RFC3339_MAX]);
