/* The commands for hosts: their arguments, the file that they write, and the program itself as a
 * person runs it, at real interpreters and at one that lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "programs.h"
#include "runner/host/host.h"
#include "runner/host/outfile.h"
#include "tree.h"

static struct tree tree;
static int back; /* where the tests were started */

static int set_up(void **state)
{
    (void)state;
    back = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tree_create(&tree);
    return chdir(tree.root) + mkdir("out", 0755) + chdir("out");
}

static int tear_down(void **state)
{
    (void)state;
    int r = fchdir(back);
    close(back);
    tree_destroy(&tree);
    return r;
}

static int parse(const char *line, struct host_arguments *ret, struct err *err)
{
    char *argv[16];
    int argc = program_arguments(line, argv);
    return host_parse(argc, argv, ret, err);
}

static void test_arguments(void **state)
{
    (void)state;
    struct host_arguments a;
    assert_int_equal(parse("record -p 7", &a, NULL), 0);
    assert_int_equal(a.pid, 7);
    assert_int_equal(a.options.rate, 100);
    assert_int_equal(a.options.duration_ms, 30000);
    assert_string_equal(a.format->name, "flamegraph");
    assert_null(a.output);
    assert_false(a.quiet || a.help || a.options.idle || a.options.gil || a.options.threads ||
                 a.options.subprocesses || a.options.functions || a.options.async_tasks ||
                 a.options.nonblocking);
    assert_int_equal(
        parse("record --pid=7 -d 1m30s --rate 1000 -o a.svg --format raw -igstFabq", &a, NULL), 0);
    assert_int_equal(a.options.duration_ms, 90000);
    assert_int_equal(a.options.rate, 1000);
    assert_string_equal(a.output, "a.svg");
    assert_string_equal(a.format->name, "raw");
    assert_true(a.quiet && a.options.idle && a.options.gil && a.options.threads &&
                a.options.subprocesses && a.options.functions && a.options.async_tasks &&
                a.options.nonblocking);
    assert_int_equal(parse("top --help", &a, NULL), 0);
    assert_true(a.help);

    static const struct {
        const char *file, *format;
    } endings[] = {
        {"a.svg", "flamegraph"},         {"a", "flamegraph"},     {"-", "flamegraph"},
        {"a.json", "speedscope"},        {"a.txt", "raw"},        {"a.raw", "raw"},
        {"a.trace.json", "chrometrace"}, {"b.d/a", "flamegraph"}, {".a", "flamegraph"},
        {"/dev/null", "flamegraph"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        char line[64];
        snprintf(line, sizeof(line), "record -p 7 -o %s", endings[i].file);
        assert_int_equal(parse(line, &a, NULL), 0);
        assert_string_equal(a.format->name, endings[i].format);
    }
}

static void test_what_is_not_understood(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"record", "--pid PID is missing"},
        {"record -d 5", "--pid PID is missing"},
        {"record -p 0", "--pid is a number from 1 to 2147483647, not '0'"},
        {"record -p 99999999999", "--pid is a number"},
        {"record -p self", "not 'self'"},
        {"record -p 7 -d 0", "--duration is from 1 second to 7 days, not '0'"},
        {"record -p 7 -d 999ms", "from 1 second to 7 days, not '999ms'"},
        {"record -p 7 -d 604801", "from 1 second to 7 days, not '604801'"},
        {"record -p 7 -d 169h", "from 1 second to 7 days, not '169h'"},
        {"record -p 7 -d -3", "--duration is seconds, or as in 90s or 5m, not '-3'"},
        {"record -p 7 -d soon", "--duration is seconds, or as in 90s or 5m, not 'soon'"},
        {"record -p 7 -r 0", "--rate is a number from 1 to 1000, not '0'"},
        {"record -p 7 -r 1001", "--rate is a number from 1 to 1000, not '1001'"},
        {"record -p 7 -f svg", "flamegraph, speedscope, raw or chrometrace, not 'svg'"},
        {"record -p 7 --output=", "--output is empty"},
        {"record -p 7 -o a.pprof", "'a.pprof': no format has this ending, but .svg, .json"},
        {"record -p 7 -o b/a.pb.gz", "'b/a.pb.gz': no format has this ending"},
        {"record -p 7 -o a.svg.gz", "for another name say --format"},
        {"record -p 7 -o a.", "no format has this ending"},
        {"record -p 7 -r", "--rate needs a value"},
        {"record -p 7 --rate", "--rate needs a value"},
        {"record -p 7 --quiet=3", "--quiet takes no value"},
        {"record -p 7 -Z", "'-Z' is no flag of record"},
        {"record -p 7 -qZ", "'-Z' is no flag of record"},
        {"record -p 7 --native", "'--native' is no flag of record"},
        {"dump -p 7 -d 3", "'-d' is no flag of dump"},
        {"dump -p 7 --duration 3", "'--duration' is no flag of dump"},
        {"top -p 7 -o x", "'-o' is no flag of top"},
        {"record -p 7 surplus", "'surplus' is no flag"},
        {"record -p 7 -f \x1b[2J", "not '\\x1b[2J'"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct host_arguments a;
        struct err err = ERR_INIT;
        if (parse(rows[i].line, &a, &err) != ERR_INVALID || !strstr(err.message, rows[i].says))
            fail_msg("%s: %s", rows[i].line, err.message);
    }
}

