/* Real interpreters that do not hold still: what is given out of them must have been there, and
 * what was there must be given out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "pythons.h"
#include "sample/record_internal.h"
#include "sample/sample_internal.h"

#define LOOKS_MAX 100000

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* As deep a stack as is wanted in the first piece of the data stack, 16 KB, then a function that C
 * code calls, and again some. Each thread sleeps at another depth. */
#define OUTER_FIRST 60
#define OUTER_STEP  10
#define OUTER_N     18
#define INNER_STEP  40
#define INNER_N     3

struct depths {
    bool seen[OUTER_N][INNER_N];
    size_t different;
};

static void see_depths(void *context, const struct sample_thread *t)
{
    struct depths *d = context;
    size_t outer = 0, inner = 0;
    for (size_t i = 0; i < t->depth; i++) {
        outer += str_is(t->frames[i]->function, "outer");
        inner += str_is(t->frames[i]->function, "inner");
    }
    if (!outer)
        return;
    size_t o = (outer - 1 - OUTER_FIRST) / OUTER_STEP, k = (inner - 1) / INNER_STEP;
    bool right = outer == 1 + OUTER_FIRST + o * OUTER_STEP && o < OUTER_N &&
                 inner == 1 + k * INNER_STEP && k < INNER_N;
    if (!right)
        fail_msg("a stack of %zu and %zu frames, which no thread has", outer, inner);
    d->different += !d->seen[o][k];
    d->seen[o][k] = true;
}

static void test_pieces(void **state)
{
    (void)state;
    char program[1024];
    snprintf(program, sizeof(program),
             "import sys, threading, time\n"
             "sys.setrecursionlimit(5000)\n"
             "def inner(n):\n"
             "    if n: return inner(n - 1)\n"
             "    barrier.wait()\n"
             "    time.sleep(1000)\n"
             "def between(n):\n"
             "    yield inner(n)\n"
             "def outer(n, k, through):\n"
             "    if n: return outer(n - 1, k, through)\n"
             "    list(map(inner, [k]) if through else between(k))\n"
             "barrier = threading.Barrier(%d)\n"
             "for i in range(%d):\n"
             "    for k in range(%d):\n"
             "        threading.Thread(target=outer, args=(%d + i * %d, k * %d, i %% 2)).start()\n"
             "barrier.wait()\n"
             "time.sleep(0.2)\n"
             "print('ready', flush=1)\n",
             OUTER_N * INNER_N + 1, OUTER_N, INNER_N, OUTER_FIRST, OUTER_STEP, INNER_STEP);
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct depths d = {0};
    /* On a slow machine one look does not reach all threads. */
    for (int64_t end = now_ms() + 30000; d.different < OUTER_N * INNER_N && now_ms() < end;)
        assert_int_equal(target_look(t, see_depths, &d, NULL), 0);
    struct sample_counts counts = target_counts(t);
    print_message("%s: %d looks, %d cut, %d errors\n", python, (int)counts.looks, (int)counts.cut,
                  (int)counts.errors);
    if (d.different < OUTER_N * INNER_N)
        fail_msg("%s: %zu of %d stacks were read", python, d.different, OUTER_N * INNER_N);
    target_close(t);
    child_end(&c);
}

/* A caller stands on the line that calls, whoever is called. */
struct pairs {
    size_t calls, wrong_lines, wrong_functions;
    struct buf first;
};

/* "called_3" is called from line 3, and by "caller_3" where its caller has a number. */
static int64_t number_of(struct str function, const char *prefix)
{
    int64_t n = 0;
    struct str p = str_of(prefix);
    if (str_starts_with(function, p))
        str_to_i64(str_sub(function, p.len, function.len), 0, 99, &n);
    return n;
}

static void see_pairs(void *context, const struct sample_thread *t)
{
    struct pairs *p = context;
    for (size_t i = 0; i + 1 < t->depth; i++) {
        int64_t line = number_of(t->frames[i]->function, "called_");
        if (!line)
            continue;
        p->calls++;
        const struct sample_frame *caller = t->frames[i + 1];
        int64_t of = number_of(caller->function, "caller_");
        bool wrong_function = of && of != line, wrong_line = caller->line != line;
        p->wrong_functions += wrong_function;
        p->wrong_lines += wrong_line;
        if ((wrong_function || wrong_line) && !buf_str(&p->first).len)
            buf_appendf(&p->first, "%.*s called by %.*s:%d", STR_ARG(t->frames[i]->function),
                        STR_ARG(caller->function), (int)caller->line);
    }
}

