/* The formats of one profile, packed to fit one object. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <unistd.h>

#include "runner/run.h"

static struct options options = {.proc = "/proc"};

/* As many different stacks as asked for, so that the formats become as large as needed. */
static void make_run(struct run *run, int stacks, unsigned formats, int64_t max)
{
    assert_int_equal(run_set_up(run, &options), 0);
    run->task = (struct task){
        .pod_namespace = STR("shop"),
        .pod_name = STR("checkout-1"),
        .sampling = {.rate = 100, .duration_ms = 1000},
        .formats = formats,
        .max_result_bytes = max,
    };
    run->chosen.items = arena_array(run->arena, 1, sizeof(*run->chosen.items));
    run->chosen.items[0].container = STR("app");
    run->chosen.len = 1;
    uint32_t thread;
    assert_int_equal(profile_add_thread(run->profile, STR("MainThread"), &thread, NULL), 0);
    uint64_t noise = 1;
    for (int i = 0; i < stacks; i++) {
        char name[64];
        noise = noise * 6364136223846793005ull + 1442695040888963407ull;
        snprintf(name, sizeof(name), "function_%d_%llx", i, (unsigned long long)noise);
        struct profile_frame frame = {str_of(name), STR("/srv/app/module.py"), i + 1};
        uint32_t index;
        assert_int_equal(profile_add_frame(run->profile, &frame, &index, NULL), 0);
        assert_int_equal(profile_add_sample(run->profile, thread, &index, 1, 1, NULL), 0);
    }
}

static const struct upload_file *file_of(const struct run *run, const char *format)
{
    const struct upload_file *files = run->upload.files.items;
    for (size_t i = 0; i < run->upload.files.len; i++) {
        if (str_is(files[i].format, format))
            return &files[i];
    }
    return NULL;
}

/* As they are stored: text, or gzip by its magic number; digests are the upload's. */
static void check_contents(const struct run *run)
{
    const struct upload_file *files = run->upload.files.items;
    for (size_t i = 0; i < run->upload.files.len; i++) {
        assert_int_equal(files[i].size_bytes, files[i].content.len);
        assert_int_equal(files[i].sha256.len, 0);
        assert_true(files[i].content.len > 10);
        bool gzip = memcmp(files[i].content.ptr, "\x1f\x8b\x08", 3) == 0;
        assert_int_equal(gzip, files[i].encoding.len > 0);
        if (!gzip)
            assert_true(str_is_utf8(files[i].content));
    }
}

#define ALL ((1u << FORMAT_COUNT) - 1)

