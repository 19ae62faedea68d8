/* What 3.13 and later say about themselves, made up word by word, and the checked-in table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "base/cleanup.h"
#include "described.h"
#include "sample/offsets.h"

static void test_described(void **state)
{
    (void)state;
    for (unsigned minor = 13; minor <= 14; minor++) {
        uint64_t words[DESCRIBED_WORDS];
        struct python_offsets o;
        described_put(words, minor, 0);
        assert_int_equal(offsets_from_runtime((uint8_t *)words, sizeof(words), &o, NULL), 0);
        assert_int_equal(o.minor, minor);
        assert_int_equal(o.runtime_interpreters, 1040);
        assert_int_equal(o.interpreter_next, 7264);
        assert_int_equal(o.interpreter_threads, 7344);
        assert_int_equal(o.interpreter_gil, 7400);
        assert_int_equal(o.gil_locked, 16);
        assert_int_equal(o.gil_holder, 8);
        assert_int_equal(o.thread_next, 8);
        assert_int_equal(o.thread_frame, 72);
        assert_int_equal(o.thread_pthread, 152);
        assert_int_equal(o.thread_native, 160);
        assert_int_equal(o.thread_chunk, 232);
        assert_int_equal(o.frame_previous, 8);
        assert_int_equal(o.frame_instruction, 56);
        assert_int_equal(o.frame_owner, 70);
        assert_int_equal(o.code_file, 112);
        assert_int_equal(o.code_qualname, 128);
        assert_int_equal(o.code_lines, 136);
        assert_int_equal(o.code_first_line, 68);
        assert_int_equal(o.code_bytes, 208);
        assert_int_equal(o.object_type, 8);
        assert_int_equal(o.bytes_bytes, 32);
        assert_int_equal(o.text_state, 32);
        assert_int_equal(o.text_length, 16);
        assert_int_equal(o.text_compact, 56);
        assert_int_equal(o.thread_status, 0);
    }
    uint64_t words[DESCRIBED_WORDS];
    struct python_offsets o;
    described_put(words, 13, 1);
    assert_int_equal(offsets_from_runtime((uint8_t *)words, sizeof(words), &o, NULL), 0);
    assert_int_equal(o.thread_status, 36);
}

static void test_refused(void **state)
{
    (void)state;
    uint64_t words[DESCRIBED_WORDS];
    struct python_offsets o = {.minor = 99};
    struct err err = ERR_INIT;
    described_put(words, 14, 1);
    assert_int_equal(offsets_from_runtime((uint8_t *)words, sizeof(words), &o, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "free-threaded"));
    described_put(words, 15, 0);
    assert_int_equal(offsets_from_runtime((uint8_t *)words, sizeof(words), &o, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "3.15"));
    size_t needed = described_put(words, 13, 0);
    for (size_t n = 1; n < needed; n++)
        assert_int_equal(offsets_from_runtime((uint8_t *)words, n * 8, &o, NULL), ERR_INVALID);
    words[0]++;
    assert_int_equal(offsets_from_runtime((uint8_t *)words, sizeof(words), &o, NULL),
                     ERR_NOT_FOUND);
    assert_int_equal(o.minor, 99);
}

/* Every single word out of proportion is noticed where it is used. */
static void test_proportion(void **state)
{
    (void)state;
    uint64_t words[DESCRIBED_WORDS];
    size_t refused = 0;
    for (size_t i = 3; i < 80; i++) {
        struct python_offsets o;
        described_put(words, 13, 0);
        words[i] = UINT64_C(1) << 40;
        refused += offsets_from_runtime((uint8_t *)words, sizeof(words), &o, NULL) == ERR_INVALID;
    }
    assert_true(refused >= 29);
}

/* Fields of a text that would lie in the head that all objects have: what is compared of it begins
 * behind that. */
static void test_fields_in_the_head(void **state)
{
    (void)state;
    uint64_t words[DESCRIBED_WORDS];
    struct python_offsets o;
    size_t n = described_put(words, 13, false);
    for (size_t field = n - 3; field < n - 1; field++) {
        described_put(words, 13, false);
        words[field] = 8;
        assert_int_equal(offsets_from_runtime((uint8_t *)words, sizeof(words), &o, NULL),
                         ERR_INVALID);
    }
}

static void test_table(void **state)
{
    (void)state;
    for (unsigned minor = 8; minor <= 12; minor++) {
        const struct python_offsets *o = offsets_find(minor);
        assert_non_null(o);
        assert_int_equal(o->minor, minor);
        assert_int_equal(o->thread_native != 0, minor >= 11);
        assert_int_equal(o->runtime_gil != 0, minor <= 11);
        assert_int_equal(o->interpreter_gil != 0, minor >= 12);
        assert_int_equal(o->thread_frame == 0, minor >= 11);
        assert_int_equal(o->code_qualname != 0, minor >= 11);
        assert_int_equal(o->frame_owner == 0, minor < 11);
        assert_int_equal(o->frame_generator == 0, minor >= 11);
    }
    assert_null(offsets_find(7));
    assert_null(offsets_find(13));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_described),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_proportion), cmocka_unit_test(test_fields_in_the_head),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
