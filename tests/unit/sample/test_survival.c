/* What happens to a process while it is sampled, and what must not happen to it: it ends, becomes
 * another program, forks without an end, is stopped or frozen, has thousands of threads; the
 * sampler has no descriptors or memory left; and nothing but reading is done to it, ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "proc/proc.h"
#include "sample/record.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define SLACK_MS 1500 /* for a busy machine */

static int proc = -1, output = -1;  /* output: of the program that runs */
static char *python, *other_python; /* of another version, where there is one */

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

static bool works(const char *path)
{
    _cleanup_(freep) char *command = xasprintf(
        "'%s' -c 'import sys; sys.exit(not (3, 8) <= sys.version_info < (3, 15))' 2>/dev/null",
        path);
    return system(command) == 0;
}

static void find_pythons(void)
{
    const char *home = getenv("HOME");
    _cleanup_(freep) char *pattern =
        xasprintf("%s/.pyenv/versions/3.*/bin/python3", home ? home : "");
    glob_t found = {0};
    glob("/usr/bin/python3", 0, NULL, &found);
    glob(pattern, GLOB_APPEND, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc && !other_python; i++) {
        if (!works(found.gl_pathv[i]))
            continue;
        char **to = python ? &other_python : &python;
        *to = xstrdup(found.gl_pathv[i]);
    }
    globfree(&found);
}

static pid_t start(const char *program, const char *argument)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        setpgid(0, 0);
        dup2(fds[1], STDOUT_FILENO);
        unsetenv("LD_PRELOAD");
        execl(python, "python3", "-c", program, argument, NULL);
        _exit(127);
    }
    close(fds[1]);
    char c;
    if (read(fds[0], &c, 1) != 1)
        fail_msg("the program did not get ready");
    output = fds[0];
    return pid;
}

/* With all that it forked. */
static void end(pid_t pid)
{
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(output);
}

static struct record *opened(pid_t pid, const struct record_options *options, struct profile *p)
{
    struct record *r = NULL;
    struct err err = ERR_INIT;
    if (record_create(proc, pid, options, p, &r, &err) < 0)
        fail_msg("%s", err.message);
    return r;
}

struct outcome {
    struct record_result result;
    int64_t samples, ms;
    struct buf raw;
};

static struct outcome sampled(pid_t pid, const struct record_options *options)
{
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct outcome o = {.raw = BUF_INIT(16u << 20)};
    struct record *r = opened(pid, options, profile);
    int64_t begun = now_ms();
    record_run(r);
    o.ms = now_ms() - begun;
    o.result = record_result(r);
    o.samples = profile_samples(profile);
    record_destroy(r);
    assert_int_equal(profile_write_raw(profile, &o.raw, NULL), 0);
    if (options->duration_ms && o.ms > options->duration_ms + SLACK_MS)
        fail_msg("ended %d ms late", (int)(o.ms - options->duration_ms));
    return o;
}

/* Samples of stacks that hold the text. */
static int64_t count_of(const char *raw, const char *text)
{
    int64_t n = 0;
    for (const char *line = raw, *end; *line; line = *end ? end + 1 : end) {
        end = strchrnul(line, '\n');
        const char *count = memrchr(line, ' ', (size_t)(end - line));
        if (count && memmem(line, (size_t)(end - line), text, strlen(text)))
            n += strtoll(count, NULL, 10);
    }
    return n;
}

static size_t descriptors(void)
{
    size_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static char state_of(pid_t pid)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_process about;
    return proc_read(proc, arena, pid, &about, NULL) < 0 ? 0 : about.state;
}

static const char spin[] = "print('ready', flush=1)\n"
                           "def spin():\n"
                           "    x = 0\n"
                           "    while True: x += 1\n"
                           "spin()\n";

/* At 1,000 looks a second it ends in the middle of one sooner or later; what was had stays. */
static void test_exit(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        pid_t pid = start("import os, threading, time\n"
                          "def end(): time.sleep(0.3); os._exit(0)\n"
                          "threading.Thread(target=end).start()\n"
                          "print('ready', flush=1)\n"
                          "while True: sum(range(1000))\n",
                          NULL);
        struct outcome o =
            sampled(pid, &(struct record_options){.rate = 1000, .idle = i % 2, .threads = true});
        assert_true(o.result.exited);
        assert_true(o.samples > 10);
        assert_true(o.ms < 300 + SLACK_MS);
        buf_finish(&o.raw);
        end(pid);
    }
}

static void test_exec_python(void **state)
{
    (void)state;
    pid_t pid = start("import os, sys, time\n"
                      "print('ready', flush=1)\n"
                      "def before():\n"
                      "    end = time.time() + 0.7\n"
                      "    while time.time() < end: pass\n"
                      "before()\n"
                      "os.execv(sys.argv[1], ['python3', '-c', '''\n"
                      "def after():\n"
                      "    while True: pass\n"
                      "after()'''])\n",
                      other_python ? other_python : python);
    struct outcome o = sampled(pid, &(struct record_options){.rate = 200, .duration_ms = 4000});
    if (!strstr(buf_cstr(&o.raw), "before (") || !strstr(buf_cstr(&o.raw), "after ("))
        fail_msg("%s", buf_cstr(&o.raw));
    assert_false(o.result.exited);
    assert_int_equal(o.result.processes, 2); /* programs, in one process */
    buf_finish(&o.raw);
    end(pid);
}

