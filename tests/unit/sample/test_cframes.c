/* In 3.11 and 3.12 the pointer to the innermost frame lies on the C stack, another one for each
 * piece of C code that calls Python, and what such a call leaves there stays until the next one.
 * Memory made by hand, which goes on from piece to piece while it is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "sample/sample_internal.h"

#define THREAD     0x10000
#define CHUNK      0x20000 /* with the frame of the module */
#define MODULE     (CHUNK + 64)
#define GENERATORS 0x30000
#define C_STACK    0x100000
#define CHUNK_SIZE 0x10000
#define SMALL      1024
#define C_SIZE     (1u << 20)
#define FIRST      (C_STACK + C_SIZE - 64) /* cframe of the module; stacks grow downwards */
#define SECOND     (FIRST - 1024)          /* of what its C code calls */
#define SHIM       (FIRST - 512)
#define DISTANCE   256 /* from one generator to the other */

struct world {
    struct memory_reader reader;
    const struct python_offsets *offsets;
    void (*pass)(struct world *w);                  /* a piece more has been read */
    void (*interrupt)(struct world *w, bool begin); /* around the chunk; NULL: it is not */
    uint8_t thread[SMALL], chunk[CHUNK_SIZE], generators[SMALL], c_stack[C_SIZE];
    size_t pieces, bytes;
};

static const unsigned minors[] = {11, 12};
static struct stack_reader reader;
static struct world world;

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint64_t generator(size_t i)
{
    return GENERATORS + i * DISTANCE;
}

static uint8_t *on_c_stack(struct world *w, uint64_t address)
{
    return w->c_stack + (address - C_STACK);
}

/* One cframe, above another, 0: none. */
static void set_cframe(struct world *w, uint64_t cframe, uint64_t frame, uint64_t previous)
{
    put64(on_c_stack(w, cframe) + w->offsets->cframe_frame, frame);
    put64(on_c_stack(w, cframe) + w->offsets->cframe_previous, previous);
}

static void point_to(struct world *w, uint64_t cframe)
{
    put64(w->thread + w->offsets->thread_cframe, cframe);
}

/* By C code: in 3.12 a frame of its own stands in between. */
static void link(struct world *w, size_t i, bool called)
{
    uint64_t caller = w->offsets->minor < 12 ? MODULE : SHIM;
    put64(w->generators + i * DISTANCE + w->offsets->frame_previous, called ? caller : 0);
}

static void module_at(struct world *w, uint64_t instruction)
{
    put64(w->chunk + (MODULE - CHUNK) + w->offsets->frame_instruction, instruction);
}

static ssize_t world_read(struct memory_reader *self, const struct iovec *local,
                          const struct iovec *remote, size_t n)
{
    struct world *w = CONTAINER_OF(self, struct world, reader);
    ssize_t done = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t address = (uint64_t)(uintptr_t)remote[i].iov_base;
        bool c = address >= C_STACK;
        uint8_t *const pieces[] = {w->thread, w->chunk, w->generators};
        static const size_t sizes[] = {SMALL, CHUNK_SIZE, SMALL, C_SIZE};
        size_t piece = (size_t)(address >> 16) - 1;
        size_t from = (size_t)(c ? address - C_STACK : address & 0xffff);
        if ((!c && piece >= ARRAY_SIZE(pieces)) || from + local[i].iov_len > sizes[c ? 3 : piece])
            return done ? done : -EFAULT;
        bool interrupted = w->interrupt && address == CHUNK && local[i].iov_len > 64;
        if (interrupted)
            w->interrupt(w, true);
        memcpy(local[i].iov_base, (c ? w->c_stack : pieces[piece]) + from, local[i].iov_len);
        if (interrupted)
            w->interrupt(w, false);
        done += (ssize_t)local[i].iov_len;
        w->pieces++;
        w->bytes += local[i].iov_len;
        if (w->pass)
            w->pass(w);
    }
    return done;
}

