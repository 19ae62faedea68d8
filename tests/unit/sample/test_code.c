/* Line tables that take much memory: they cost the line, never the stack. And code objects in the
 * place of others, down to their names and tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"
#include "sample/target.h"

#define TABLE_MAX  (8u << 20) /* bytes of one that is read */
#define FIRST_LINE 10
#define LINE       3 /* of the function, that each frame stands on */
#define DEPTH      12
#define ROOM       (64u << 20)

static uint8_t *bytes;

struct seen {
    size_t stacks, known, first; /* frames with the line, and with the function's first one */
};

static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    s->stacks++;
    for (size_t i = 0; i < t->depth; i++) {
        assert_true(str_is(t->frames[i]->function, "f") && str_is(t->frames[i]->file, "f.py"));
        s->known += t->frames[i]->line == FIRST_LINE + LINE;
        s->first += t->frames[i]->line == FIRST_LINE;
    }
}

/* Its code's table is one of so many bytes, which begins as it did. */
static uint64_t function(struct fake *f, uint64_t len)
{
    const struct python_offsets *o = f->offsets;
    uint64_t code = fake_code(f, "f", "f.py", FIRST_LINE), old, old_len;
    memcpy(&old, bytes + (code + o->code_lines - f->base), sizeof(old));
    memcpy(&old_len, bytes + (old + o->bytes_length - f->base), sizeof(old_len));
    uint64_t table = fake_alloc(f, o->bytes_bytes + (len <= TABLE_MAX ? len : old_len));
    fake_put(f, table + o->bytes_bytes, bytes + (old + o->bytes_bytes - f->base), old_len);
    fake_put64(f, table + o->bytes_length, len);
    fake_put64(f, code + o->code_lines, table);
    return code;
}

/* One stack of functions with such tables, seen again and again. */
static struct seen look(unsigned minor, uint64_t len, size_t depth, struct sample_shared *shared)
{
    struct fake f;
    struct fake_thread thread;
    struct target *t = NULL;
    struct seen s = {0};
    uint64_t codes[DEPTH];
    fake_init(&f, minor, bytes, ROOM, 0x10000);
    fake_thread(&f, &thread, 1, DEPTH);
    fake_threads(&f, &(const struct fake_thread *){&thread}, 1);
    for (size_t i = 0; i < depth; i++)
        codes[i] = function(&f, len);
    fake_stack(&f, &thread, codes, depth, LINE);
    assert_int_equal(target_open_memory(&f.reader, f.runtime, minor,
                                        &(struct sample_options){.idle = true, .shared = shared},
                                        &t, NULL),
                     0);
    /* On a slow machine the first one may take longer than it may. */
    for (int i = 0; i < 20 && s.stacks < 3; i++)
        assert_int_equal(target_look(t, see, &s, NULL), 0);
    struct sample_counts counts = target_counts(t);
    if (s.stacks != 3 || s.known + s.first != 3 * depth)
        fail_msg("3.%u, %zu tables of %llu bytes: %d errors, %zu stacks, %zu + %zu frames", minor,
                 depth, (unsigned long long)len, (int)counts.errors, s.stacks, s.known, s.first);
    target_close(t);
    return s;
}

static void test_table_too_large(void **state)
{
    (void)state;
    static const uint64_t too_large[] = {TABLE_MAX + 1, UINT64_C(1) << 40, UINT64_MAX};
    for (unsigned minor = 8; minor <= 12; minor++) {
        assert_int_equal(look(minor, TABLE_MAX, 1, NULL).known, 3);
        for (size_t i = 0; i < sizeof(too_large) / sizeof(*too_large); i++)
            assert_int_equal(look(minor, too_large[i], 2, NULL).first, 6);
    }
}

/* None of them is too large, but all together are. */
static void test_tables_too_large(void **state)
{
    (void)state;
    struct sample_shared shared = {.targets = 63};
    for (unsigned minor = 8; minor <= 12; minor++) {
        assert_true(look(minor, TABLE_MAX / 2, DEPTH, NULL).known > 0);
        assert_true(look(minor, TABLE_MAX / 2, DEPTH, &shared).known > 0);
    }
}

static char shown[64];

static void see_line(void *context, const struct sample_thread *t)
{
    (void)context;
    assert_int_equal(t->depth, 1);
    const struct sample_frame *frame = t->frames[0];
    snprintf(shown, sizeof(shown), "%.*s %.*s:%d", STR_ARG(frame->function), STR_ARG(frame->file),
             (int)frame->line);
}

/* Looks until something else is shown, 40 at most. */
static int changes_after(struct target *t)
{
    char before[sizeof(shown)];
    memcpy(before, shown, sizeof(shown));
    for (int n = 0; n < 40; n++) {
        assert_int_equal(target_look(t, see_line, NULL, NULL), 0);
        if (strcmp(before, shown) != 0)
            return n;
    }
    return 40;
}

static void replace(unsigned minor, int which)
{
    struct fake f;
    struct fake_thread thread;
    struct target *t = NULL;
    fake_init(&f, minor, bytes, ROOM, 0x10000);
    fake_thread(&f, &thread, 1, DEPTH);
    fake_threads(&f, &(const struct fake_thread *){&thread}, 1);
    uint64_t code = fake_code(&f, "f", "f.py", FIRST_LINE), object;
    fake_stack(&f, &thread, &code, 1, LINE);
    const struct python_offsets *o = f.offsets;
    size_t name = o->code_qualname ? o->code_qualname : o->code_name;
    size_t at = which == 0 ? name : which == 1 ? o->code_file : o->code_lines;
    memcpy(&object, bytes + (code + at - f.base), sizeof(object));
    /* Another letter, or one line more for the first instruction. */
    uint8_t *byte = bytes + (object - f.base) +
                    (which < 2 ? o->text_ascii : o->bytes_bytes + (minor < 11 ? 1 : 0));
    uint8_t other = (uint8_t)(*byte + (which == 2 && minor >= 11 ? 8 : 1)), old = *byte;
    assert_int_equal(target_open_memory(&f.reader, f.runtime, minor,
                                        &(struct sample_options){.idle = true}, &t, NULL),
                     0);
    assert_int_equal(target_look(t, see_line, NULL, NULL), 0);
    for (int i = 0; i < 10; i++) {
        *byte = *byte == old ? other : old;
        assert_int_equal(changes_after(t), 0);
    }
    assert_int_equal(changes_after(t), 40);
    *byte = *byte == old ? other : old;
    int stale = changes_after(t);
    if (!stale || stale >= 16)
        fail_msg("3.%u: %d looks showed what was there before", minor, stale);
    assert_int_equal(changes_after(t), 40);
    *byte = *byte == old ? other : old;
    assert_int_equal(changes_after(t), 0);
    assert_int_equal(target_counts(t).errors, 0);
    target_close(t);
}

/* Another one's name, file or table, in the place of what was there: new code is asked for it each
 * time, what was the same for long now and then, and all of it each time once that was wrong. */
static void test_replaced(void **state)
{
    (void)state;
    for (unsigned minor = 8; minor <= 12; minor++)
        for (int which = 0; which < 3; which++)
            replace(minor, which);
}

int main(void)
{
    bytes = malloc(ROOM);
    if (!bytes)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_too_large),
        cmocka_unit_test(test_tables_too_large),
        cmocka_unit_test(test_replaced),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    free(bytes);
    return r;
}
