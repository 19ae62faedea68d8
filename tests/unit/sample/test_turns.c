/* Before 3.11 each frame is an object somewhere in memory. One function calls many others in turn,
 * most for less time than a copy of all their frames takes; the second half of their time they may
 * call one that all of them share. Or one of a few calls itself, to and fro, faster than its frames
 * can be read. Memory made by hand, where time passes with what is read, unless the thread is
 * held. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "sample/sample_internal.h"

#define THREAD    0x10000
#define FRAMES    0x20000 /* the module's, then that of each function, and the shared one's */
#define DISTANCE  512
#define FUNCTIONS 31
#define SHARED    (FUNCTIONS + 1)
#define CALL      3  /* what a system call takes: as much as so many pieces */
#define BRIEF     12 /* how long the functions run */
#define LONG      72 /* and the first one */
#define ROUND     ((FUNCTIONS - 1) * BRIEF + LONG)
#define PARTS     2
#define PART      30000       /* how long one of them recurses */
#define RECURSIVE (2 * PARTS) /* the first such frame */
#define DEEPEST   40
#define ALL       (RECURSIVE + DEEPEST)

struct world {
    struct memory_reader reader;
    struct stack_holder holder;
    bool held;
    bool runs;     /* on, though it should be held */
    size_t before; /* it was to be held */
    size_t holds;  /* how often it was to be held */
    const struct python_offsets *offsets;
    void (*show)(struct world *);
    uint8_t thread[1024], frames[ALL * DISTANCE];
    size_t time;
    size_t slower; /* times */
    size_t faster; /* times, the recursion */
    bool stands;   /* the first part, in its own frame */
    bool parked;   /* it does not run any more */
    bool share;
    bool greenlets; /* each part has its own outermost frame */
    uint32_t random;
};

static const unsigned minors[] = {8, 9, 10};
static struct stack_reader reader;
static struct world world;

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

/* Which function runs, and whether it calls the shared one. */
static size_t turn(const struct world *w, bool *calls)
{
    size_t in = w->time / w->slower % ROUND, rest = in < LONG ? in : (in - LONG) % BRIEF;
    *calls = w->share && rest >= (in < LONG ? LONG : BRIEF) / 2;
    return in < LONG ? 0 : 1 + (in - LONG) / BRIEF;
}

static void set_instruction(struct world *w, size_t frame, size_t instruction)
{
    int32_t value = (int32_t)instruction;
    memcpy(w->frames + frame * DISTANCE + w->offsets->frame_instruction, &value, sizeof(value));
}

static uint32_t next_random(struct world *w)
{
    w->random = w->random * 1103515245 + 12345;
    return w->random >> 16;
}

static void show_turns(struct world *w)
{
    const struct python_offsets *o = w->offsets;
    bool calls;
    size_t which = turn(w, &calls), innermost = calls ? SHARED : 1 + which;
    put64(w->thread + o->thread_frame, FRAMES + innermost * DISTANCE);
    put64(w->frames + SHARED * DISTANCE + o->frame_previous, FRAMES + (1 + which) * DISTANCE);
    set_instruction(w, 0, 100 + which);
    set_instruction(w, 1 + which, (calls ? 200 : 300) + which);
    for (size_t i = 0; i <= SHARED; i++) {
        bool runs = i == 0 || i == 1 + which || i == innermost;
        w->frames[i * DISTANCE + o->frame_state] = runs == (o->minor < 10);
    }
}

static size_t part_at(size_t time)
{
    return time / PART % PARTS;
}

static void show_frame(struct world *w, size_t frame, uint64_t previous, bool runs)
{
    put64(w->frames + frame * DISTANCE + w->offsets->frame_previous, previous);
    w->frames[frame * DISTANCE + w->offsets->frame_state] = runs == (w->offsets->minor < 10);
}

static size_t deep_at(const struct world *w)
{
    size_t step = w->stands ? 0 : w->time * w->faster % (2 * DEEPEST);
    return step < DEEPEST ? step : 2 * DEEPEST - 1 - step;
}

