/* A bounded reader of ELF64 files, for two questions only: does this file define CPython, and which
 * version is it. Every offset and size comes from a file that the target may have made up. */
#include <elf.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "proc/proc_internal.h"

#define SECTIONS_MAX 4096
#define STRINGS_MAX  (32u << 20)
#define SYMBOLS_MAX  2000000u
#define NAMES_MAX    (1u << 20)
#define RODATA_MAX   (64u << 20)
#define OLDEST       8 /* minor versions that are looked for in texts */
#define NEWEST       14
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
    size_t n_sections, names; /* names: the section that holds those of the sections */
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
    e->names = header.e_shstrndx;
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

/* 0x030b02f0 is 3.11.2 final. */
bool proc_version_of_hex(uint64_t hex, char version[static 16])
{
    unsigned major = (unsigned)(hex >> 24) & 0xff, minor = (unsigned)(hex >> 16) & 0xff;
    if (major < 3 || major > 9)
        return false;
    snprintf(version, 16, "%u.%u.%u", major, minor, (unsigned)(hex >> 8) & 0xff);
    return true;
}

/* Py_Version (3.11 and later) holds PY_VERSION_HEX. */
static bool version_of_symbol(const struct elf *e, uint64_t address, char version[static 16])
{
    for (size_t i = 0; i < e->n_sections; i++) {
        const Elf64_Shdr *s = &e->sections[i];
        if (s->sh_type != SHT_PROGBITS || address < s->sh_addr ||
            address - s->sh_addr >= s->sh_size)
            continue;
        uint64_t hex = 0;
        return read_at(e, s->sh_offset + (address - s->sh_addr), &hex, sizeof(hex), NULL) == 0 &&
               proc_version_of_hex(hex, version);
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
bool proc_version_of_path(struct str path, char version[static 16])
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
    for (struct str rest = rodata; rest.ptr;) {
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

/* From 3.10 on _PyRuntime has a section of its own, which is there in stripped files, too. */
static const Elf64_Shdr *runtime_section(const struct elf *e)
{
    static const char wanted[] = ".PyRuntime";
    if (e->names >= e->n_sections || e->sections[e->names].sh_size > NAMES_MAX)
        return NULL;
    size_t len = e->sections[e->names].sh_size;
    _cleanup_(freep) char *names = xcalloc(len + 1, 1);
    if (read_at(e, e->sections[e->names].sh_offset, names, len, NULL) < 0)
        return NULL;
    for (size_t i = 0; i < e->n_sections; i++)
        if (e->sections[i].sh_name < len && e->sections[i].sh_type == SHT_PROGBITS &&
            strcmp(names + e->sections[i].sh_name, wanted) == 0)
            return &e->sections[i];
    return NULL;
}

/* From 3.13 on it begins with what debuggers need: a mark, and PY_VERSION_HEX. */
static bool version_of_runtime(const struct elf *e, const Elf64_Shdr *section,
                               char version[static 16])
{
    uint64_t words[2];
    return section && read_at(e, section->sh_offset, words, sizeof(words), NULL) == 0 &&
           memcmp(words, "xdebugpy", 8) == 0 && proc_version_of_hex(words[1], version);
}

/* .rodata is the largest of the constant sections; its name would need another table to be read.
 * Empty: there is none, or it is too large. The caller frees its bytes; a NUL follows them. */
static struct str read_texts(const struct elf *e)
{
    const Elf64_Shdr *rodata = NULL;
    for (size_t i = 0; i < e->n_sections; i++) {
        const Elf64_Shdr *s = &e->sections[i];
        if (s->sh_type == SHT_PROGBITS &&
            (s->sh_flags & ~(uint64_t)(SHF_MERGE | SHF_STRINGS)) == SHF_ALLOC &&
            (!rodata || s->sh_size > rodata->sh_size))
            rodata = s;
    }
    if (!rodata || rodata->sh_size > RODATA_MAX || rodata->sh_offset > e->size ||
        rodata->sh_size > e->size - rodata->sh_offset)
        return STR_NULL;
    _cleanup_(freep) char *bytes = xcalloc(rodata->sh_size + 1, 1);
    if (read_at(e, rodata->sh_offset, bytes, rodata->sh_size, NULL) < 0)
        return STR_NULL;
    size_t len = rodata->sh_size;
    return (struct str){TAKE(bytes), len};
}

/* What every CPython from 3.8 on says somewhere, and hardly anything else all of. What follows the
 * first one tells it from the programs that look for it. */
static bool texts_are_python(struct str texts)
{
    static const char *const said[] = {"PYTHONHASHSEED must be ",
                                       "Fatal Python error: ", "_frozen_importlib"};
    for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
        ssize_t at = texts.len ? str_find(texts, str_of(said[i])) : -1;
        if (at < 0 || (i == 0 && texts.ptr[(size_t)at + strlen(said[i])] != '"'))
            return false;
    }
    return true;
}

/* A "python3.10" of a single minor version, the name of the folder of its library; or else a single
 * text that is a version. */
static bool version_of_texts(struct str texts, char version[static 16])
{
    char named[16] = "", told[16] = "", minor[16], text[16];
    bool several_named = false, several_told = false;
    for (unsigned i = OLDEST; i <= NEWEST; i++) {
        int len = snprintf(text, sizeof(text), "python3.%u", i) + 1;
        snprintf(minor, sizeof(minor), "3.%u", i);
        if (texts.len && memmem(texts.ptr, texts.len, text, (size_t)len)) {
            several_named = several_named || named[0];
            memcpy(named, minor, sizeof(named));
        }
        if (version_of_text(texts, str_of(minor), text)) {
            several_told = several_told || told[0];
            memcpy(told, text, sizeof(told));
        }
    }
    if (named[0] && !several_named)
        memcpy(version, named, sizeof(named));
    else if (told[0] && !several_told)
        memcpy(version, told, sizeof(told));
    else
        return false;
    return true;
}

static void guess_version(struct str texts, struct str path, char version[static 16])
{
    if (!proc_version_of_path(path, version) && !version_of_texts(texts, version))
        return;
    char minor[16];
    memcpy(minor, version, sizeof(minor));
    if (str_rfind_char(str_of(minor), '.') == 1)
        version_of_text(texts, str_of(minor), version);
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
    const Elf64_Shdr *runtime = runtime_section(&e);
    struct proc_python python = {.is_python = symbols.is_python || runtime};
    if (!python.is_python || !((symbols.version_address &&
                                version_of_symbol(&e, symbols.version_address, python.version)) ||
                               version_of_runtime(&e, runtime, python.version))) {
        struct str texts = read_texts(&e);
        python.is_python = python.is_python || texts_are_python(texts);
        if (python.is_python)
            guess_version(texts, path, python.version);
        free((char *)texts.ptr);
    }
    *ret = python;
    return 0;
}
