#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runner/pyspy.h"

#define CAPABILITY_BIT(n) (1ull << (n))

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* In the child, between fork and exec: only what is async-signal-safe. */
static _Noreturn void die(const char *what)
{
    const char *why = strerrordesc_np(errno);
    dprintf(STDERR_FILENO, "Error: %s: %s\n", what, why ? why : "unknown error");
    _exit(PYSPY_EXIT_SETUP);
}

/* py-spy needs no more than to trace and to read; SYS_ADMIN has done its work by then. With
 * no_new_privs the exec of a root process does not bring the others back. */
static void drop_capabilities(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die("set no_new_privs");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_capget, &header, caps) < 0)
        die("read the capabilities");
    const uint64_t keep = CAPABILITY_BIT(CAP_SYS_PTRACE) | CAPABILITY_BIT(CAP_DAC_READ_SEARCH);
    for (int i = 0; i < 2; i++) {
        uint32_t mask = (uint32_t)(keep >> (32 * i));
        caps[i].permitted &= mask;
        caps[i].effective &= mask;
        caps[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, caps) < 0)
        die("drop capabilities");
}

static void limit(__rlimit_resource_t resource, rlim_t value)
{
    struct rlimit l = {value, value};
    if (setrlimit(resource, &l) < 0)
        die("set a resource limit");
}

/* The processes of the joined namespace by the numbers that they have there. */
static void mount_proc(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        die("runner.joinNamespaces: new mount namespace");
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        die("runner.joinNamespaces: make mounts private");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        die("runner.joinNamespaces: mount /proc");
}

static _Noreturn void become_pyspy(const struct pyspy_arguments *arguments, int output, int pipe,
                                   bool join)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (dup2(pipe, STDOUT_FILENO) < 0 || dup2(pipe, STDERR_FILENO) < 0)
        _exit(PYSPY_EXIT_SETUP);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);

    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        die("open /dev/null");
    if (output == PYSPY_OUTPUT_FD) {
        if (fcntl(output, F_SETFD, 0) < 0)
            die("pass the output");
    } else if (dup2(output, PYSPY_OUTPUT_FD) < 0) {
        die("pass the output");
    }
    if (syscall(SYS_close_range, PYSPY_OUTPUT_FD + 1, ~0u, 0) < 0)
        die("close descriptors");
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, PYSPY_OUTPUT_MAX);
    if (join)
        mount_proc();
    drop_capabilities();

    static char *const environment[] = {"RUST_BACKTRACE=0", "RUST_LOG=off", "LC_ALL=C.UTF-8", NULL};
    execve(arguments->argv[0], (char *const *)(uintptr_t)arguments->argv, environment);
    die(arguments->argv[0]);
}

int pyspy_spawn(const struct pyspy_arguments *arguments, int output, int pipe, int join, pid_t *ret,
                struct err *err)
{
    _cleanup_(close_fdp) int own = -1;
    if (join >= 0) {
        own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        if (own < 0)
            return err_set_errno(err, errno, "open our own PID namespace");
        /* For children only; we stay where we are. */
        if (setns(join, CLONE_NEWPID) < 0)
            return err_set_errno(err, errno,
                                 "runner.joinNamespaces: enter the target's PID namespace (the "
                                 "capability SYS_ADMIN is needed)");
    }
    pid_t pid = fork();
    int failed = errno;
    if (pid == 0)
        become_pyspy(arguments, output, pipe, join >= 0);
    if (own >= 0 && setns(own, CLONE_NEWPID) < 0) {
        int saved = errno;
        if (pid > 0)
            kill(pid, SIGKILL);
        return err_set_errno(err, saved, "return to our own PID namespace");
    }
    if (pid < 0)
        return err_set_errno(err, failed, "start py-spy");
    *ret = pid;
    return 0;
}
