/* Where CPython lies, by files and memory that a target can make up. The first byte chooses. */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "sample/sample_internal.h"

#define BASE 0x10000u

struct memory {
    struct memory_reader reader;
    struct str bytes;
};

static ssize_t read_bytes(struct memory_reader *self, const struct iovec *local,
                          const struct iovec *remote, size_t n)
{
    const struct memory *m = (const struct memory *)(const void *)self;
    ssize_t done = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = (uintptr_t)remote[i].iov_base - BASE;
        if (at > m->bytes.len || remote[i].iov_len > m->bytes.len - at)
            return done ? done : -1;
        memcpy(local[i].iov_base, m->bytes.ptr + at, local[i].iov_len);
        done += (ssize_t)local[i].iov_len;
    }
    return done;
}

static void file(struct str bytes)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes.ptr, bytes.len) == (ssize_t)bytes.len);
    struct file_symbols found;
    struct err err = ERR_INIT;
    int r = symbols_of_file(fd, &found, &err);
    FUZZ_CHECK(r == 0 || err.code == ERR_INVALID);
    close(fd);
}

static void search(struct str bytes)
{
    struct memory m = {.reader = {.read = read_bytes}, .bytes = bytes};
    for (unsigned minor = 8; minor <= 9; minor++) {
        const struct python_offsets *o = offsets_find(minor);
        uint64_t at = runtime_search(&m.reader, o, BASE, bytes.len);
        FUZZ_CHECK(!at || at + o->runtime_interpreters - BASE < bytes.len);
        FUZZ_CHECK(m.reader.deadline_ms == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct str rest = {(const char *)bytes + 1, len - 1};
    if (bytes[0] % 2)
        search(rest);
    else
        file(rest);
    return 0;
}
