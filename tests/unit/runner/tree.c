#include "tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

struct made {
    Elf64_Ehdr header;
    Elf64_Shdr sections[3];
    Elf64_Sym symbols[2];
    char strings[32];
};

static struct made make_elf(const char *symbol)
{
    struct made m = {0};
    memcpy(m.header.e_ident, ELFMAG, SELFMAG);
    m.header.e_ident[EI_CLASS] = ELFCLASS64;
    m.header.e_ident[EI_DATA] = ELFDATA2LSB;
    m.header.e_shoff = offsetof(struct made, sections);
    m.header.e_shnum = 3;
    m.header.e_shentsize = sizeof(Elf64_Shdr);
    m.sections[1] = (Elf64_Shdr){.sh_type = SHT_DYNSYM,
                                 .sh_offset = offsetof(struct made, symbols),
                                 .sh_size = sizeof(m.symbols),
                                 .sh_link = 2,
                                 .sh_entsize = sizeof(Elf64_Sym)};
    m.sections[2] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
                                 .sh_offset = offsetof(struct made, strings),
                                 .sh_size = sizeof(m.strings)};
    snprintf(m.strings + 1, sizeof(m.strings) - 1, "%s", symbol);
    m.symbols[1] = (Elf64_Sym){.st_name = 1, .st_shndx = 2};
    return m;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void tree_put_file(const struct tree *t, const char *name, const void *bytes, size_t len, int mode)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", t->root, name);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

void tree_create(struct tree *t)
{
    snprintf(t->root, sizeof(t->root), "/tmp/test-runner-XXXXXX");
    assert_non_null(mkdtemp(t->root));
    struct made python = make_elf("_PyRuntime"), other = make_elf("main");
    tree_put_file(t, "python3.12", &python, sizeof(python), 0755);
    tree_put_file(t, "other", &other, sizeof(other), 0755);
}

void tree_destroy(struct tree *t)
{
    assert_int_equal(nftw(t->root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void tree_remove(const struct tree *t, pid_t pid)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%d", t->root, (int)pid);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put_cgroup(const struct tree *t, pid_t pid, const char *id)
{
    char text[128], name[64];
    snprintf(text, sizeof(text), "0::/kubepods/burstable/pod1/%s\n", id);
    snprintf(name, sizeof(name), "%d/cgroup", (int)pid);
    tree_put_file(t, name, text, strlen(text), 0644);
}

void tree_put_living(const struct tree *t, pid_t pid, const char *id)
{
    static const char *const names[] = {"",     "cmdline", "exe",    "maps", "ns",
                                        "root", "stat",    "status", "task"};
    char path[256], to[64], program[256] = "";
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%d/%s", t->root, (int)pid, names[i]);
        snprintf(to, sizeof(to), "/proc/%d/%s", (int)pid, names[i]);
        /* Whoever asks where it leads to means the program. */
        if (strcmp(names[i], "exe") == 0)
            assert_true(readlink(to, program, sizeof(program) - 1) > 0);
        assert_int_equal(i ? symlink(program[0] ? program : to, path) : mkdir(path, 0755), 0);
        program[0] = '\0';
    }
    put_cgroup(t, pid, id);
}

void tree_put(const struct tree *t, const struct tree_process *p)
{
    char path[256], name[64];
    static const char *const dirs[] = {"", "/task", "/root", "/ns"};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        snprintf(path, sizeof(path), "%s/%d%s", t->root, (int)p->pid, dirs[i]);
        mkdir(path, 0755);
    }
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4096);
    buf_appendf(&text, "%d (x) %c 1 1 1 0 -1 0 1 2 3 4 %d 0 0 0 20 0 1 0 %d 1 1 1\n", (int)p->pid,
                p->state, p->ticks, p->start);
    snprintf(name, sizeof(name), "%d/stat", (int)p->pid);
    tree_put_file(t, name, text.ptr, text.len, 0644);
    buf_clear(&text);
    buf_appendf(&text, "NSpid:\t%d\t%d\n", (int)p->pid, p->container_pid);
    snprintf(name, sizeof(name), "%d/status", (int)p->pid);
    tree_put_file(t, name, text.ptr, text.len, 0644);
    put_cgroup(t, p->pid, p->id);
    snprintf(name, sizeof(name), "%d/cmdline", (int)p->pid);
    tree_put_file(t, name, p->command, strlen(p->command), 0644);
    snprintf(name, sizeof(name), "%d/maps", (int)p->pid);
    tree_put_file(t, name, "", 0, 0644);
    snprintf(path, sizeof(path), "%s/%d/exe", t->root, (int)p->pid);
    unlink(path);
    assert_int_equal(symlink(p->python ? "../python3.12" : "../other", path), 0);
    /* The same PID namespace as the test's own, unless a test changes it. */
    snprintf(path, sizeof(path), "%s/%d/ns/pid", t->root, (int)p->pid);
    unlink(path);
    assert_int_equal(symlink("/proc/self/ns/pid", path), 0);
}