/* Two frames of each part, and what recurses. Those that have ended are linked to each other. */
static void show_recursion(struct world *w)
{
    size_t part = w->stands || w->parked ? w->parked : part_at(w->time), deep = deep_at(w);
    size_t innermost = deep ? RECURSIVE + deep - 1 : 2 * part + 1;
    put64(w->thread + w->offsets->thread_frame, FRAMES + innermost * DISTANCE);
    for (size_t i = 0; i < PARTS; i++) {
        bool there = w->greenlets || i == part;
        size_t outermost = w->greenlets ? 2 * i : 0;
        show_frame(w, 2 * i, 0, w->greenlets || i == 0);
        show_frame(w, 2 * i + 1, there ? FRAMES + outermost * DISTANCE : 0, there);
        set_instruction(w, 2 * i + 1, 300 + i);
        set_instruction(w, 2 * i, 100 + (w->greenlets ? i : part));
    }
    for (size_t i = 0; i < DEEPEST; i++) {
        size_t before = i ? RECURSIVE + i - 1 : 2 * part + 1, after = RECURSIVE + i + 1;
        size_t to = i < deep ? before : after;
        show_frame(w, RECURSIVE + i, to < ALL ? FRAMES + to * DISTANCE : 0, i < deep);
    }
}

static ssize_t world_read(struct memory_reader *self, const struct iovec *local,
                          const struct iovec *remote, size_t n)
{
    struct world *w = CONTAINER_OF(self, struct world, reader);
    ssize_t done = 0;
    w->time += w->held ? 0 : CALL;
    for (size_t i = 0; i < n; i++, w->time += !w->held) {
        uint64_t address = (uint64_t)(uintptr_t)remote[i].iov_base;
        bool frame = address >= FRAMES;
        size_t from = (size_t)(address - (frame ? FRAMES : THREAD));
        if (from + local[i].iov_len > (frame ? sizeof(w->frames) : sizeof(w->thread)))
            return done ? done : -EFAULT;
        w->show(w);
        memcpy(local[i].iov_base, (frame ? w->frames : w->thread) + from, local[i].iov_len);
        done += (ssize_t)local[i].iov_len;
    }
    return done;
}

static bool visit(struct stack_holder *self, void (*work)(void *context), void *context)
{
    work(context);
    CONTAINER_OF(self, struct world, holder)->held = false;
    return true;
}

static bool begin_hold(struct stack_holder *self)
{
    struct world *w = CONTAINER_OF(self, struct world, holder);
    w->holds++;
    w->before = w->time;
    w->held = !w->runs;
    return true;
}

static bool was_held(struct stack_holder *self)
{
    const struct world *w = CONTAINER_OF(self, struct world, holder);
    return w->time == w->before;
}

static struct world *begin(unsigned minor)
{
    struct world *w = &world;
    *w = (struct world){.reader = {.read = world_read},
                        .holder = {.visit = visit, .begin = begin_hold, .held = was_held},
                        .offsets = offsets_find(minor),
                        .show = show_turns,
                        .slower = 1,
                        .faster = 1,
                        .random = 1};
    for (size_t i = 0; i < ALL; i++) {
        put64(w->frames + i * DISTANCE + w->offsets->frame_code, 1 + i);
        put64(w->frames + i * DISTANCE + w->offsets->frame_previous, i ? FRAMES : 0);
    }
    reader.reader = &w->reader;
    reader.offsets = w->offsets;
    reader.holder = NULL;
    return w;
}

#define LOOKS 4000

static void test_shares(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        size_t seen[FUNCTIONS] = {0}, all = 0;
        for (size_t i = 0; i < LOOKS; i++) {
            w->time += next_random(w) % ROUND;
            if (stack_read(&reader, &m, THREAD) < 0 || reader.depth != 2)
                continue;
            size_t which = (size_t)((reader.frames[0].address - FRAMES) / DISTANCE - 1);
            assert_in_range(which, 0, FUNCTIONS - 1);
            assert_int_equal(reader.frames[1].address, FRAMES);
            assert_int_equal(reader.frames[1].instruction, 100 + which);
            seen[which]++;
            all++;
        }
        assert_true(all > LOOKS * 95 / 100);
        assert_in_range(seen[0] * 100 / all, 13, 23); /* 72 of 432 by its time, 17 percent */
        for (size_t i = 1; i < FUNCTIONS; i++)
            assert_in_range(seen[i] * 1000 / all, 1, 60); /* 28 by their time */
    }
}

