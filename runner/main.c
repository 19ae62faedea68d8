#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runner/host/host.h"
#include "runner/run.h"

#define DESCRIPTORS 65536

/* Descriptors 0 to 2 must be somebody's before anything else is opened. Who closed standard output
 * is told so, by writes that fail. */
static void open_standard(void)
{
    int fd;
    do {
        fd = open("/dev/null", fcntl(STDOUT_FILENO, F_GETFD) < 0 ? O_RDONLY : O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* The sampler holds up to three a thread. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= DESCRIPTORS)
        return;
    limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = ERR_INIT;
    open_standard();
    raise_descriptors();
    if (argc > 1 && host_is_command(argv[1]))
        return host_main(argc, argv);
    if (options_parse(argc, argv, &options, &err) < 0) {
        fprintf(stderr, "pyspy-runner: %s\n", err.message);
        return 2;
    }
    switch (options.command) {
    case COMMAND_HELP:
        options_help();
        return 0;
    case COMMAND_VERSION:
        options_version();
        return 0;
    case COMMAND_RUN:
        break;
    }
    /* Nothing of a target's memory or of the token may end up in a core file. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGPIPE, SIG_IGN);
    log_setup(STDERR_FILENO, options.log_level, LOG_JSON);
    return run_main(&options);
}
