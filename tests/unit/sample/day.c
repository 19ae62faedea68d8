#include "day.h"

#include <malloc.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/random.h"
#include "fake.h"

#define NS       INT64_C(1000000000)
#define BASE     UINT64_C(0x7f0000000000)
#define ARENA    (32u << 20)
#define THREADS  4 /* that live at once, of twice as many */
#define CALLERS  60
#define STACKS   40
#define DEPTH    12
#define LEAVES   20
#define CLONES   60000 /* addresses at which the leaves have been; more than the cache holds */
#define WINDOW   500   /* those of the moment */
#define CHANGE_S 20

struct day {
    struct record_time time;
    int64_t now, changed, ticked;
    struct fake fake;
    struct random_seeded random;
    uint64_t callers[CALLERS], names[LEAVES], clones[CLONES];
    size_t window;
    uint64_t stacks[STACKS][DEPTH];
    struct fake_thread threads[THREADS * 2];
    void (*on_tick)(void *context, int64_t second);
    void *context;
};

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

size_t day_heap(void)
{
    if (__sanitizer_get_current_allocated_bytes)
        return __sanitizer_get_current_allocated_bytes();
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

size_t day_resident(void)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(256);
    int64_t pages = 0;
    if (buf_read_file(&text, "/proc/self/statm", NULL) < 0)
        return 0;
    struct str rest = buf_str(&text);
    str_cut(&rest, ' ');
    str_to_i64(str_cut(&rest, ' '), 0, INT32_MAX, &pages);
    return (size_t)pages * 4096;
}

static size_t below(struct day *d, size_t bound)
{
    return (size_t)random_below(&d->random.source, bound);
}

/* Some threads end and others begin; what lies at an address becomes another function. */
static void change(struct day *d)
{
    const struct fake_thread *alive[THREADS];
    size_t first = below(d, THREADS * 2);
    for (size_t i = 0; i < THREADS; i++)
        alive[i] = &d->threads[(first + i) % (THREADS * 2)];
    fake_threads(&d->fake, alive, THREADS);
    for (int i = 0; i < 50; i++)
        fake_name(&d->fake, d->clones[(d->window + below(d, WINDOW)) % CLONES],
                  d->names[below(d, LEAVES)]);
}

static void set_stack(struct day *d, const struct fake_thread *t)
{
    uint64_t codes[DEPTH + 1];
    size_t depth = 4 * (1 + below(d, 3));
    memcpy(codes, d->stacks[below(d, STACKS)], depth * sizeof(codes[0]));
    codes[depth] = d->clones[(d->window + below(d, WINDOW)) % CLONES];
    fake_stack(&d->fake, t, codes, depth + 1, 3);
}

static int64_t day_now(struct record_time *self)
{
    return ((struct day *)(void *)self)->now;
}

/* Time passes only here; then everything is another. */
static void day_sleep(struct record_time *self, int64_t ns, struct pollfd *fds, size_t n)
{
    (void)fds, (void)n;
    struct day *d = (struct day *)(void *)self;
    d->now = ns > d->now ? ns : d->now;
    d->window += 4;
    if (d->now - d->changed >= CHANGE_S * NS) {
        d->changed = d->now;
        change(d);
    }
    for (size_t i = 0; i < THREADS * 2; i++)
        set_stack(d, &d->threads[i]);
    if (d->now - d->ticked >= 10 * NS) {
        d->ticked = d->now;
        d->on_tick(d->context, d->now / NS);
    }
}

static void build(struct day *d, unsigned minor, uint8_t *bytes)
{
    char name[32];
    fake_init(&d->fake, minor, bytes, ARENA, BASE);
    for (size_t i = 0; i < CALLERS; i++) {
        snprintf(name, sizeof(name), "caller_%zu", i);
        d->callers[i] = fake_code(&d->fake, name, "/srv/app.py", (int)i * 20 + 1);
    }
    uint64_t leaf = fake_code(&d->fake, "leaf", "/srv/leaf.py", 1);
    for (size_t i = 0; i < LEAVES; i++) {
        snprintf(name, sizeof(name), "leaf_%zu", i);
        d->names[i] = fake_text(&d->fake, name);
    }
    for (size_t i = 0; i < CLONES; i++)
        d->clones[i] = fake_clone(&d->fake, leaf);
    for (size_t i = 0; i < THREADS * 2; i++)
        fake_thread(&d->fake, &d->threads[i], 100 + i, DEPTH + 1);
    for (size_t i = 0; i < STACKS; i++)
        for (size_t k = 0; k < DEPTH; k++)
            d->stacks[i][k] = d->callers[below(d, CALLERS)];
}

struct record_result day_run(unsigned minor, int64_t rate, int64_t minutes, struct profile *profile,
                             void (*tick)(void *context, int64_t second), void *context)
{
    _cleanup_(freep) uint8_t *bytes = xcalloc(1, ARENA);
    _cleanup_(freep) struct day *d = xcalloc(1, sizeof(*d));
    *d = (struct day){.time = {day_now, day_sleep}, .now = NS, .on_tick = tick, .context = context};
    random_seed(&d->random, 1);
    build(d, minor, bytes);
    change(d);
    struct target *t = NULL;
    if (target_open_memory(&d->fake.reader, d->fake.runtime, minor,
                           &(struct sample_options){.idle = true}, &t, NULL) < 0)
        return (struct record_result){0};
    struct record_options options = {
        .rate = rate, .duration_ms = minutes * 60000, .idle = true, .time = &d->time, .seed = 1};
    struct record *r = record_create_target(t, &options, profile);
    record_run(r);
    struct record_result result = record_result(r);
    record_destroy(r);
    return result;
}