static uint64_t frame_of(size_t i)
{
    return FRAMES + i * DISTANCE;
}

/* Frames that belong together, at lines that they had together. */
static bool is_right(void)
{
    const struct raw_frame *f = reader.frames;
    size_t depth = reader.depth, which = (size_t)f[depth - 1].instruction - 100;
    bool shared = depth == 3;
    return depth >= 2 && depth <= 3 && which < FUNCTIONS && f[depth - 1].address == FRAMES &&
           f[depth - 2].address == frame_of(1 + which) &&
           f[depth - 2].instruction == (shared ? 200 : 300) + which &&
           (!shared || f[0].address == frame_of(SHARED));
}

static void see_callees(unsigned minor, bool runs_on)
{
    struct world *w = begin(minor);
    _cleanup_(stack_memory_finish) struct stack_memory m = {0};
    size_t right = 0, shared = 0, all = 0;
    w->runs = runs_on;
    reader.holder = runs_on ? &w->holder : NULL;
    w->share = true;
    w->slower = 3;
    for (size_t i = 0; i < LOOKS; i++) {
        w->time += next_random(w) % (3 * ROUND);
        if (stack_read(&reader, &m, THREAD) < 0 || reader.depth < 2)
            continue;
        right += is_right();
        shared += reader.depth == 3;
        all++;
    }
    assert_true(all > LOOKS * 95 / 100);
    assert_true(right * 100 >= all * 99);
    /* Half, by its time: such are seen too rarely. */
    assert_true(shared * 100 > all * (runs_on ? 4 : 7));
}

/* Not held at all, and by one who only believes so. */
static void test_callees(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        see_callees(minors[k], false);
        see_callees(minors[k], true);
    }
}

/* What does not stand still long enough is left out, and not the time that was looked at. A
 * greenlet that does not run stands best of all. */
static void recurse(unsigned minor, bool greenlets)
{
    struct world *w = begin(minor);
    _cleanup_(stack_memory_finish) struct stack_memory m = {0};
    size_t seen[PARTS] = {0}, all = 0;
    w->show = show_recursion;
    w->greenlets = greenlets;
    for (size_t i = 0; i < LOOKS / 8; i++) {
        w->time += next_random(w) % (3 * PART);
        size_t before = part_at(w->time);
        int e = stack_read(&reader, &m, THREAD);
        size_t part = part_at(w->time), depth = reader.depth;
        if (e < 0 || part != before)
            continue;
        all++;
        assert_true(depth >= 1);
        assert_int_equal(reader.frames[depth - 1].address, frame_of(greenlets ? 2 * part : 0));
        assert_int_equal(reader.frames[depth - 1].instruction, 100 + part);
        if (depth == 1)
            continue;
        assert_int_equal(reader.frames[depth - 2].address, frame_of(2 * part + 1));
        seen[part]++;
    }
    /* Of greenlets, too many looks fail. */
    assert_true(all > LOOKS / 8 * (greenlets ? 30 : 88) / 100);
    assert_true((seen[0] + seen[1]) * 100 > all * 95);
    if (!greenlets)
        assert_in_range(seen[0] * 100 / all, 42, 58);
}

static void test_recursion(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        recurse(minors[k], false);
        recurse(minors[k], true);
    }
}

/* The only one that ran stands still, and another one recurses. */
static void test_parked(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        size_t seen[PARTS] = {0};
        w->show = show_recursion;
        w->greenlets = w->stands = true;
        for (size_t i = 0; i < LOOKS / 4; i++) {
            if (i == LOOKS / 40) {
                w->stands = false;
                w->parked = true;
                w->faster = 6;
            }
            w->time += next_random(w) % PART;
            if (stack_read(&reader, &m, THREAD) < 0)
                continue;
            assert_true(reader.depth > 0);
            assert_int_equal(reader.frames[reader.depth - 1].address, frame_of(w->parked ? 2 : 0));
            seen[w->parked]++;
        }
        assert_int_equal(seen[0], LOOKS / 40);
        assert_true(seen[1] > LOOKS / 40);
    }
}

