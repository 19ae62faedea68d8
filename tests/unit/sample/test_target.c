/* A real interpreter, named as in pythons.h, runs programs whose stacks are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "pythons.h"
#include "sample/record.h"
#include "sample/sample_internal.h"

struct seen {
    struct buf text; /* "function:line" of each frame, innermost first, then "." */
    size_t stacks, busy;
};

static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    s->stacks++;
    for (size_t i = 0; i < t->depth; i++)
        buf_appendf(&s->text, "%.*s:%d ", STR_ARG(t->frames[i]->function), (int)t->frames[i]->line);
    buf_append_cstr(&s->text, ". ");
}

static void count_busy(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    s->stacks++;
    for (size_t i = 0; i < t->depth; i++)
        if (str_is(t->frames[i]->function, "spin")) {
            s->busy++;
            break;
        }
}

/* For a machine that has other things to do. */
#define PATIENCE_MS 20000

static const char sleeper[] = "import time, sys\n"            /* 1 */
                              "def inner():\n"                /* 2 */
                              "    print('ready', flush=1)\n" /* 3 */
                              "    time.sleep(1000)\n"        /* 4 */
                              "class K:\n"                    /* 5 */
                              "    def method(self):\n"       /* 6 */
                              "        return [\n"            /* 7 */
                              "            inner(),\n"        /* 8 */
                              "            2]\n"              /* 9 */
                              "def gen():\n"                  /* 10 */
                              "    yield 1\n"                 /* 11 */
                              "    yield K().method()\n"      /* 12 */
                              "def deep(n):\n"                /* 13 */
                              "    if n:\n"                   /* 14 */
                              "        return deep(n - 1)\n"  /* 15 */
                              "    for x in gen():\n"         /* 16 */
                              "        pass\n"                /* 17 */
                              "deep(3)\n";                    /* 18 */

/* Functions by qualified name from 3.11 on, and the line of each call. */
static void test_stack(void **state)
{
    (void)state;
    struct child c = child_start(python, sleeper);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    unsigned minor = (unsigned)strtoul(target_version(t) + 2, NULL, 10);
    _cleanup_(freep) char *want =
        xasprintf("inner:4 %s:8 gen:12 deep:16 deep:15 deep:15 deep:15 <module>:18 . ",
                  minor >= 11 ? "K.method" : "method");
    int64_t until = memory_now_ms() + PATIENCE_MS;
    for (int look = 0; look < 3;) {
        struct seen s = {.text = BUF_INIT(4096)};
        assert_int_equal(target_look(t, see, &s, NULL), 0);
        bool right = strcmp(buf_cstr(&s.text), want) == 0;
        /* It has said that it is ready and is on its way to sleep. */
        if (!right && (look > 0 || memory_now_ms() > until))
            fail_msg("%s: %s\nnot: %s", python, buf_cstr(&s.text), want);
        look += right;
        buf_finish(&s.text);
    }
    assert_int_equal(target_counts(t).errors, 0);
    target_close(t);
    child_end(&c);
}

/* Nobody is counted who does not run; a frame object's chain 800 deep is read whole. */
static void test_idle_and_deep(void **state)
{
    (void)state;
    const char *program = "import time, sys\n"
                          "sys.setrecursionlimit(5000)\n"
                          "def deep(n):\n"
                          "    if n: deep(n - 1)\n"
                          "    print('ready', flush=1)\n"
                          "    time.sleep(1000)\n"
                          "deep(800)\n";
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    struct seen s = {0};
    int64_t until = memory_now_ms() + PATIENCE_MS;
    do {
        s.stacks = 0;
        assert_int_equal(target_look(t, count_busy, &s, NULL), 0);
    } while (s.stacks && memory_now_ms() < until);
    for (int look = 0; look < 20; look++)
        assert_int_equal(target_look(t, count_busy, &s, NULL), 0);
    assert_int_equal(s.stacks, 0);
    target_close(t);

    t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    s = (struct seen){.text = BUF_INIT(65536)};
    assert_int_equal(target_look(t, see, &s, NULL), 0);
    size_t frames = 0;
    for (struct str rest = buf_str(&s.text); rest.ptr;)
        frames += str_starts_with(str_cut(&rest, ' '), STR("deep:"));
    if (frames != 801)
        fail_msg("%s: %zu frames of 801", python, frames);
    buf_finish(&s.text);
    target_close(t);
    child_end(&c);
}

struct depths {
    size_t whole, cut, wrong;
};

