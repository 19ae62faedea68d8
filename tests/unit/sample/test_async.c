/* Real interpreters that show which asyncio task runs, CPython 3.12 to 3.14, and some that do not;
 * which one says the argument, see pythons.h. In every program a task's name and the function that
 * it runs belong together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <unistd.h>

#include "base/buf.h"
#include "pythons.h"
#include "sample/record.h"

static bool first; /* of the versions that show tasks */

struct seen {
    size_t stacks, tasks, wrong;
    size_t a, b, c, other; /* by name */
    size_t functions[3];   /* by the innermost run_a, run_b, run_c */
    size_t plain;          /* of the thread without a loop */
    size_t in_task;        /* a coroutine of ours is in the stack */
    struct buf first_wrong;
};

static bool begins(struct str s, const char *prefix)
{
    return str_starts_with(s, str_of(prefix));
}

/* A task named "x…" begins with the function "run_x", and a numbered one with any: a task that a
 * factory begins eagerly gets its name afterwards. */
static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    bool plain = false, ours = false;
    s->stacks++;
    for (size_t i = 0; i < t->depth; i++) {
        struct str f = t->frames[i]->function;
        if (begins(f, "run_") && !ours) {
            ours = true;
            if (f.ptr[4] >= 'a' && f.ptr[4] <= 'c')
                s->functions[f.ptr[4] - 'a']++;
        }
        plain = plain || str_is(f, "plain");
    }
    s->plain += plain;
    s->in_task += ours;
    if (!t->task.len)
        return;
    s->tasks++;
    s->a += begins(t->task, "a");
    s->b += begins(t->task, "b");
    s->c += begins(t->task, "c");
    bool numbered = begins(t->task, "Task-");
    s->other += numbered;
    struct str owner = t->task_at < t->depth ? t->frames[t->task_at]->function : STR("none");
    bool wrong = plain || !begins(owner, "run_") || (!numbered && owner.ptr[4] != t->task.ptr[0]);
    if (wrong && !s->wrong++)
        buf_appendf(&s->first_wrong, "task %.*s at %.*s", STR_ARG(t->task), STR_ARG(owner));
}

/* Until n stacks were seen that are of interest, or half a minute has passed. */
static struct seen looks(const char *program, size_t n, useconds_t gap,
                         size_t (*of_interest)(const struct seen *s))
{
    struct child c = child_start(python, program);
    usleep(100000);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.tasks = true});
    struct seen s = {.first_wrong = BUF_INIT(512)};
    int r = 0;
    int64_t until = memory_now_ms() + 30000;
    while (r == 0 && of_interest(&s) < n && memory_now_ms() < until) {
        r = target_look(t, see, &s, NULL);
        usleep(gap);
    }
    struct sample_counts counts = target_counts(t);
    target_close(t);
    child_end(&c);
    printf(
        "%s: %zu stacks, %zu in tasks, %zu named (a %zu, b %zu, c %zu, numbered %zu), %zu plain, "
        "%lld errors, wrong %zu %s\n",
        python, s.stacks, s.in_task, s.tasks, s.a, s.b, s.c, s.other, s.plain,
        (long long)counts.errors, s.wrong, buf_cstr(&s.first_wrong));
    buf_finish(&s.first_wrong);
    assert_int_equal(r, 0);
    assert_true(s.stacks > 0);
    assert_int_equal(s.wrong, 0);
    return s;
}

static size_t stacks(const struct seen *s)
{
    return s->stacks;
}

static size_t in_task(const struct seen *s)
{
    return s->in_task;
}

static size_t named_a(const struct seen *s)
{
    return s->a;
}

/* The rarest of the three threads. */
static size_t of_each(const struct seen *s)
{
    size_t tasks = s->a < s->b ? s->a : s->b;
    return tasks < s->plain ? tasks : s->plain;
}

#define BURN                                                                                       \
    "import asyncio, threading, time\n"                                                            \
    "def burn(ms):\n"                                                                              \
    "    end = time.thread_time() + ms / 1000\n"                                                   \
    "    while time.thread_time() < end: pass\n"                                                   \
    "async def nested(ms):\n"                                                                      \
    "    burn(ms)\n"

static double percent(size_t part, size_t all)
{
    return 100.0 * (double)part / (double)all;
}

