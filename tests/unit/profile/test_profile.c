/* The profile itself: adding, merging, limits. */
#include "profile_test.h"

static void equal_frames_are_one(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    struct err err = ERR_INIT;
    uint32_t a, b, c, d;

    (void)state;
    struct profile_frame f = {STR("f"), STR("a.py"), 1};
    assert_int_equal(profile_add_frame(p, &f, &a, &err), 0);
    assert_int_equal(profile_add_frame(p, &f, &b, &err), 0);
    f.line = 2;
    assert_int_equal(profile_add_frame(p, &f, &c, &err), 0);
    f = (struct profile_frame){STR("fa"), STR(".py"), 1};
    assert_int_equal(profile_add_frame(p, &f, &d, &err), 0);
    assert_int_equal(a, b);
    assert_int_not_equal(a, c);
    assert_int_not_equal(a, d);
    assert_int_not_equal(c, d);
}

static void what_makes_no_sense_is_refused(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    struct err err = ERR_INIT;
    uint32_t frame = 77, thread;

    (void)state;
    assert_int_equal(profile_add_frame(p, &(struct profile_frame){.file = STR("a")}, &frame, &err),
                     ERR_INVALID);
    assert_int_equal(profile_add_frame(p, &(struct profile_frame){.function = STR("f"), .line = -1},
                                       &frame, &err),
                     ERR_INVALID);
    assert_int_equal(frame, 77);
    assert_int_equal(
        profile_add_frame(p, &(struct profile_frame){.function = STR("f")}, &frame, &err), 0);
    assert_int_equal(profile_add_sample(p, 0, &frame, 1, 1, &err), ERR_INVALID); /* no thread */
    assert_int_equal(profile_add_thread(p, STR("t"), &thread, &err), 0);
    assert_int_equal(profile_add_sample(p, thread, &frame, 0, 1, &err), ERR_INVALID);
    assert_int_equal(profile_add_sample(p, thread, &(uint32_t){1}, 1, 1, &err), ERR_INVALID);
    assert_int_equal(profile_add_sample(p, thread, &frame, 1, 0, &err), ERR_INVALID);
    assert_int_equal(profile_add_sample(p, thread, &frame, 1, -5, &err), ERR_INVALID);
    assert_int_equal(profile_add_sample(p, thread, &frame, 1, (int64_t)UINT32_MAX + 1, &err),
                     ERR_TOO_LARGE);
    assert_int_equal(profile_samples(p), 0);
    assert_int_equal(profile_stacks(p), 0);
}

