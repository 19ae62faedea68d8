#include "family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "proc/proc.h"

char *python, *other_python;
int proc = -1;

static int output = -1; /* of the program that runs */

static bool works(const char *path)
{
    _cleanup_(freep) char *command = xasprintf(
        "'%s' -c 'import sys; sys.exit(not (3, 8) <= sys.version_info < (3, 15))' 2>/dev/null",
        path);
    return system(command) == 0;
}

bool family_pythons(void)
{
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *home = getenv("HOME");
    _cleanup_(freep) char *pattern =
        xasprintf("%s/.pyenv/versions/3.*/bin/python3", home ? home : "");
    glob_t found = {0};
    glob("/usr/bin/python3", 0, NULL, &found);
    glob(pattern, GLOB_APPEND, NULL, &found);
    for (size_t i = 0; i < found.gl_pathc && !other_python; i++) {
        if (!works(found.gl_pathv[i]))
            continue;
        char **to = python ? &other_python : &python;
        *to = xstrdup(found.gl_pathv[i]);
    }
    globfree(&found);
    if (!python)
        puts("skipped: no Python from 3.8 to 3.14");
    return python;
}

pid_t family_start(const char *program, const char *argument)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing running */
        setpgid(0, 0);
        dup2(fds[1], STDOUT_FILENO);
        unsetenv("LD_PRELOAD");
        execl(python, "python3", "-c", program, argument, NULL);
        _exit(127);
    }
    close(fds[1]);
    char c;
    if (read(fds[0], &c, 1) != 1)
        fail_msg("the program did not get ready");
    output = fds[0];
    return pid;
}

void family_end(pid_t pid)
{
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(output);
}

size_t descriptors(void)
{
    size_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

char state_of(pid_t pid)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_process about;
    return proc_read(proc, arena, pid, &about, NULL) < 0 ? 0 : about.state;
}

const char spin[] = "print('ready', flush=1)\n"
                    "def spin():\n"
                    "    x = 0\n"
                    "    while True: x += 1\n"
                    "spin()\n";