static unsigned minor_of(const struct target *t)
{
    return version_minor(target_version(t));
}

/* What may be wrong, of 1000 calls. */
struct bounds {
    size_t lines, functions;
    size_t looks; /* in which so many calls must have been seen; 0: in any number */
    bool untold;  /* nothing can be said */
};

static void check_pairs(const char *program, size_t wanted, struct bounds old, struct bounds new)
{
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct bounds most = minor_of(t) < 11 ? old : new;
    if (most.untold) {
        target_close(t);
        child_end(&c);
        skip();
    }
    struct pairs p = {.first = BUF_INIT(4096)};
    int64_t end = now_ms() + 30000;
    size_t looks = 0;
    for (; p.calls < wanted && looks < LOOKS_MAX && now_ms() < end; looks++)
        assert_int_equal(target_look(t, see_pairs, &p, NULL), 0);
    struct sample_counts counts = target_counts(t);
    print_message("%s: %zu calls, %zu lines and %zu functions wrong; %d errors, %d retries in %zu "
                  "looks\n",
                  python, p.calls, p.wrong_lines, p.wrong_functions, (int)counts.errors,
                  (int)counts.retries, looks);
    if (p.wrong_lines * 1000 > most.lines * wanted ||
        p.wrong_functions * 1000 > most.functions * wanted)
        fail_msg("%s: %zu and %zu of %zu calls are impossible: %s", python, p.wrong_lines,
                 p.wrong_functions, p.calls, buf_cstr(&p.first));
    if (most.looks && (p.calls < wanted || looks > most.looks))
        fail_msg("%s: %zu of %zu calls in %zu looks", python, p.calls, wanted, looks);
    assert_true(counts.stacks > 0);
    buf_finish(&p.first);
    target_close(t);
    child_end(&c);
}

/* Two functions that do next to nothing, in turn, some way down. They take less time than a system
 * call takes from one piece to the next: before 3.11, the line of their caller is as good as by
 * chance where they are not held. */
static void test_short_calls(void **state)
{
    (void)state;
    static const char format[] = "import sys; sys.setrecursionlimit(5000)\n"
                                 "def called_6(x): return x\n"
                                 "def called_7(x): return x\n"
                                 "def run():\n"
                                 "    while True:\n"
                                 "        called_6(1)\n"
                                 "        called_7(1)\n"
                                 "def deep(n):\n"
                                 "    if n: return deep(n - 1)\n"
                                 "    print('ready', flush=1)\n"
                                 "    run()\n"
                                 "deep(%d)\n";
    static const int depths[] = {0, 150};
    for (size_t k = 0; k < ARRAY_SIZE(depths); k++) {
        char program[1024];
        snprintf(program, sizeof(program), format, depths[k]);
        check_pairs(program, 500, (struct bounds){.untold = true}, (struct bounds){.lines = 20});
    }
}

#define ENOUGH 20 /* calls to judge by */

/* Before 3.11 the line of their caller is right where the thread was held, which it is unless that
 * is forbidden. */
static void test_held(void **state)
{
    (void)state;
    struct child c = child_start(python, "def called_4(x): return x + x * x - x // (x + 1) * x\n"
                                         "print('ready', flush=1)\n"
                                         "while True:\n"
                                         "    called_4(1)\n"
                                         "    sum((1,))\n"
                                         "    pow(3, 3)\n");
    struct slices before = slices_shorten();
    bool too_busy = false;
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        struct target *t =
            pythons_open(c.pid, &(struct sample_options){.nonblocking = nonblocking});
        struct pairs all = {.first = BUF_INIT(4096)}, held = {.first = BUF_INIT(4096)};
        bool expected = minor_of(t) < 11 && !nonblocking;
        int64_t end = now_ms() + (expected ? 30000 : 500);
        while (held.calls < 5 * ENOUGH && now_ms() < end) {
            int64_t times = target_counts(t).held;
            usleep(2000); /* nobody is held for long */
            struct pairs now = all;
            assert_int_equal(target_look(t, see_pairs, &now, NULL), 0);
            struct pairs *to = target_counts(t).held > times ? &held : &all;
            to->calls += now.calls - all.calls;
            to->wrong_lines += now.wrong_lines - all.wrong_lines;
            all.first = now.first;
        }
        print_message("%s: %zu calls while held, %zu wrong; %zu of %zu otherwise\n", python,
                      held.calls, held.wrong_lines, all.wrong_lines, all.calls);
        assert_true(expected || target_counts(t).held == 0);
        assert_true(held.wrong_lines * 10 <= held.calls);
        too_busy = too_busy || (expected && held.calls < ENOUGH);
        buf_finish(&all.first);
        target_close(t);
    }
    slices_restore(&before);
    child_end(&c);
    if (too_busy)
        skip(); /* or a kernel that does not tell how often a thread ran */
}

