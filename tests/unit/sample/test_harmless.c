/* What sampling never does: lose descriptors or run out of memory where there are few or little, or
 * do anything to a process but read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "family.h"
#include "sample/record.h"
#include "sample/target.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* However few descriptors are left: refused with a reason, or sampled; none is lost. */
static void test_no_descriptors(void **state)
{
    (void)state;
    pid_t pid = family_start(spin, NULL);
    struct rlimit old;
    getrlimit(RLIMIT_NOFILE, &old);
    int lowest = dup(proc);
    close(lowest);
    size_t before = descriptors();
    int refused = 0, ran = 0;
    for (int left = 0; left < 10; left++) {
        _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
        struct record_options options = {.rate = 200, .duration_ms = 150, .subprocesses = true};
        struct record *r = NULL;
        struct err err = ERR_INIT;
        struct rlimit low = {.rlim_cur = (rlim_t)(lowest + left), .rlim_max = old.rlim_max};
        setrlimit(RLIMIT_NOFILE, &low);
        int e = record_create(proc, pid, &options, profile, &r, &err);
        if (e == 0)
            record_run(r);
        setrlimit(RLIMIT_NOFILE, &old);
        if (e < 0) {
            refused++;
            assert_true(err.message[0] != '\0');
            continue;
        }
        ran++;
        /* Whether it ran or not, something is known of each look. */
        assert_true(profile_samples(profile) + record_result(r).counts.errors > 0);
        record_destroy(r);
    }
    assert_int_equal(descriptors(), before);
    assert_true(refused > 0 && ran > 0);
    family_end(pid);
}

static void count_asked(void *context, const struct sample_thread *thread)
{
    ((size_t *)context)[thread->asked]++;
}

/* None at all: who cannot be asked for is not told to sleep. As soon as there are some, all are. */
static void test_descriptors_come_and_go(void **state)
{
    (void)state;
    pid_t pid = family_start("import threading, time\n"
                             "for i in range(20):\n"
                             "    threading.Thread(target=time.sleep, args=(600,)).start()\n"
                             "print('ready', flush=1)\n"
                             "while True: pass\n",
                             NULL);
    struct sample_options options = {.idle = true, .all = true};
    struct target *t = NULL;
    assert_int_equal(target_open(proc, pid, &options, &t, NULL), 0);
    struct rlimit old;
    getrlimit(RLIMIT_NOFILE, &old);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max});
    size_t without[2] = {0}, still[2] = {0}, with[2] = {0};
    int r = target_look(t, count_asked, without, NULL);
    int again = target_look(t, count_asked, still, NULL);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(r + again, 0);
    assert_int_equal(target_look(t, count_asked, with, NULL), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(target_look(t, count_asked, (size_t[2]){0}, NULL), 0);
    size_t open = descriptors();
    assert_int_equal(target_counts(t).unasked, without[false] + still[false]);
    target_close(t);
    family_end(pid);
    assert_true(open >= descriptors() + 2); /* of the one that runs */
    assert_int_equal(without[false], 21);
    assert_int_equal(still[false], 21);
    assert_int_equal(with[true], 21);
}

/* Little memory: what the target holds must not be able to make it run out. */
static void test_little_memory(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* which takes terabytes of addresses for itself */
    pid_t pid = family_start("import sys, threading, time\n"
                             "sys.setrecursionlimit(100000)\n"
                             "names = {}\n"
                             "for i in range(20000):\n"
                             "    exec('def f%s_%d(g): g()' % ('n' * 200, i), names)\n"
                             "fs = [f for f in names.values() if callable(f)]\n"
                             "def deep(n):\n"
                             "    if n: deep(n - 1)\n"
                             "    else: time.sleep(0.0001)\n"
                             "print('ready', flush=1)\n"
                             "while True:\n"
                             "    for f in fs: f(lambda: deep(800))\n",
                             NULL);
    pid_t sampler = fork();
    if (sampler == 0) {
        struct rlimit low = {160u << 20, 160u << 20};
        setrlimit(RLIMIT_AS, &low);
        _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
        struct record_options options = {.rate = 1000, .duration_ms = 3000, .idle = true};
        struct record *r = NULL;
        if (record_create(proc, pid, &options, profile, &r, NULL) < 0)
            _exit(1);
        record_run(r);
        _exit(profile_samples(profile) > 100 ? 0 : 2);
    }
    int status = 0;
    waitpid(sampler, &status, 0);
    family_end(pid);
    assert_int_equal(status, 0);
}

/* Ends the caller when it makes one of the calls by which a process can be stopped, traced, told
 * or written to. */
static void forbid(void)
{
    static const unsigned calls[] = {
        SYS_ptrace,
        SYS_kill,
        SYS_tkill,
        SYS_tgkill,
        SYS_rt_sigqueueinfo,
        SYS_rt_tgsigqueueinfo,
        SYS_pidfd_send_signal,
        SYS_process_vm_writev,
        SYS_setns,
        SYS_pidfd_getfd,
        SYS_kcmp,
    };
    struct sock_filter code[2 * ARRAY_SIZE(calls) + 2];
    size_t n = 0;
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        _exit(77);
}

static int in_child(int (*work)(pid_t pid), pid_t pid)
{
    pid_t child = fork();
    if (child == 0) {
        forbid();
        _exit(work(pid));
    }
    int status = 0;
    /* Meanwhile the target is never seen stopped or traced. */
    while (waitpid(child, &status, WNOHANG) == 0) {
        char path[64], state = state_of(pid);
        _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
        snprintf(path, sizeof(path), "%d/status", (int)pid);
        assert_int_equal(buf_read_file_at(&text, proc, path, NULL), 0);
        if (state == 'T' || state == 't' || !strstr(buf_cstr(&text), "\nTracerPid:\t0\n"))
            fail_msg("state %c:\n%s", state, buf_cstr(&text));
        usleep(500);
    }
    return status;
}

static int sample_all(pid_t pid)
{
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct record_options options = {.rate = 500,
                                     .duration_ms = 1500,
                                     .idle = true,
                                     .subprocesses = true,
                                     .threads = true,
                                     .command_lines = true};
    struct record *r = NULL;
    if (record_create(proc, pid, &options, profile, &r, NULL) < 0)
        return 1;
    record_run(r);
    record_destroy(r);
    return profile_samples(profile) > 50 ? 0 : 2;
}

static int probe(pid_t pid)
{
    kill(pid, 0);
    return 0;
}

static void test_only_reads(void **state)
{
    (void)state;
    pid_t pid = family_start("import os, threading, time\n"
                             "def sleep(): time.sleep(1000)\n"
                             "threading.Thread(target=sleep).start()\n"
                             "child = os.fork()\n"
                             "print('ready', flush=1)\n"
                             "while True: pass\n",
                             NULL);
    int status = in_child(sample_all, pid);
    int control = in_child(probe, pid);
    family_end(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no seccomp here */
    if (status != 0)
        fail_msg("signal %d, status %d", WTERMSIG(status), WEXITSTATUS(status));
    assert_true(WIFSIGNALED(control) && WTERMSIG(control) == SIGSYS);
}

int main(void)
{
    if (!family_pythons())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_descriptors_come_and_go),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_only_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
