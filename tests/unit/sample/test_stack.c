/* Stacks that change between two readings: memory made by hand, and a generator's frame in it that
 * is linked to its caller at some readings only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "sample/sample_internal.h"

#define THREAD    0x10000
#define GENERATOR 0x20000
#define CALLER    0x30000
#define SIZE      1024

/* Three pieces of memory, and when the generator is linked. */
struct world {
    struct memory_reader reader;
    const struct python_offsets *offsets;
    uint8_t thread[SIZE], generator[SIZE], caller[SIZE];
    size_t readings;
    size_t suspended_for;   /* readings at first */
    size_t suspended_every; /* then at all but each n-th; 0: never again */
};

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static ssize_t world_read(struct memory_reader *self, const struct iovec *local,
                          const struct iovec *remote, size_t n)
{
    struct world *w = CONTAINER_OF(self, struct world, reader);
    size_t at = w->readings++;
    bool suspended = at < w->suspended_for || (w->suspended_every && at % w->suspended_every != 0);
    put64(w->generator + w->offsets->frame_previous, suspended ? 0 : CALLER);
    ssize_t done = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t address = (uint64_t)(uintptr_t)remote[i].iov_base;
        uint8_t *const pieces[] = {w->thread, w->generator, w->caller};
        size_t piece = (size_t)(address >> 16) - 1, from = (size_t)(address & 0xffff);
        if (piece >= ARRAY_SIZE(pieces) || from + local[i].iov_len > SIZE)
            return done ? done : -EFAULT;
        memcpy(local[i].iov_base, pieces[piece] + from, local[i].iov_len);
        done += (ssize_t)local[i].iov_len;
    }
    return done;
}

static struct world world_of(unsigned minor)
{
    struct world w = {.reader = {.read = world_read}, .offsets = offsets_find(minor)};
    const struct python_offsets *o = w.offsets;
    if (o->thread_cframe) {
        /* The cell is the thread's own, some way behind. */
        put64(w.thread + o->thread_cframe, THREAD + 512);
        put64(w.thread + 512 + o->cframe_frame, GENERATOR);
        w.generator[o->frame_owner] = 1;
    } else {
        put64(w.thread + o->thread_frame, GENERATOR);
        put64(w.generator + o->frame_generator, 0x40000);
    }
    put64(w.generator + o->frame_code, 1);
    put64(w.caller + o->frame_code, 2);
    if (o->frame_state)
        w.generator[o->frame_state] = w.caller[o->frame_state] = o->minor < 10;
    return w;
}

static struct stack_reader reader;

/* The depth of the stack; -errno when there is none. */
static int look(struct world *w, struct stack_memory *m)
{
    reader.reader = &w->reader;
    reader.offsets = w->offsets;
    int e = stack_read(&reader, m, THREAD);
    return e < 0 ? e : (int)reader.depth;
}

static const unsigned minors[] = {8, 9, 10, 11, 12};

/* However often it is caught so: the right stack, or none. */
static void test_generator_between_two_runs(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(minors); i++) {
        for (size_t n = 0; n < 60; n++) {
            struct world w = world_of(minors[i]);
            _cleanup_(stack_memory_finish) struct stack_memory m = {0};
            assert_int_equal(look(&w, &m), 2);
            w.readings = 0;
            w.suspended_for = n;
            int depth = look(&w, &m);
            assert_true(depth == 2 || (depth == -EAGAIN && n >= 8));
            w.suspended_for = 0;
            assert_int_equal(look(&w, &m), 2);
            assert_int_equal(reader.frames[1].address, CALLER);
        }
    }
}

static void test_generator_mostly_between(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(minors); i++) {
        struct world w = world_of(minors[i]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        assert_int_equal(look(&w, &m), 2);
        w.suspended_every = 3;
        for (int k = 0; k < 50; k++)
            assert_int_equal(look(&w, &m), 2);
    }
}

/* Below 3.12, one that C code runs has no caller: at once where nothing else was seen, later where
 * it was. */
static void test_generator_without_a_caller(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(minors) && minors[i] < 12; i++) {
        struct world w = world_of(minors[i]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        w.suspended_for = SIZE_MAX;
        for (int k = 0; k < 3; k++)
            assert_int_equal(look(&w, &m), 1);
        w.suspended_for = 0;
        assert_int_equal(look(&w, &m), 2);
        w.suspended_for = SIZE_MAX;
        int torn = 0;
        while (look(&w, &m) == -EAGAIN && torn < 100)
            torn++;
        assert_in_range(torn, 5, 20);
        assert_int_equal(look(&w, &m), 1);
    }
}