/* 60, 30 and 10 % of the time, through nested awaits. */
static void test_shares(void **state)
{
    (void)state;
    static const char program[] =
        BURN "async def inner(ms):\n"
             "    await nested(ms)\n"
             "async def run_a():\n"
             "    while True:\n"
             "        await inner(6); await asyncio.sleep(0)\n"
             "async def run_b():\n"
             "    while True:\n"
             "        await inner(3); await asyncio.sleep(0)\n"
             "async def run_c():\n"
             "    while True:\n"
             "        await inner(1); await asyncio.sleep(0)\n"
             "async def run_main():\n"
             "    print('ready', flush=True)\n"
             "    await asyncio.gather(*[asyncio.create_task(f(), name=n) for f, n in\n"
             "        ((run_a, 'a: fetch'), (run_b, 'b\\u00e4'), (run_c, 'c\\u20ac-42'))])\n"
             "asyncio.run(run_main())\n";
    /* On a busy machine a task may be kept waiting for longer than its turn. */
    bool fair = false;
    for (int attempt = 0; attempt < 3 && !fair; attempt++) {
        struct seen s = looks(program, 500, 1300, in_task);
        size_t names[] = {s.a, s.b, s.c};
        static const double shares[] = {60, 30, 10};
        assert_true(s.tasks >= s.in_task * 97 / 100);
        fair = true;
        for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
            double is = percent(names[k], s.tasks);
            assert_true(fabs(is - percent(s.functions[k], s.in_task)) < 1.0);
            fair = fair && fabs(is - shares[k]) <= 8.0;
        }
    }
    if (!fair)
        fail_msg("%s: not 60, 30 and 10 %%", python);
}

/* Two loops in two threads, and a thread that has none. */
static void test_threads(void **state)
{
    (void)state;
    static const char program[] = BURN
        "async def run_a():\n"
        "    while True:\n"
        "        await nested(2); await asyncio.sleep(0)\n"
        "async def run_b():\n"
        "    while True:\n"
        "        await nested(2); await asyncio.sleep(0)\n"
        "async def run_main(f, name):\n"
        "    await asyncio.create_task(f(), name=name)\n"
        "def plain():\n"
        "    while True: pass\n"
        "for args in ((run_a, 'a'), (run_b, 'b')):\n"
        "    threading.Thread(target=asyncio.run, args=(run_main(*args),), daemon=True).start()\n"
        "threading.Thread(target=plain, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "time.sleep(1000)\n";
    struct seen s = looks(program, 50, 1500, of_each);
    assert_true(of_each(&s) >= 50);
    assert_true(s.tasks >= s.in_task * 97 / 100);
}

#define SHORT(loops)                                                                               \
    "import asyncio\n"                                                                             \
    "async def run_a(): pass\n"                                                                    \
    "async def run_b(): pass\n"                                                                    \
    "async def run_c():\n"                                                                         \
    "    for i in range(" #loops "): pass\n"                                                       \
    "async def run_main():\n"                                                                      \
    "    print('ready', flush=True)\n"                                                             \
    "    while True:\n"                                                                            \
    "        for f, n in ((run_a, 'a'), (run_b, 'b'), (run_c, 'c')):\n"                            \
    "            await asyncio.create_task(f(), name=n)\n"                                         \
    "asyncio.run(run_main())\n"

/* Tasks that live for microseconds and whose places in memory are used again at once, eager ones
 * among them. Those of the first program may all be too short to be told; none is told wrong. */
static void test_short(void **state)
{
    (void)state;
    static const char *const programs[] = {
        SHORT(200),
        SHORT(5000),
        "import asyncio\n"
        "async def run_a(): pass\n"
        "async def run_b():\n"
        "    for i in range(30): pass\n"
        "async def run_c():\n"
        "    for i in range(200): pass\n"
        "async def run_main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        for f, n in ((run_a, 'a'), (run_b, 'b'), (run_c, 'c')):\n"
        "            await asyncio.Task(f(), loop=loop, name=n, eager_start=True)\n"
        "asyncio.run(run_main())\n",
    };
    for (size_t k = 0; k < ARRAY_SIZE(programs); k++) {
        struct seen s = looks(programs[k], 400, 300, stacks);
        assert_true(s.tasks > 0 || k == 0);
    }
}

/* asyncio is imported only later; other loops, derived classes of tasks and dictionaries that grow
 * are no matter; names that were changed are. */
static void test_late(void **state)
{
    (void)state;
    static const char program[] =
        "import time\n"
        "print('ready', flush=True)\n"
        "end = time.monotonic() + 0.4\n"
        "while time.monotonic() < end: pass\n"
        "import asyncio\n"
        "class Mine(asyncio.Task): pass\n"
        "async def run_a():\n"
        "    asyncio.current_task().set_name('a, renamed')\n"
        "    while True:\n"
        "        for i in range(20000): pass\n"
        "        await asyncio.sleep(0)\n"
        "class Loop(asyncio.SelectorEventLoop):\n"
        "    pass\n"
        "loop = Loop()\n"
        "loop.set_task_factory(lambda loop, coro, **k: Mine(coro, loop=loop, **k))\n"
        "loop.run_until_complete(run_a())\n";
    struct seen s = looks(program, 50, 2000, named_a);
    assert_true(s.a >= 50);
}