/* The caller's frame is another function's each time, in the same place. */
static void test_short_callers(void **state)
{
    (void)state;
    check_pairs("def called_2(x): return x\n"
                "def caller_2(): called_2(1)\n"
                "\n"
                "def caller_4(): called_4(1)\n"
                "def called_4(x): return x\n"
                "def between(x): return x\n"
                "print('ready', flush=1)\n"
                "while True:\n"
                "    caller_2()\n"
                "    between(1)\n"
                "    caller_4()\n",
                500, (struct bounds){.lines = 20, .functions = 20},
                (struct bounds){.lines = 20, .functions = 20});
}

/* Some ten microseconds are enough everywhere, whoever calls. */
static void test_brief_calls(void **state)
{
    (void)state;
    check_pairs("def called_6(x): sum(range(1000))\n"
                "def called_7(x): sum(range(1000))\n"
                "print('ready', flush=1)\n"
                "def run():\n"
                "    while True:\n"
                "        called_6(1)\n"
                "        called_7(1)\n"
                "run()\n",
                500, (struct bounds){.lines = 20, .looks = 5000},
                (struct bounds){.lines = 5, .looks = 2000});
    check_pairs("def called_5(x): sum(range(1000))\n"
                "def called_6(x): sum(range(1000))\n"
                "print('ready', flush=1)\n"
                "while True:\n"
                "    list(map(called_5, [1]))\n"
                "    list(map(called_6, [1]))\n",
                500, (struct bounds){.lines = 20, .looks = 5000},
                (struct bounds){.lines = 20, .looks = 5000});
}

/* Generators that are resumed and left again all the time, by C code. */
static void test_generators(void **state)
{
    (void)state;
    static const char format[] = "def called_9():\n"
                                 "    while True:\n"
                                 "        yield %s\n"
                                 "def called_10():\n"
                                 "    while True:\n"
                                 "        yield %s\n"
                                 "a, b, _ = called_9(), called_10(), print('ready', flush=1)\n"
                                 "while True:\n"
                                 "    next(a)\n"
                                 "    next(b)\n";
    char program[1024];
    const char *brief =
        "sum(range(1000))"; /* of less than 1 us, the line is as good as by chance */
    snprintf(program, sizeof(program), format, brief, brief);
    check_pairs(program, 500, (struct bounds){.lines = 20, .looks = 5000},
                (struct bounds){.lines = 20, .looks = 5000});
}

static bool has(const struct sample_thread *t, const char *function)
{
    for (size_t i = 0; i < t->depth; i++)
        if (str_is(t->frames[i]->function, function))
            return true;
    return false;
}

struct thrown {
    size_t whole, wrong, hidden;
    unsigned minor;
};

static void see_thrown(void *context, const struct sample_thread *t)
{
    struct thrown *s = context;
    bool work = has(t, "work");
    for (size_t i = 0; i < t->depth; i++)
        s->hidden += str_is(t->frames[i]->file, "__init__");
    /* The interpreter's own stack lacks "outer" in 3.8, and in 3.9 who drives it. */
    bool whole =
        has(t, "inner") && (s->minor == 8 || has(t, "outer")) && (s->minor == 9 || has(t, "drive"));
    s->whole += work && whole;
    s->wrong += work && !whole;
}

/* throw() leaves a generator that delegates linked to its caller without anything between, and a
 * class that Python calls leaves a frame of the interpreter's own: each for as long as work takes.
 */