/* The module runs. */
static struct world *begin(unsigned minor)
{
    struct world *w = &world;
    *w = (struct world){.reader = {.read = world_read}, .offsets = offsets_find(minor)};
    const struct python_offsets *o = w->offsets;
    put64(w->thread + o->thread_chunk, CHUNK);
    put64(w->chunk + 8, CHUNK_SIZE);
    uint8_t *module = w->chunk + (MODULE - CHUNK);
    put64(module + o->frame_code, 1);
    memset(module + o->frame_stack_top, 0xff, sizeof(int));
    for (size_t i = 0; i < 2; i++) {
        uint8_t *frame = w->generators + i * DISTANCE;
        put64(frame + o->frame_code, 2 + i);
        frame[o->frame_owner] = 1;
        memset(frame + o->frame_stack_top, 0xff, sizeof(int));
        if (o->frame_entry)
            frame[o->frame_entry] = 1;
    }
    uint8_t *shim = on_c_stack(w, SHIM);
    shim[o->frame_owner] = 3;
    put64(shim + o->frame_previous, MODULE);
    set_cframe(w, FIRST, MODULE, THREAD + 512);
    point_to(w, FIRST);
    reader.reader = &w->reader;
    reader.offsets = o;
    return w;
}

static int look(struct stack_memory *m)
{
    int e = stack_read(&reader, m, THREAD);
    return e < 0 ? e : (int)reader.depth;
}

/* The module's C code resumes one generator and then the other, each from another instruction, and
 * for a short time runs itself in between. */
#define RUN   40 /* pieces */
#define PAUSE 3

static void take_turns(struct world *w)
{
    size_t turn = w->pieces / (RUN + PAUSE), in = w->pieces % (RUN + PAUSE), which = turn % 2;
    /* One has been left, so the module goes on to the other. */
    module_at(w, 100 + (in < RUN ? which : !which));
    if (in < RUN) {
        set_cframe(w, SECOND, generator(which), FIRST);
        link(w, which, true);
        point_to(w, SECOND);
    } else {
        link(w, which, false);
        point_to(w, FIRST);
    }
}

static void test_one_after_the_other(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        w->pass = take_turns;
        take_turns(w);
        size_t seen = 0;
        for (size_t i = 0; i < 2000; i++) {
            w->pieces += i % 7;
            if (look(&m) != 2)
                continue;
            seen++;
            size_t which = reader.frames[0].address == generator(1);
            assert_int_equal(reader.frames[0].address, generator(which));
            assert_int_equal(reader.frames[1].address, MODULE);
            assert_int_equal(reader.frames[1].instruction, 100 + which);
        }
        assert_true(seen > 1000);
    }
}

/* Another generator runs while the chunk is read, long enough to come back to the first. */
static bool interrupts;

static void interrupt(struct world *w, bool begins)
{
    if (!interrupts)
        return;
    module_at(w, begins ? 101 : 100);
    if (begins)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    else
        interrupts = false;
}

static void test_interrupted(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        w->interrupt = interrupt;
        set_cframe(w, SECOND, generator(0), FIRST);
        link(w, 0, true);
        module_at(w, 100);
        point_to(w, SECOND);
        for (size_t i = 0; i < 200; i++) {
            interrupts = i > 50 && i % 10 == 0;
            assert_int_equal(look(&m), 2);
            assert_int_equal(reader.frames[1].instruction, 100);
            assert_false(interrupts);
        }
    }
}

/* The cframe of a call that begins holds what the last one left there, for as long as the thread
 * waits for a processor: no stack at all, and no word that there is none. */
static void test_call_that_begins(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        for (size_t i = 0; i < 100; i++) {
            bool between = i % 3 == 1, none = i % 3 == 2;
            set_cframe(w, SECOND, none ? 0 : generator(0), FIRST);
            link(w, 0, !between);
            point_to(w, SECOND);
            assert_int_equal(look(&m), between || none ? -EAGAIN : 2);
        }
    }
}

/* A greenlet's own cframe lies on the C stack; one whose C code sleeps has no frame. */
static void test_greenlet(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        assert_int_equal(look(&m), 1);
        set_cframe(w, SECOND, 0, THREAD + 512);
        point_to(w, SECOND);
        assert_int_equal(look(&m), 0);
        for (size_t i = 0; i < 50; i++) {
            int64_t before = w->reader.calls;
            assert_int_equal(look(&m), 0);
            assert_in_range(w->reader.calls - before, 1, 5);
        }
        point_to(w, FIRST);
        assert_int_equal(look(&m), 1);
    }
}

/* A frame that waits for a processor after it has taken back what it called looks as if it still
 * called something. Asked twice, it is what it is; asked once, it might be on its way. */
static void test_frame_that_stands(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        assert_int_equal(look(&m), 1);
        memset(w->chunk + (MODULE - CHUNK) + w->offsets->frame_stack_top, 0, sizeof(int));
        for (size_t i = 0; i < 50; i++) {
            int64_t before = w->reader.calls;
            assert_int_equal(look(&m), 1);
            assert_in_range(w->reader.calls - before, 2, 6);
        }
    }
}