static void test_exec_other(void **state)
{
    (void)state;
    pid_t pid = start("import os, time\n"
                      "print('ready', flush=1)\n"
                      "end = time.time() + 0.5\n"
                      "while time.time() < end: pass\n"
                      "os.execv('/bin/sleep', ['sleep', '100'])\n",
                      NULL);
    struct outcome o = sampled(pid, &(struct record_options){.rate = 100, .duration_ms = 30000});
    assert_true(o.result.exited);
    assert_true(o.samples > 5);
    assert_true(o.ms < 10000);
    buf_finish(&o.raw);
    end(pid);
}

/* Children by the thousand, most gone before they can be looked at, some of some depth. */
static void test_fork_storm(void **state)
{
    (void)state;
    pid_t pid = start("import os, signal, time\n"
                      "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
                      "print('ready', flush=1)\n"
                      "def storm():\n"
                      "    while True:\n"
                      "        if os.fork() == 0:\n"
                      "            depth = 0\n"
                      "            while depth < 5 and os.fork() == 0: depth += 1\n"
                      "            os._exit(0)\n"
                      "storm()\n",
                      NULL);
    size_t before = descriptors();
    struct outcome o = sampled(
        pid, &(struct record_options){.rate = 200, .duration_ms = 3000, .subprocesses = true});
    print_message("%d processes, %d looks, %d late, %d samples, %d errors\n",
                  (int)o.result.processes, (int)o.result.looks, (int)o.result.late, (int)o.samples,
                  (int)o.result.counts.errors);
    assert_int_equal(descriptors(), before);
    end(pid);
    assert_false(o.result.exited);
    assert_true(o.samples > 20);
    assert_non_null(strstr(buf_cstr(&o.raw), "storm ("));
    buf_finish(&o.raw);
}

/* More that stay than are followed, each the child of another. */
static void test_deep_family(void **state)
{
    (void)state;
    pid_t pid = start("import os, time\n"
                      "for i in range(300):\n"
                      "    if os.fork() != 0: break\n"
                      "else:\n"
                      "    print('ready', flush=1)\n"
                      "time.sleep(1000)\n",
                      NULL);
    size_t before = descriptors();
    struct outcome o =
        sampled(pid, &(struct record_options){
                         .rate = 20, .duration_ms = 6000, .subprocesses = true, .idle = true});
    print_message("%d processes%s, %d looks, %d late\n", (int)o.result.processes,
                  o.result.left_out ? ", others left out" : "", (int)o.result.looks,
                  (int)o.result.late);
    assert_int_equal(descriptors(), before);
    end(pid);
    assert_true(o.result.processes > 20 && o.result.processes <= RECORD_PROCESSES_MAX);
    buf_finish(&o.raw);
}

static void test_stopped(void **state)
{
    (void)state;
    pid_t pid = start(spin, NULL);
    usleep(100000);
    kill(pid, SIGSTOP);
    while (state_of(pid) != 'T')
        usleep(1000);
    struct outcome o =
        sampled(pid, &(struct record_options){.rate = 100, .duration_ms = 800, .idle = true});
    assert_true(o.samples > 20);
    assert_int_equal(o.result.counts.errors, 0);
    assert_int_equal(state_of(pid), 'T');
    buf_finish(&o.raw);
    kill(pid, SIGCONT);
    o = sampled(pid, &(struct record_options){.rate = 100, .duration_ms = 500});
    assert_true(o.samples > 5);
    buf_finish(&o.raw);
    end(pid);
}

static bool put(const char *folder, const char *file, const char *text)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

static bool holds(const char *folder, const char *file, const char *what)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", folder, file);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4096);
    return buf_read_file(&text, path, NULL) == 0 && strstr(buf_cstr(&text), what);
}