static void test_shares_held(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        size_t seen[FUNCTIONS] = {0};
        reader.holder = &w->holder;
        for (size_t i = 0; i < LOOKS; i++) {
            w->time += next_random(w) % ROUND;
            assert_int_equal(stack_read(&reader, &m, THREAD), 0);
            assert_false(w->held);
            assert_int_equal(reader.depth, 2);
            assert_true(is_right());
            seen[(reader.frames[0].address - FRAMES) / DISTANCE - 1]++;
        }
        assert_in_range(seen[0] * 100 / LOOKS, 14, 19); /* by its time, 17 */
        for (size_t i = 1; i < FUNCTIONS; i++)
            assert_in_range(seen[i] * 1000 / LOOKS, 17, 39); /* 28 */
    }
}

static void test_callees_held(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        size_t right = 0, shared = 0;
        w->share = true;
        w->slower = 3;
        reader.holder = &w->holder;
        for (size_t i = 0; i < LOOKS; i++) {
            w->time += next_random(w) % (3 * ROUND);
            assert_int_equal(stack_read(&reader, &m, THREAD), 0);
            right += is_right();
            shared += reader.depth == 3;
        }
        assert_true(right * 1000 >= LOOKS * 999); /* now and then it is not held, to try */
        assert_in_range(shared * 100 / LOOKS, 45, 55);
    }
}

/* Each look at the whole of the stack that stands just then. */
static void recurse_held(unsigned minor, bool greenlets)
{
    struct world *w = begin(minor);
    _cleanup_(stack_memory_finish) struct stack_memory m = {0};
    size_t whole = 0, seen[PARTS] = {0};
    w->show = show_recursion;
    w->greenlets = greenlets;
    reader.holder = &w->holder;
    for (size_t i = 0; i < LOOKS / 4; i++) {
        w->time += next_random(w) % (3 * PART);
        assert_int_equal(stack_read(&reader, &m, THREAD), 0);
        size_t part = part_at(w->time), depth = reader.depth;
        whole += depth == 2 + deep_at(w);
        assert_int_equal(reader.frames[depth - 1].address, frame_of(greenlets ? 2 * part : 0));
        assert_int_equal(reader.frames[depth - 1].instruction, 100 + part);
        assert_int_equal(reader.frames[depth - 2].address, frame_of(2 * part + 1));
        seen[part]++;
    }
    assert_true(whole * 100 >= LOOKS / 4 * 98);
    assert_in_range(seen[0] * 100 / (LOOKS / 4), 45, 55);
}

static void test_recursion_held(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        recurse_held(minors[k], false);
        recurse_held(minors[k], true);
    }
}

static void look(struct world *w, struct stack_memory *m)
{
    w->holds = 0;
    for (size_t i = 0; i < LOOKS / 8; i++) {
        w->time += next_random(w) % PART;
        assert_int_equal(stack_read(&reader, m, THREAD), 0);
    }
}

/* Who stands still never waits, and who does so again waits no more. */
static void test_still(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        w->show = show_recursion;
        reader.holder = &w->holder;
        w->stands = true;
        look(w, &m);
        assert_int_equal(w->holds, 0);
        w->stands = false;
        look(w, &m);
        assert_true(w->holds >= LOOKS / 8 * 95 / 100);
        w->stands = true;
        look(w, &m);
        look(w, &m);
        assert_int_equal(w->holds, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),         cmocka_unit_test(test_callees),
        cmocka_unit_test(test_recursion),      cmocka_unit_test(test_parked),
        cmocka_unit_test(test_shares_held),    cmocka_unit_test(test_callees_held),
        cmocka_unit_test(test_recursion_held), cmocka_unit_test(test_still)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    stack_reader_finish(&reader);
    return failed;
}
