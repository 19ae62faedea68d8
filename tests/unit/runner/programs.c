#include "programs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 60000

int program_arguments(const char *line, char *argv[static 16])
{
    static char copy[512];
    int n = 0;
    snprintf(copy, sizeof(copy), "pyspy-runner %s", line);
    for (char *c = copy; c && n < 15; c = strchr(c, ' ')) {
        if (n)
            *c++ = '\0';
        argv[n++] = c;
    }
    argv[n] = NULL;
    return n;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

rlim_t program_descriptors;
const char *program_output;

void program_start(struct program *p, char *const *argv)
{
    int out[2], err[2];
    *p = (struct program){.text = BUF_INIT(1 << 20), .complaints = BUF_INIT(1 << 20)};
    assert_int_equal(pipe2(out, O_CLOEXEC) + pipe2(err, O_CLOEXEC), 0);
    p->pid = fork();
    if (p->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        if (program_output)
            close(STDOUT_FILENO);
        if (program_output && *program_output && open(program_output, O_WRONLY) != STDOUT_FILENO)
            _exit(127);
        unsetenv("LD_PRELOAD");
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when a test fails */
        if (program_descriptors) {
            close_range(STDERR_FILENO + 1, ~0u, 0);
            setrlimit(RLIMIT_NOFILE, &(struct rlimit){program_descriptors, program_descriptors});
        }
        execv(argv[0], argv);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    p->out = out[0];
    p->err = err[0];
}

void program_kill(struct program *p)
{
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
        close(p->out);
        close(p->err);
    }
    buf_finish(&p->text);
    buf_finish(&p->complaints);
    p->pid = 0;
}

void program_take(int *fd, struct buf *to)
{
    char bytes[4096];
    ssize_t n = read(*fd, bytes, sizeof(bytes));
    if (n > 0) {
        buf_append(to, bytes, (size_t)n);
    } else {
        close(*fd);
        *fd = -1;
    }
}

int program_finish(struct program *p)
{
    int64_t until = now_ms() + PATIENCE_MS;
    while (p->out >= 0 || p->err >= 0) {
        struct pollfd fds[] = {{p->out, POLLIN, 0}, {p->err, POLLIN, 0}};
        if (now_ms() > until)
            fail_msg("no end; so far: %s%s", buf_cstr(&p->text), buf_cstr(&p->complaints));
        poll(fds, 2, 1000);
        if (fds[0].revents)
            program_take(&p->out, &p->text);
        if (fds[1].revents)
            program_take(&p->err, &p->complaints);
    }
    int status = 0;
    waitpid(p->pid, &status, 0);
    p->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void program_run(struct program *p, const char *line, pid_t pid)
{
    char text[512], *argv[16];
    const char *at = strstr(line, "%p");
    snprintf(text, sizeof(text), "%.*s%d%s", (int)(at - line), line, (int)pid, at + 2);
    program_arguments(text, argv);
    argv[0] = (char *)(uintptr_t)RUNNER;
    program_start(p, argv);
}

int program_finished(const char *line, pid_t pid, struct program *p)
{
    program_run(p, line, pid);
    return program_finish(p);
}

bool program_start_ready(struct program *p, char *const *argv)
{
    char c;
    program_start(p, argv);
    if (read(p->out, &c, 1) == 1)
        return true;
    program_kill(p);
    return false;
}

bool program_python(struct program *p, const char *code)
{
    char *argv[] = {(char *)(uintptr_t) "/usr/bin/python3", (char *)(uintptr_t) "-c",
                    (char *)(uintptr_t)code, NULL};
    return program_start_ready(p, argv);
}
