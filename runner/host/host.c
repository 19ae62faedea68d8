#include "runner/host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void host_print(FILE *to, struct str s)
{
    char text[4 * SAMPLE_TEXT_MAX + 1]; /* a byte takes four at most */
    str_show(s, text, sizeof(text));
    fputs(text, to);
}

int host_flush(struct err *err)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    return err_set(err, ERR_IO, "standard output: %s",
                   errno ? strerror(errno) : "it did not take all");
}

static int run(const char *command, struct host_arguments *a, struct err *err)
{
    if (a->help) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(8192);
        host_help(command, &text);
        fputs(buf_cstr(&text), stdout);
        return 0;
    }
    if (host_watch(err) < 0)
        return -1;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return err_set_errno(err, errno, "/proc");
    int r = str_is(str_of(command), "record") ? host_record(proc, a, err)
            : str_is(str_of(command), "dump") ? host_dump(proc, a, err)
                                              : host_top(proc, a, err);
    close(proc);
    return r;
}

int host_main(int argc, char *const *argv)
{
    struct host_arguments a;
    struct err err = ERR_INIT;
    if (host_parse(argc, argv, &a, &err) < 0) {
        fprintf(stderr, "pyspy-runner %s: %s; --help tells more\n", argv[1], err.message);
        return 2;
    }
    int r = run(argv[1], &a, &err);
    if (r == 0)
        r = host_flush(&err);
    if (r < 0)
        fprintf(stderr, "pyspy-runner %s: %s\n", argv[1], err.message);
    return r < 0 ? 1 : 0;
}