static void see_depth(void *context, const struct sample_thread *t)
{
    struct depths *d = context;
    bool whole = str_is(t->frames[t->depth - 1]->function, "<module>");
    if (t->cut ? t->depth != STACK_DEPTH_MAX : !whole)
        d->wrong++;
    else if (t->cut)
        d->cut++;
    else
        d->whole++;
}

/* As deep as is read to the frame, one more, thousands more, and that deep now and then. */
static void test_too_deep(void **state)
{
    (void)state;
    static const struct {
        int depth, more;
        bool whole, cut;
    } rows[] = {{4094, 0, true, false},
                {4095, 0, false, true},
                {7000, 9, false, true},
                {4085, 8, true, false}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(freep) char *program = xasprintf("import sys, time\n"
                                                   "sys.setrecursionlimit(20000)\n"
                                                   "def more(n):\n"
                                                   "    sum(range(9999))\n"
                                                   "    if n: more(n - 1)\n"
                                                   "def deep(n):\n"
                                                   "    if n: deep(n - 1)\n"
                                                   "    print('ready', flush=1)\n"
                                                   "    while %d: more(%d)\n"
                                                   "    time.sleep(1000)\n"
                                                   "deep(%d)\n",
                                                   rows[i].more, rows[i].more, rows[i].depth);
        struct child c = child_start(python, program);
        struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
        struct depths d = {0};
        int64_t until = memory_now_ms() + PATIENCE_MS;
        while (d.whole + d.cut < 3 && memory_now_ms() < until)
            assert_int_equal(target_look(t, see_depth, &d, NULL), 0);
        /* Before 3.11 so many frames take longer to read than these stay as they are. */
        bool changes = version_minor(target_version(t)) < 11 && rows[i].more;
        if (d.wrong || (!changes && ((d.whole > 0) != rows[i].whole || (d.cut > 0) != rows[i].cut)))
            fail_msg("%s, %d: %zu whole, %zu cut, %zu wrong, %lld errors", python, rows[i].depth,
                     d.whole, d.cut, d.wrong, (long long)target_counts(t).errors);
        target_close(t);
        child_end(&c);
    }
}

/* One thread spins, thirty sleep: the sleepers get no samples. With gil only the spinning one. */
static void test_threads(void **state)
{
    (void)state;
    const char *program =
        "import threading, time\n"
        "def sleep():\n"
        "    while True: time.sleep(100)\n"
        "for i in range(30): threading.Thread(target=sleep, daemon=True).start()\n"
        "def spin():\n"
        "    x = 0\n"
        "    while True: x += 1\n"
        "print('ready', flush=1)\n"
        "spin()\n";
    struct child c = child_start(python, program);
    for (int gil = 0; gil < 2; gil++) {
        struct target *t = pythons_open(c.pid, &(struct sample_options){.gil = gil});
        struct seen s = {0};
        int64_t until = memory_now_ms() + PATIENCE_MS;
        do {
            s.stacks = s.busy = 0;
            assert_int_equal(target_look(t, count_busy, &s, NULL), 0);
        } while ((s.stacks != 1 || s.busy != 1) && memory_now_ms() < until);
        s = (struct seen){0};
        for (int look = 0; look < 50; look++) {
            assert_int_equal(target_look(t, count_busy, &s, NULL), 0);
            usleep(2000);
        }
        if (s.busy < 45 || s.stacks != s.busy)
            fail_msg("%s: gil %d: %zu of %zu samples are of the thread that runs", python, gil,
                     s.busy, s.stacks);
        target_close(t);
    }
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct seen s = {0};
    assert_int_equal(target_look(t, count_busy, &s, NULL), 0);
    assert_true(s.stacks >= 30 && s.stacks <= 31);
    target_close(t);
    child_end(&c);
}

/* The target ends, or becomes another program, while it is sampled. */
static void test_ends(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct child c = child_start(python, sleeper);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct seen s = {.text = BUF_INIT(65536)};
    assert_int_equal(target_look(t, see, &s, &err), 0);
    child_end(&c);
    assert_int_equal(target_look(t, see, &s, &err), ERR_NOT_FOUND);
    target_close(t);

    c = child_start(python, "import os, time\n"
                            "print('ready', flush=1)\n"
                            "time.sleep(0.5)\n"
                            "os.execv('/bin/sleep', ['sleep', '100'])\n");
    t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    int r = 0;
    for (int i = 0; i < 300 && r == 0; i++) {
        r = target_look(t, see, &s, &err);
        usleep(10000);
    }
    assert_int_equal(r, ERR_CONFLICT);
    target_close(t);
    buf_finish(&s.text);
    child_end(&c);
}

