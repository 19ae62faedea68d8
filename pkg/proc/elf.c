/* A bounded reader of ELF64 files, for two questions only: does this file define CPython, and which
 * version is it. Every offset and size comes from a file that the target may have made up. */
#include <elf.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "proc/proc.h"

#define SECTIONS_MAX 4096
#define STRINGS_MAX  (32u << 20)
#define SYMBOLS_MAX  2000000u
#define RODATA_MAX   (64u << 20)
#define CHUNK        4096u

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OUR_ORDER ELFDATA2LSB
#else
#define OUR_ORDER ELFDATA2MSB
#endif

struct elf {
    int fd;
    uint64_t size;
    Elf64_Shdr *sections;
    size_t n_sections;
};

struct symbols {
    bool is_python;
    uint64_t version_address; /* of Py_Version; 0 none */
};

static void elf_finish(struct elf *e)
{
    free(e->sections);
}

static int read_at(const struct elf *e, uint64_t offset, void *to, size_t len, struct err *err)
{
    if (offset > e->size || len > e->size - offset)
        return err_set(err, ERR_INVALID, "an ELF file is cut off");
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(e->fd, (char *)to + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read an ELF file");
        if (n == 0)
            return err_set(err, ERR_INVALID, "an ELF file is cut off");
        done += (size_t)n;
    }
    return 0;
}

/* ERR_INVALID: no ELF file that this machine would run. */
static int elf_open(struct elf *e, int fd, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "look at an ELF file");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "not a regular file");
    *e = (struct elf){.fd = fd, .size = (uint64_t)st.st_size};

    Elf64_Ehdr header = {0};
    int r = read_at(e, 0, &header, sizeof(header), err);
    if (r < 0)
        return r;
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_ident[EI_DATA] != OUR_ORDER || header.e_shentsize != sizeof(Elf64_Shdr))
        return err_set(err, ERR_INVALID, "not an ELF64 file with sections");
    if (header.e_shnum == 0 || header.e_shnum > SECTIONS_MAX)
        return err_set(err, ERR_INVALID, "an ELF file with %u sections", header.e_shnum);

    _cleanup_(freep) Elf64_Shdr *sections = xcalloc(header.e_shnum, sizeof(*sections));
    r = read_at(e, header.e_shoff, sections, header.e_shnum * sizeof(*sections), err);
    if (r < 0)
        return r;
    e->sections = TAKE(sections);
    e->n_sections = header.e_shnum;
    return 0;
}

/* Only defined symbols count: what merely calls CPython has them undefined. */
static void look_at_symbol(const Elf64_Sym *symbol, const char *strings, size_t strings_len,
                           struct symbols *ret)
{
    if (symbol->st_shndx == SHN_UNDEF || symbol->st_name >= strings_len)
        return;
    const char *name = strings + symbol->st_name;
    if (name[0] != '_' && name[0] != 'P')
        return;
    struct str s = {name, strnlen(name, strings_len - symbol->st_name)};
    if (str_is(s, "_PyRuntime") || str_is(s, "Py_GetVersion") || str_is(s, "Py_BytesMain"))
        ret->is_python = true;
    else if (str_is(s, "Py_Version") && symbol->st_size == sizeof(unsigned long))
        ret->version_address = symbol->st_value;
}

static int read_symbols(const struct elf *e, const Elf64_Shdr *table, struct symbols *ret,
                        struct err *err)
{
    if (table->sh_entsize != sizeof(Elf64_Sym) || table->sh_link >= e->n_sections)
        return err_set(err, ERR_INVALID, "an ELF file with a strange symbol table");
    const Elf64_Shdr *names = &e->sections[table->sh_link];
    uint64_t count = table->sh_size / sizeof(Elf64_Sym);
    if (names->sh_size > STRINGS_MAX || count > SYMBOLS_MAX)
        return err_set(err, ERR_TOO_LARGE, "an ELF file's symbol table is too large");

    _cleanup_(freep) char *strings = xcalloc(names->sh_size + 1, 1);
    int r = read_at(e, names->sh_offset, strings, names->sh_size, err);
    if (r < 0)
        return r;
    _cleanup_(freep) Elf64_Sym *chunk = xcalloc(CHUNK, sizeof(*chunk));
    for (uint64_t at = 0; at < count;) {
        size_t n = count - at < CHUNK ? (size_t)(count - at) : CHUNK;
        r = read_at(e, table->sh_offset + at * sizeof(*chunk), chunk, n * sizeof(*chunk), err);
        if (r < 0)
            return r;
        for (size_t i = 0; i < n; i++)
            look_at_symbol(&chunk[i], strings, names->sh_size, ret);
        at += n;
    }
    return 0;
}

/* Py_Version (3.11 and later) holds PY_VERSION_HEX: 0x030b02f0 is 3.11.2 final. */
static bool version_of_symbol(const struct elf *e, uint64_t address, char version[static 16])
{
    for (size_t i = 0; i < e->n_sections; i++) {
        const Elf64_Shdr *s = &e->sections[i];
        if (s->sh_type != SHT_PROGBITS || address < s->sh_addr ||
            address - s->sh_addr >= s->sh_size)
            continue;
        uint64_t hex = 0;
        if (read_at(e, s->sh_offset + (address - s->sh_addr), &hex, sizeof(hex), NULL) < 0)
            return false;
        unsigned major = (unsigned)(hex >> 24) & 0xff, minor = (unsigned)(hex >> 16) & 0xff;
        if (major < 3 || major > 9)
            return false;
        snprintf(version, 16, "%u.%u.%u", major, minor, (unsigned)(hex >> 8) & 0xff);
        return true;
    }
    return false;
}

