/* What a target can make up: texts of /proc (cgroup, stat), ELF files, and what it has mapped of
 * them. The first byte chooses. */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "proc/proc_internal.h"

static void cgroup(struct str text)
{
    struct str id = proc_cgroup_container(text);
    if (id.len == 0)
        return;
    FUZZ_CHECK(id.len == 64);
    FUZZ_CHECK(id.ptr >= text.ptr && id.ptr + id.len <= text.ptr + text.len);
    FUZZ_CHECK(proc_cgroup_matches(text, id));
    FUZZ_CHECK(!proc_cgroup_matches(text, str_sub(id, 0, 12)));
}

static void stat_text(struct str text)
{
    struct proc_stat stat = {0};
    struct err err = ERR_INIT;
    if (proc_stat_parse(text, &stat, &err) < 0)
        FUZZ_CHECK(err.code == ERR_PROTOCOL && stat.start_time == 0);
    else
        FUZZ_CHECK(stat.parent >= 0);
}

static void elf(struct str file)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && write(fd, file.ptr, file.len) == (ssize_t)file.len);
    struct proc_python python = {0};
    struct err err = ERR_INIT;
    int r = proc_elf_python(fd, STR("/usr/bin/python3.9"), &python, &err);
    FUZZ_CHECK(r == 0 || err.message[0] != '\0');
    FUZZ_CHECK(strnlen(python.version, sizeof(python.version)) < sizeof(python.version));
    FUZZ_CHECK(python.is_python || python.version[0] == '\0');
    close(fd);
}

#define BASE 0x10000u

static int read_image(void *context, uint64_t address, void *to, size_t len)
{
    const struct str *image = context;
    if (address < BASE || address - BASE > image->len || len > image->len - (address - BASE))
        return -1;
    memcpy(to, image->ptr + (address - BASE), len);
    return 0;
}

static void image(struct str bytes)
{
    struct proc_memory memory = {read_image, &bytes};
    struct proc_python python = {0};
    struct err err = ERR_INIT;
    int r = proc_image_python(&memory, BASE, STR("/lib/libpython3.9.so (deleted)"), &python, &err);
    FUZZ_CHECK(r == 0 || err.code == ERR_INVALID);
    FUZZ_CHECK(strnlen(python.version, sizeof(python.version)) < sizeof(python.version));
    FUZZ_CHECK(python.is_python || python.version[0] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct str rest = {(const char *)bytes + 1, len - 1};
    switch (bytes[0] % 4) {
    case 0:
        cgroup(rest);
        break;
    case 1:
        stat_text(rest);
        break;
    case 2:
        elf(rest);
        break;
    default:
        image(rest);
        break;
    }
    return 0;
}