static void test_thrown(void **state)
{
    (void)state;
    struct child c = child_start(python, "import time\n"
                                         "class Work:\n"
                                         "    def __init__(self): work()\n"
                                         "def work():\n"
                                         "    end = time.perf_counter() + 0.02\n"
                                         "    while time.perf_counter() < end: pass\n"
                                         "def inner():\n"
                                         "    while True:\n"
                                         "        try: yield 1\n"
                                         "        except ValueError: Work()\n"
                                         "def outer():\n"
                                         "    yield from inner()\n"
                                         "def drive():\n"
                                         "    g = outer()\n"
                                         "    next(g)\n"
                                         "    while True: g.throw(ValueError())\n"
                                         "print('ready', flush=1)\n"
                                         "drive()\n");
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct thrown s = {.minor = minor_of(t)};
    int64_t end = now_ms() + 30000;
    for (; s.whole + s.wrong < 1000 && now_ms() < end; usleep(500))
        assert_int_equal(target_look(t, see_thrown, &s, NULL), 0);
    print_message("%s: %zu whole, %zu wrong\n", python, s.whole, s.wrong);
    assert_true(s.whole > 100 && s.wrong * 100 <= s.whole);
    assert_int_equal(s.hidden, 0);
    target_close(t);
    child_end(&c);
}

struct lives {
    size_t main, workers, wrong;
};

static void see_lives(void *context, const struct sample_thread *t)
{
    struct lives *l = context;
    bool main = str_is(t->frames[t->depth - 1]->function, "<module>");
    bool worker = has(t, "work");
    l->main += main;
    l->workers += worker;
    l->wrong += worker == main ? worker : main != has(t, "begin_and_end");
}

/* Threads that begin and end all the time, and take each other's place in memory. */
static void test_lives(void **state)
{
    (void)state;
    struct child c = child_start(python, "import threading\n"
                                         "def work(): sum(range(30000))\n"
                                         "def begin_and_end():\n"
                                         "    print('ready', flush=1)\n"
                                         "    while True:\n"
                                         "        t = threading.Thread(target=work)\n"
                                         "        t.start()\n"
                                         "        t.join()\n"
                                         "begin_and_end()\n");
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct lives l = {0};
    int64_t end = now_ms() + 30000;
    for (; (l.main < 500 || !l.workers) && now_ms() < end; usleep(100))
        assert_int_equal(target_look(t, see_lives, &l, NULL), 0);
    print_message("%s: %zu of the main thread, %zu of others, %zu wrong\n", python, l.main,
                  l.workers, l.wrong);
    assert_int_equal(l.wrong, 0);
    assert_true(l.main >= 500 && l.workers > 0);
    target_close(t);
    child_end(&c);
}

static void see_rules(void *context, const struct sample_thread *t)
{
    size_t *seen = context; /* right, wrong */
    int64_t called = 0, rule = 0;
    for (size_t i = 0; i < t->depth; i++) {
        called = called ? called : number_of(t->frames[i]->function, "helper_");
        rule = rule ? rule : number_of(t->frames[i]->file, "rule_");
    }
    if (called)
        seen[called != rule]++;
}

/* Code that comes and goes, each in the place of the last one, down to its file's name. What it
 * says is read after the stack, when it may have gone. */
static void test_replaced_code(void **state)
{
    (void)state;
    struct child c = child_start(python, "import marshal\n"
                                         "for i in range(1, 9):\n"
                                         "    exec(f'def helper_{i}():\\n'\n"
                                         "         ' for k in range(800000): pass')\n"
                                         "blobs = [marshal.dumps(compile(f'helper_{i}()\\n', "
                                         "f'rule_{i}', 'exec')) for i in range(1, 9)]\n"
                                         "print('ready', flush=1)\n"
                                         "while True:\n"
                                         "    for b in blobs: exec(marshal.loads(b))\n");
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    size_t seen[2] = {0};
    int64_t end = now_ms() + 30000;
    for (; seen[0] + seen[1] < 500 && now_ms() < end; usleep(3000))
        assert_int_equal(target_look(t, see_rules, seen, NULL), 0);
    print_message("%s: %zu right, %zu wrong\n", python, seen[0], seen[1]);
    assert_true(seen[0] >= 400 && seen[1] * 20 <= seen[0]);
    assert_true(target_counts(t).errors <= 5);
    target_close(t);
    child_end(&c);
}

