/* Which ELF files are CPython: small ones made here, byte by byte, and this machine's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "proc/proc.h"

/* An ELF file of five sections: null, .dynsym, .dynstr, .rodata and nothing else. */
struct made {
    Elf64_Ehdr header;
    Elf64_Shdr sections[4];
    Elf64_Sym symbols[3];
    char strings[64];
    char rodata[128];
};

static struct made make_elf(const char *symbol, bool defined, const char *text, size_t text_len)
{
    struct made m = {0};
    memcpy(m.header.e_ident, ELFMAG, SELFMAG);
    m.header.e_ident[EI_CLASS] = ELFCLASS64;
    m.header.e_ident[EI_DATA] = ELFDATA2LSB;
    m.header.e_shoff = offsetof(struct made, sections);
    m.header.e_shnum = 4;
    m.header.e_shentsize = sizeof(Elf64_Shdr);
    m.sections[1] = (Elf64_Shdr){.sh_type = SHT_DYNSYM,
                                 .sh_offset = offsetof(struct made, symbols),
                                 .sh_size = sizeof(m.symbols),
                                 .sh_link = 2,
                                 .sh_entsize = sizeof(Elf64_Sym)};
    m.sections[2] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
                                 .sh_offset = offsetof(struct made, strings),
                                 .sh_size = sizeof(m.strings)};
    m.sections[3] = (Elf64_Shdr){.sh_type = SHT_PROGBITS,
                                 .sh_flags = SHF_ALLOC,
                                 .sh_addr = 0x4000,
                                 .sh_offset = offsetof(struct made, rodata),
                                 .sh_size = sizeof(m.rodata)};
    snprintf(m.strings + 1, sizeof(m.strings) - 1, "%s", symbol);
    m.symbols[1] = (Elf64_Sym){.st_name = 1, .st_shndx = defined ? 3 : SHN_UNDEF};
    memcpy(m.rodata, text, text_len);
    return m;
}