/* What the help names is taken, and nothing is taken that it does not name. */
static void test_help_is_true(void **state)
{
    (void)state;
    static const char *const commands[] = {"record", "dump", "top"};
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        _cleanup_(buf_finish) struct buf help = BUF_INIT(8192);
        size_t named = 0, taken = 0;
        host_help(commands[i], &help);
        assert_non_null(strstr(buf_cstr(&help), "Exit status: 0"));
        for (struct str rest = buf_str(&help); rest.ptr;) {
            struct str line = str_cut(&rest, '\n');
            assert_true(line.len <= 100);
            if (!str_starts_with(line, STR("  -")))
                continue;
            struct host_arguments a;
            struct err err = ERR_INIT;
            char text[64];
            bool value = str_find_char(str_sub(line, 22, 7), ' ') != 0;
            const char *given = line.ptr[3] == 'f' ? "raw" : "5";
            snprintf(text, sizeof(text), "%s -p 7 -%c%s", commands[i], line.ptr[3],
                     value ? given : "");
            if (parse(text, &a, &err) < 0)
                fail_msg("%s: %s", text, err.message);
            struct str name = str_sub(line, 6, line.len);
            name = str_cut(&name, ' ');
            snprintf(text, sizeof(text), "%s -p 7 %.*s%s%s", commands[i], STR_ARG(name),
                     value ? "=" : "", value ? given : "");
            if (parse(text, &a, &err) < 0)
                fail_msg("%s: %s", text, err.message);
            named++;
        }
        for (char c = 'A'; c <= 'z'; c++) {
            struct host_arguments a;
            struct err err = ERR_INIT;
            char text[64];
            snprintf(text, sizeof(text), "%s -p 7 -%c", commands[i], c);
            parse(text, &a, &err);
            taken += !strstr(err.message, "is no flag");
        }
        assert_int_equal(named, taken);
    }
}

static size_t files(void)
{
    DIR *dir = opendir(".");
    size_t n = 0;
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        n += !str_is(str_of(d->d_name), ".") && !str_is(str_of(d->d_name), "..");
    closedir(dir);
    return n;
}

static void put(const char *name, const char *text, int mode)
{
    _cleanup_(freep) char *path = xasprintf("out/%s", name);
    tree_put_file(&tree, path, text, strlen(text), mode);
}

