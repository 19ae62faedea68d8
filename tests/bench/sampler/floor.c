/* sampler_floor --pid N --rate N --duration SECONDS: the least that any sampler outside of the
 * target costs: it wakes up as often, and reads as many pieces as pyspy-runner does of one thread
 * that stands still, in one system call, and looks at none of them. It takes pyspy-runner's options
 * for tests/bench/sampler/cost.py. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "sample/memory.h"

#define PIECES 12   /* heads, pointers, frames, code objects */
#define LARGE  1536 /* bytes of the one with the frames */
#define SMALL  64   /* of the others */

/* Where the target's heap begins; 0: it has none. */
static uint64_t heap_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    _cleanup_(buf_finish) struct buf maps = BUF_INIT(1 << 20);
    if (buf_read_file(&maps, path, NULL) < 0)
        return 0;
    for (struct str rest = buf_str(&maps); rest.len;) {
        struct str line = str_cut(&rest, '\n');
        if (str_ends_with(line, STR("[heap]")))
            return strtoull(line.ptr, NULL, 16); /* "START-END …" */
    }
    return 0;
}

static bool look(struct memory_process *m, uint64_t heap)
{
    static struct memory_batch batch;
    static uint8_t to[PIECES][LARGE];
    for (size_t i = 0; i < PIECES; i++)
        memory_batch_add(&batch, heap + i * SMALL, to[i], i == PIECES / 2 ? LARGE : SMALL);
    return memory_batch_read(&m->reader, &batch) == 0;
}

static int usage(void)
{
    fprintf(stderr, "sampler_floor --pid N --rate N --duration SECONDS\n");
    return 2;
}

int main(int argc, char **argv)
{
    int64_t pid = 0, rate = 0, seconds = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        struct str name = str_of(argv[i]), value = str_of(argv[i + 1]);
        int64_t *to = str_is(name, "--pid")        ? &pid
                      : str_is(name, "--rate")     ? &rate
                      : str_is(name, "--duration") ? &seconds
                                                   : NULL;
        if (!to || str_to_i64(value, 1, INT32_MAX, to) < 0)
            return usage();
    }
    uint64_t heap = pid ? heap_of((pid_t)pid) : 0;
    int fd = pid ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
    if (!heap || fd < 0 || !rate || rate > 1000000 || !seconds)
        return usage();
    struct memory_process m;
    memory_process_init(&m, (pid_t)pid);
    for (int64_t n = rate * seconds; n > 0; n--) {
        struct timespec ts = {.tv_sec = rate == 1, .tv_nsec = rate == 1 ? 0 : 1000000000 / rate};
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (ppoll(&p, 1, &ts, NULL) != 0 || !look(&m, heap)) {
            fprintf(stderr, "sampler_floor: the target has ended\n");
            return 1;
        }
    }
    close(fd);
    return 0;
}