static void test_frozen(void **state)
{
    (void)state;
    static const struct {
        const char *root, *file, *freeze, *thaw, *told, *frozen;
    } kinds[] = {
        {"/sys/fs/cgroup/freezer", "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"},
        {"/sys/fs/cgroup", "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"},
        {"/sys/fs/cgroup/unified", "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"},
    };
    pid_t pid = start(spin, NULL);
    char number[16];
    snprintf(number, sizeof(number), "%d", (int)pid);
    bool done = false;
    for (size_t i = 0; i < ARRAY_SIZE(kinds) && !done; i++) {
        _cleanup_(freep) char *group = xasprintf("%s/pyspy-test-%d", kinds[i].root, (int)pid);
        if (mkdir(group, 0755) < 0)
            continue;
        if (put(group, "cgroup.procs", number) && put(group, kinds[i].file, kinds[i].freeze)) {
            for (int k = 0; k < 200 && !holds(group, kinds[i].told, kinds[i].frozen); k++)
                usleep(10000);
            struct outcome o = sampled(
                pid, &(struct record_options){.rate = 100, .duration_ms = 800, .idle = true});
            done = holds(group, kinds[i].told, kinds[i].frozen);
            assert_true(done);
            assert_true(o.samples > 20);
            buf_finish(&o.raw);
            put(group, kinds[i].file, kinds[i].thaw);
        }
        end(pid);
        for (int k = 0; k < 100 && rmdir(group) < 0; k++)
            usleep(10000);
        pid = done ? -1 : start(spin, NULL);
        snprintf(number, sizeof(number), "%d", (int)pid);
    }
    if (pid > 0)
        end(pid);
    if (!done)
        skip();
}

/* Who sleeps among many costs next to nothing: looks are whole, and who works is in all of them. */
static void test_many_threads(void **state)
{
    (void)state;
    pid_t pid = start("import threading, time\n"
                      "threading.stack_size(65536)\n"
                      "def sleep(): time.sleep(1000)\n"
                      "for i in range(1500): threading.Thread(target=sleep, daemon=True).start()\n"
                      "def spin():\n"
                      "    while True: pass\n"
                      "time.sleep(0.5)\n"
                      "print('ready', flush=1)\n"
                      "spin()\n",
                      NULL);
    size_t before = descriptors();
    struct outcome o = sampled(pid, &(struct record_options){.rate = 20, .duration_ms = 4000});
    int64_t looks = o.result.looks;
    print_message("%d looks, %d late, %d cut, %d samples, %d errors\n", (int)looks,
                  (int)o.result.late, (int)o.result.counts.cut, (int)o.samples,
                  (int)o.result.counts.errors);
    assert_int_equal(descriptors(), before);
    assert_true(looks >= 10);
    assert_true(o.result.counts.cut <= 1 + looks / 20); /* the first opens a file for each */
    assert_true(count_of(buf_cstr(&o.raw), "spin (<string>:") * 10 >= looks * 9);
    assert_true(count_of(buf_cstr(&o.raw), "sleep (<string>:") * 100 <= looks);
    buf_finish(&o.raw);
    end(pid);
}

/* Each thread lives for a moment; their names must not fill the profile. */
static void test_thread_churn(void **state)
{
    (void)state;
    pid_t pid = start("import threading\n"
                      "print('ready', flush=1)\n"
                      "def work(): sum(range(3000))\n"
                      "while True:\n"
                      "    ts = [threading.Thread(target=work) for i in range(20)]\n"
                      "    for t in ts: t.start()\n"
                      "    for t in ts: t.join()\n",
                      NULL);
    size_t before = descriptors();
    struct outcome o = sampled(
        pid,
        &(struct record_options){.rate = 1000, .duration_ms = 2500, .idle = true, .threads = true});
    print_message("%d looks, %d samples, %d errors\n", (int)o.result.looks, (int)o.samples,
                  (int)o.result.counts.errors);
    assert_int_equal(descriptors(), before);
    assert_true(o.samples > 100 && !o.result.full && !o.result.exited);
    assert_true(o.result.counts.errors < o.samples);
    buf_finish(&o.raw);
    end(pid);
}

/* However few descriptors are left: refused with a reason, or sampled; none is lost. */
static void test_no_descriptors(void **state)
{
    (void)state;
    pid_t pid = start(spin, NULL);
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
    end(pid);
}

/* Little memory: what the target holds must not be able to make it run out. */
static void test_little_memory(void **state)
{
    (void)state;
    if (SANITIZED)
        skip(); /* which takes terabytes of addresses for itself */
    pid_t pid = start("import sys, threading, time\n"
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
    end(pid);
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
    pid_t pid = start("import os, threading, time\n"
                      "def sleep(): time.sleep(1000)\n"
                      "threading.Thread(target=sleep).start()\n"
                      "child = os.fork()\n"
                      "print('ready', flush=1)\n"
                      "while True: pass\n",
                      NULL);
    int status = in_child(sample_all, pid);
    int control = in_child(probe, pid);
    end(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); /* no seccomp here */
    if (status != 0)
        fail_msg("signal %d, status %d", WTERMSIG(status), WEXITSTATUS(status));
    assert_true(WIFSIGNALED(control) && WTERMSIG(control) == SIGSYS);
}

int main(void)
{
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    find_pythons();
    if (!python) {
        puts("skipped: no Python from 3.8 to 3.14");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit),          cmocka_unit_test(test_exec_python),
        cmocka_unit_test(test_exec_other),    cmocka_unit_test(test_fork_storm),
        cmocka_unit_test(test_deep_family),   cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_frozen),        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_thread_churn),  cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_little_memory), cmocka_unit_test(test_only_reads),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    free(python);
    free(other_python);
    close(proc);
    return r;
}
