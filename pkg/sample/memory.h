/* Reading another process's memory, through a seam: the process itself, or an image in tests and
 * fuzzers. Nothing is ever written, and nothing stops the process. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"

#define MEMORY_PIECES_MAX 1000 /* of one read; the kernel takes 1024 */

struct memory_reader {
    /* Fills the pieces in their order and returns how many bytes it got before the first one that
     * cannot be read; -errno when that is the very first. local[i] and remote[i] are of one size.
     */
    ssize_t (*read)(struct memory_reader *self, const struct iovec *local,
                    const struct iovec *remote, size_t n);
    int64_t calls;
    int64_t deadline_ms; /* of memory_now_ms(); reads fail with -ETIME from then on; 0: none */
};

/* Milliseconds of a clock that costs next to nothing and is some milliseconds coarse. */
int64_t memory_now_ms(void);
bool memory_late(const struct memory_reader *r);

/* A living process, by process_vm_readv(2). */
struct memory_process {
    struct memory_reader reader;
    pid_t pid;
};
void memory_process_init(struct memory_process *m, pid_t pid);

/* 0, or -errno; -EFAULT where only a part is there. */
int memory_read(struct memory_reader *r, uint64_t address, void *to, size_t len);

/* Several pieces in one system call. */
struct memory_batch {
    struct iovec local[MEMORY_PIECES_MAX], remote[MEMORY_PIECES_MAX];
    size_t n, bytes;
    int64_t took_ns; /* the last system call */
};
/* False when it is full: then nothing is added. */
bool memory_batch_add(struct memory_batch *b, uint64_t address, void *to, size_t len);
/* All or nothing: 0 or -errno. The batch is empty afterwards. */
int memory_batch_read(struct memory_reader *r, struct memory_batch *b);