static void test_small_texts_stay_as_they_are(void **state)
{
    (void)state;
    struct run run;
    make_run(&run, 10, ALL, 1 << 20);
    assert_int_equal(run_make_results(&run), 0);
    assert_int_equal(run.outcome.reason, REASON_NONE);
    assert_int_equal(run.upload.files.len, FORMAT_COUNT);
    check_contents(&run);
    static const char *const keys[][3] = {
        {"flamegraph", "flamegraph.svg", "image/svg+xml"},
        {"speedscope", "speedscope.json", "application/json"},
        {"raw", "raw.txt", "text/plain; charset=utf-8"},
        {"chrometrace", "chrometrace.json", "application/json"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const struct upload_file *f = file_of(&run, keys[i][0]);
        assert_non_null(f);
        assert_true(str_is(f->key, keys[i][1]));
        assert_true(str_is(f->media_type, keys[i][2]));
        assert_int_equal(f->encoding.len, 0);
    }
    run_finish(&run);
}

static void test_only_what_was_asked_for(void **state)
{
    (void)state;
    struct run run;
    make_run(&run, 10, 1u << FORMAT_RAW, 1 << 20);
    assert_int_equal(run_make_results(&run), 0);
    assert_int_equal(run.upload.files.len, 1);
    assert_non_null(file_of(&run, "raw"));
    run_finish(&run);
}

static void test_large_text_is_gzipped(void **state)
{
    (void)state;
    struct run run;
    make_run(&run, 20000, 1u << FORMAT_RAW, 1 << 20);
    assert_int_equal(run_make_results(&run), 0);
    const struct upload_file *f = file_of(&run, "raw");
    assert_non_null(f);
    assert_true(str_is(f->encoding, "gzip"));
    assert_true(str_is(f->key, "raw.txt.gz"));
    assert_in_range(f->size_bytes, 1000, 1 << 20);
    check_contents(&run);
    run_finish(&run);
}

/* Each fits alone, together they do not: the largest are compressed. */
static void test_together_they_fit(void **state)
{
    (void)state;
    struct run run;
    make_run(&run, 2000, 1u << FORMAT_RAW | 1u << FORMAT_SPEEDSCOPE, 200000);
    assert_int_equal(run_make_results(&run), 0);
    assert_int_equal(run.outcome.reason, REASON_NONE);
    assert_int_equal(run.upload.files.len, 2);
    int64_t sum = 0;
    const struct upload_file *files = run.upload.files.items;
    for (size_t i = 0; i < 2; i++)
        sum += files[i].size_bytes;
    assert_in_range(sum, 1, 200000);
    assert_true(str_is(file_of(&run, "speedscope")->encoding, "gzip"));
    check_contents(&run);
    run_finish(&run);
}

static void test_what_does_not_fit_is_left_out_and_told(void **state)
{
    (void)state;
    struct run run;
    make_run(&run, 20000, 1u << FORMAT_RAW | 1u << FORMAT_SPEEDSCOPE, 350000);
    assert_int_equal(run_make_results(&run), 0);
    assert_int_equal(run.outcome.reason, REASON_RESULT_TOO_LARGE);
    assert_non_null(strstr(run.outcome.message, "output.s3"));
    assert_int_equal(run.upload.files.len, 1);
    run_finish(&run);

    make_run(&run, 20000, 1u << FORMAT_RAW, 1000);
    assert_int_equal(run_make_results(&run), -1);
    assert_int_equal(run.outcome.reason, REASON_RESULT_TOO_LARGE);
    assert_non_null(strstr(run.outcome.message, "raw"));
    run_finish(&run);
}

/* Stacks so deep that their text is far larger than the profile. */
static void test_a_format_that_is_too_large_costs_only_itself(void **state)
{
    (void)state;
    enum { DEPTH = 4000, STACKS = 60 };
    static uint32_t stack[DEPTH];
    struct run run;
    make_run(&run, STACKS, ALL, 1000 << 10);
    char name[400];
    memset(name, 'x', sizeof(name));
    for (size_t i = 1; i < DEPTH; i++)
        profile_add_frame(
            run.profile,
            &(struct profile_frame){.function = {name, sizeof(name)}, .line = (int64_t)i},
            &stack[i], NULL);
    for (uint32_t i = 0; i < STACKS; i++) {
        stack[0] = i;
        assert_int_equal(profile_add_sample(run.profile, 0, stack, DEPTH, 1, NULL), 0);
    }
    assert_int_equal(run_make_results(&run), 0);
    assert_int_equal(run.outcome.reason, REASON_RESULT_TOO_LARGE);
    assert_non_null(strstr(run.outcome.message, "raw: "));
    assert_null(file_of(&run, "raw"));
    assert_non_null(file_of(&run, "flamegraph"));
    assert_non_null(file_of(&run, "speedscope"));
    check_contents(&run);
    run_finish(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_texts_stay_as_they_are),
        cmocka_unit_test(test_only_what_was_asked_for),
        cmocka_unit_test(test_large_text_is_gzipped),
        cmocka_unit_test(test_together_they_fit),
        cmocka_unit_test(test_what_does_not_fit_is_left_out_and_told),
        cmocka_unit_test(test_a_format_that_is_too_large_costs_only_itself),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/results", tests, NULL, NULL);
}
