/* Threads of a real interpreter, named as in pythons.h, by the names that Python gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "pythons.h"
#include "sample/record.h"

#define PATIENCE_MS 20000
#define THREADS     50

static bool named; /* whether this build shows names: not if free-threaded */

struct seen {
    struct buf text; /* "function=name." of each thread */
    size_t threads, changed;
    bool mark; /* each gets one, which must stay */
};

static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    assert_true(str_is_utf8(t->name) && t->name.len <= SAMPLE_NAME_MAX);
    s->threads++;
    s->changed += s->mark && t->mark && !*t->mark;
    if (t->mark)
        *t->mark = s;
    /* Functions that stand for threads are called f_…. */
    for (size_t i = t->depth; i-- > 0;)
        if (str_starts_with(t->frames[i]->function, STR("f_")))
            buf_appendf(&s->text, "%.*s=%.*s.", STR_ARG(t->frames[i]->function), STR_ARG(t->name));
}

/* Looks until all n texts have been seen at one look. */
static void await(struct target *t, const char *const *wanted, size_t n)
{
    int64_t until = memory_now_ms() + PATIENCE_MS;
    for (size_t found = 0; found < n;) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(1 << 20);
        struct seen s = {.text = text};
        assert_int_equal(target_look(t, see, &s, NULL), 0);
        text = s.text;
        found = 0;
        while (found < n && strstr(buf_cstr(&text), wanted[found]))
            found++;
        if (found < n && memory_now_ms() > until)
            fail_msg("%s: no %s in %s", python, wanted[found], buf_cstr(&text));
        usleep(1000);
    }
}

static const char program[] =
    "import _thread, os, sys, threading, time\n"
    "from concurrent.futures import ThreadPoolExecutor\n"
    "class Mine(threading.Thread):\n"
    "    def __init__(self, attributes, **k):\n"
    "        for i in range(attributes): setattr(self, 'x%d' % i, i)\n"
    "        super().__init__(**k)\n"
    "        self.more = self.__dict__ if attributes == 1 else 0\n"
    "class Slots(threading.Thread):\n"
    "    __slots__ = ['a', 'b', 'c']\n"
    "def start(function, kind=threading.Thread, *a, **k):\n"
    "    space = {'sleep': time.sleep}\n"
    "    exec('def f_%s():\\n    while True: sleep(1000)' % function, space)\n"
    "    f = space['f_' + function]\n"
    "    if kind is None: return _thread.start_new_thread(f, ())\n"
    "    t = kind(*a, target=f, daemon=True, **k)\n"
    "    t.start()\n"
    "    return t\n"
    "def f_main(word):\n"
    "    if word: print(word, flush=True)\n"
    "    while True: time.sleep(1000)\n"
    "start('worker', name='worker-7')\n"
    "start('numbered')\n"
    "start('mine', Mine, 0, name='mine')\n"
    "start('dict', Mine, 1, name='mine, its dict seen')\n"
    "start('forty', Mine, 40, name='mine with forty more')\n"
    "start('slots', Slots, name='with slots')\n"
    "start('accents', name='caf\\u00e9 \\u00fc')\n"
    "start('wide', name='\\u20ac \\u4e2d')\n"
    "start('widest', name='\\U0001f40d!')\n"
    "start('long', name='x' * 200 + '\\u00e9' * 1000000)\n"
    "start('renamed', name='before').name = 'after'\n"
    "start('plain', None)\n"
    "pool = ThreadPoolExecutor(2, thread_name_prefix='pool')\n"
    "def f_pool():\n"
    "    while True: time.sleep(1000)\n"
    "for i in range(2): pool.submit(f_pool)\n";

static void test_names(void **state)
{
    (void)state;
    _cleanup_(freep) char *text = xasprintf("%sf_main('ready')\n", program);
    struct child c = child_start(python, text);
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true, .names = true});
    bool tells = strtoul(target_version(t) + 2, NULL, 10) >= 10; /* the function, in the name */
    static const char *const names[] = {"f_main=MainThread.",
                                        "f_worker=worker-7.",
                                        "f_mine=mine.",
                                        "f_dict=mine, its dict seen.",
                                        "f_forty=mine with forty more.",
                                        "f_slots=with slots.",
                                        "f_accents=caf\u00e9 \u00fc.",
                                        "f_wide=\u20ac \u4e2d.",
                                        "f_widest=\U0001f40d!.",
                                        "f_long=xxxxxxxx",
                                        "f_renamed=after.",
                                        "f_plain=python",
                                        "f_pool=pool_0.",
                                        "f_pool=pool_1."};
    static const char *const none[] = {"f_main=python", "f_plain=python", "f_worker=python"};
    const char *numbered[] = {tells ? "f_numbered=Thread-1 (f_numbered)." : "f_numbered=Thread-1."};
    await(t, named ? names : none, named ? ARRAY_SIZE(names) : ARRAY_SIZE(none));
    if (named)
        await(t, numbered, 1);
    target_close(t);
    child_end(&c);
}

