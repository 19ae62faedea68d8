/* The symbols of an ELF file as a process has mapped it: for a library whose file was replaced
 * while the process runs. By the hash tables that its own loader uses, so that few bytes are read,
 * and all of them may have been made up. */
#include <elf.h>
#include <errno.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "proc/proc_internal.h"

#define SEGMENTS_MAX 64
#define DYNAMIC_MAX  256  /* entries */
#define CHAIN_MAX    1000 /* symbols of one hash value */
#define NAME_MAX_LEN 64
#define BUCKETS_MAX  (1u << 24)

struct image {
    const struct proc_memory *memory;
    uint64_t base, bias; /* bias: what is added to the addresses in the file */
    uint64_t symbols, names, hash, gnu_hash;
};

static bool get(const struct image *m, uint64_t address, void *to, size_t len)
{
    return m->memory->read(m->memory->context, address, to, len) == 0;
}

/* glibc writes real addresses into the table, musl leaves those of the file. */
static uint64_t real_address(const struct image *m, uint64_t address)
{
    return address < m->base ? address + m->bias : address;
}

static bool read_dynamic(struct image *m, const Elf64_Phdr *segment)
{
    uint64_t at = segment->p_vaddr + m->bias;
    size_t n = segment->p_memsz / sizeof(Elf64_Dyn);
    for (size_t i = 0; i < n && i < DYNAMIC_MAX; i++) {
        Elf64_Dyn entry;
        if (!get(m, at + i * sizeof(entry), &entry, sizeof(entry)))
            return false;
        uint64_t value = real_address(m, entry.d_un.d_ptr);
        if (entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag == DT_SYMTAB)
            m->symbols = value;
        else if (entry.d_tag == DT_STRTAB)
            m->names = value;
        else if (entry.d_tag == DT_HASH)
            m->hash = value;
        else if (entry.d_tag == DT_GNU_HASH)
            m->gnu_hash = value;
    }
    return m->symbols && m->names && (m->hash || m->gnu_hash);
}

static int open_image(struct image *m, struct err *err)
{
    Elf64_Ehdr header;
    Elf64_Phdr segments[SEGMENTS_MAX], *dynamic = NULL;
    if (!get(m, m->base, &header, sizeof(header)))
        return err_set(err, ERR_INVALID, "its memory cannot be read");
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > SEGMENTS_MAX ||
        !get(m, m->base + header.e_phoff, segments, header.e_phnum * sizeof(*segments)))
        return err_set(err, ERR_INVALID, "no ELF64 file is mapped there");
    m->bias = m->base;
    for (size_t i = 0; i < header.e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD && segments[i].p_offset == 0)
            m->bias = m->base - segments[i].p_vaddr;
        else if (segments[i].p_type == PT_DYNAMIC)
            dynamic = &segments[i];
    }
    if (!dynamic || !read_dynamic(m, dynamic))
        return err_set(err, ERR_INVALID, "what is mapped there has no dynamic symbols");
    return 0;
}

static bool is_symbol(const struct image *m, uint32_t index, const char *name, uint64_t *ret)
{
    Elf64_Sym symbol;
    char found[NAME_MAX_LEN];
    size_t len = strlen(name) + 1;
    if (len > sizeof(found) ||
        !get(m, m->symbols + index * sizeof(symbol), &symbol, sizeof(symbol)) ||
        symbol.st_shndx == SHN_UNDEF || !get(m, m->names + symbol.st_name, found, len) ||
        memcmp(found, name, len) != 0)
        return false;
    *ret = symbol.st_value + m->bias;
    return true;
}