struct enough {
    struct record *record;
    const struct profile *profile;
};

#define NUMBERED ";task Task-*;run_a (<string>:2) "
#define OTHER    ";task (other);run_a (<string>:2) "

static void stop_with_enough(void *context)
{
    struct enough *e = context;
    _cleanup_(buf_finish) struct buf raw = BUF_INIT(1 << 20);
    if (profile_write_raw(e->profile, &raw, NULL) == 0 && strstr(buf_cstr(&raw), NUMBERED) &&
        strstr(buf_cstr(&raw), OTHER))
        record_stop(e->record);
}

/* A profile, which does not depend on the version: numbered tasks are one frame, named ones each
 * their own up to the maximum. */
static void test_record(void **state)
{
    (void)state;
    static const char program[] =
        "import asyncio\n"
        "async def run_a(n):\n"
        "    for i in range(n): pass\n"
        "async def run_main():\n"
        "    print('ready', flush=True)\n"
        "    n = 0\n"
        "    while True:\n"
        "        await asyncio.create_task(run_a(8000))\n"
        "        for i in range(9):\n"
        "            await asyncio.create_task(run_a(8000), name=f'a-{n}')\n"
        "            n += 1\n"
        "asyncio.run(run_main())\n";
    if (!first)
        skip();
    struct child c = child_start(python, program);
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct enough enough = {.profile = profile};
    struct record_options options = {.rate = 1000,
                                     .duration_ms = 120000, /* at most */
                                     .async_tasks = true,
                                     .functions = true,
                                     .progress = stop_with_enough,
                                     .context = &enough};
    struct record *r = NULL;
    struct err err = ERR_INIT;
    if (record_create(proc, c.pid, &options, profile, &r, &err) < 0)
        fail_msg("%s: %s", python, err.message);
    enough.record = r;
    record_run(r);
    record_destroy(r);
    child_end(&c);
    _cleanup_(buf_finish) struct buf raw = BUF_INIT(1 << 20);
    assert_int_equal(profile_write_raw(profile, &raw, NULL), 0);
    size_t names = 0;
    bool numbered = false, other = false;
    for (struct str rest = buf_str(&raw); rest.ptr;) {
        struct str line = str_cut(&rest, '\n');
        char text[4096];
        snprintf(text, sizeof(text), "%.*s", STR_ARG(line));
        numbered = numbered || strstr(text, NUMBERED);
        other = other || strstr(text, OTHER);
        names += strstr(text, ";task a-") && strstr(text, ";run_a (<string>:2) ");
        assert_null(strstr(text, "task Task-1"));
    }
    printf("%s: %zu names, %zu samples\n", python, names, (size_t)profile_samples(profile));
    assert_true(numbered && other);
    assert_true(names > RECORD_TASKS_MAX / 2 && names <= RECORD_TASKS_MAX);
}

static void test_none(void **state)
{
    (void)state;
    static const char program[] = BURN "async def run_a():\n"
                                       "    while True:\n"
                                       "        await nested(2); await asyncio.sleep(0)\n"
                                       "print('ready', flush=True)\n"
                                       "asyncio.run(run_a())\n";
    struct child c = child_start(python, program);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.tasks = true});
    assert_false(target_shows_tasks(t));
    target_close(t);
    child_end(&c);
    assert_int_equal(looks(program, 100, 1000, in_task).tasks, 0);
}

/* Before 3.12 nothing leads to the running task without the loop; objects of free-threaded builds
 * are not looked at. */
static bool shows_tasks(const char *name)
{
    static const char *const none[] = {"pyenv-3.11", "3.13.5t"};
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        if (strcmp(name, none[i]) == 0)
            return false;
    return true;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "pyenv-3.12";
    if (!pythons_begin(name))
        return PYTHONS_SKIPPED;
    first = strcmp(name, "pyenv-3.12") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares), cmocka_unit_test(test_threads), cmocka_unit_test(test_short),
        cmocka_unit_test(test_late),   cmocka_unit_test(test_record),
    };
    const struct CMUnitTest without[] = {cmocka_unit_test(test_none)};
    return shows_tasks(name) ? cmocka_run_group_tests(tests, NULL, NULL)
                             : cmocka_run_group_tests(without, NULL, NULL);
}
