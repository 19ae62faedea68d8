#include "runner/spawn.h"

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

static int complaints = STDERR_FILENO;

/* In the child, between fork and exec: only what is async-signal-safe. */
static _Noreturn void die(const char *what)
{
    const char *why = strerrordesc_np(errno);
    dprintf(complaints, "Error: %s: %s\n", what, why ? why : "unknown error");
    _exit(SPAWN_EXIT_SETUP);
}

/* SYS_ADMIN has done its work by then. With no_new_privs the exec of a root process does not bring
 * the others back; the bounding set would, without it, and only who has SETPCAP may shrink it. */
static void drop_capabilities(uint64_t keep)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die("set no_new_privs");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        die("drop ambient capabilities");
    for (int i = 0; i < 64; i++)
        if (!(keep & CAPABILITY_BIT(i)) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0 &&
            errno != EPERM && errno != EINVAL)
            die("drop capabilities of the bounding set");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_capget, &header, caps) < 0)
        die("read the capabilities");
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

static void reset_signals(bool hold_term)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    if (hold_term)
        sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    signal(SIGPIPE, SIG_DFL);
}

/* Two steps, because a descriptor may have the number that another is to get. */
static void pass_descriptors(const struct spawn *s)
{
    int above = SPAWN_FD + (int)s->n_fds, copies[SPAWN_FDS_MAX];
    for (size_t i = 0; i < s->n_fds; i++)
        if ((copies[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, above)) < 0)
            die("pass a descriptor");
    for (size_t i = 0; i < s->n_fds; i++)
        if (dup2(copies[i], SPAWN_FD + (int)i) < 0)
            die("pass a descriptor");
    complaints = s->complaints;
    if (syscall(SYS_close_range, above, ~0u, 0) < 0)
        die("close descriptors");
}

static void pass_standard(int output)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        die("open /dev/null");
    if (dup2(output >= 0 ? output : null, STDOUT_FILENO) < 0 ||
        (output >= 0 && dup2(output, STDERR_FILENO) < 0))
        die("pass the output");
}

static _Noreturn void become(const struct spawn *s)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    reset_signals(s->hold_term);
    pass_standard(s->output);
    pass_descriptors(s);
    limit(RLIMIT_CORE, 0);
    if (s->file_max)
        limit(RLIMIT_FSIZE, s->file_max);
    if (s->join >= 0)
        mount_proc();
    drop_capabilities(s->capabilities);
    execve(s->argv[0], (char *const *)(uintptr_t)s->argv, (char *const *)(uintptr_t)s->environment);
    die(s->argv[0]);
}

int spawn_program(const struct spawn *s, pid_t *ret, struct err *err)
{
    _cleanup_(close_fdp) int own = -1;
    if (s->n_fds > SPAWN_FDS_MAX)
        return err_set(err, ERR_INVALID, "%s: too many descriptors", s->argv[0]);
    if (s->join >= 0) {
        own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        if (own < 0)
            return err_set_errno(err, errno, "open our own PID namespace");
        /* For children only; we stay where we are. */
        if (setns(s->join, CLONE_NEWPID) < 0)
            return err_set_errno(err, errno,
                                 "runner.joinNamespaces: enter the target's PID namespace (the "
                                 "capability SYS_ADMIN is needed)");
    }
    pid_t pid = fork();
    int failed = errno;
    if (pid == 0)
        become(s);
    if (own >= 0 && setns(own, CLONE_NEWPID) < 0) {
        int saved = errno;
        if (pid > 0)
            kill(pid, SIGKILL);
        return err_set_errno(err, saved, "return to our own PID namespace");
    }
    if (pid < 0)
        return err_set_errno(err, failed, "start %s", s->argv[0]);
    *ret = pid;
    return 0;
}

int pyspy_spawn(const struct pyspy_arguments *arguments, int output, uint64_t output_max, int pipe,
                int join, pid_t *ret, struct err *err)
{
    static const char *const environment[] = {"RUST_BACKTRACE=0", "RUST_LOG=off", "LC_ALL=C.UTF-8",
                                              NULL};
    struct spawn s = {
        .argv = arguments->argv,
        .environment = environment,
        .fds = &output,
        .n_fds = 1,
        .output = pipe,
        .complaints = STDERR_FILENO,
        .capabilities = CAPABILITY_BIT(CAP_SYS_PTRACE) | CAPABILITY_BIT(CAP_DAC_READ_SEARCH),
        .file_max = output_max,
        .join = join,
    };
    return spawn_program(&s, ret, err);
}
