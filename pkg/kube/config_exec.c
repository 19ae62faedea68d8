#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "kube/config_internal.h"

enum {
    MAX_OUTPUT = 1024 * 1024,
    TIMEOUT_MS = 60 * 1000,
    INTERACTIVE_TIMEOUT_MS = 10 * 60 * 1000, /* somebody is typing */
};

struct waiter {
    struct list node;
    void (*done)(void *context, const struct kube_credentials *credentials, struct err *err);
    void *context;
};

struct kube_exec {
    struct kube_config *config;
    struct kube_exec_spec spec;
    struct list waiters;
    struct loop *loop;
    /* The run under way; pidfd -1: none. */
    pid_t pid;
    int pidfd, output_fd;
    bool own_group; /* the plugin leads a process group of its own */
    struct loop_watch exit_watch, output_watch;
    struct loop_timer timer;
    struct buf output;
    struct err failure;
    /* The last good answer. */
    bool answered;
    int64_t expires_wall_ms;
};

int kube_exec_create(struct kube_config *c, const struct kube_exec_spec *spec,
                     struct kube_exec **ret, struct err *err)
{
    if (spec->interactive == KUBE_INTERACTIVE_ALWAYS && !isatty(STDIN_FILENO))
        return err_set(err, ERR_INVALID,
                       "exec: %s must talk to a person, and standard input is no terminal",
                       spec->command);
    struct kube_exec *e = xcalloc(1, sizeof(*e));
    e->config = c;
    e->spec = *spec;
    e->pidfd = e->output_fd = -1;
    e->output = BUF_INIT(MAX_OUTPUT);
    list_init(&e->waiters);
    *ret = e;
    return 0;
}

bool kube_exec_is_fresh(const struct kube_exec *e, int64_t wall_ms)
{
    return e->answered && (!e->expires_wall_ms || wall_ms < e->expires_wall_ms);
}

static bool is_running(const struct kube_exec *e)
{
    return e->pidfd >= 0;
}

/* The end of a run */

static void close_output(struct kube_exec *e)
{
    if (e->output_fd < 0)
        return;
    loop_watch_remove(e->loop, &e->output_watch);
    close(e->output_fd);
    e->output_fd = -1;
}

static void close_run(struct kube_exec *e)
{
    close_output(e);
    loop_timer_disarm(e->loop, &e->timer);
    loop_watch_remove(e->loop, &e->exit_watch);
    close(e->pidfd);
    e->pidfd = -1;
}

static void kill_plugin(const struct kube_exec *e)
{
    if (e->own_group)
        kill(-e->pid, SIGKILL);
    else
        pidfd_send_signal(e->pidfd, SIGKILL, NULL, 0);
}

/* Calls back those who wait now; who asks from within waits for a run of his own. */
static void answer_waiters(struct kube_exec *e, const struct err *failure)
{
    size_t n = 0;
    LIST_FOREACH(&e->waiters, node) n++;
    struct list *node;
    while (n-- > 0 && (node = list_pop(&e->waiters))) {
        struct waiter *w = CONTAINER_OF(node, struct waiter, node);
        struct kube_credentials credentials;
        struct err err = *failure;
        kube_config_current(e->config, &credentials);
        void (*done)(void *, const struct kube_credentials *, struct err *) = w->done;
        void *context = w->context;
        free(w);
        done(context, failure->code ? NULL : &credentials, &err);
    }
}

static int read_answer(struct kube_exec *e, const siginfo_t *exit, struct err *err)
{
    if (e->failure.code) {
        *err = e->failure;
        return err->code;
    }
    if (exit->si_code != CLD_EXITED)
        return err_set(err, ERR_IO, "exec: %s was ended by signal %d", e->spec.command,
                       exit->si_status);
    if (exit->si_status != 0)
        return err_set(err, ERR_IO, "exec: %s failed with exit code %d%s%.*s", e->spec.command,
                       exit->si_status, e->spec.install_hint.len ? "\n" : "",
                       STR_ARG(e->spec.install_hint));
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct kube_exec_answer answer;
    int failed =
        kube_exec_parse_answer(arena, buf_str(&e->output), e->spec.api_version, &answer, err);
    if (failed)
        return err_wrap(err, "exec: %s", e->spec.command);
    kube_config_apply_answer(e->config, &answer);
    e->answered = true;
    e->expires_wall_ms = answer.expires_wall_ms;
    return 0;
}

/* Reads what is there. Returns whether more may come. */
static bool drain(struct kube_exec *e)
{
    for (;;) {
        char *room = buf_reserve(&e->output, 4096);
        if (!room) {
            if (!e->failure.code)
                err_set(&e->failure, ERR_TOO_LARGE, "exec: %s printed more than %d bytes",
                        e->spec.command, MAX_OUTPUT);
            kill_plugin(e);
            return false;
        }
        ssize_t n = read(e->output_fd, room, 4096);
        if (n > 0)
            e->output.len += (size_t)n;
        else
            return n < 0 && (errno == EAGAIN || errno == EINTR);
    }
}

