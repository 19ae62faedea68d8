/* What the commands for hosts say, to whom, and when it cannot be said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "programs.h"
#include "runner/host/host.h"

static void test_output_that_takes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *line, *output, *says;
    } rows[] = {
        {"record -d 600 -o - -p %p", "", "standard output: Bad file descriptor"},
        {"record -d 1 -o - -p %p", "/dev/full", "write standard output: No space left on device"},
        {"dump -p %p", "", "standard output: Bad file descriptor"},
        {"dump -p %p", "/dev/full", "standard output: No space left on device"},
        {"top -p %p", "", "standard output: Bad file descriptor"},
        {"top -p %p", "/dev/full", "standard output: No space left on device"},
        {"dump --help -p %p", "", "standard output: Bad file descriptor"},
        {"record -h -p %p", "/dev/full", "standard output: No space left on device"},
    };
    struct program target, p;
    if (!program_python(&target, SPIN))
        skip(); /* no /usr/bin/python3 */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        program_output = rows[i].output;
        program_run(&p, rows[i].line, target.pid);
        program_output = NULL;
        int status = program_finish(&p);
        if (status != 1 || !strstr(buf_cstr(&p.complaints), rows[i].says))
            fail_msg("%s: status %d, %s", rows[i].line, status, buf_cstr(&p.complaints));
        program_kill(&p);
    }
    program_kill(&target);
}

/* Before 3.12 there are none to be seen. */
static void test_tasks_that_do_not_show(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target, SPIN))
        skip();
    assert_int_equal(program_finished("dump -p %p", target.pid, &p), 0);
    const char *version = strstr(buf_cstr(&p.text), ": Python 3.");
    assert_non_null(version);
    bool without = strtol(version + 11, NULL, 10) < 12;
    assert_int_equal(p.complaints.len, 0);
    program_kill(&p);
    static const struct {
        const char *line;
        bool asked;
    } rows[] = {
        {"record -d 1 -o /dev/null -p %p", false},
        {"record -a -d 1 -o /dev/null -p %p", true},
        {"record -qa -d 1 -o /dev/null -p %p", false},
        {"dump -a -p %p", true},
        {"top -p %p", false},
        {"top -a -p %p", true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        program_run(&p, rows[i].line, target.pid);
        if (str_starts_with(str_of(rows[i].line), STR("top"))) {
            while (p.out >= 0 && !strstr(buf_cstr(&p.text), " %own"))
                program_take(&p.out, &p.text);
            kill(p.pid, SIGINT);
        }
        assert_int_equal(program_finish(&p), 0);
        bool says = strstr(buf_cstr(&p.complaints), "does not show its tasks; 3.12 to 3.14 do") ||
                    strstr(buf_cstr(&p.text), "does not show its tasks; 3.12 to 3.14 do");
        if (says != (without && rows[i].asked))
            fail_msg("%s: %s%s", rows[i].line, buf_cstr(&p.text), buf_cstr(&p.complaints));
        program_kill(&p);
    }
    program_kill(&target);
}

/* The middle of a stack is not shown as its beginning. */
static void test_stacks_that_are_too_deep(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target, "import sys\n"
                                 "sys.setrecursionlimit(9000)\n"
                                 "def deep(n):\n"
                                 "    if n: deep(n - 1)\n"
                                 "    print(1, flush=1)\n"
                                 "    while True: pass\n"
                                 "deep(7000)\n"))
        skip();
    assert_int_equal(program_finished("dump -p %p", target.pid, &p), 0);
    assert_true(str_ends_with(buf_str(&p.text), STR("    deep (<string>:4)\n"
                                                    "    (outer frames left out)\n")));
    program_kill(&p);
    int status = program_finished("record -t -s -F -d 2 -f raw -o - -p %p", target.pid, &p);
    _cleanup_(freep) char *begins = xasprintf("process %d:", (int)target.pid);
    if (status != 0 || !str_starts_with(buf_str(&p.text), str_of(begins)) ||
        !strstr(buf_cstr(&p.text), ");(outer frames left out);deep (<string>:3);"))
        fail_msg("status %d: %.300s%s", status, buf_cstr(&p.text), buf_cstr(&p.complaints));
    program_kill(&p);
    program_run(&p, "top -p %p", target.pid);
    while (p.out >= 0 && !strstr(buf_cstr(&p.text), "  0.0  100.0  (outer frames left out)\n"))
        program_take(&p.out, &p.text);
    assert_true(p.out >= 0);
    program_kill(&p);
    program_kill(&target);
}

#define GAPS 2000

struct clock {
    struct record_time time;
    int64_t ns, gaps[GAPS];
    size_t n;
};

static int64_t fake_now(struct record_time *self)
{
    return ((struct clock *)self)->ns;
}

/* Passes at once. The last one is ended as a person ends it. */
static void fake_sleep(struct record_time *self, int64_t ns, struct pollfd *fds, size_t n)
{
    (void)fds, (void)n;
    struct clock *c = (struct clock *)self;
    c->gaps[c->n++] = ns - c->ns;
    c->ns = ns;
    if (c->n == GAPS)
        raise(SIGINT);
}

/* Of exponential gaps 39 % are shorter than half the mean, 14 % longer than twice. */
static int top_by_chance(pid_t pid)
{
    static struct clock clock = {{fake_now, fake_sleep}, .ns = 1};
    struct host_arguments a = {.pid = pid,
                               .options = {.rate = 1000, .time = &clock.time, .seed = 4711}};
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!freopen("/dev/null", "w", stdout) || host_top(proc, &a, NULL) < 0 || clock.n != GAPS)
        return 1;
    size_t brief = 0, lengthy = 0;
    for (size_t i = 0; i < GAPS; i++) {
        brief += clock.gaps[i] < 500000;
        lengthy += clock.gaps[i] > 2000000;
    }
    bool chance = brief > GAPS * 35 / 100 && brief < GAPS * 44 / 100 && lengthy > GAPS * 10 / 100 &&
                  lengthy < GAPS * 17 / 100 && clock.ns > 1800000000 && clock.ns < 2200000000;
    if (!chance)
        fprintf(stderr, "%zu brief gaps, %zu lengthy ones of %d, in %lld ms\n", brief, lengthy,
                GAPS, (long long)clock.ns / 1000000);
    return chance ? 0 : 2;
}

/* What the program does in a rhythm is neither preferred nor missed. */
static void test_top_looks_at_random(void **state)
{
    (void)state;
    struct program target;
    if (!program_python(&target, SPIN))
        skip();
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(top_by_chance(target.pid));
    waitpid(child, &status, 0);
    program_kill(&target);
    assert_int_equal(status, 0);
}

/* It cannot take the signal, but ends. */
static void test_hanging(void **state)
{
    (void)state;
    static const char *const lines[] = {"record -d 600 -o /dev/null -p %p", "top -p %p"};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct program target, p;
        if (!program_python(&target, HANGING)) {
            program_kill(&target);
            skip(); /* no /usr/bin/python3, or it cannot do that here */
        }
        program_run(&p, lines[i], target.pid);
        usleep(3000000);
        kill(p.pid, SIGINT);
        assert_int_equal(program_finish(&p), 128 + SIGINT);
        program_kill(&p);
        program_kill(&target);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_that_takes_nothing),
        cmocka_unit_test(test_tasks_that_do_not_show),
        cmocka_unit_test(test_stacks_that_are_too_deep),
        cmocka_unit_test(test_top_looks_at_random),
        cmocka_unit_test(test_hanging),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
