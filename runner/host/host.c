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

int host_main(int argc, char *const *argv)
{
    struct host_arguments a;
    struct err err = ERR_INIT;
    struct str command = str_of(argv[1]);
    if (host_parse(argc, argv, &a, &err) < 0) {
        fprintf(stderr, "pyspy-runner %s: %s; --help tells more\n", argv[1], err.message);
        return 2;
    }
    if (a.help) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(8192);
        host_help(argv[1], &text);
        fputs(buf_cstr(&text), stdout);
        return 0;
    }
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = proc < 0 ? err_set_errno(&err, errno, "/proc") : 0;
    if (r == 0)
        r = str_is(command, "record") ? host_record(proc, &a, &err)
            : str_is(command, "dump") ? host_dump(proc, &a, &err)
                                      : host_top(proc, &a, &err);
    if (proc >= 0)
        close(proc);
    if (r == 0 && fflush(stdout) != 0)
        r = err_set_errno(&err, errno, "standard output");
    if (r < 0)
        fprintf(stderr, "pyspy-runner %s: %s\n", argv[1], err.message);
    return r < 0 ? 1 : 0;
}
