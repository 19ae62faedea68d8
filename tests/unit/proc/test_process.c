/* Processes of a made-up /proc, and of this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "proc/proc_internal.h"

#define A "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"
#define B "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static char root[64];
static int proc = -1;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/test-proc-XXXXXX");
    assert_non_null(mkdtemp(root));
    proc = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(proc >= 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(proc);
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put(int pid, const char *name, struct str text)
{
    char path[64];
    snprintf(path, sizeof(path), "%d", pid);
    mkdirat(proc, path, 0755);
    snprintf(path, sizeof(path), "%d/%s", pid, name);
    int fd = openat(proc, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text.ptr, text.len), (ssize_t)text.len);
    close(fd);
}

static void put_process(int pid, const char *comm, char state, int start, const char *cgroup)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4096);
    buf_appendf(&text,
                "%d (%s) %c 41 1 1 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 4 0 %d 100 200 "
                "18446744073709551615\n",
                pid, comm, state, start);
    put(pid, "stat", buf_str(&text));
    buf_clear(&text);
    buf_appendf(&text, "Name:\t%s\nPid:\t%d\nNSpid:\t%d\t12\t7\nThreads:\t4\n", comm, pid, pid);
    put(pid, "status", buf_str(&text));
    put(pid, "cmdline", STR("python3\0-m\0app\0"));
    put(pid, "cgroup", str_of(cgroup));
}

static void test_reads_all_fields(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    put_process(31245, "a) R (b 9 9", 'S', 4711, "0::/docker/" A "\n");
    char link[128];
    snprintf(link, sizeof(link), "%s/31245/exe", root);
    assert_int_equal(symlink("/usr/local/bin/python3.12", link), 0);

    struct proc_process p;
    struct err err = ERR_INIT;
    assert_int_equal(proc_read(proc, arena, 31245, &p, &err), 0);
    assert_int_equal(p.pid, 31245);
    assert_int_equal(p.container_pid, 7);
    assert_int_equal(p.parent, 41);
    assert_int_equal(p.start_time, 4711);
    assert_int_equal(p.cpu_ticks, 100);
    assert_int_equal(p.state, 'S');
    assert_true(str_is(p.command, "python3 -m app"));
    assert_true(str_is(p.executable, "/usr/local/bin/python3.12"));
    assert_true(str_is(p.cgroup_id, A));
}

static void test_hostile_command_lines(void **state)
{
    (void)state;
    static const struct {
        struct str raw;
        const char *command;
    } rows_[] = {
        {STR("gunicorn: worker [app]\0\0\0\0\0"), "gunicorn: worker [app]"},
        {STR("python\0\xc2\x9b\x33\x31m\0\xe2\x80\xae"
             "evil"),
         "python  31m  evil"},
        {STR("python\0-c\0a\nb\tc\x1b[31m\x7f"), "python -c a b c [31m"},
        {STR("python\0caf\xc3\xa9\0\xe2\x82\xac"), "python caf\xc3\xa9 \xe2\x82\xac"},
        {STR("py\xff\xc3\0x"), "py\xef\xbf\xbd\xef\xbf\xbd x"},
        {STR(""), ""},
        {STR("\0\0\0"), ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows_); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        put_process(9, "x", 'S', 1, "0::/\n");
        put(9, "cmdline", rows_[i].raw);
        struct proc_process p;
        assert_int_equal(proc_read(proc, arena, 9, &p, NULL), 0);
        if (!str_is(p.command, rows_[i].command))
            fail_msg("row %zu: \"%.*s\"", i, STR_ARG(p.command));
    }

    static const struct {
        struct str raw;
        const char *program;
    } programs[] = {
        {STR("gunicorn: worker [app]\0\0\0"), "gunicorn: worker [app]"},
        {STR("python3\0/app/server.py\0--password=x\0"), "python3 /app/server.py \xe2\x80\xa6"},
        {STR("/usr/bin/python3.12\0-Iu\0/app/x.py\0"), "/usr/bin/python3.12 /app/x.py"},
        {STR("python\0-m\0flask\0run\0"), "python -m flask \xe2\x80\xa6"},
        {STR("python\0-c\0secret = 1\0"), "python \xe2\x80\xa6"},
        {STR("python\0-X\0secret\0app.py\0"), "python \xe2\x80\xa6"},
        {STR("uwsgi\0--http-auth\0user:secret\0"), "uwsgi \xe2\x80\xa6"},
        {STR("python3\0"), "python3"},
        {STR(""), ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        put(9, "cmdline", programs[i].raw);
        struct proc_process p;
        assert_int_equal(proc_read(proc, arena, 9, &p, NULL), 0);
        if (!str_is(p.program, programs[i].program))
            fail_msg("program %zu: \"%.*s\"", i, STR_ARG(p.program));
    }

    /* A long one is cut, between characters. */
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    _cleanup_(buf_finish) struct buf longer = BUF_INIT(65536);
    for (int i = 0; i < 5000; i++)
        buf_append_str(&longer, STR("\xe2\x82\xac"));
    put(9, "cmdline", buf_str(&longer));
    struct proc_process p;
    assert_int_equal(proc_read(proc, arena, 9, &p, NULL), 0);
    assert_in_range(p.command.len, 1000, PROC_COMMAND_MAX);
    assert_true(str_is_utf8(p.command));
}

