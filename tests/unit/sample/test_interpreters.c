/* Interpreters in one process, each with a thread that is busy: every thread is seen once, in the
 * interpreter that it runs in. Up to 3.11 they share one lock, from 3.12 on each has its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pythons.h"
#include "sample/memory.h"
#include "sample/target.h"

#define LOOKS       100
#define PATIENCE_MS 20000

/* 3.13 has run_string() under this name, too. Where interpreters share a lock none makes another
 * give it up, so they do it on their own, and for long enough that the other one takes it. */
static const char program[] =
    "import sys, threading, time\n"
    "try: import _interpreters as interpreters\n"
    "except ImportError: import _xxsubinterpreters as interpreters\n"
    "threading.stack_size(16 << 20)\n" /* musl's own is too little for a new interpreter */
    "rest = 'pass' if sys.version_info >= (3, 12) else 'sleep(0.001)'\n"
    "def enter(name):\n"
    "    interpreters.run_string(interpreters.create(),\n"
    "        'from time import sleep\\n'\n"
    "        'def spin_%s():\\n'\n"
    "        '    while True:\\n'\n"
    "        '        for i in range(20000): pass\\n'\n"
    "        '        %s\\n'\n"
    "        'spin_%s()' % (name, rest, name))\n"
    "for name in 'ab':\n"
    "    threading.Thread(target=enter, args=(name,), daemon=True).start()\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(1000)\n";

struct seen {
    size_t looks, a, b, other, gil;
};

static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    bool whole = t->depth == 2 && str_is(t->frames[1]->function, "<module>");
    s->gil += t->gil;
    if (whole && str_is(t->frames[0]->function, "spin_a"))
        s->a++;
    else if (whole && str_is(t->frames[0]->function, "spin_b"))
        s->b++;
    else
        s->other++;
}

static struct seen looks(struct target *t, size_t n)
{
    struct seen s = {0};
    for (; s.looks < n; s.looks++) {
        assert_int_equal(target_look(t, see, &s, NULL), 0);
        usleep(1000);
    }
    return s;
}

/* And on, until both were seen: two that share a lock may take turns in step with the looks. */
static struct seen looks_at_both(struct target *t, size_t n)
{
    int64_t until = memory_now_ms() + PATIENCE_MS;
    struct seen s = looks(t, n);
    for (; (!s.a || !s.b) && memory_now_ms() < until; s.looks++) {
        assert_int_equal(target_look(t, see, &s, NULL), 0);
        usleep((useconds_t)(1000 + 500 * (s.looks % 8)));
    }
    return s;
}

static void await_both(pid_t pid)
{
    struct target *t = pythons_open(pid, &(struct sample_options){.idle = true});
    struct seen s = looks_at_both(t, 1);
    target_close(t);
    assert_true(s.a && s.b);
}

static void test_two(void **state)
{
    (void)state;
    struct child c = child_start(python, program);
    await_both(c.pid);
    for (int gil = 0; gil < 2; gil++) {
        struct target *t = pythons_open(c.pid, &(struct sample_options){.gil = gil});
        bool own = strtoul(target_version(t) + 2, NULL, 10) >= 12;
        struct seen s = looks_at_both(t, LOOKS);
        printf("%s, gil %d: a %zu, b %zu, other %zu, with a lock %zu, errors %lld\n",
               target_version(t), gil, s.a, s.b, s.other, s.gil,
               (long long)target_counts(t).errors);
        assert_int_equal(s.other, 0);
        assert_true(s.a > 0 && s.b > 0);
        if (own)
            assert_true(s.a >= LOOKS * 9 / 10 && s.b >= LOOKS * 9 / 10 && s.gil >= LOOKS * 18 / 10);
        else
            assert_true(s.gil <= s.looks);
        assert_true(!gil || s.gil == s.a + s.b);
        assert_int_equal(target_counts(t).errors, 0);
        target_close(t);
    }
    /* Sleepers are told once as well: the main thread, in the first interpreter. */
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true});
    struct seen s = looks(t, 10);
    assert_int_equal(s.a, 10);
    assert_int_equal(s.b, 10);
    assert_int_equal(s.other, 10);
    target_close(t);
    child_end(&c);
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
