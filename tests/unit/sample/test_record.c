/* When the loop looks, and that it does so for days in the same memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "day.h"
#include "fake.h"

#define NS INT64_C(1000000000)

/* A clock that moves when the loop sleeps, and in each look by what that costs. */
struct watch {
    struct record_time time;
    int64_t now, start;
    int64_t cost;         /* of each look */
    int64_t every, stall; /* now and then one takes `stall` */
    int64_t *looks;
    size_t n, max;
    bool asked;
};

static int64_t watch_now(struct record_time *self)
{
    struct watch *t = (struct watch *)(void *)self;
    t->asked = true;
    return t->now;
}

static void watch_sleep(struct record_time *self, int64_t ns, struct pollfd *fds, size_t n)
{
    (void)fds, (void)n;
    struct watch *t = (struct watch *)(void *)self;
    if (ns > t->now)
        t->now = ns;
}

/* Reads tell when looks happen: a look reads the list of threads once. */
struct watched {
    struct memory_reader reader;
    struct fake *fake;
    struct watch *watch;
};

static ssize_t watched_read(struct memory_reader *self, const struct iovec *local,
                            const struct iovec *remote, size_t n)
{
    struct watched *w = (struct watched *)(void *)self;
    uint64_t list = w->fake->interpreter + w->fake->offsets->interpreter_threads;
    struct watch *t = w->watch;
    /* Within one look it may be read twice; between two looks the loop asks for the time. */
    if ((uint64_t)(uintptr_t)remote[0].iov_base == list && t->asked && t->n < t->max) {
        t->asked = false;
        t->looks[t->n++] = t->now;
        t->now += t->every && t->n % (size_t)t->every == 0 ? t->stall : t->cost;
    }
    return w->fake->reader.read(&w->fake->reader, local, remote, n);
}

static uint8_t bytes[1u << 20];

static struct record_result watch_run(struct watch *watch, int64_t rate, int64_t seconds,
                                      uint64_t seed)
{
    struct fake fake;
    struct fake_thread thread;
    struct target *t = NULL;
    fake_init(&fake, 12, bytes, sizeof(bytes), 0x10000);
    fake_thread(&fake, &thread, 1, 8);
    fake_threads(&fake, &(const struct fake_thread *){&thread}, 1);
    uint64_t code = fake_code(&fake, "f", "f.py", 1);
    fake_stack(&fake, &thread, &code, 1, 2);
    struct watched w = {.reader = {.read = watched_read}, .fake = &fake, .watch = watch};
    assert_int_equal(target_open_memory(&w.reader, fake.runtime, 12,
                                        &(struct sample_options){.idle = true}, &t, NULL),
                     0);
    watch->time = (struct record_time){watch_now, watch_sleep};
    watch->now = watch->start = NS;
    watch->max = (size_t)(rate * seconds * 2 + 1000);
    watch->looks = xcalloc(watch->max, sizeof(int64_t));
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct record_options options = {.rate = rate,
                                     .duration_ms = seconds * 1000,
                                     .idle = true,
                                     .time = &watch->time,
                                     .seed = seed};
    struct record *r = record_create_target(t, &options, profile);
    record_run(r);
    struct record_result result = record_result(r);
    record_destroy(r);
    /* One sample a look that was done, none for one that was not; a look is cut short when the
     * machine does something else for long. */
    assert_int_equal(profile_samples(profile) + result.counts.cut, result.looks);
    assert_int_equal(result.counts.errors, result.counts.cut);
    return result;
}

/* Gaps of mean 1/rate and of the same standard deviation, independent of one another, and looks at
 * all phases of a program that does the same every 10 ms alike. */