static void see_work(void *context, const struct sample_thread *t)
{
    *(size_t *)context += has(t, "work");
}

static int64_t processor_ms(pid_t pid)
{
    clockid_t clock;
    struct timespec ts;
    assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &ts), 0);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

/* What the program does in "work" is seen as often as its share of a processor's time says, or more
 * often, because who waits for a processor counts as running. least: of what is expected. */
static void check_share(const char *program, double least)
{
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){0});
    size_t seen = 0, looks = 0;
    int64_t begun = now_ms(), used = processor_ms(c.pid), end = begun + 1500;
    for (; now_ms() < end; looks++) {
        assert_int_equal(target_look(t, see_work, &seen, NULL), 0);
        usleep(5000);
    }
    used = processor_ms(c.pid) - used;
    double share = (double)used / (double)(now_ms() - begun);
    print_message("%zu samples in %zu looks; %.1f %% of a processor used\n", seen, looks,
                  100 * share);
    assert_true((double)seen >= least * share * (double)looks);
    target_close(t);
    child_end(&c);
}

/* Each thread in the last one's place, without the interpreter's lock: whether it runs only the
 * kernel can tell, which must be asked for the right one. */
static void test_one_after_another(void **state)
{
    (void)state;
    check_share("import os, threading\n"
                "def work(): os.urandom(8 << 20)\n"
                "print('ready', flush=1)\n"
                "while True:\n"
                "    t = threading.Thread(target=work)\n"
                "    t.start()\n"
                "    t.join()\n",
                0.5);
}

static void see_after(void *context, const struct sample_thread *t)
{
    *(bool *)context = *(bool *)context || has(t, "after");
}

/* The same file again, in the same process: another program all the same. */
static void test_exec_of_the_same(void **state)
{
    (void)state;
    struct child c = child_start(python, "import os, sys, time\n"
                                         "print('ready', flush=1)\n"
                                         "end = time.time() + 0.2\n"
                                         "while time.time() < end: pass\n"
                                         "os.execv(sys.executable, [sys.executable, '-c', '''\n"
                                         "def after():\n"
                                         "    while True: pass\n"
                                         "after()'''])\n");
    const struct sample_options options = {.idle = true};
    struct target *t = pythons_open(c.pid, &options);
    bool after = false;
    int r = 0;
    for (int64_t end = now_ms() + 30000; !after && now_ms() < end; usleep(5000)) {
        r = t ? target_look(t, see_after, &after, NULL)
              : target_open(proc, c.pid, &options, &t, NULL);
        if (r == ERR_CONFLICT) {
            target_close(t);
            t = NULL;
        }
    }
    if (!after)
        fail_msg("%s: what it became was not sampled: %d", python, r);
    target_close(t);
    child_end(&c);
}

static void see_file(void *context, const struct sample_thread *t)
{
    for (size_t i = 0; i < t->depth; i++)
        *(size_t *)context +=
            str_is(t->frames[i]->file, "derived.py") || str_is(t->frames[i]->file, "<module>");
}

/* A file's name need not be a plain text object, and may be the very object that names the code. */
static void test_file_names(void **state)
{
    (void)state;
    static const char *const programs[] = {
        "class S(str): pass\n"
        "print('ready', flush=1)\n"
        "exec(compile('while True: pass', S('derived.py'), 'exec'))\n",
        "print('ready', flush=1)\n"
        "exec(compile('while True: pass', '<module>', 'exec'))\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
        struct child c = child_start(python, programs[i]);
        struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
        size_t seen = 0;
        for (int64_t end = now_ms() + 30000; seen < 20 && now_ms() < end; usleep(1000))
            assert_int_equal(target_look(t, see_file, &seen, NULL), 0);
        if (seen < 20)
            fail_msg("%s: seen %zu times", python, seen);
        target_close(t);
        child_end(&c);
    }
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_short_calls),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_short_callers),
        cmocka_unit_test(test_brief_calls),
        cmocka_unit_test(test_generators),
        cmocka_unit_test(test_thrown),
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_replaced_code),
        cmocka_unit_test(test_one_after_another),
        cmocka_unit_test(test_exec_of_the_same),
        cmocka_unit_test(test_file_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