static void assert_file(const char *name, const char *text, mode_t mode)
{
    _cleanup_(buf_finish) struct buf got = BUF_INIT(4096);
    struct stat st;
    assert_int_equal(buf_read_file(&got, name, NULL), 0);
    assert_string_equal(buf_cstr(&got), text);
    assert_int_equal(lstat(name, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_mode & 0777, mode);
}

static void write_file(const char *path, const char *text)
{
    struct outfile f;
    struct err err = ERR_INIT;
    if (outfile_open(path, &f, &err) < 0 || outfile_write(&f, str_of(text), &err) < 0)
        fail_msg("%s", err.message);
    outfile_finish(&f);
}

static void test_file_is_whole_or_not_there(void **state)
{
    (void)state;
    mode_t mask = umask(027);
    struct outfile f;
    struct err err = ERR_INIT;
    assert_int_equal(outfile_open("new", &f, &err), 0);
    assert_int_equal(files(), 0); /* only tried */
    assert_int_equal(outfile_write(&f, STR("one"), &err), 0);
    outfile_finish(&f);
    assert_file("new", "one", 0640);
    chmod("new", 0604);
    assert_int_equal(outfile_open("new", &f, &err), 0);
    assert_file("new", "one", 0604);
    int old = open("new", O_RDONLY | O_CLOEXEC);
    assert_int_equal(outfile_write(&f, STR("other"), &err), 0);
    outfile_finish(&f);
    /* Who has the old one open keeps it whole. */
    char text[8] = "";
    assert_int_equal(read(old, text, sizeof(text)), 3);
    close(old);
    assert_string_equal(text, "one");
    assert_file("new", "other", 0604);
    assert_int_equal(files(), 1);
    umask(mask);
    /* The directory goes while it samples. */
    assert_int_equal(mkdir("gone", 0755), 0);
    assert_int_equal(outfile_open("gone/new", &f, &err), 0);
    assert_int_equal(rmdir("gone"), 0);
    assert_int_equal(outfile_write(&f, STR("x"), &err), ERR_NOT_FOUND);
    assert_string_equal(err.message, "write gone/new: No such file or directory");
    outfile_finish(&f);
}

static void test_files_that_are_refused(void **state)
{
    (void)state;
    put("file", "kept", 0644);
    assert_int_equal(mkdir("dir", 0755), 0);
    assert_int_equal(symlink("file", "link") + symlink("nowhere", "dangling"), 0);
    static const struct {
        const char *path, *says;
    } rows[] = {
        {"none/x.svg", "write none/x.svg: No such file or directory"},
        {"file/x.svg", "write file/x.svg: Not a directory"},
        {"dir", "write dir: Is a directory"},
        {"link", "link is a symbolic link"},
        {"dangling", "dangling is a symbolic link"},
        {"/dev/stdout", "or - for standard output"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct outfile f;
        struct err err = ERR_INIT;
        if (outfile_open(rows[i].path, &f, &err) >= 0 || !strstr(err.message, rows[i].says))
            fail_msg("%s: %s", rows[i].path, err.message);
    }
    assert_file("file", "kept", 0644);
    assert_int_equal(files(), 4);
}

/* They are written to, not replaced. */
static void test_pipes_and_devices(void **state)
{
    (void)state;
    char text[8] = "";
    write_file("/dev/null", "gone");
    struct stat st;
    assert_true(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode));
    assert_int_equal(mkfifo("pipe", 0600), 0);
    int reader = open("pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    write_file("pipe", "text");
    assert_int_equal(read(reader, text, sizeof(text)), 4);
    close(reader);
    assert_string_equal(text, "text");
    struct outfile f;
    struct err err = ERR_INIT;
    assert_int_equal(outfile_open("/dev/full", &f, &err), 0);
    assert_true(outfile_write(&f, STR("x"), &err) < 0);
    assert_string_equal(err.message, "write /dev/full: No space left on device");
    outfile_finish(&f);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
        const char *says;
    } rows[] = {
        {"record -p %p", 1, "does not run CPython"},
        {"dump -p %p", 1, "does not run CPython"},
        {"top -p %p", 1, "does not run CPython"},
        {"record -p %p -d 600 -o none/x.svg", 1, "write none/x.svg: No such file or directory"},
        {"record -p %p -d never", 2, "not 'never'; --help tells more"},
        {"record -p 4194305%p", 2, "--pid is a number"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct program p;
        int status = program_finished(rows[i].line, getpid(), &p);
        if (status != rows[i].status || !strstr(buf_cstr(&p.complaints), rows[i].says) ||
            p.text.len)
            fail_msg("%s: status %d, %s%s", rows[i].line, status, buf_cstr(&p.complaints),
                     buf_cstr(&p.text));
        program_kill(&p);
    }
    pid_t ended = fork();
    if (ended == 0)
        _exit(0);
    waitpid(ended, NULL, 0);
    struct program p;
    assert_int_equal(program_finished("dump -p %p", ended, &p), 1);
    assert_non_null(strstr(buf_cstr(&p.complaints), "there is no process"));
    program_kill(&p);
    assert_int_equal(files(), 0);
}

static void test_record(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target, SPIN))
        skip(); /* no /usr/bin/python3 */
    static const struct {
        const char *line, *file, *begins, *holds;
    } rows[] = {
        {"record -d 1 -o a.svg -p %p", "a.svg", "<svg ", "spin ("},
        {"record -d 1 -o a.json -p %p", "a.json", "{\"$schema\"", "\"name\":\"spin\""},
        {"record -d 1 -o a.trace.json -p %p", "a.trace.json", "[", "\"spin\""},
        {"record -d 1 -f raw -F -o a.b -p %p", "a.b", "<module> (<string>:1);spin (<string>:1) ",
         "\n"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(1 << 20);
        int status = program_finished(rows[i].line, target.pid, &p);
        if (status != 0 || !strstr(buf_cstr(&p.complaints), " samples of Python 3."))
            fail_msg("%s: %d, %s", rows[i].line, status, buf_cstr(&p.complaints));
        assert_int_equal(buf_read_file(&text, rows[i].file, NULL), 0);
        if (!str_starts_with(buf_str(&text), str_of(rows[i].begins)) ||
            !strstr(buf_cstr(&text), rows[i].holds))
            fail_msg("%s: %.300s", rows[i].line, buf_cstr(&text));
        program_kill(&p);
    }
    assert_int_equal(files(), ARRAY_SIZE(rows));
    assert_int_equal(program_finished("record -q -d 1 -f raw -o - -p %p", target.pid, &p), 0);
    assert_int_equal(p.complaints.len, 0);
    assert_true(str_starts_with(buf_str(&p.text), STR("<module> (<string>:")));
    program_kill(&p);
    program_kill(&target);
}

/* What was sampled until then is written. */
static void test_interrupted(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target, SPIN))
        skip();
    program_run(&p, "record -d 600 -o a.svg -p %p", target.pid);
    usleep(3000000);
    assert_int_equal(waitpid(p.pid, NULL, WNOHANG), 0);
    kill(p.pid, SIGINT);
    kill(p.pid, SIGTERM); /* as timeout(1) sends two */
    if (program_finish(&p) != 0)
        fail_msg("%s", buf_cstr(&p.complaints));
    assert_non_null(strstr(buf_cstr(&p.complaints), "a.svg: "));
    assert_int_equal(access("a.svg", F_OK), 0);
    program_kill(&p);
    /* And so it is when the process ends. */
    program_run(&p, "record -d 600 -o b.svg -p %p", target.pid);
    usleep(3000000);
    kill(target.pid, SIGKILL);
    if (program_finish(&p) != 0)
        fail_msg("%s", buf_cstr(&p.complaints));
    assert_non_null(strstr(buf_cstr(&p.complaints), "; it ended"));
    assert_int_equal(files(), 2);
    program_kill(&p);
    program_kill(&target);
}

