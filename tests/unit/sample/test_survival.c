/* What happens to a process while it is sampled: it ends, becomes another program, forks without an
 * end, is stopped or frozen, has thousands of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "family.h"
#include "sample/record.h"

#define SLACK_MS 1500 /* for a busy machine */

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
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

/* At 1,000 looks a second it ends in the middle of one sooner or later; what was had stays. */
static void test_exit(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        pid_t pid = family_start("import os, threading, time\n"
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
        family_end(pid);
    }
}

static void test_exec_python(void **state)
{
    (void)state;
    pid_t pid = family_start("import os, sys, time\n"
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
    family_end(pid);
}

static void test_exec_other(void **state)
{
    (void)state;
    pid_t pid = family_start("import os, time\n"
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
    family_end(pid);
}

/* Children by the thousand, most gone before they can be looked at, some of some depth. */
static void test_fork_storm(void **state)
{
    (void)state;
    pid_t pid = family_start("import os, signal, time\n"
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
    family_end(pid);
    assert_false(o.result.exited);
    assert_true(o.samples > 20);
    assert_non_null(strstr(buf_cstr(&o.raw), "storm ("));
    buf_finish(&o.raw);
}

/* One after the other, each for 100 ms: with four looks for children a second most would be missed.
 */
static void test_short_children(void **state)
{
    (void)state;
    pid_t pid = family_start("import os, time\n"
                             "def work():\n"
                             "    end = time.perf_counter() + 0.1\n"
                             "    while time.perf_counter() < end: pass\n"
                             "print('ready', flush=1)\n"
                             "while True:\n"
                             "    child = os.fork()\n"
                             "    if child == 0:\n"
                             "        work()\n"
                             "        os._exit(0)\n"
                             "    os.waitpid(child, 0)\n",
                             NULL);
    struct outcome o = sampled(
        pid, &(struct record_options){.rate = 100, .duration_ms = 3000, .subprocesses = true});
    int64_t work = count_of(buf_cstr(&o.raw), "work (");
    print_message("%d samples of %d processes in %d looks\n", (int)work, (int)o.result.processes,
                  (int)o.result.looks);
    assert_true(work * 3 >= o.result.looks);
    buf_finish(&o.raw);
    family_end(pid);
}

/* More that stay than are followed, each the child of another. */
static void test_deep_family(void **state)
{
    (void)state;
    pid_t pid = family_start("import os, time\n"
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
    family_end(pid);
    assert_true(o.result.processes > 20 && o.result.processes <= RECORD_PROCESSES_MAX);
    buf_finish(&o.raw);
}

/* So that there are so many more descriptors. */
static void limit_descriptors(size_t spare)
{
    struct rlimit limit;
    rlim_t end = 0;
    for (; spare > 0; end++)
        spare -= fcntl((int)end, F_GETFD) < 0;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = end;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Children for whom there are no descriptors are not left out in silence. */
static void test_too_few_descriptors(void **state)
{
    (void)state;
    struct rlimit before;
    pid_t pid = family_start("import os, time\n"
                             "for i in range(6):\n"
                             "    if os.fork() == 0: break\n"
                             "else:\n"
                             "    print('ready', flush=1)\n"
                             "time.sleep(1000)\n",
                             NULL);
    struct record_options options = {
        .rate = 50, .duration_ms = 1000, .subprocesses = true, .idle = true};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    bool some = false, silent = false;
    for (size_t spare = 7; spare < 12; spare++) {
        limit_descriptors(spare);
        struct outcome o = sampled(pid, &options);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        some = some || o.result.processes < 7;
        silent = silent || (o.result.processes < 7 && !o.result.left_out);
        buf_finish(&o.raw);
    }
    struct outcome o = sampled(pid, &options);
    buf_finish(&o.raw);
    family_end(pid);
    assert_true(some);
    assert_false(silent);
    assert_int_equal(o.result.processes, 7);
    assert_false(o.result.left_out);
}

static void test_stopped(void **state)
{
    (void)state;
    pid_t pid = family_start(spin, NULL);
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
    family_end(pid);
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
    pid_t pid = family_start(spin, NULL);
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
        family_end(pid);
        for (int k = 0; k < 100 && rmdir(group) < 0; k++)
            usleep(10000);
        pid = done ? -1 : family_start(spin, NULL);
        snprintf(number, sizeof(number), "%d", (int)pid);
    }
    if (pid > 0)
        family_end(pid);
    if (!done)
        skip();
}

/* Who sleeps among many costs next to nothing: looks are whole, and who works is in all of them.
 * PYSPY_TEST_THREADS: how many, where the processor is made up. */
static void test_many_threads(void **state)
{
    (void)state;
    pid_t pid =
        family_start("import os, threading, time\n"
                     "threading.stack_size(1 << 18)\n"
                     "def sleep(): time.sleep(1000)\n"
                     "n = int(os.environ.get('PYSPY_TEST_THREADS', 1500))\n"
                     "for i in range(n): threading.Thread(target=sleep, daemon=True).start()\n"
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
    family_end(pid);
}

/* Each thread lives for a moment; their names must not fill the profile. */
static void test_thread_churn(void **state)
{
    (void)state;
    pid_t pid = family_start("import threading\n"
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
    family_end(pid);
}

int main(void)
{
    if (!family_pythons())
        return 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit),           cmocka_unit_test(test_exec_python),
        cmocka_unit_test(test_exec_other),     cmocka_unit_test(test_fork_storm),
        cmocka_unit_test(test_deep_family),    cmocka_unit_test(test_too_few_descriptors),
        cmocka_unit_test(test_stopped),        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_many_threads),   cmocka_unit_test(test_thread_churn),
        cmocka_unit_test(test_short_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