static int inspect(const void *bytes, size_t len, const char *path, struct proc_python *ret,
                   struct err *err)
{
    int fd = memfd_create("elf", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    int r = proc_elf_python(fd, str_of(path), ret, err);
    close(fd);
    return r;
}

static void test_symbols_decide(void **state)
{
    (void)state;
    static const struct {
        const char *symbol;
        bool defined, python;
    } rows[] = {
        {"_PyRuntime", true, true},    {"Py_GetVersion", true, true},
        {"Py_BytesMain", true, true},  {"Py_GetVersion", false, false},
        {"_PyRuntime2", true, false},  {"main", true, false},
        {"PyPy_Execute", true, false}, {"", true, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct made m = make_elf(rows[i].symbol, rows[i].defined, "", 0);
        struct proc_python p;
        struct err err = ERR_INIT;
        assert_int_equal(inspect(&m, sizeof(m), "/usr/bin/python3.12", &p, &err), 0);
        if (p.is_python != rows[i].python)
            fail_msg("%s (defined: %d)", rows[i].symbol, rows[i].defined);
    }
}

static void test_versions(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        struct str rodata;
        const char *version;
    } rows[] = {
        {"/usr/bin/python3.9", STR("x\0003.9.18\0y"), "3.9.18"},
        {"/usr/bin/python3.9", STR("x\0/opt/versions/3.9.18\0y"), "3.9.18"},
        {"/usr/bin/python3.9", STR("x\0003.9.18+\0y"), "3.9.18"},
        {"/usr/bin/python3.9", STR("13.9.18\0y"), "3.9"},
        {"/usr/bin/python3.9", STR("1.3.9.18\0y"), "3.9"},
        {"/usr/bin/python3.9", STR("3.9.18 and on\0y"), "3.9"},
        {"/usr/bin/python3.9", STR("3.9.18\0003.9.2\0y"), "3.9"},
        {"/usr/bin/python3.9", STR("3.40.1\0y"), "3.9"},
        {"/usr/lib/libpython3.6m.so.1.0", STR("3.6.15\0"), "3.6.15"},
        {"/usr/lib/libpython2.7.so.1.0", STR("2.7.18\0"), "2.7.18"},
        /* What the file's name does not say, its texts may, if they agree. */
        {"/usr/bin/python3", STR("3.9.18\0"), "3.9.18"},
        {"/usr/bin/uwsgi", STR("1.9.18\0003.9.18\0"), "3.9.18"},
        {"/usr/bin/uwsgi", STR("3.9.18\0003.10.1\0"), ""},
        {"/usr/bin/uwsgi", STR("3.9.18\0003.10.1\0lib/python3.9\0"), "3.9.18"},
        {"/usr/bin/uwsgi", STR("lib/python3.9\0python3.10\0"), ""},
        {"/usr/bin/uwsgi", STR("3.7.1\0003.45.1\0python3.6\0"), ""},
        {"/usr/bin/python3.", STR("3.9.18\0"), "3.9.18"},
        {"python3.123456", STR(""), "3.123"},
        {"", STR(""), ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct made m = make_elf("_PyRuntime", true, rows[i].rodata.ptr, rows[i].rodata.len);
        struct proc_python p;
        struct err err = ERR_INIT;
        assert_int_equal(inspect(&m, sizeof(m), rows[i].path, &p, &err), 0);
        assert_true(p.is_python);
        if (strncmp(p.version, rows[i].version, sizeof(p.version)) != 0)
            fail_msg("row %zu: \"%s\", expected \"%s\"", i, p.version, rows[i].version);
    }

    /* Without symbols of CPython's the texts have to prove it. */
    static const struct {
        struct str rodata;
        bool python;
    } texts[] = {
        {STR("PYTHONHASHSEED must be ?\0Fatal Python error: \0_frozen_importlib\0003.9.18\0"),
         true},
        {STR("PYTHONHASHSEED must be \0Fatal Python error: \0_frozen_importlib\0003.9.18\0"),
         false},
        {STR("PYTHONHASHSEED must be ?\0_frozen_importlib\0003.9.18\0"), false},
        {STR("PYTHONHASHSEED must be "), false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct made m = make_elf("main", true, texts[i].rodata.ptr, texts[i].rodata.len);
        /* This program must not hold the whole text itself. */
        char *mark = strchr(m.rodata, '?');
        if (mark)
            *mark = '"';
        struct proc_python p;
        struct err err = ERR_INIT;
        assert_int_equal(inspect(&m, sizeof(m), "/app", &p, &err), 0);
        assert_int_equal(p.is_python, texts[i].python);
        assert_string_equal(p.version, texts[i].python ? "3.9.18" : "");
    }

    /* From 3.11 on the symbol tells, whatever the file is called. */
    uint64_t hex = 0x030d01f0;
    struct made m = make_elf("_PyRuntime", true, (const char *)&hex, sizeof(hex));
    memcpy(m.strings + 20, "Py_Version", sizeof("Py_Version"));
    m.symbols[2] = (Elf64_Sym){.st_name = 20, .st_shndx = 3, .st_value = 0x4000, .st_size = 8};
    struct proc_python p;
    assert_int_equal(inspect(&m, sizeof(m), "/app/server", &p, NULL), 0);
    assert_string_equal(p.version, "3.13.1");
}

/* Cut at every length, and with every header byte changed: an answer or an error, never more. */
static void test_broken_files(void **state)
{
    (void)state;
    struct made m = make_elf("_PyRuntime", true, "3.9.18", 7);
    for (size_t len = 0; len < sizeof(m); len += 7) {
        struct proc_python p;
        struct err err = ERR_INIT;
        int r = inspect(&m, len, "/usr/bin/python3.9", &p, &err);
        if (r == 0 && p.is_python)
            assert_true(len >= offsetof(struct made, strings) + sizeof(m.strings));
    }
    for (size_t at = 0; at < offsetof(struct made, strings); at++) {
        struct made broken = m;
        ((unsigned char *)&broken)[at] ^= 0xff;
        struct proc_python p;
        struct err err = ERR_INIT;
        int r = inspect(&broken, sizeof(broken), "/usr/bin/python3.9", &p, &err);
        assert_true(r == 0 || r == ERR_TOO_LARGE);
    }
}

static void test_one_symbol_table_of_a_kind(void **state)
{
    (void)state;
    struct made m = make_elf("_PyRuntime", true, "3.9.18", 7);
    m.sections[0] = m.sections[1];
    m.sections[0].sh_size = 0;
    struct proc_python p;
    assert_int_equal(inspect(&m, sizeof(m), "/usr/bin/python3.9", &p, NULL), 0);
    assert_false(p.is_python); /* the second one is not read */
    m.sections[0].sh_type = SHT_SYMTAB;
    assert_int_equal(inspect(&m, sizeof(m), "/usr/bin/python3.9", &p, NULL), 0);
    assert_true(p.is_python);
}

static void test_what_is_no_elf(void **state)
{
    (void)state;
    struct proc_python p = {.is_python = true};
    assert_int_equal(inspect("#!/bin/sh\n", 10, "/usr/bin/python3.12", &p, NULL), 0);
    assert_false(p.is_python);
    int fd = open("/dev/null", O_RDONLY);
    p.is_python = true;
    assert_int_equal(proc_elf_python(fd, STR("/dev/null"), &p, NULL), 0);
    assert_false(p.is_python);
    close(fd);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void put_file(const char *root, const char *name, const void *bytes, size_t len)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

/* A process that embeds Python: the executable is none, a mapped libpython inside its root is. */
static void test_mapped_library(void **state)
{
    (void)state;
    char root[] = "/tmp/test-python-XXXXXX", path[128];
    assert_non_null(mkdtemp(root));
    static const char *const dirs[] = {"7", "7/root", "7/root/lib"};
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        snprintf(path, sizeof(path), "%s/%s", root, dirs[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    struct made uwsgi = make_elf("Py_GetVersion", false, "", 0);
    struct made python = make_elf("_PyRuntime", true, "3.9.18", 7);
    struct made fake = make_elf("main", true, "", 0);
    put_file(root, "7/exe", &uwsgi, sizeof(uwsgi));
    put_file(root, "7/root/lib/libpython3.9.so.1.0", &python, sizeof(python));
    put_file(root, "7/root/lib/libpythonic.so", &fake, sizeof(fake));
    /* A link of the target that leads out of its root leads nowhere. */
    snprintf(path, sizeof(path), "%s/7/root/lib/libpython-link.so", root);
    assert_int_equal(symlink("/../../../../../../usr/bin/env", path), 0);
    snprintf(path, sizeof(path), "%s/7/root/lib/libpython-fifo.so", root);
    assert_int_equal(mkfifo(path, 0600), 0);

    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    int proc = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct proc_python p = {0};
    struct err err = ERR_INIT;
    /* The link's text is what readlink gives; a plain file has none. */
    assert_int_not_equal(proc_inspect_python(proc, arena, 7, &p, &err), 0);
    snprintf(path, sizeof(path), "%s/7/exe", root);
    assert_int_equal(unlink(path), 0);
    put_file(root, "7/uwsgi", &uwsgi, sizeof(uwsgi));
    assert_int_equal(symlink("uwsgi", path), 0);

    static const struct {
        const char *maps;
        int result;
        const char *library;
    } rows[] = {
        {"00400000-00500000 r-xp 00000000 00:31 99   /lib/libpython3.9.so.1.0\n", 0,
         "/lib/libpython3.9.so.1.0"},
        {"1-2 r-xp 0 00:31 9   /lib/libc.so.6\n1-2 r--p 0 00:31 9   /lib/libpython3.9.so.1.0\n"
         "3-4 r-xp 0 00:31 9   /lib/libpythonic.so\n3-4 r-xp 0 00:31 9 /lib/libpython3.9.so.1.0\n",
         0, "/lib/libpython3.9.so.1.0"},
        {"1-2 r--p 0 00:31 9   /lib/libpython3.9.so.1.0\n", 0, ""},
        {"1-2 r-xp 0 00:31 9   /lib/libpythonic.so\n", 0, ""},
        {"1-2 r-xp 0 00:31 9   /lib/libpython-fifo.so\n", 0, ""},
        {"1-2 r-xp 0 00:31 9   /lib/libpython-link.so\n", ERR_NOT_FOUND, ""},
        {"1-2 r-xp 0 00:31 9   /lib/libpython3.9.so.1.0 (deleted)\n", ERR_NOT_FOUND, ""},
        {"1-2 r-xp 0 00:00 0\n1-2\n\n r-xp \n[vdso]\n1-2 r-xp 0 0:0 0 [vdso]\n", 0, ""},
        {"", 0, ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        put_file(root, "7/maps", rows[i].maps, strlen(rows[i].maps));
        p = (struct proc_python){0};
        int r = proc_inspect_python(proc, arena, 7, &p, &err);
        if (r != rows[i].result || !str_is(p.library, rows[i].library) ||
            p.is_python != (rows[i].library[0] != '\0'))
            fail_msg("row %zu: %d %.*s (%s)", i, r, STR_ARG(p.library), err.message);
        if (p.is_python)
            assert_string_equal(p.version, "3.9.18");
    }
    close(proc);
    assert_int_equal(nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* A library as it lies in memory, with one symbol, the older hash table and addresses that the
 * loader has moved (glibc) or has not (musl). */
struct made_image {
    Elf64_Ehdr header;
    Elf64_Phdr segments[2];
    Elf64_Dyn dynamic[4];
    Elf64_Sym symbols[2];
    uint32_t hash[5];
    char strings[16];
};

static int read_made(void *context, uint64_t address, void *to, size_t len)
{
    const struct made_image *m = context;
    uint64_t at = address - (uintptr_t)m;
    if (at > sizeof(*m) || len > sizeof(*m) - at)
        return -1;
    memcpy(to, (const char *)m + at, len);
    return 0;
}

static void test_image(void **state)
{
    (void)state;
    for (int moved = 0; moved < 2; moved++) {
        struct made_image m = {0};
        uint64_t base = (uintptr_t)&m, by = moved ? base : 0;
        memcpy(m.header.e_ident, ELFMAG, SELFMAG);
        m.header.e_ident[EI_CLASS] = ELFCLASS64;
        m.header.e_phoff = offsetof(struct made_image, segments);
        m.header.e_phnum = 2;
        m.header.e_phentsize = sizeof(Elf64_Phdr);
        m.segments[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_memsz = sizeof(m)};
        m.segments[1] = (Elf64_Phdr){.p_type = PT_DYNAMIC,
                                     .p_vaddr = offsetof(struct made_image, dynamic),
                                     .p_memsz = sizeof(m.dynamic)};
        m.dynamic[0] = (Elf64_Dyn){DT_SYMTAB, {by + offsetof(struct made_image, symbols)}};
        m.dynamic[1] = (Elf64_Dyn){DT_STRTAB, {by + offsetof(struct made_image, strings)}};
        m.dynamic[2] = (Elf64_Dyn){DT_HASH, {by + offsetof(struct made_image, hash)}};
        m.symbols[1] = (Elf64_Sym){.st_name = 1, .st_shndx = 1, .st_value = 0x100};
        memcpy(m.hash, (uint32_t[]){1, 2, 1, 0, 0}, sizeof(m.hash));
        memcpy(m.strings + 1, "_PyRuntime", sizeof("_PyRuntime"));
        struct proc_memory memory = {read_made, &m};
        struct proc_symbol symbols[] = {{.name = "_PyRuntime"}, {.name = "PyCode_Type"}};
        assert_int_equal(proc_image_symbols(&memory, base, symbols, 2, NULL), 0);
        assert_true(symbols[0].value == base + 0x100 && symbols[1].value == 0);
        struct proc_python p = {0};
        assert_int_equal(
            proc_image_python(&memory, base, STR("/x/libpython3.9.so.1.0 (deleted)"), &p, NULL), 0);
        assert_true(p.is_python && p.image == base);
        assert_string_equal(p.version, "3.9");

        /* A chain that leads to itself, a symbol that is not defined, and no table. */
        m.hash[4] = 1;
        m.strings[1] = 'x';
        assert_int_equal(proc_image_symbols(&memory, base, symbols, 1, NULL), 0);
        assert_int_equal(symbols[0].value, 0);
        m.strings[1] = '_';
        m.symbols[1].st_shndx = SHN_UNDEF;
        assert_int_equal(proc_image_symbols(&memory, base, symbols, 1, NULL), 0);
        assert_int_equal(symbols[0].value, 0);
        m.dynamic[2].d_tag = DT_RPATH;
        assert_int_equal(proc_image_symbols(&memory, base, symbols, 1, NULL), ERR_INVALID);
    }
}

static void test_this_process_is_not_python(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct proc_python p = {.is_python = true};
    struct err err = ERR_INIT;
    assert_int_equal(proc_inspect_python(proc, arena, getpid(), &p, &err), 0);
    assert_false(p.is_python);
    close(proc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symbols_decide),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_one_symbol_table_of_a_kind),
        cmocka_unit_test(test_what_is_no_elf),
        cmocka_unit_test(test_mapped_library),
        cmocka_unit_test(test_this_process_is_not_python),
        cmocka_unit_test(test_image),
    };
    return cmocka_run_group_tests_name("proc/python", tests, NULL, NULL);
}
