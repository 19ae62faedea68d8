/* record_image PID > FILE: what two looks at a process read of it, for tests/data/sample and the
 * fuzzer's corpus. The process should sleep meanwhile. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "sample/sample_internal.h"

#define PIECES_MAX 4096

struct recorder {
    struct memory_reader reader;
    struct memory_process process;
    struct str pieces[PIECES_MAX]; /* address and bytes */
    size_t n;
};

static void record_piece(struct recorder *r, uint64_t address, const void *bytes, uint32_t len)
{
    struct buf piece = BUF_INIT(sizeof(address) + len);
    buf_append(&piece, &address, sizeof(address));
    buf_append(&piece, bytes, len);
    for (size_t i = 0; i < r->n; i++)
        if (str_eq(r->pieces[i], buf_str(&piece))) {
            buf_finish(&piece);
            return;
        }
    if (r->n < PIECES_MAX)
        r->pieces[r->n++] = buf_str(&piece); /* until the program ends */
    fwrite(&address, sizeof(address), 1, stdout);
    fwrite(&len, sizeof(len), 1, stdout);
    fwrite(bytes, len, 1, stdout);
}

/* One read tells no more than its pieces; larger ones are cut so that gaps do not get lost. */
static ssize_t record(struct memory_reader *self, const struct iovec *local,
                      const struct iovec *remote, size_t n)
{
    struct recorder *r = (struct recorder *)(void *)self;
    ssize_t got = r->process.reader.read(&r->process.reader, local, remote, n);
    for (size_t i = 0; got > 0 && i < n; i++)
        record_piece(r, (uint64_t)(uintptr_t)remote[i].iov_base, local[i].iov_base,
                     (uint32_t)local[i].iov_len);
    return got;
}

static void ignore(void *context, const struct sample_thread *t)
{
    (void)context, (void)t;
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct symbols symbols;
    struct memory_process process;
    int64_t pid = 0, minor = 0;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (argc != 2 || str_to_i64(str_of(argv[1]), 1, INT32_MAX, &pid) < 0 ||
        (memory_process_init(&process, (pid_t)pid),
         symbols_find(proc, (pid_t)pid, &process.reader, &symbols, &err)) < 0) {
        fprintf(stderr, "record_image PID: %s\n", err.message);
        return 1;
    }
    struct str version = str_of(symbols.version);
    str_cut(&version, '.');
    str_to_i64(str_cut(&version, '.'), 0, 99, &minor);
    uint8_t header[4] = {(uint8_t)minor};
    fwrite(header, sizeof(header), 1, stdout);
    fwrite(&symbols.runtime, sizeof(symbols.runtime), 1, stdout);

    static struct recorder r = {.reader = {.read = record}};
    memory_process_init(&r.process, (pid_t)pid);
    _cleanup_(target_closep) struct target *t = NULL;
    if (target_open_memory(&r.reader, symbols.runtime, (unsigned)minor,
                           &(struct sample_options){.names = true, .tasks = true}, &t, &err) < 0 ||
        target_look(t, ignore, NULL, &err) < 0 || target_look(t, ignore, NULL, &err) < 0) {
        fprintf(stderr, "record_image: %s\n", err.message);
        return 1;
    }
    return 0;
}