/* One label a thread: the name that it has at the first look is the one that it keeps. */
static void test_marks(void **state)
{
    (void)state;
    if (!named)
        skip();
    struct child c = child_start(python, "import threading, time\n"
                                         "def f_idle():\n"
                                         "    while True: time.sleep(1000)\n"
                                         "for i in range(50):\n"
                                         "    threading.Thread(target=f_idle, daemon=True,\n"
                                         "        name='idle-%d' % i).start()\n"
                                         "def f_main():\n"
                                         "    print('ready', flush=True)\n"
                                         "    while True: time.sleep(1000)\n"
                                         "f_main()\n");
    struct seen s = {.text = BUF_INIT(1 << 20)};
    struct target *t = NULL;
    int64_t until = memory_now_ms() + PATIENCE_MS;
    while (s.threads != THREADS + 1 && memory_now_ms() < until) {
        target_close(t);
        t = pythons_open(c.pid, &(struct sample_options){.idle = true, .names = true});
        buf_clear(&s.text);
        s.threads = 0;
        assert_int_equal(target_look(t, see, &s, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        char wanted[32];
        snprintf(wanted, sizeof(wanted), "f_idle=idle-%d.", i);
        if (!strstr(buf_cstr(&s.text), wanted))
            fail_msg("%s: no %s", python, wanted);
    }
    s.mark = true;
    for (int look = 0; look < 20; look++) {
        buf_clear(&s.text);
        assert_int_equal(target_look(t, see, &s, NULL), 0);
    }
    assert_int_equal(s.changed, 0);
    buf_finish(&s.text);
    target_close(t);
    child_end(&c);
}

/* threading is imported only later, and changes all the time. */
static void test_late(void **state)
{
    (void)state;
    if (!named)
        skip();
    struct child c = child_start(python, "import time\n"
                                         "def f_main():\n"
                                         "    print('ready', flush=True)\n"
                                         "    time.sleep(0.3)\n"
                                         "    import threading\n"
                                         "    while True:\n"
                                         "        t = threading.Thread(target=time.sleep,\n"
                                         "            args=(0.001,), name='short')\n"
                                         "        t.start(); t.join()\n"
                                         "f_main()\n");
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true, .names = true});
    static const char *const wanted[] = {"f_main=MainThread."};
    await(t, wanted, 1);
    target_close(t);
    child_end(&c);
}

static void test_renamed(void **state)
{
    (void)state;
    if (!named)
        skip();
    struct child c = child_start(python, "import threading, time\n"
                                         "def f_main():\n"
                                         "    print('ready', flush=True)\n"
                                         "    time.sleep(0.5)\n"
                                         "    threading.current_thread().name = 'later'\n"
                                         "    while True: time.sleep(1000)\n"
                                         "f_main()\n");
    struct target *t = pythons_open(c.pid, &(struct sample_options){.idle = true, .names = true});
    static const char *const names[] = {"f_main=MainThread.", "f_main=later."};
    await(t, &names[0], 1);
    await(t, &names[1], 1);
    target_close(t);
    child_end(&c);
}

/* The thread that calls fork() is the only one of the child. */
static void test_fork(void **state)
{
    (void)state;
    if (!named)
        skip();
    struct child c =
        child_start(python, "import os, threading, time\n"
                            "def f_idle():\n"
                            "    while True: time.sleep(1000)\n"
                            "def f_spin(parent):\n"
                            "    while os.getppid() == parent: pass\n"
                            "    os._exit(0)\n"
                            "def fork():\n"
                            "    parent = os.getpid()\n"
                            "    pid = os.fork()\n"
                            "    if pid == 0: f_spin(parent)\n"
                            "    os.write(1, b'ready %d' % pid)\n"
                            "    time.sleep(1000)\n"
                            "threading.stack_size(16 << 20)\n" /* musl's own is too little */
                            "for i in range(9):\n"
                            "    threading.Thread(target=f_idle, name='idle').start()\n"
                            "threading.Thread(target=fork, name='forker').start()\n"
                            "time.sleep(1000)\n");
    char text[16] = "";
    int64_t child = 0;
    assert_true(read(c.out, text, sizeof(text) - 1) > 0);
    assert_int_equal(str_to_i64(str_trim(str_of(text)), 2, INT32_MAX, &child), 0);
    struct target *t =
        pythons_open((pid_t)child, &(struct sample_options){.idle = true, .names = true});
    static const char *const wanted[] = {"f_spin=forker."};
    await(t, wanted, 1);
    target_close(t);

    /* As a child of its parent's, in a profile. */
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct record_options options = {
        .rate = 100, .duration_ms = 1000, .subprocesses = true, .threads = true};
    struct record *r = NULL;
    assert_int_equal(record_create(proc, c.pid, &options, profile, &r, NULL), 0);
    record_run(r);
    record_destroy(r);
    child_end(&c);
    _cleanup_(buf_finish) struct buf raw = BUF_INIT(1 << 20);
    assert_int_equal(profile_write_raw(profile, &raw, NULL), 0);
    if (!strstr(buf_cstr(&raw), " (forker);") || !strstr(buf_cstr(&raw), ";f_spin (<string>:5) "))
        fail_msg("%s: %s", python, buf_cstr(&raw));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "debian";
    if (!pythons_begin(name))
        return PYTHONS_SKIPPED;
    named = strcmp(name, "3.13.5t") != 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_marks), cmocka_unit_test(test_renamed),
        cmocka_unit_test(test_late),  cmocka_unit_test(test_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