/* Counts go on past what one entry of the order can hold. */
static void large_counts_add_up(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = profile_create(NULL);
    _cleanup_(buf_finish) struct buf out;
    struct err err = ERR_INIT;
    uint32_t frame, thread;

    (void)state;
    assert_int_equal(
        profile_add_frame(p, &(struct profile_frame){.function = STR("f")}, &frame, &err), 0);
    assert_int_equal(profile_add_thread(p, STR("t"), &thread, &err), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(profile_add_sample(p, thread, &frame, 1, UINT32_MAX, &err), 0);
    assert_int_equal(profile_samples(p), 3 * (int64_t)UINT32_MAX);
    write_with(profile_write_raw, p, &out);
    assert_string_equal(buf_cstr(&out), "f 12884901885\n");
}

static void merging_adds(void **state)
{
    _cleanup_(profile_destroyp) struct profile *all = profile_create(NULL);
    _cleanup_(profile_destroyp) struct profile *a = from_raw("main (a.py:1);f (a.py:2) 3\n");
    _cleanup_(profile_destroyp) struct profile *b =
        from_raw("main (a.py:1);f (a.py:2) 4\nmain (a.py:1);g (a.py:3) 1\n");
    _cleanup_(buf_finish) struct buf out;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(profile_merge(all, a, STR_NULL, &err), 0);
    assert_int_equal(profile_merge(all, b, STR_NULL, &err), 0);
    assert_int_equal(profile_samples(all), 8);
    assert_int_equal(profile_stacks(all), 2);
    write_with(profile_write_raw, all, &out);
    assert_string_equal(buf_cstr(&out), "main (a.py:1);f (a.py:2) 7\nmain (a.py:1);g (a.py:3) 1\n");
}

static void merging_puts_a_root_under(void **state)
{
    _cleanup_(profile_destroyp) struct profile *all = profile_create(NULL);
    _cleanup_(profile_destroyp) struct profile *a = from_raw("f 3\n");
    _cleanup_(profile_destroyp) struct profile *threads = profile_create(NULL);
    _cleanup_(profile_destroyp) struct profile *nothing = profile_create(NULL);
    _cleanup_(buf_finish) struct buf raw, speedscope;
    struct err err = ERR_INIT;

    (void)state;
    read_into(threads, "threads.speedscope");
    assert_int_equal(profile_merge(all, a, STR("pod-1"), &err), 0);
    assert_int_equal(profile_merge(all, a, STR("pod-2"), &err), 0);
    assert_int_equal(profile_merge(all, nothing, STR("pod-3"), &err), 0);
    assert_int_equal(profile_merge(all, threads, STR("pod-4"), &err), 0);
    assert_int_equal(profile_samples(all), 6 + 436);
    write_with(profile_write_raw, all, &raw);
    assert_contains(&raw, "pod-1;f 3\npod-2;f 3\npod-4;thread (24473): MainThread;<module> (");
    assert_contains_not(&raw, "pod-3");
    assert_int_equal(count(&raw, "\n"), count(&raw, "pod-"));
    write_with(profile_write_speedscope, all, &speedscope);
    assert_contains(&speedscope, "\"name\":\"pod-4: Thread 24502 \\\"checkout-0\\\"\"");
}

static void merging_keeps_to_the_limits(void **state)
{
    _cleanup_(profile_destroyp) struct profile *small =
        profile_create(&(struct profile_limits){.max_nodes = 10});
    _cleanup_(profile_destroyp) struct profile *shop = profile_create(NULL);
    struct err err = ERR_INIT;

    (void)state;
    read_into(shop, "shop.speedscope");
    assert_int_equal(profile_merge(small, shop, STR_NULL, &err), ERR_TOO_LARGE);
}

static size_t left_of(const struct profile_room *room)
{
    return room->frames + room->text + room->samples + room->nodes;
}

static void what_fits_of_a_merge_is_kept(void **state)
{
    _cleanup_(profile_destroyp) struct profile *small =
        profile_create(&(struct profile_limits){.max_samples = 1});
    _cleanup_(profile_destroyp) struct profile *other = from_raw("a;b 2\na;c 3\n");
    _cleanup_(buf_finish) struct buf out;

    (void)state;
    assert_int_equal(profile_merge(small, other, STR_NULL, NULL), ERR_TOO_LARGE);
    assert_int_equal(profile_samples(small), 2);
    write_with(profile_write_raw, small, &out);
    assert_string_equal(buf_cstr(&out), "a;b 2\n");
}

static void several_share_the_room(void **state)
{
    struct profile_room room = {.frames = 3, .text = 3, .samples = 3, .nodes = 3};
    struct profile_limits limits = {.room = &room};
    struct profile *a = profile_create(&limits), *b = profile_create(&limits);
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(profile_read_raw(a, STR("a;b 1\na;b 1\n"), NULL), 0);
    assert_int_equal(profile_read_raw(b, STR("c 7\nd 1\n"), &err), ERR_TOO_LARGE);
    assert_int_equal(profile_samples(a), 2);
    assert_int_equal(profile_samples(b), 7);
    profile_destroy(a);
    assert_int_equal(profile_read_raw(b, STR("d;e 1\n"), NULL), 0);
    profile_destroy(b);
    assert_int_equal(left_of(&room), 12);
}

/* As long as only the order of samples takes room. */
static void order_goes_before_samples_do(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p =
        profile_create(&(struct profile_limits){.max_samples = 4});
    uint32_t thread, frames[2];

    (void)state;
    profile_add_thread(p, STR("t"), &thread, NULL);
    profile_add_frame(p, &(struct profile_frame){.function = STR("a")}, &frames[0], NULL);
    profile_add_frame(p, &(struct profile_frame){.function = STR("b")}, &frames[1], NULL);
    for (int i = 0; i < 100; i++)
        assert_int_equal(profile_add_sample(p, thread, &frames[i % 2], 1, 1, NULL), 0);
    assert_int_equal(profile_samples(p), 100);
    assert_int_equal(profile_stacks(p), 2);
}

static void about_is_copied(void **state)
{
    _cleanup_(profile_destroyp) struct profile *p = from_raw("f 1\n");
    _cleanup_(buf_finish) struct buf out;
    char title[] = "first", note[] = "note";

    (void)state;
    profile_set_about(
        p, &(struct profile_about){.title = str_of(title), .note = str_of(note), .rate = 100});
    memset(title, 'x', 5);
    memset(note, 'x', 4);
    write_with(profile_write_flamegraph, p, &out);
    assert_contains(&out, ">first</text>");
    assert_contains(&out, ">note</text>");
    profile_set_about(p, &(struct profile_about){.title = STR("second")});
    buf_finish(&out);
    write_with(profile_write_flamegraph, p, &out);
    assert_contains(&out, ">second</text>");
    assert_contains_not(&out, "first<");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_frames_are_one),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(large_counts_add_up),
        cmocka_unit_test(merging_adds),
        cmocka_unit_test(merging_puts_a_root_under),
        cmocka_unit_test(merging_keeps_to_the_limits),
        cmocka_unit_test(what_fits_of_a_merge_is_kept),
        cmocka_unit_test(several_share_the_room),
        cmocka_unit_test(order_goes_before_samples_do),
        cmocka_unit_test(about_is_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
