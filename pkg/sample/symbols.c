/* Finds CPython's data in a process: the file by pkg/proc, its symbols by libelf, the place it was
 * loaded to by /proc/PID/maps. Files belong to the target and may hold anything; they are read, not
 * mapped, because a mapped file that shrinks kills its reader. */
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <unistd.h>

#include "proc/proc.h"
#include "sample/sample_internal.h"

#define MAPS_MAX     (8u << 20)
#define SECTION_MAX  (48u << 20)
#define SYMBOLS_MAX  2000000
#define SECTIONS_MAX 4096
#define NAMES_MAX    (1u << 20)
#define OUR_ORDER    (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB)

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static void elf_endp(Elf **e)
{
    elf_end(*e);
}

struct wanted {
    const char *name;
    uint64_t value;
};

static void search_symbols(Elf *elf, Elf_Scn *section, const GElf_Shdr *header, struct wanted *w,
                           size_t n)
{
    /* libelf reads sections whole. */
    GElf_Shdr strings;
    Elf_Scn *names = elf_getscn(elf, header->sh_link);
    if (header->sh_size > SECTION_MAX || !header->sh_entsize || !names ||
        !gelf_getshdr(names, &strings) || strings.sh_size > SECTION_MAX)
        return;
    Elf_Data *data = elf_getdata(section, NULL);
    if (!data)
        return;
    size_t count = data->d_size / header->sh_entsize;
    for (size_t i = 0; i < count && i < SYMBOLS_MAX; i++) {
        GElf_Sym symbol;
        if (!gelf_getsym(data, (int)i, &symbol) || symbol.st_shndx == SHN_UNDEF ||
            GELF_ST_TYPE(symbol.st_info) != STT_OBJECT)
            continue;
        const char *name = elf_strptr(elf, header->sh_link, symbol.st_name);
        for (size_t k = 0; name && k < n; k++)
            if (!w[k].value && strcmp(name, w[k].name) == 0)
                w[k].value = symbol.st_value;
    }
}

/* From 3.13 on a section of its own holds _PyRuntime, so that it is found without symbols. */
static uint64_t runtime_section(Elf *elf)
{
    size_t names;
    GElf_Shdr header;
    if (elf_getshdrstrndx(elf, &names) < 0 || !gelf_getshdr(elf_getscn(elf, names), &header) ||
        header.sh_size > NAMES_MAX)
        return 0;
    for (Elf_Scn *s = elf_nextscn(elf, NULL); s; s = elf_nextscn(elf, s)) {
        if (!gelf_getshdr(s, &header))
            continue;
        const char *name = elf_strptr(elf, names, header.sh_name);
        if (name && strcmp(name, ".PyRuntime") == 0)
            return header.sh_addr;
    }
    return 0;
}

