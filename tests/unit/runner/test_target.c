/* Which processes are found and chosen, on a made-up /proc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <unistd.h>

#include "runner/run.h"
#include "tree.h"

static struct tree tree;
static struct options options = {.proc = tree.root};

static const struct tree_process processes[] = {
    {50, 1, 'S', 100, 10, "sh -c run", TREE_ID, false},
    {51, 7, 'S', 200, 10, "gunicorn: master [app]", TREE_ID, true},
    {52, 8, 'S', 300, 10, "gunicorn: worker [app]", TREE_ID, true},
    {53, 9, 'S', 400, 10, "gunicorn: worker [app]", TREE_ID, true},
    {60, 1, 'S', 100, 10, "sleep 60", TREE_OTHER, false},
    {70, 1, 'S', 50, 10, "python elsewhere", "", true},
};

static int set_up(void **state)
{
    (void)state;
    tree_create(&tree);
    for (size_t i = 0; i < ARRAY_SIZE(processes); i++)
        tree_put(&tree, &processes[i]);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tree_destroy(&tree);
    return 0;
}

static struct task_container both[] = {{STR("side"), STR(TREE_OTHER)}, {STR("app"), STR(TREE_ID)}};

struct row {
    struct process_spec process;
    int reason; /* REASON_NONE: pids tells */
    const char *says;
    pid_t pids[4];
};

static const struct row rows[] = {
    {{0}, REASON_NONE, "", {51}},
    {{.select = SELECT_ALL}, REASON_NONE, "", {51, 52, 53}},
    {{.command = STR("^gunicorn: worker")}, REASON_NONE, "", {52}},
    {{.command = STR("worker|master"), .select = SELECT_ALL}, REASON_NONE, "", {51, 52, 53}},
    {{.pid = 8}, REASON_NONE, "", {52}},
    {{.host_pid = 53}, REASON_NONE, "", {53}},
    {{.host_pid = 53, .pid = 9, .command = STR("worker")}, REASON_NONE, "", {53}},
    {{.host_pid = 53, .pid = 8}, REASON_PROCESS_NOT_PYTHON, "53", {0}},
    {{.command = STR("^celery")}, REASON_PROCESS_NOT_FOUND, "none of the 3 Python processes", {0}},
    {{.command = STR("((")}, REASON_PROCESS_NOT_FOUND, "regular expression", {0}},
    {{.pid = 99}, REASON_PROCESS_NOT_FOUND, "no process 99", {0}},
    {{.pid = 1}, REASON_PROCESS_NOT_PYTHON, "process 1", {0}},
    {{.host_pid = 50}, REASON_PROCESS_NOT_PYTHON, "process 50", {0}},
    {{.host_pid = 70}, REASON_PROCESS_NOT_IN_TARGET, "process 70", {0}},
    {{.host_pid = 99999}, REASON_PROCESS_NOT_FOUND, "no process 99999", {0}},
    {{.host_pid = 1ll << 40}, REASON_PROCESS_NOT_FOUND, "no process", {0}},
    {{.host_pid = 60}, REASON_PROCESS_NOT_PYTHON, "sleep", {0}},
};

static void test_processes(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct run run;
        assert_int_equal(run_set_up(&run, &options), 0);
        run.task = (struct task){.containers = {both, 2}, .process = rows[i].process};
        int r = run_find(&run);
        if (r == 0)
            r = run_choose(&run);
        if (run.outcome.reason != rows[i].reason || (r < 0) != (rows[i].reason != REASON_NONE) ||
            str_find(str_of(run.outcome.message), str_of(rows[i].says)) < 0)
            fail_msg("row %zu: %s", i, run.outcome.message);
        if (r == 0) {
            size_t n = 0;
            while (n < 4 && rows[i].pids[n])
                n++;
            assert_int_equal(run.chosen.len, n);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(run.chosen.items[k].process.pid, rows[i].pids[k]);
            assert_true(str_is(run.chosen.items[0].container, "app"));
            assert_string_equal(run.chosen.items[0].python.version, "3.12");
        }
        run_finish(&run);
    }
}

static void test_nothing_there(void **state)
{
    (void)state;
    static struct task_container gone[] = {
        {STR("app"), STR("1111111111111111111111111111111111111111111111111111111111111111")}};
    static const struct {
        struct str runtime_class;
        const char *says;
    } classes[] = {{STR(""), "no process of container app on this node"},
                   {STR("gvisor"), "gvisor"}};
    for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
        struct run run;
        assert_int_equal(run_set_up(&run, &options), 0);
        run.task =
            (struct task){.containers = {gone, 1}, .runtime_class = classes[i].runtime_class};
        assert_int_equal(run_find(&run), -1);
        assert_int_equal(run.outcome.reason, REASON_PROCESS_NOT_FOUND);
        assert_true(str_find(str_of(run.outcome.message), str_of(classes[i].says)) >= 0);
        run_finish(&run);
    }
}

static void test_no_python(void **state)
{
    (void)state;
    struct run run;
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task = (struct task){.containers = {both, 1}};
    assert_int_equal(run_find(&run), -1);
    assert_int_equal(run.outcome.reason, REASON_PROCESS_NOT_PYTHON);
    /* The program's name, not its arguments. */
    assert_non_null(strstr(run.outcome.message, "sleep"));
    assert_null(strstr(run.outcome.message, "60"));
    run_finish(&run);
}

struct change {
    struct loop_timer timer;
};

static void work_a_lot(struct loop_timer *timer)
{
    (void)timer;
    struct tree_process p = processes[2];
    p.ticks += 5;
    tree_put(&tree, &p);
    p = processes[3];
    p.ticks += 90;
    tree_put(&tree, &p);
}

static void test_busiest(void **state)
{
    (void)state;
    struct run run;
    assert_int_equal(run_set_up(&run, &options), 0);
    run.task = (struct task){.containers = {both, 2}, .process = {.select = SELECT_BUSIEST}};
    struct change change = {.timer = {.fire = work_a_lot}};
    assert_int_equal(run_find(&run), 0);
    loop_timer_arm(run.loop, &change.timer, 300);
    assert_int_equal(run_choose(&run), 0);
    assert_int_equal(run.chosen.len, 1);
    assert_int_equal(run.chosen.items[0].process.pid, 53);
    run_finish(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_processes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_python, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_busiest, set_up, tear_down),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/target", tests, NULL, NULL);
}