static void test_no_samples_leave_no_file(void **state)
{
    (void)state;
    struct program target, p;
    put("a.svg", "kept", 0644);
    if (!program_python(&target, "import time\nprint(1, flush=1)\ntime.sleep(600)\n"))
        skip();
    assert_int_equal(program_finished("record -d 1 -o a.svg -p %p", target.pid, &p), 1);
    assert_non_null(strstr(buf_cstr(&p.complaints), "--idle counts sleeping ones as well"));
    program_kill(&p);
    assert_file("a.svg", "kept", 0644);
    assert_int_equal(files(), 1);
    program_kill(&target);
}

static void assert_shows_safely(const struct buf *text)
{
    for (struct str rest = buf_str(text); rest.len;) {
        uint32_t rune = 0;
        size_t n = str_utf8_next(rest, &rune);
        if (!n || (rune != '\n' && (rune_is_control(rune) || rune_is_bidi(rune))))
            fail_msg("byte %zu: %s", text->len - rest.len, buf_cstr(text));
        rest = str_sub(rest, n, rest.len);
    }
}

static void test_names_that_would_drive_a_terminal(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target,
                        "import sys\n"
                        "open('/proc/self/comm', 'wb').write(b'\\x1b]0;own\\x07\\x9b\\x85')\n"
                        "f = 'def f(n=[1]):\\n  while True: n and print(n.pop(), flush=1)\\n'\n"
                        "names = {}\n"
                        "exec(compile(f, '/x\\x1b[2J\\r\\u202e\\x9b.py', 'exec'), names)\n"
                        "f = names['f']\n"
                        "name = 'f\\n\\x7f\\x1b[31m\\x85\\ud800'\n"
                        "what = [n for n in ('co_name', 'co_qualname') if hasattr(f.__code__, n)]\n"
                        "f.__code__ = f.__code__.replace(**dict.fromkeys(what, name))\n"
                        "f()\n"))
        skip();
    static const char *const lines[] = {"dump -p %p", "record -d 1 -t -i -f raw -o - -p %p"};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        assert_int_equal(program_finished(lines[i], target.pid, &p), 0);
        assert_shows_safely(&p.text);
        assert_shows_safely(&p.complaints);
        assert_non_null(strstr(buf_cstr(&p.text), "\\u202e"));
        if (i == 0) {
            assert_non_null(strstr(buf_cstr(&p.text), "\"\\x1b]0;own\\x07\\x9b\\x85\""));
            assert_non_null(strstr(buf_cstr(&p.text), "f\\n\\x7f\\x1b[31m\\u0085"));
            assert_non_null(strstr(buf_cstr(&p.text), "(/x\\x1b[2J\\r\\u202e\\u009b.py:2)\n"));
        }
        program_kill(&p);
    }
    program_run(&p, "top -p %p", target.pid);
    while (p.out >= 0 && !strstr(buf_cstr(&p.text), "\n %own"))
        program_take(&p.out, &p.text);
    kill(p.pid, SIGINT);
    assert_int_equal(program_finish(&p), 0);
    assert_shows_safely(&p.text);
    assert_non_null(strstr(buf_cstr(&p.text), "f\\n\\x7f"));
    program_kill(&p);
    program_kill(&target);
}