static void output_ready(struct loop_watch *watch)
{
    struct kube_exec *e = watch->context;
    if (!drain(e))
        close_output(e);
}

static void plugin_exited(struct loop_watch *watch)
{
    struct kube_exec *e = watch->context;
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)e->pidfd, &info, WEXITED | WNOHANG) || !info.si_pid)
        return;
    /* Its children may hold the pipe open for ever; what they print is no answer. */
    if (e->output_fd >= 0)
        drain(e);
    close_run(e);
    struct err err = ERR_INIT;
    read_answer(e, &info, &err);
    buf_finish(&e->output);
    answer_waiters(e, &err);
}

static void timed_out(struct loop_timer *timer)
{
    struct kube_exec *e = CONTAINER_OF(timer, struct kube_exec, timer);
    err_set(&e->failure, ERR_TIMEOUT, "exec: %s did not end in time", e->spec.command);
    kill_plugin(e); /* plugin_exited() follows */
}

void kube_exec_destroy(struct kube_exec *e)
{
    if (!e)
        return;
    if (is_running(e)) {
        kill_plugin(e);
        siginfo_t info;
        waitid(P_PIDFD, (id_t)e->pidfd, &info, WEXITED);
        close_run(e);
    }
    for (struct list *node; (node = list_pop(&e->waiters));)
        free(CONTAINER_OF(node, struct waiter, node));
    buf_finish(&e->output);
    free(e);
}

/* The start of a run */

static int spawn(struct kube_exec *e, int output, bool interactive, struct err *err)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    size_t n_args = 0;
    while (e->spec.args[n_args])
        n_args++;
    char **argv = arena_array(arena, n_args + 2, sizeof(*argv));
    argv[0] = e->spec.command;
    for (size_t i = 0; i < n_args; i++)
        argv[i + 1] = e->spec.args[i];
    char **environment = kube_exec_environment(e->config, &e->spec, interactive, arena);

    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    if (!interactive)
        posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);

    /* The loop's blocked signals must not be blocked in the plugin. A group of its own lets us end
     * its children, too; with a terminal it would then be stopped when it reads. */
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    e->own_group = !interactive;
    if (e->own_group)
        flags |= POSIX_SPAWN_SETPGROUP;
    posix_spawnattr_setflags(&attributes, flags);

    int failed = posix_spawnp(&e->pid, e->spec.command, &files, &attributes, argv, environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (!failed)
        return 0;
    err_set_errno(err, failed, "exec: cannot run %s", e->spec.command);
    if (e->spec.install_hint.len)
        err_set(err, ERR_INVALID, "exec: cannot run %s: %s\n%.*s", e->spec.command,
                strerror(failed), STR_ARG(e->spec.install_hint));
    return err->code;
}

static int start_run(struct kube_exec *e, struct err *err)
{
    bool interactive = e->spec.interactive != KUBE_INTERACTIVE_NEVER && isatty(STDIN_FILENO);
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC))
        return err_set_errno(err, errno, "exec: pipe");
    int failed = spawn(e, pipe_fds[1], interactive, err);
    close(pipe_fds[1]);
    if (failed) {
        close(pipe_fds[0]);
        return failed;
    }
    e->pidfd = pidfd_open(e->pid, 0); /* not yet waited for, so the PID is still its own */
    if (e->pidfd < 0) {
        failed = err_set_errno(err, errno, "exec: pidfd_open");
        kill(e->pid, SIGKILL);
        waitpid(e->pid, NULL, 0);
        close(pipe_fds[0]);
        return failed;
    }
    fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
    e->output_fd = pipe_fds[0];
    e->failure = (struct err)ERR_INIT;
    e->output_watch = (struct loop_watch){.fd = e->output_fd, .ready = output_ready, .context = e};
    e->exit_watch = (struct loop_watch){.fd = e->pidfd, .ready = plugin_exited, .context = e};
    e->timer.fire = timed_out;
    loop_watch_add(e->loop, &e->output_watch);
    loop_watch_add(e->loop, &e->exit_watch);
    loop_timer_arm(e->loop, &e->timer, interactive ? INTERACTIVE_TIMEOUT_MS : TIMEOUT_MS);
    return 0;
}

void kube_exec_ask(struct kube_exec *e, struct loop *loop,
                   void (*done)(void *context, const struct kube_credentials *credentials,
                                struct err *err),
                   void *context)
{
    e->loop = loop;
    struct err err = ERR_INIT;
    if (!is_running(e) && start_run(e, &err)) {
        done(context, NULL, &err);
        return;
    }
    struct waiter *w = xcalloc(1, sizeof(*w));
    w->done = done;
    w->context = context;
    list_append(&e->waiters, &w->node);
}

void kube_exec_cancel(struct kube_exec *e, void *context)
{
    LIST_FOREACH(&e->waiters, node)
    {
        struct waiter *w = CONTAINER_OF(node, struct waiter, node);
        if (w->context != context)
            continue;
        list_remove(&w->node);
        free(w);
    }
}
