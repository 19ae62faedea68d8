/* Every decision about a profile is a row of plan_rows_*.c. For every row: once it was carried out
 * and the status came back from the API server, nothing is done twice, and how a profile ended is
 * never changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_rows.h"

static const struct row *row_at(size_t i)
{
    static const struct rows *const tables[] = {&plan_rows_end, &plan_rows_start};
    for (size_t k = 0; k < ARRAY_SIZE(tables); k++) {
        if (i < tables[k]->len)
            return &tables[k]->items[i];
        i -= tables[k]->len;
    }
    return NULL;
}

/* The plan was carried out: planning again does nothing more. */
static void expect_settled(const struct row *row, struct planned *p)
{
    struct plan first = p->plan;
    if (first.get_target || first.get_node || first.get_job || first.get_runner || !p->in.profile)
        return;
    if (first.write_status)
        world_written(p);
    if (first.create_job)
        p->in.job_expected = true;
    if (first.delete_job)
        p->in.job = NULL;
    plan_profile(p->arena, &p->in, &p->plan);
    const struct plan *again = &p->plan;
    if (again->write_status || again->create_job || again->delete_job || again->event)
        fail_msg("%s: not settled: %s", row->name, plan_text(p->arena, again).ptr);
    if (first.write_status && profile_phase_is_final(first.status.phase)) {
        assert_int_equal(p->profile.status.phase, first.status.phase);
        assert_true(p->profile.status.completion_ms > 0);
    }
}

/* A later look at a finished profile, whatever the world is like then. */
static void expect_final(const struct row *row, struct planned *p)
{
    if (!p->in.profile || !profile_phase_is_final(p->profile.status.phase))
        return;
    const struct row *later;
    for (size_t i = 0; (later = row_at(i)); i++) {
        struct planned other;
        world_plan(p->arena, &later->world, &other);
        other.in.profile = p->in.profile;
        plan_profile(p->arena, &other.in, &other.plan);
        if (other.plan.write_status || other.plan.create_job || other.plan.event)
            fail_msg("%s, later %s: %s", row->name, later->name,
                     plan_text(p->arena, &other.plan).ptr);
        world_finish(&other);
    }
}

static void rows_say_what_is_done(void **state)
{
    (void)state;
    int failures = 0;
    const struct row *row;
    for (size_t i = 0; (row = row_at(i)); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        struct planned p;
        world_plan(arena, &row->world, &p);
        struct str text = plan_text(arena, &p.plan);
        bool said = !row->message || str_find(p.plan.status.message, str_of(row->message)) >= 0;
        if (!str_is(text, row->plan) || !said) {
            print_error("%s:\n  expected %s\n  planned  %.*s\n  message  %.*s\n", row->name,
                        row->plan, STR_ARG(text), STR_ARG(p.plan.status.message));
            failures++;
        }
        expect_settled(row, &p);
        expect_final(row, &p);
        world_finish(&p);
    }
    assert_int_equal(failures, 0);
}

/* Never is a Job created where one is or may be, and never is one deleted and created at once. */
static void never_two_jobs(void **state)
{
    (void)state;
    const struct row *row;
    for (size_t i = 0; (row = row_at(i)); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        struct planned p;
        world_plan(arena, &row->world, &p);
        assert_false(p.plan.create_job && (p.in.job || p.in.job_expected || p.plan.delete_job));
        world_finish(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_say_what_is_done),
        cmocka_unit_test(never_two_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