/* From 3.12 on there is none such, for as long as the thread waits for a processor. */
static void test_generator_between_for_long(void **state)
{
    (void)state;
    struct world w = world_of(12);
    _cleanup_(stack_memory_finish) struct stack_memory m = {0};
    for (int before = 0; before < 2; before++) {
        w.suspended_for = SIZE_MAX;
        for (int k = 0; k < 50; k++)
            assert_int_equal(look(&w, &m), -EAGAIN);
        w.suspended_for = 0;
        assert_int_equal(look(&w, &m), 2);
    }
}

/* From 3.12 on, what C code runs is linked to a shim: nothing to wait for. */
static void test_generator_above_a_shim(void **state)
{
    (void)state;
    struct world w = world_of(12);
    _cleanup_(stack_memory_finish) struct stack_memory m = {0};
    assert_int_equal(look(&w, &m), 2);
    w.caller[w.offsets->frame_owner] = 3;
    assert_int_equal(look(&w, &m), 1);
    assert_int_equal(reader.frames[0].address, GENERATOR);
}

/* One frame with many callers calls another again and again: every piece that is read takes its
 * time, and meanwhile the program goes on. From 3.11 on all frames lie in one piece. */
#define CALL      100 /* the caller's instruction while the callee runs */
#define CALLERS   24
#define LOOKS     200
#define DISTANCE  128 /* of one frame from the one that it calls */
#define CALLED    12  /* pieces */
#define STACK     0x20000
#define FRAMES    64 /* where in it they begin, the outermost first */
#define STACK_LEN (FRAMES + (CALLERS + 1) * DISTANCE + 64)

struct calls {
    struct memory_reader reader;
    const struct python_offsets *offsets;
    uint8_t thread[SIZE], stack[STACK_LEN];
    size_t now;      /* pieces read so far */
    size_t not_then; /* pieces without the callee */
};

static uint64_t frame_at(size_t i)
{
    return STACK + FRAMES + i * DISTANCE;
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static ssize_t calls_read(struct memory_reader *self, const struct iovec *local,
                          const struct iovec *remote, size_t n)
{
    struct calls *c = CONTAINER_OF(self, struct calls, reader);
    const struct python_offsets *o = c->offsets;
    ssize_t done = 0;
    for (size_t i = 0; i < n; i++) {
        bool called = c->now++ % (CALLED + c->not_then) < CALLED;
        uint8_t *caller = c->stack + FRAMES + (CALLERS - 1) * DISTANCE;
        put64(c->thread + (o->thread_cframe ? 512 + o->cframe_frame : o->thread_frame),
              frame_at(called ? CALLERS : CALLERS - 1));
        put32(caller + o->frame_instruction, called ? CALL : (uint32_t)(c->now % CALL));
        if (o->frame_stack_top)
            put32(caller + o->frame_stack_top, called ? 1 : UINT32_MAX);
        if (o->frame_state)
            caller[DISTANCE + o->frame_state] = called == (o->minor < 10);

        uint64_t address = (uint64_t)(uintptr_t)remote[i].iov_base;
        bool stack = address >= STACK;
        size_t from = (size_t)(address & 0xffff);
        if (from + local[i].iov_len > (stack ? STACK_LEN : SIZE))
            return done ? done : -EFAULT;
        memcpy(local[i].iov_base, (stack ? c->stack : c->thread) + from, local[i].iov_len);
        done += (ssize_t)local[i].iov_len;
    }
    return done;
}

static void set_calls(struct calls *c, unsigned minor)
{
    const struct python_offsets *o = offsets_find(minor);
    *c = (struct calls){.reader = {.read = calls_read}, .offsets = o};
    if (o->thread_cframe)
        put64(c->thread + o->thread_cframe, THREAD + 512);
    if (o->thread_chunk) {
        put64(c->thread + o->thread_chunk, STACK);
        put64(c->stack + 8, STACK_LEN);
    }
    for (size_t i = 0; i <= CALLERS; i++) {
        uint8_t *frame = c->stack + FRAMES + i * DISTANCE;
        put64(frame + o->frame_code, i + 1);
        put64(frame + o->frame_previous, i ? frame_at(i - 1) : 0);
        if (o->frame_stack_top)
            put32(frame + o->frame_stack_top, i < CALLERS ? 1 : UINT32_MAX);
        if (o->frame_state)
            frame[o->frame_state] = o->minor < 10;
    }
}

/* Counts stacks with the callee and without. */
static void look_at_calls(unsigned minor, size_t not_then, size_t *with, size_t *without,
                          size_t *wrong, size_t *shorter)
{
    static struct calls c;
    _cleanup_(stack_memory_finish) struct stack_memory m = {0};
    set_calls(&c, minor);
    c.not_then = not_then;
    reader.reader = &c.reader;
    reader.offsets = c.offsets;
    for (size_t k = 0; k < LOOKS; k++) {
        c.now += k;
        if (stack_read(&reader, &m, THREAD) == -EAGAIN)
            continue;
        bool called = reader.depth == CALLERS + 1;
        assert_true(called || reader.depth <= CALLERS);
        if (reader.depth < CALLERS) {
            ++*shorter;
            continue;
        }
        uint64_t instruction = reader.frames[called].instruction;
        if (c.offsets->thread_chunk)
            instruction &= UINT32_MAX;
        *wrong += called ? instruction != CALL : instruction >= CALL;
        ++*(called ? with : without);
    }
}

/* A caller that waits for its callee is not seen without it, and both as often as they are there:
 * before 3.11, where a look takes as many pieces as the callee lives, nearly so. Where looks fail
 * again and again, one that lacks its innermost frames is better than none. */
static void test_callee_that_comes_and_goes(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(minors); i++) {
        size_t with = 0, without = 0, wrong = 0, shorter = 0;
        double share = 0;
        for (size_t not_then = CALLED; not_then < 100; not_then++) {
            look_at_calls(minors[i], not_then, &with, &without, &wrong, &shorter);
            share += (double)CALLED / (double)(CALLED + not_then) / (100 - CALLED);
        }
        double seen = (double)with / (double)(with + without);
        print_message("3.%u: %zu stacks, the callee in %.3f of them and by the clock in %.3f, "
                      "%zu wrong; %zu shorter\n",
                      minors[i], with + without, seen, share, wrong, shorter);
        assert_in_range(with + without, LOOKS * (100 - CALLED) * 99 / 100, LOOKS * 100);
        double most = minors[i] < 11 ? 0.05 : 0.01;
        assert_true(seen > share - most && seen < share + most);
        assert_true(wrong * 1000 <= with + without);
    }
}