/* C code calls a function before the chunk is read, and that has returned behind it: the line that
 * calls has begun by then, and the one before it was left. What is left over of such a call runs no
 * more. */
#define FUNCTION (MODULE + 512)

static bool calls;

static void call_function(struct world *w, bool begins)
{
    uint8_t *frame = w->chunk + (FUNCTION - CHUNK);
    bool runs = calls && begins;
    memset(frame + w->offsets->frame_stack_top, runs ? 0xff : 0, sizeof(int));
    module_at(w, runs ? 101 : 100);
}

static void test_function_within_one_copy(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        const struct python_offsets *o = w->offsets;
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        uint8_t *frame = w->chunk + (FUNCTION - CHUNK);
        put64(frame + o->frame_code, 2);
        put64(frame + o->frame_previous, o->minor < 12 ? MODULE : SHIM);
        if (o->frame_entry)
            frame[o->frame_entry] = 1;
        set_cframe(w, SECOND, FUNCTION, FIRST);
        point_to(w, SECOND); /* the shim becomes known */
        assert_int_equal(look(&m), 2);
        point_to(w, FIRST);
        w->interrupt = call_function;
        for (size_t i = 0; i < 200; i++) {
            calls = i % 2;
            assert_int_equal(look(&m), calls ? 2 : 1);
            assert_int_equal(reader.frames[calls].address, MODULE);
            assert_int_equal(reader.frames[calls].instruction, calls ? 101 : 100);
        }
    }
}

/* Many functions have called one another when the chunk is read, and all have returned behind. */
#define CALLS 400

static void test_deep_within_one_copy(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        const struct python_offsets *o = w->offsets;
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        size_t step = (o->frame_head + 7) / 8 * 8;
        for (size_t i = 1; i <= CALLS; i++) {
            uint8_t *caller = w->chunk + (MODULE - CHUNK) + (i - 1) * step, *frame = caller + step;
            memset(caller + o->frame_stack_top, 0, sizeof(int));
            memset(frame + o->frame_stack_top, 0xff, sizeof(int));
            put64(frame + o->frame_code, 1);
            put64(frame + o->frame_previous, MODULE + (i - 1) * step);
        }
        m.chunks[0] =
            (struct stack_chunk){.address = CHUNK, .size = CHUNK_SIZE, .used = CHUNK_SIZE};
        m.n_chunks = 1;
        assert_int_equal(look(&m), CALLS + 1);
    }
}

/* Calls through much C code lie far apart, and each look meets another one. */
static void test_far_apart(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(minors); k++) {
        struct world *w = begin(minors[k]);
        _cleanup_(stack_memory_finish) struct stack_memory m = {0};
        link(w, 0, true);
        size_t near = 0, again = 0;
        for (size_t i = 0; i < 400; i++) {
            uint64_t cframe = SECOND - i * 7 % 20 * 1500;
            set_cframe(w, cframe, generator(0), FIRST);
            point_to(w, cframe);
            int64_t before = w->reader.calls;
            assert_int_equal(look(&m), 2);
            again += i >= 100 && w->reader.calls > before + 1;
        }
        assert_in_range(again, 0, 30); /* of 300: where we were interrupted */
        /* What was of no use for long is not read any more. */
        for (size_t i = 0; i < 4000; i++) {
            w->bytes = 0;
            set_cframe(w, SECOND, generator(0), FIRST);
            point_to(w, SECOND);
            assert_int_equal(look(&m), 2);
            near = w->bytes;
        }
        assert_true(near < 8000);
        /* The other end of the C stack, or another one: a new beginning, not all in between. */
        for (size_t i = 0; i < 100; i++) {
            uint64_t cframe = i % 2 ? SECOND : C_STACK;
            set_cframe(w, cframe, generator(0), FIRST);
            point_to(w, cframe);
            w->bytes = 0;
            assert_int_equal(look(&m), 2);
            assert_true(w->bytes < 16 * STACK_WINDOW_MAX);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_call_that_begins),
        cmocka_unit_test(test_greenlet),
        cmocka_unit_test(test_frame_that_stands),
        cmocka_unit_test(test_function_within_one_copy),
        cmocka_unit_test(test_deep_within_one_copy),
        cmocka_unit_test(test_far_apart),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    stack_reader_finish(&reader);
    return failed;
}