/* The address that the first byte of the file has before it is moved. ERR_INVALID: none. */
static int first_address(Elf *elf, uint64_t *ret, struct err *err)
{
    size_t n;
    if (elf_getphdrnum(elf, &n) < 0)
        return err_set(err, ERR_INVALID, "it has no segments");
    for (size_t i = 0; i < n && i < 4096; i++) {
        GElf_Phdr segment;
        if (gelf_getphdr(elf, (int)i, &segment) && segment.p_type == PT_LOAD &&
            segment.p_offset < 4096) {
            *ret = segment.p_vaddr - segment.p_offset;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "it does not load its own beginning");
}

/* Where the first byte of the file at `path` is mapped. */
static int mapped_at(int proc, pid_t pid, struct str path, uint64_t *ret, struct err *err)
{
    char name[32];
    snprintf(name, sizeof(name), "%d/maps", (int)pid);
    _cleanup_(buf_finish) struct buf maps = BUF_INIT(MAPS_MAX);
    int r = buf_read_file_at(&maps, proc, name, err);
    if (r < 0)
        return err_wrap(err, "memory map");
    for (struct str rest = buf_str(&maps); rest.ptr;) {
        struct str line = str_cut(&rest, '\n'), fields = line;
        struct str range = str_cut(&fields, ' ');
        str_cut(&fields, ' ');
        struct str offset = str_cut(&fields, ' ');
        ssize_t slash = str_find_char(fields, '/');
        if (slash < 0 || !str_eq(str_sub(fields, (size_t)slash, fields.len), path) ||
            !str_is(offset, "00000000"))
            continue;
        char hex[20];
        struct str first = str_cut(&range, '-');
        snprintf(hex, sizeof(hex), "%.*s", STR_ARG(first));
        *ret = strtoull(hex, NULL, 16);
        return 0;
    }
    return err_set(err, ERR_INVALID, "%.*s is not mapped from its beginning", STR_ARG(path));
}

static int open_file(int proc, pid_t pid, struct arena *arena, struct str path, int *ret,
                     struct err *err)
{
    char name[32], link[PATH_MAX];
    snprintf(name, sizeof(name), "%d/exe", (int)pid);
    ssize_t n = readlinkat(proc, name, link, sizeof(link));
    /* The link works for a file that was replaced, too. */
    if (n > 0 && str_eq((struct str){link, (size_t)n}, path)) {
        *ret = openat(proc, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (*ret >= 0)
            return 0;
    }
    return proc_open_in_root(proc, pid, arena, path, ret, err);
}

/* libelf takes the table of sections as large as it says it is, which may be gigabytes of a file
 * full of holes. */
static bool plausible(int fd)
{
    Elf64_Ehdr header;
    return pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
           memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
           header.e_shnum > 0 && header.e_shnum <= SECTIONS_MAX && header.e_phnum != PN_XNUM;
}

int symbols_of_file(int fd, struct symbols *ret, uint64_t *ret_first, struct err *err)
{
    elf_version(EV_CURRENT);
    _cleanup_(elf_endp) Elf *elf = plausible(fd) ? elf_begin(fd, ELF_C_READ, NULL) : NULL;
    if (!elf || elf_kind(elf) != ELF_K_ELF)
        return err_set(err, ERR_INVALID, "it is no ELF64 file with sections");

    struct wanted wanted[] = {{"_PyRuntime", 0}, {"PyCode_Type", 0}};
    /* A file has one table of each kind; thousands may claim the same bytes. */
    static const uint32_t kinds[] = {SHT_DYNSYM, SHT_SYMTAB};
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        if (wanted[0].value && wanted[1].value)
            break;
        GElf_Shdr header = {0};
        Elf_Scn *s = elf_nextscn(elf, NULL);
        while (s && !(gelf_getshdr(s, &header) && header.sh_type == kinds[k]))
            s = elf_nextscn(elf, s);
        if (s)
            search_symbols(elf, s, &header, wanted, ARRAY_SIZE(wanted));
    }
    uint64_t runtime = wanted[0].value ? wanted[0].value : runtime_section(elf), first = 0;
    if (!runtime)
        return err_set(err, ERR_INVALID, "it does not tell where _PyRuntime is");
    int r = first_address(elf, &first, err);
    if (r < 0)
        return r;
    *ret = (struct symbols){.runtime = runtime, .code_type = wanted[1].value};
    *ret_first = first;
    return 0;
}

int symbols_find(int proc, pid_t pid, struct symbols *ret, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_python python;
    int r = proc_inspect_python(proc, arena, pid, &python, err);
    if (r < 0)
        return r;
    if (!python.is_python)
        return err_set(err, ERR_INVALID, "process %d does not run CPython", (int)pid);

    _cleanup_(close_fdp) int fd = -1;
    r = open_file(proc, pid, arena, python.library, &fd, err);
    if (r < 0)
        return r;
    struct symbols found = {0};
    uint64_t linked = 0, loaded = 0;
    r = symbols_of_file(fd, &found, &linked, err);
    if (r < 0)
        return err_wrap(err, "%.*s", STR_ARG(python.library));
    r = mapped_at(proc, pid, python.library, &loaded, err);
    if (r < 0)
        return r;
    *ret = (struct symbols){
        .runtime = found.runtime - linked + loaded,
        .code_type = found.code_type ? found.code_type - linked + loaded : 0,
    };
    memcpy(ret->version, python.version, sizeof(ret->version));
    return 0;
}