static void test_poisson(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct watch watch = {0};
        struct record_result result = watch_run(&watch, 100, 1000, seed);
        double n = (double)watch.n - 1, sum = 0, squares = 0, neighbours = 0;
        int64_t phases[10] = {0};
        assert_int_equal(result.late, 0);
        assert_int_equal(result.looks, (int64_t)watch.n);
        for (size_t i = 1; i < watch.n; i++) {
            double gap = (double)(watch.looks[i] - watch.looks[i - 1]) / 1e7;
            sum += gap;
            squares += gap * gap;
            if (i > 1)
                neighbours +=
                    (gap - 1) * ((double)(watch.looks[i - 1] - watch.looks[i - 2]) / 1e7 - 1);
            phases[watch.looks[i] / (NS / 1000) % 10]++;
        }
        double mean = sum / n, deviation = sqrt(squares / n - mean * mean);
        /* Five standard errors of 100,000 gaps. */
        if (fabs(mean - 1) > 0.016 || fabs(deviation - 1) > 0.025 || fabs(neighbours / n) > 0.016)
            fail_msg("seed %d: mean %f, deviation %f, correlation %f", (int)seed, mean, deviation,
                     neighbours / n);
        double chi2 = 0;
        for (size_t i = 0; i < 10; i++)
            chi2 += ((double)phases[i] - n / 10) * ((double)phases[i] - n / 10) / (n / 10);
        if (chi2 > 33.7) /* one in ten thousand, nine degrees of freedom */
            fail_msg("seed %d: looks keep to a beat: %f", (int)seed, chi2);
        free(watch.looks);
    }
}

/* What is late is left out and counted, nothing is made up for it, and what is not late is there:
 * the same plan gives the same number in all. */
static void test_late(void **state)
{
    (void)state;
    struct watch at_once = {0}, slow = {.cost = 20000000}, stalling = {.every = 50, .stall = NS};
    int64_t planned = watch_run(&at_once, 100, 200, 7).looks;
    assert_true(planned > 19300 && planned < 20700);

    struct record_result r = watch_run(&slow, 100, 200, 7);
    if (r.late < planned / 4 || r.looks < planned / 4)
        fail_msg("%d late, %d looks of %d", (int)r.late, (int)r.looks, (int)planned);
    assert_int_equal(r.looks + r.late, planned);
    for (size_t i = 1; i < slow.n; i++)
        assert_true(slow.looks[i] - slow.looks[i - 1] >= slow.cost);

    r = watch_run(&stalling, 100, 200, 7);
    assert_int_equal(r.looks, (int64_t)stalling.n);
    assert_int_equal(r.looks + r.late, planned);
    assert_true(r.late > (int64_t)stalling.n / 50 * 90);
    /* After a stall no burst: at most what is due within one interval, and the next. */
    for (size_t i = 49; i + 8 < stalling.n; i += 50)
        assert_true(stalling.looks[i + 8] - stalling.looks[i] > NS + NS / 1000);
    free(at_once.looks);
    free(slow.looks);
    free(stalling.looks);
}

#define MINUTES 80

struct heap {
    size_t first, last; /* most of the third quarter, and of the last */
};

static void measure(void *context, int64_t second)
{
    int64_t minute = second / 60;
    struct heap *h = context;
    size_t now = day_heap();
    if (minute >= MINUTES / 2 && minute < MINUTES * 3 / 4 && now > h->first)
        h->first = now;
    if (minute >= MINUTES * 3 / 4 && now > h->last)
        h->last = now;
}

/* tests/bench/sampler/day does the whole day. */
static void test_day(void **state)
{
    (void)state;
    struct heap h = {0};
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct record_result r = day_run(12, 30, MINUTES, profile, measure, &h);
    assert_true(r.looks > 140000 && r.late == 0 && !r.full);
    assert_true(r.counts.errors <= r.looks / 100);
    assert_true(profile_samples(profile) > r.looks * 39 / 10);
    print_message("%lld looks, %zu stacks, heap %zu and %zu KB\n", (long long)r.looks,
                  profile_stacks(profile), h.first / 1024, h.last / 1024);
    if (h.last > h.first + h.first / 50)
        fail_msg("the heap grew from %zu to %zu", h.first, h.last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poisson),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