/* A frame, from 3.11 on in a piece of the data stack, whose thread goes on while it is read. */
struct busy {
    struct memory_reader reader;
    const struct python_offsets *offsets;
    uint8_t thread[SIZE], frames[SIZE];
    size_t frame; /* where in frames */
    bool runs;
};

static ssize_t busy_read(struct memory_reader *self, const struct iovec *local,
                         const struct iovec *remote, size_t n)
{
    struct busy *b = CONTAINER_OF(self, struct busy, reader);
    ssize_t done = 0;
    for (size_t i = 0; i < n; i++) {
        b->frames[b->frame + b->offsets->frame_instruction] += b->runs;
        uint64_t address = (uint64_t)(uintptr_t)remote[i].iov_base;
        const uint8_t *piece = address >= GENERATOR ? b->frames : b->thread;
        size_t from = (size_t)(address & 0xffff);
        if (from + local[i].iov_len > SIZE)
            return done ? done : -EFAULT;
        memcpy(local[i].iov_base, piece + from, local[i].iov_len);
        done += (ssize_t)local[i].iov_len;
    }
    return done;
}

static void set_busy(struct busy *b, unsigned minor)
{
    const struct python_offsets *o = offsets_find(minor);
    *b = (struct busy){.reader = {.read = busy_read}, .offsets = o};
    if (o->thread_chunk) {
        b->frame = 64;
        put64(b->thread + o->thread_chunk, GENERATOR);
        put64(b->frames + 8, SIZE);
    }
    if (o->thread_cframe) {
        put64(b->thread + o->thread_cframe, THREAD + 512);
        put64(b->thread + 512 + o->cframe_frame, GENERATOR + b->frame);
    } else {
        put64(b->thread + o->thread_frame, GENERATOR + b->frame);
    }
    put64(b->frames + b->frame + o->frame_code, 1);
    if (o->frame_stack_top)
        put32(b->frames + b->frame + o->frame_stack_top, UINT32_MAX);
}

/* Whoever changes his innermost frame while it is read runs. */
static void test_moved(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(minors); i++) {
        static struct busy b;
        _cleanup_(stack_memory_finish) struct stack_memory m = {0}, other = {0};
        set_busy(&b, minors[i]);
        reader.reader = &b.reader;
        reader.offsets = b.offsets;
        for (int k = 0; k < 6; k++) {
            b.runs = k % 2;
            assert_int_equal(stack_read(&reader, &m, THREAD), 0);
            assert_false(stack_moved(&reader, &m)); /* nothing was read along */
            assert_true(stack_prepare(&reader, &m, THREAD));
            assert_int_equal(memory_batch_read(&b.reader, &reader.batch), 0);
            assert_int_equal(stack_moved(&reader, &m), b.runs);
            assert_false(stack_moved(&reader, &other));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator_between_two_runs),
        cmocka_unit_test(test_generator_mostly_between),
        cmocka_unit_test(test_generator_without_a_caller),
        cmocka_unit_test(test_generator_between_for_long),
        cmocka_unit_test(test_generator_above_a_shim),
        cmocka_unit_test(test_callee_that_comes_and_goes),
        cmocka_unit_test(test_moved),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    stack_reader_finish(&reader);
    return failed;
}
