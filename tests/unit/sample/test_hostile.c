/* A process that lies in all that the sampler reads of it, by the true path: the profile may be
 * useless, but each look ends, the run ends on time and when told, and memory stays bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "day.h"

/* Twice what a look may take, and something for a busy machine. */
#define LOOK_MAX_MS (2 * SAMPLE_LOOK_MS + 700)
#define HEAP_MAX    (400u << 20)

static int proc = -1;

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* -1: this kernel does not let it. */
static pid_t start(const char *mode)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        dup2(fds[1], STDOUT_FILENO);
        execl(HOSTILE, "hostile", mode, NULL);
        _exit(127);
    }
    close(fds[1]);
    char c;
    ssize_t n = read(fds[0], &c, 1);
    close(fds[0]);
    int status = 0;
    if (n == 1)
        return pid;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 77)
        fail_msg("hostile %s: status %d", mode, status);
    return -1;
}

static void turn(pid_t pid)
{
    kill(pid, SIGUSR1);
    usleep(50000);
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static const char *const modes[] = {
    "sane",          "cycle-threads",   "cycle-interpreters",
    "cycle-frames",  "million-threads", "wild",
    "endless-texts", "endless-names",   "wild-names",
    "exhausting",    "vanishing",       "truncated",
    "slow",
};

static void ignore(void *context, const struct sample_thread *t)
{
    (void)context, (void)t;
}

static void test_looks_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        pid_t pid = start(modes[i]);
        if (pid < 0) {
            print_message("skipped: %s\n", modes[i]);
            continue;
        }
        struct target *t = NULL;
        struct err err = ERR_INIT;
        int64_t longest = 0, begun = now_ms();
        int r =
            target_open(proc, pid, &(struct sample_options){.idle = true, .names = true}, &t, &err);
        int64_t open = now_ms() - begun;
        turn(pid);
        for (int look = 0; r == 0 && look < 8; look++) {
            begun = now_ms();
            assert_int_equal(target_look(t, ignore, NULL, &err), 0);
            if (now_ms() - begun > longest)
                longest = now_ms() - begun;
        }
        struct sample_counts c = r == 0 ? target_counts(t) : (struct sample_counts){0};
        target_close(t);
        end(pid);
        print_message(
            "%s: open %d ms, look %d ms at most; %lld stacks, %lld errors, %lld cut%s%s\n",
            modes[i], (int)open, (int)longest, (long long)c.stacks, (long long)c.errors,
            (long long)c.cut, r < 0 ? ": " : "", r < 0 ? err.message : "");
        if (longest > LOOK_MAX_MS || open > 3000)
            fail_msg("%s: a look took %d ms", modes[i], (int)longest);
        if (strcmp(modes[i], "sane") == 0)
            assert_true(r == 0 && c.stacks > 0); /* or all of this tests refusals only */
        /* What is not cut off by a refusal must have been tried and told. */
        if (r == 0 && c.stacks == 0)
            assert_true(c.errors > 0);
    }
}

static void *stop_soon(void *argument)
{
    usleep(400000);
    record_stop(argument);
    return NULL;
}

static void test_runs_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        pid_t pid = start(modes[i]);
        if (pid < 0)
            continue;
        for (int stop = 0; stop < 2; stop++) {
            size_t heap = day_heap();
            _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
            struct record_options options = {
                .rate = 100, .duration_ms = stop ? 60000 : 900, .idle = true, .threads = true};
            struct record *r = NULL;
            if (record_create(proc, pid, &options, profile, &r, NULL) < 0)
                continue;
            turn(pid);
            pthread_t stopper;
            int64_t begun = now_ms();
            if (stop)
                assert_int_equal(pthread_create(&stopper, NULL, stop_soon, r), 0);
            record_run(r);
            if (stop)
                pthread_join(stopper, NULL);
            int64_t took = now_ms() - begun;
            struct record_result result = record_result(r);
            heap = day_heap() - heap;
            record_destroy(r);
            print_message("%s: %d ms, %lld looks, %lld late, %lld samples, %lld errors, %zu KB%s\n",
                          modes[i], (int)took, (long long)result.looks, (long long)result.late,
                          (long long)profile_samples(profile), (long long)result.counts.errors,
                          heap / 1024, result.full ? ", full" : "");
            if (took > (stop ? 400 : 900) + LOOK_MAX_MS)
                fail_msg("%s: ended after %d ms", modes[i], (int)took);
            if (heap > HEAP_MAX)
                fail_msg("%s: %zu KB", modes[i], heap / 1024);
            assert_false(result.exited);
        }
        /* Whatever it holds, it was left as it was. */
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        end(pid);
    }
}

int main(void)
{
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_looks_end),
        cmocka_unit_test(test_runs_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
