#include "sample/memory.h"

#include <errno.h>

#include "base/clock.h"

static ssize_t process_read(struct memory_reader *self, const struct iovec *local,
                            const struct iovec *remote, size_t n)
{
    const struct memory_process *m = (const struct memory_process *)(const void *)self;
    ssize_t r = process_vm_readv(m->pid, local, n, remote, n, 0);
    return r < 0 ? -errno : r;
}

void memory_process_init(struct memory_process *m, pid_t pid)
{
    *m = (struct memory_process){.reader = {.read = process_read}, .pid = pid};
}

int64_t memory_now_ms(void)
{
    return clock_read_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
}

bool memory_late(const struct memory_reader *r)
{
    return r->deadline_ms && memory_now_ms() >= r->deadline_ms;
}

static int read_all(struct memory_reader *r, const struct iovec *local, const struct iovec *remote,
                    size_t n, size_t bytes)
{
    if (memory_late(r))
        return -ETIME;
    r->calls++;
    ssize_t got = r->read(r, local, remote, n);
    if (got < 0)
        return (int)got;
    return (size_t)got == bytes ? 0 : -EFAULT;
}

int memory_read(struct memory_reader *r, uint64_t address, void *to, size_t len)
{
    struct iovec local = {to, len}, remote = {(void *)(uintptr_t)address, len};
    return read_all(r, &local, &remote, 1, len);
}

bool memory_batch_add(struct memory_batch *b, uint64_t address, void *to, size_t len)
{
    if (b->n == MEMORY_PIECES_MAX)
        return false;
    b->local[b->n] = (struct iovec){to, len};
    b->remote[b->n] = (struct iovec){(void *)(uintptr_t)address, len};
    b->n++;
    b->bytes += len;
    return true;
}

int memory_batch_read(struct memory_reader *r, struct memory_batch *b)
{
    if (!b->n)
        return 0;
    int64_t begun = clock_read_ns(CLOCK_MONOTONIC);
    int result = read_all(r, b->local, b->remote, b->n, b->bytes);
    b->took_ns = clock_read_ns(CLOCK_MONOTONIC) - begun;
    b->n = b->bytes = 0;
    return result;
}
