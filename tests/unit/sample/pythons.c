#include "pythons.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"

char *python;
int proc = -1;

static char *pattern_of(const char *name)
{
    const char *home = getenv("HOME"), *own = getenv("PYSPY_CACHE");
    const char *caches = getenv("XDG_CACHE_HOME");
    if (!home)
        home = "";
    if (strcmp(name, "debian") == 0)
        return xasprintf("/usr/bin/python3");
    if (strncmp(name, "pyenv-", 6) == 0)
        return xasprintf("%s/.pyenv/versions/%s.*/bin/python3", home, name + 6);
    if (own)
        return xasprintf("%s/pythons/%s/bin/python3", own, name);
    if (caches)
        return xasprintf("%s/pyspy-operator/pythons/%s/bin/python3", caches, name);
    return xasprintf("%s/.cache/pyspy-operator/pythons/%s/bin/python3", home, name);
}

bool pythons_begin(const char *name)
{
    _cleanup_(freep) char *pattern = pattern_of(name);
    glob_t found = {0};
    glob(pattern, 0, NULL, &found);
    if (found.gl_pathc)
        python = xstrdup(found.gl_pathv[found.gl_pathc - 1]);
    else
        fprintf(stderr, "no interpreter \"%s\" on this machine: %s\n", name, pattern);
    globfree(&found);
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return python;
}

struct child child_start(const char *path, const char *program)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        dup2(fds[1], STDOUT_FILENO);
        unsetenv("LD_PRELOAD");
        execl(path, path, "-c", program, NULL);
        _exit(127);
    }
    close(fds[1]);
    char line[6] = "";
    for (size_t n = 0; n < 5; n++)
        if (read(fds[0], line + n, 1) != 1)
            break;
    if (strcmp(line, "ready") != 0) {
        struct child c = {pid, fds[0]};
        child_end(&c);
        fail_msg("%s did not get ready", path);
    }
    return (struct child){pid, fds[0]};
}

void child_end(struct child *c)
{
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    close(c->out);
}

struct target *pythons_open(pid_t pid, const struct sample_options *options)
{
    struct target *t = NULL;
    struct err err = ERR_INIT;
    if (target_open(proc, pid, options, &t, &err) < 0)
        fail_msg("%s: %s", python, err.message);
    return t;
}
