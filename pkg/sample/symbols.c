/* Finds CPython's data in a process: the file by pkg/proc, its symbols by libelf, the place it was
 * loaded to by /proc/PID/maps. Files belong to the target and may hold anything; they are read, not
 * mapped, because a mapped file that shrinks kills its reader. */
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

#include "proc/proc.h"
#include "sample/sample_internal.h"

#define MAPS_MAX     (8u << 20)
#define SECTION_MAX  (48u << 20)
#define SYMBOLS_MAX  2000000
#define SECTIONS_MAX 4096
#define SEGMENTS_MAX 4096
#define NAMES_MAX    (1u << 20)
#define OUR_ORDER    (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB)

/* The tables of one file may take a hundred MiB, so that they are read of one process at a time.
 * Not so memory, which need not come back. */
static pthread_mutex_t files = PTHREAD_MUTEX_INITIALIZER;

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

/* From 3.10 on a section of its own holds _PyRuntime, so that it is found without symbols. */
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

/* ERR_INVALID: it does not load its own beginning. */
static int read_segments(Elf *elf, struct file_symbols *ret, struct err *err)
{
    size_t n;
    bool found = false;
    if (elf_getphdrnum(elf, &n) < 0)
        return err_set(err, ERR_INVALID, "it has no segments");
    for (size_t i = 0; i < n && i < SEGMENTS_MAX; i++) {
        GElf_Phdr segment;
        if (!gelf_getphdr(elf, (int)i, &segment) || segment.p_type != PT_LOAD)
            continue;
        if (segment.p_flags & PF_W) {
            ret->data = segment.p_vaddr;
            ret->data_len = segment.p_memsz;
        }
        if (!found && segment.p_offset < 4096) {
            ret->first = segment.p_vaddr - segment.p_offset;
            found = true;
        }
    }
    return found ? 0 : err_set(err, ERR_INVALID, "it does not load its own beginning");
}

static int read_maps(int proc, pid_t pid, struct buf *ret, struct err *err)
{
    char name[32];
    snprintf(name, sizeof(name), "%d/maps", (int)pid);
    int r = buf_read_file_at(ret, proc, name, err);
    return r < 0 ? err_wrap(err, "memory map") : 0;
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

int symbols_of_file(int fd, struct file_symbols *ret, struct err *err)
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
    struct file_symbols found = {.runtime = wanted[0].value, .code_type = wanted[1].value};
    if (!found.runtime)
        found.runtime = runtime_section(elf);
    int r = read_segments(elf, &found, err);
    if (r == 0)
        *ret = found;
    return r;
}

unsigned version_minor(const char *version)
{
    struct str rest = str_of(version);
    int64_t minor = 0;
    if (!str_eq(str_cut(&rest, '.'), STR("3")) ||
        str_to_i64(str_cut(&rest, '.'), 0, 99, &minor) < 0)
        return 0;
    return (unsigned)minor;
}

static int read_memory(void *context, uint64_t address, void *to, size_t len)
{
    return memory_read(context, address, to, len);
}

/* What was found is as CPython has it in memory. */
static int find_in_memory(struct memory_reader *reader, uint64_t base, struct symbols *ret,
                          struct err *err)
{
    struct proc_symbol wanted[] = {{.name = "_PyRuntime"}, {.name = "PyCode_Type"}};
    struct proc_memory memory = {read_memory, reader};
    int r = proc_image_symbols(&memory, base, wanted, ARRAY_SIZE(wanted), err);
    if (r < 0)
        return r;
    if (!wanted[0].value)
        return err_set(err, ERR_INVALID, "it does not tell where _PyRuntime is");
    ret->runtime = wanted[0].value;
    ret->code_type = wanted[1].value;
    return 0;
}

static int find_in_file(int proc, pid_t pid, struct memory_reader *reader, struct arena *arena,
                        const struct proc_python *python, struct symbols *ret, struct err *err)
{
    _cleanup_(close_fdp) int fd = -1;
    int r = open_file(proc, pid, arena, python->library, &fd, err);
    if (r < 0)
        return r;
    struct file_symbols found = {0};
    pthread_mutex_lock(&files);
    r = symbols_of_file(fd, &found, err);
    pthread_mutex_unlock(&files);
    if (r < 0)
        return r;
    _cleanup_(buf_finish) struct buf maps = BUF_INIT(MAPS_MAX);
    r = read_maps(proc, pid, &maps, err);
    if (r < 0)
        return r;
    uint64_t loaded = proc_mapped_at(buf_str(&maps), python->library);
    if (!loaded)
        return err_set(err, ERR_INVALID, "it is not mapped from its beginning");
    uint64_t bias = loaded - found.first;
    const struct python_offsets *o = offsets_find(version_minor(python->version));
    ret->code_type = found.code_type ? found.code_type + bias : 0;
    if (found.runtime)
        ret->runtime = found.runtime + bias;
    else if (o)
        ret->runtime = runtime_search(reader, o, found.data + bias, found.data_len);
    return ret->runtime ? 0 : err_set(err, ERR_INVALID, "it does not tell where _PyRuntime is");
}

int symbols_find(int proc, pid_t pid, struct memory_reader *reader, struct symbols *ret,
                 struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_python python;
    pthread_mutex_lock(&files);
    int r = proc_inspect_python(proc, arena, pid, &python, err);
    pthread_mutex_unlock(&files);
    if (r < 0)
        return r;
    if (!python.is_python)
        return err_set(err, ERR_INVALID, "process %d does not run CPython", (int)pid);
    struct symbols found = {0};
    r = python.image ? find_in_memory(reader, python.image, &found, err)
                     : find_in_file(proc, pid, reader, arena, &python, &found, err);
    if (r < 0)
        return err_wrap(err, "%.*s", STR_ARG(python.library));
    memcpy(found.version, python.version, sizeof(found.version));
    *ret = found;
    return 0;
}