static void test_stat_that_makes_no_sense(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "1",
        "1 (x",
        "1 (x)",
        "1 (x) ",
        "1 (x) S",
        "1 (x) S 1 2 3",
        "1 (x) S -1 1 1 0 -1 1 1 2 3 4 70 30 0 0 20 0 4 0 9 1",
        "1 (x) S 1 1 1 0 -1 1 1 2 3 4 7x 30 0 0 20 0 4 0 9 1",
        "1 (x) S 99999999999 1 1 0 -1 1 1 2 3 4 7 30 0 0 20 0 4 0 9 1",
        "1 (x) S 1 1 1 0 -1 1 1 2 3 4 7 30 0 0 20 0 4 0 99999999999999999999999 1",
    };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct proc_stat stat;
        struct err err = ERR_INIT;
        if (proc_stat_parse(str_of(texts[i]), &stat, &err) != ERR_PROTOCOL)
            fail_msg("accepted: %s", texts[i]);
    }
}

static void test_finds_a_container(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    put_process(50, "late", 'S', 900, "0::/docker/" A "\n");
    put_process(51, "first", 'S', 100, "0::/docker/" A "\n");
    put_process(49, "second", 'R', 100, "3:cpu:/\n0::/docker/" A "/sub\n");
    put_process(52, "other", 'S', 1, "0::/docker/" B "\n");
    put_process(53, "zombie", 'Z', 1, "0::/docker/" A "\n");
    put(54, "cgroup", STR("0::/docker/" A "\n")); /* vanished: nothing else is left of it */
    put(55, "stat", STR("55 (gone) S"));
    mkdirat(proc, "self-made", 0755);

    struct proc_process *found;
    size_t n;
    struct err err = ERR_INIT;
    assert_int_equal(proc_find_container(proc, arena, STR(A), 10, &found, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(found[0].pid, 49);
    assert_int_equal(found[1].pid, 51);
    assert_int_equal(found[2].pid, 50);

    assert_int_equal(proc_find_container(proc, arena, STR(A), 3, &found, &n, &err), 0);
    assert_int_equal(proc_find_container(proc, arena, STR(A), 2, &found, &n, &err), ERR_TOO_LARGE);
    struct str none = STR("1111111111111111111111111111111111111111111111111111111111111111");
    assert_int_equal(proc_find_container(proc, arena, none, 10, &found, &n, &err), 0);
    assert_int_equal(n, 0);
}

static void test_missing_process(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_process p;
    struct err err = ERR_INIT;
    int number;
    uint64_t ticks;
    assert_int_equal(proc_read(proc, arena, 77, &p, &err), ERR_NOT_FOUND);
    assert_int_equal(proc_stopped_threads(proc, 77, &number, &err), ERR_NOT_FOUND);
    assert_int_equal(proc_cpu_ticks(proc, 77, &ticks, &err), ERR_NOT_FOUND);
}

/* The number is that of a living process, but the recorded one was started at another time. */
static void test_hold_refuses_a_reused_number(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    struct proc_handle h = {.pidfd = -1};
    struct err err = ERR_INIT;
    put_process(child, "x", 'S', 500, "0::/docker/" A "\n");
    struct proc_process p = {.pid = child, .start_time = 500};

    assert_int_equal(proc_hold(proc, &p, STR(A), &h, &err), 0);
    assert_true(h.pidfd >= 0);
    proc_release(&h);
    assert_int_equal(h.pidfd, -1);

    assert_int_equal(proc_hold(proc, &p, STR(B), &h, &err), ERR_NOT_FOUND);
    put_process(child, "x", 'Z', 500, "0::/docker/" A "\n");
    assert_int_equal(proc_hold(proc, &p, STR(A), &h, &err), ERR_NOT_FOUND);
    put_process(child, "x", 'S', 501, "0::/docker/" A "\n");
    assert_int_equal(proc_hold(proc, &p, STR(A), &h, &err), ERR_NOT_FOUND);
    assert_int_equal(h.pidfd, -1);

    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(proc_hold(proc, &p, STR(A), &h, &err), ERR_NOT_FOUND);
}

/* Another program than this one, which a sanitizer may give threads of its own. It ends with us. */
static pid_t start_sleep(void)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sleep", "sleep", "1000", (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    char c;
    assert_int_equal(read(fds[0], &c, 1), 0); /* it has become the other program */
    close(fds[0]);
    return child;
}

static void test_stopped_threads_of_a_real_process(void **state)
{
    (void)state;
    int own = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    pid_t child = start_sleep();
    int stopped = -1, threads = -1;
    assert_int_equal(proc_stopped_threads(own, child, &stopped, NULL), 0);
    assert_int_equal(stopped, 0);
    assert_int_equal(proc_thread_count(own, child, &threads, NULL), 0);
    assert_int_equal(threads, 1);

    kill(child, SIGSTOP);
    waitpid(child, NULL, WUNTRACED);
    assert_int_equal(proc_stopped_threads(own, child, &stopped, NULL), 0);
    assert_int_equal(stopped, 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_all_fields, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_command_lines, set_up, tear_down),
        cmocka_unit_test(test_stat_that_makes_no_sense),
        cmocka_unit_test_setup_teardown(test_finds_a_container, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_process, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hold_refuses_a_reused_number, set_up, tear_down),
        cmocka_unit_test(test_stopped_threads_of_a_real_process),
    };
    return cmocka_run_group_tests_name("proc/process", tests, NULL, NULL);
}