static size_t digits(struct str s)
{
    size_t n = 0;
    while (n < s.len && n < 3 && s.ptr[n] >= '0' && s.ptr[n] <= '9')
        n++;
    return n;
}

/* "libpython3.11.so.1.0", "python3.11", "libpython3.6m.so": the part "3.11". */
static bool version_of_path(struct str path, char version[static 16])
{
    ssize_t slash = str_rfind_char(path, '/');
    struct str name = slash < 0 ? path : str_sub(path, (size_t)slash + 1, path.len);
    ssize_t at = str_find(name, STR("python"));
    if (at < 0)
        return false;
    struct str rest = str_sub(name, (size_t)at + STR("python").len, name.len);
    size_t major = digits(rest);
    if (major != 1 || rest.len < 3 || rest.ptr[1] != '.')
        return false;
    size_t minor = digits(str_sub(rest, 2, rest.len));
    if (minor == 0)
        return false;
    snprintf(version, 16, "%.*s", (int)(2 + minor), rest.ptr);
    return true;
}

/* Before 3.11 the whole version stands only in Py_GetVersion()'s text: a "3.8.18" that ends in NUL
 * (linkers let it share its bytes with a longer text that ends the same, such as a prefix). Taken
 * when the file names the minor version and no other patch level of it appears. */
static bool version_of_text(struct str rodata, struct str minor, char version[static 16])
{
    char found[16] = "";
    for (struct str rest = rodata;;) {
        ssize_t at = str_find(rest, minor);
        if (at < 0)
            break;
        struct str behind = str_sub(rest, (size_t)at + minor.len, rest.len);
        bool starts = at == 0 || ((rest.ptr[at - 1] < '0' || rest.ptr[at - 1] > '9') &&
                                  rest.ptr[at - 1] != '.');
        rest = behind;
        if (!starts || behind.len < 3 || behind.ptr[0] != '.')
            continue;
        size_t patch = digits(str_sub(behind, 1, behind.len));
        size_t end = 1 + patch;
        if (end < behind.len && behind.ptr[end] == '+')
            end++;
        if (patch == 0 || end >= behind.len || behind.ptr[end] != '\0')
            continue;
        char text[16];
        snprintf(text, sizeof(text), "%.*s%.*s", STR_ARG(minor), (int)(1 + patch), behind.ptr);
        if (found[0] && strncmp(found, text, sizeof(found)) != 0)
            return false;
        memcpy(found, text, sizeof(found));
    }
    if (found[0])
        memcpy(version, found, sizeof(found));
    return found[0] != '\0';
}

/* .rodata is the largest of the constant sections; its name would need another table to be read. */
static void refine_version(const struct elf *e, char version[static 16])
{
    const Elf64_Shdr *rodata = NULL;
    for (size_t i = 0; i < e->n_sections; i++) {
        const Elf64_Shdr *s = &e->sections[i];
        if (s->sh_type == SHT_PROGBITS &&
            (s->sh_flags & ~(uint64_t)(SHF_MERGE | SHF_STRINGS)) == SHF_ALLOC &&
            (!rodata || s->sh_size > rodata->sh_size))
            rodata = s;
    }
    if (!rodata || rodata->sh_size > RODATA_MAX)
        return;
    _cleanup_(freep) char *bytes = xcalloc(rodata->sh_size + 1, 1);
    if (read_at(e, rodata->sh_offset, bytes, rodata->sh_size, NULL) < 0)
        return;
    char minor[16];
    memcpy(minor, version, sizeof(minor));
    version_of_text((struct str){bytes, rodata->sh_size}, str_of(minor), version);
}

int proc_elf_python(int fd, struct str path, struct proc_python *ret, struct err *err)
{
    _cleanup_(elf_finish) struct elf e = {0};
    struct err ignored = ERR_INIT;
    int r = elf_open(&e, fd, &ignored);
    if (r == ERR_INVALID) {
        *ret = (struct proc_python){0};
        return 0;
    }
    if (r < 0) {
        if (err)
            *err = ignored;
        return r;
    }

    /* A file has one table of each kind. Thousands of sections may claim the same bytes, and
     * reading them all would take hours. */
    bool seen_dynamic = false, seen_static = false;
    struct symbols symbols = {0};
    for (size_t i = 0; i < e.n_sections; i++) {
        const Elf64_Shdr *s = &e.sections[i];
        bool *seen = s->sh_type == SHT_DYNSYM ? &seen_dynamic : &seen_static;
        if ((s->sh_type != SHT_DYNSYM && s->sh_type != SHT_SYMTAB) || *seen)
            continue;
        *seen = true;
        r = read_symbols(&e, s, &symbols, err);
        if (r == ERR_INVALID)
            continue;
        if (r < 0)
            return r;
    }
    struct proc_python python = {.is_python = symbols.is_python};
    if (python.is_python &&
        !(symbols.version_address &&
          version_of_symbol(&e, symbols.version_address, python.version)) &&
        version_of_path(path, python.version))
        refine_version(&e, python.version);
    *ret = python;
    return 0;
}
