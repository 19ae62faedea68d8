/* Recorded memory of interpreters that slept: the same stack from each; and damage to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/random.h"
#include "image.h"
#include "sample/target.h"

/* Those with tasks slept in a task of asyncio's, those without in plain functions, some of them in
 * a thread with a name. */
static const char *const names[] = {
    "3.8",        "3.9",        "3.10",      "3.11",       "3.12",       "3.13",      "3.12-tasks",
    "3.13-tasks", "3.14-tasks", "3.8-names", "3.11-names", "3.12-names", "3.14-names"};

static const char *expected(const char *name)
{
    if (strstr(name, "-names"))
        return "(thread fetch caf\u00e9) inner:3 outer:5 <module>:10 ";
    return strstr(name, "-tasks") ? "inner:12 outer:14 (task fetch caf\u00e9) <module>:18 "
                                  : "inner:4 outer:6 <module>:7 ";
}

static void see(void *context, const struct sample_thread *t)
{
    struct buf *out = context;
    if (t->name.len)
        buf_appendf(out, "(thread %.*s) ", STR_ARG(t->name));
    for (size_t i = 0; i < t->depth; i++) {
        buf_appendf(out, "%.*s:%d ", STR_ARG(t->frames[i]->function), (int)t->frames[i]->line);
        if (t->task.len && i == t->task_at)
            buf_appendf(out, "(task %.*s) ", STR_ARG(t->task));
    }
}

static void read_image(const char *name, struct buf *bytes)
{
    char path[512];
    snprintf(path, sizeof(path), TEST_DATA "/sample/%s.image", name);
    struct err err = ERR_INIT;
    if (buf_read_file(bytes, path, &err) < 0)
        fail_msg("%s", err.message);
}

/* What one look finds; "" when it finds nothing. */
static void look(struct image *image, struct buf *out)
{
    _cleanup_(target_closep) struct target *t = NULL;
    if (target_open_memory(&image->reader, image->runtime, image->minor,
                           &(struct sample_options){.idle = true, .names = true, .tasks = true}, &t,
                           NULL) < 0)
        return;
    for (int i = 0; i < 2; i++) {
        buf_clear(out);
        if (target_look(t, see, out, NULL) < 0)
            return;
    }
}

static struct image image;

static void test_recorded(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(buf_finish) struct buf bytes = BUF_INIT(65536), out = BUF_INIT(4096);
        read_image(names[i], &bytes);
        assert_int_equal(image_load(&image, (const uint8_t *)bytes.ptr, bytes.len), 0);
        look(&image, &out);
        assert_string_equal(buf_cstr(&out), expected(names[i]));
    }
}

/* Without its task, or its thread's name, if that could not be read. */
static bool is_right(const char *name, struct str stack)
{
    struct str whole = str_of(expected(name)), rest = stack;
    ssize_t left_out = str_find(whole, STR("("));
    if (left_out < 0 || str_eq(stack, whole))
        return str_eq(stack, whole);
    size_t at = (size_t)left_out, end = (size_t)str_find(whole, STR(") ")) + 2;
    return str_eq(str_sub(rest, 0, at), str_sub(whole, 0, at)) &&
           str_eq(str_sub(rest, at, rest.len), str_sub(whole, end, whole.len));
}

/* Whatever read fails, and from then on all: no stack, or the right one. */
static void test_nth_read_fails(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(buf_finish) struct buf bytes = BUF_INIT(65536);
        read_image(names[i], &bytes);
        for (int64_t n = 0; n < 120; n++) {
            _cleanup_(buf_finish) struct buf out = BUF_INIT(4096);
            image_load(&image, (const uint8_t *)bytes.ptr, bytes.len);
            image.reads_left = n;
            look(&image, &out);
            if (out.len && !is_right(names[i], buf_str(&out)))
                fail_msg("%s, %d reads: %s", names[i], (int)n, buf_cstr(&out));
        }
    }
}

/* Frames, lists and lengths that lie: it ends, and stays within its caps. */
static void test_damaged(void **state)
{
    (void)state;
    struct random_seeded random;
    random_seed(&random, 11);
    for (int round = 0; round < 3000; round++) {
        _cleanup_(buf_finish) struct buf bytes = BUF_INIT(65536), out = BUF_INIT(65536);
        read_image(names[(size_t)round % ARRAY_SIZE(names)], &bytes);
        for (int k = 0; k < 1 + round % 4; k++) {
            size_t at = (size_t)random_below(&random.source, bytes.len);
            bytes.ptr[at] = (char)random_u64(&random.source);
        }
        image_load(&image, (const uint8_t *)bytes.ptr, bytes.len);
        look(&image, &out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_nth_read_fails),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