static uint64_t find_gnu(const struct image *m, const char *name)
{
    struct {
        uint32_t buckets, first, bloom, shift;
    } table;
    uint32_t hash = 5381, index, have;
    uint64_t value;
    for (const char *c = name; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    if (!get(m, m->gnu_hash, &table, sizeof(table)) || !table.buckets ||
        table.buckets > BUCKETS_MAX || table.bloom > BUCKETS_MAX)
        return 0;
    uint64_t buckets = m->gnu_hash + sizeof(table) + table.bloom * UINT64_C(8);
    uint64_t chains = buckets + table.buckets * UINT64_C(4);
    if (!get(m, buckets + hash % table.buckets * UINT64_C(4), &index, sizeof(index)) ||
        index < table.first)
        return 0;
    for (int i = 0; i < CHAIN_MAX; i++, index++) {
        if (!get(m, chains + (index - table.first) * UINT64_C(4), &have, sizeof(have)))
            return 0;
        if ((have | 1) == (hash | 1) && is_symbol(m, index, name, &value))
            return value;
        if (have & 1)
            return 0;
    }
    return 0;
}

static uint64_t find_sysv(const struct image *m, const char *name)
{
    struct {
        uint32_t buckets, chains;
    } table;
    uint32_t hash = 0, index;
    uint64_t value;
    for (const char *c = name; *c; c++) {
        hash = (hash << 4) + (unsigned char)*c;
        hash = (hash ^ (hash >> 24 & 0xf0)) & 0x0fffffff;
    }
    if (!get(m, m->hash, &table, sizeof(table)) || !table.buckets || table.buckets > BUCKETS_MAX)
        return 0;
    uint64_t buckets = m->hash + sizeof(table), chains = buckets + table.buckets * UINT64_C(4);
    if (!get(m, buckets + hash % table.buckets * UINT64_C(4), &index, sizeof(index)))
        return 0;
    for (int i = 0; i < CHAIN_MAX && index; i++) {
        if (is_symbol(m, index, name, &value))
            return value;
        if (!get(m, chains + index * UINT64_C(4), &index, sizeof(index)))
            return 0;
    }
    return 0;
}

int proc_image_symbols(const struct proc_memory *memory, uint64_t base, struct proc_symbol *symbols,
                       size_t n, struct err *err)
{
    struct image m = {.memory = memory, .base = base};
    int r = open_image(&m, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        symbols[i].value = m.gnu_hash ? find_gnu(&m, symbols[i].name) : 0;
        if (!symbols[i].value && m.hash)
            symbols[i].value = find_sysv(&m, symbols[i].name);
    }
    return 0;
}

/* Not by /proc/PID/mem, which is its owner's: CAP_SYS_PTRACE alone does not open it. */
static int read_process(void *context, uint64_t address, void *to, size_t len)
{
    const pid_t *pid = context;
    struct iovec local = {to, len}, remote = {(void *)(uintptr_t)address, len};
    ssize_t n = process_vm_readv(*pid, &local, 1, &remote, 1, 0);
    return n < 0 ? -errno : (size_t)n == len ? 0 : -EFAULT;
}

int proc_image_python(const struct proc_memory *memory, uint64_t base, struct str path,
                      struct proc_python *ret, struct err *err)
{
    struct proc_symbol symbols[] = {{.name = "_PyRuntime"}, {.name = "Py_Version"}};
    int r = proc_image_symbols(memory, base, symbols, ARRAY_SIZE(symbols), err);
    if (r < 0)
        return r;
    struct proc_python python = {.is_python = symbols[0].value != 0, .image = base};
    uint64_t hex = 0;
    if (python.is_python &&
        !(symbols[1].value &&
          memory->read(memory->context, symbols[1].value, &hex, sizeof(hex)) == 0 &&
          proc_version_of_hex(hex, python.version)))
        proc_version_of_path(path, python.version);
    *ret = python;
    return 0;
}

int proc_image_inspect(pid_t pid, uint64_t base, struct str path, struct proc_python *ret,
                       struct err *err)
{
    char first;
    struct proc_memory memory = {read_process, &pid};
    int e = read_process(&pid, base, &first, 1);
    if (e < 0)
        return err_set_errno(err, e == -ESRCH ? ENOENT : -e, "memory of process %d", (int)pid);
    return proc_image_python(&memory, base, path, ret, err);
}