static void test_not_python(void **state)
{
    (void)state;
    struct target *t = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(target_open(proc, getpid(), &(struct sample_options){0}, &t, &err),
                     ERR_INVALID);
    assert_null(t);
}

struct shares {
    size_t all, whole, right;
    size_t times; /* that it was not whole when it had just been */
    bool partly;
};

/* Who calls must be at the line of the call. */
static void count_chain(void *context, const struct sample_thread *t)
{
    static const struct {
        const char *function;
        int first, last; /* line; last: of the call */
    } chain[] = {{"<module>", 10, 10}, {"outer", 7, 8}, {"middle", 5, 6}, {"leaf", 1, 4}};
    struct shares *s = context;
    s->all++;
    bool partly = t->depth != ARRAY_SIZE(chain);
    s->whole += !partly;
    s->times += partly && !s->partly;
    s->partly = partly;
    bool right = t->depth > 0 && t->depth <= ARRAY_SIZE(chain);
    for (size_t i = 0; i < t->depth && right; i++) {
        const struct sample_frame *f = t->frames[t->depth - 1 - i];
        bool calls = i + 1 < t->depth;
        right = str_is(f->function, chain[i].function) && str_is(f->file, "<string>") &&
                f->line >= (calls ? chain[i].last : chain[i].first) && f->line <= chain[i].last;
    }
    s->right += right;
}

static void test_busy(void **state)
{
    (void)state;
    static const char program[] = "def leaf():\n"                /* 1 */
                                  "    x = 0\n"                  /* 2 */
                                  "    for i in range(20000):\n" /* 3 */
                                  "        x += i\n"             /* 4 */
                                  "def middle():\n"              /* 5 */
                                  "    leaf()\n"                 /* 6 */
                                  "def outer():\n"               /* 7 */
                                  "    while True: middle()\n"   /* 8 */
                                  "print('ready', flush=True)\n" /* 9 */
                                  "outer()\n";                   /* 10 */
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    struct shares s = {0};
    int64_t until = memory_now_ms() + PATIENCE_MS;
    usleep(100000);
    while (s.all < 500 && memory_now_ms() < until) {
        assert_int_equal(target_look(t, count_chain, &s, NULL), 0);
        usleep(1300);
    }
    printf("%s: %zu samples, %zu whole, %zu right, %lld errors\n", target_version(t), s.all,
           s.whole, s.right, (long long)target_counts(t).errors);
    assert_true(s.all >= 300);
    assert_true(s.right >= s.all - s.all / 500);
    /* A program that waits for a processor stands for many looks where it was. */
    assert_true(s.whole >= s.all / 2 && s.times <= s.all / 100);
    assert_int_equal(target_counts(t).errors, 0);
    target_close(t);
    child_end(&c);
}

/* A child made by fork() is found and sampled; the parent waits and has no samples. */
static void test_children(void **state)
{
    (void)state;
    struct child c = child_start(python, "import os\n"
                                         "def spin():\n"
                                         "    while True: pass\n"
                                         "pid = os.fork()\n"
                                         "if pid == 0: spin()\n"
                                         "print('ready', flush=1)\n"
                                         "os.waitpid(pid, 0)\n");
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct record_options options = {.rate = 100, .duration_ms = 1500, .subprocesses = true};
    struct record *r = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(record_create(proc, c.pid, &options, profile, &r, &err), 0);
    record_run(r);
    struct record_result result = record_result(r);
    _cleanup_(buf_finish) struct buf raw = BUF_INIT(65536);
    assert_int_equal(profile_write_raw(profile, &raw, NULL), 0);
    record_destroy(r);
    char command[64];
    snprintf(command, sizeof(command), "%d/task/%d/children", (int)c.pid, (int)c.pid);
    _cleanup_(buf_finish) struct buf children = BUF_INIT(256);
    int64_t child = 0;
    if (buf_read_file_at(&children, proc, command, NULL) == 0 &&
        str_to_i64(str_trim(buf_str(&children)), 2, INT32_MAX, &child) == 0)
        kill((pid_t)child, SIGKILL);
    child_end(&c);
    if (result.processes != 2 || profile_samples(profile) < 20 ||
        !strstr(buf_cstr(&raw), ";spin (<string>:3) "))
        fail_msg("%s: %d processes, %d samples:\n%s", python, (int)result.processes,
                 (int)profile_samples(profile), buf_cstr(&raw));
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stack),      cmocka_unit_test(test_idle_and_deep),
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_ends),
        cmocka_unit_test(test_not_python), cmocka_unit_test(test_children),
        cmocka_unit_test(test_busy),       cmocka_unit_test(test_too_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