static void test_dump_tells_of_every_thread(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target, "import threading, time\n"
                                 "def spin():\n"
                                 "    while True: pass\n"
                                 "def wait(): time.sleep(600)\n"
                                 "for f in (wait, wait, spin): threading.Thread(target=f).start()\n"
                                 "print(1, flush=1)\n"
                                 "wait()\n"))
        skip();
    /* Having said that it is ready, it is on its way to wait. */
    size_t threads = 0, spins = 0, waits = 0;
    for (int i = 0; i < 100 && waits != 3; i++) {
        assert_int_equal(program_finished("dump -p %p", target.pid, &p), 0);
        threads = spins = waits = 0;
        for (struct str rest = buf_str(&p.text); rest.ptr;) {
            struct str line = str_cut(&rest, '\n');
            threads += str_starts_with(line, STR("Thread "));
            spins += str_is(line, "    spin (<string>:3)");
            waits += str_is(line, "    wait (<string>:4)");
        }
        if (threads != 4 || spins != 1 || (i == 99 && waits != 3))
            fail_msg("%s", buf_cstr(&p.text));
        program_kill(&p);
    }
    program_kill(&target);
}

/* Fewer descriptors than threads: each is asked for nevertheless, with the last ones that there
 * are, be they even or odd. */
static void test_few_descriptors(void **state)
{
    (void)state;
    struct program target, p;
    if (!program_python(&target, "import threading, time\n"
                                 "def wait(): time.sleep(600)\n"
                                 "for i in range(63): threading.Thread(target=wait).start()\n"
                                 "print(1, flush=1)\n"
                                 "wait()\n"))
        skip();
    for (rlim_t i = 20; i < 24; i++) {
        program_descriptors = i;
        /* Having said that it is ready, it is on its way to wait. */
        size_t idle = 0;
        for (int tries = 0; tries < 100 && idle != 64; tries++) {
            int r = program_finished("dump -p %p", target.pid, &p);
            idle = 0;
            for (struct str rest = buf_str(&p.text); rest.ptr;)
                idle += str_find(str_cut(&rest, '\n'), STR(" (idle")) >= 0;
            if (r || idle < 63 || (tries == 99 && idle != 64))
                fail_msg("%d with %d: %s", r, (int)i, buf_cstr(&p.text));
            program_kill(&p);
        }
    }
    program_descriptors = 0;
    program_kill(&target);
}

/* Frames that lead in a circle: there is no stack, and that is said. */
static void test_dump_tells_of_what_it_cannot_read(void **state)
{
    (void)state;
    struct program target, p;
    char *argv[] = {(char *)(uintptr_t)HOSTILE, (char *)(uintptr_t) "cycle-frames", NULL};
    if (!program_start_ready(&target, argv))
        skip();
    assert_int_equal(program_finished("dump -p %p", target.pid, &p), 1);
    size_t threads = 0, unread = 0;
    for (struct str rest = buf_str(&p.text); rest.ptr;) {
        struct str line = str_cut(&rest, '\n');
        threads += str_starts_with(line, STR("Thread "));
        unread +=
            str_starts_with(line, STR("    no stack: ")) && str_ends_with(line, STR(" (8 looks)"));
    }
    if (threads != 8 || unread != 8)
        fail_msg("%s", buf_cstr(&p.text));
    assert_non_null(strstr(buf_cstr(&p.complaints), "no stack could be read in 8 looks"));
    program_kill(&p);
    program_kill(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_what_is_not_understood),
        cmocka_unit_test(test_help_is_true),
        cmocka_unit_test_setup_teardown(test_file_is_whole_or_not_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_that_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pipes_and_devices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_record, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_samples_leave_no_file, set_up, tear_down),
        cmocka_unit_test(test_names_that_would_drive_a_terminal),
        cmocka_unit_test(test_dump_tells_of_every_thread),
        cmocka_unit_test(test_few_descriptors),
        cmocka_unit_test(test_dump_tells_of_what_it_cannot_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
