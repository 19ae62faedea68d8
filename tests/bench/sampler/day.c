/* sampler_day [MINOR [RATE]]: 24 simulated hours; memory at the end of each. Fails when the last
 * hours take more than the first ones. */
#include <stdio.h>
#include <time.h>

#include "base/cleanup.h"
#include "day.h"

#define MINUTES (24 * 60)

static size_t heap[25], resident[25];

static void measure(void *context, int64_t second)
{
    (void)context;
    size_t hour = (size_t)(second - 1) / 3600, now = day_heap(), pages = day_resident();
    if (now > heap[hour])
        heap[hour] = now;
    if (pages > resident[hour])
        resident[hour] = pages;
}

int main(int argc, char **argv)
{
    int64_t minor = 12, rate = 100;
    struct timespec begun, ended;
    if ((argc > 1 && str_to_i64(str_of(argv[1]), 8, 12, &minor) < 0) ||
        (argc > 2 && str_to_i64(str_of(argv[2]), 1, 1000, &rate) < 0)) {
        fprintf(stderr, "sampler_day [MINOR, 8 to 12 [RATE]]\n");
        return 2;
    }
    clock_gettime(CLOCK_MONOTONIC, &begun);
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct record_result r = day_run((unsigned)minor, rate, MINUTES, profile, measure, NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("Python 3.%d at %d Hz: %lld looks, %lld samples of %zu stacks, %lld errors, %lld late "
           "in %lld s%s\n",
           (int)minor, (int)rate, (long long)r.looks, (long long)profile_samples(profile),
           profile_stacks(profile), (long long)r.counts.errors, (long long)r.late,
           (long long)(ended.tv_sec - begun.tv_sec), r.full ? "; full" : "");
    puts("hour  heap KB  resident KB (most in the hour)");
    for (int i = 0; i < 24; i++)
        printf("%4d  %7zu  %11zu\n", i + 1, heap[i] / 1024, resident[i] / 1024);
    bool flat = heap[23] <= heap[1] + heap[1] / 50 && resident[23] <= resident[1] + (1u << 20);
    puts(flat ? "flat" : "NOT flat");
    return flat && !r.full ? 0 : 1;
}
