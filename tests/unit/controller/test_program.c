/* The program from outside: what it refuses to start with, and that SIGTERM ends it in time though
 * the API server is away or does not answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"

enum { ARGS_MAX = 16, LIMIT_MS = 20000, STOP_MS = 10000 };

static char folder[] = "/tmp/pyspy-program-XXXXXX";

struct program {
    pid_t pid;
    int fd; /* its stdout and stderr */
    struct buf said;
};

static void start(struct program *p, const char *const *args)
{
    int pipes[2];
    char *argv[ARGS_MAX + 2] = {CONTROLLER};
    for (size_t i = 0; args[i] && i < ARGS_MAX; i++)
        argv[i + 1] = (char *)(uintptr_t)args[i];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    *p = (struct program){.pid = fork(), .fd = pipes[0], .said = BUF_INIT(1u << 20)};
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        execv(CONTROLLER, argv);
        _exit(127);
    }
    close(pipes[1]);
}

static void end_with(struct program *p, const char *why)
{
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    fail_msg("%s; it said:\n%s", why, buf_cstr(&p->said));
}

/* Reads until it says `text` (NULL: until it ends). */
static void hear(struct program *p, const char *text)
{
    int64_t until = clock_monotonic_ms(&clock_system) + LIMIT_MS;
    while (!text || !strstr(buf_cstr(&p->said), text)) {
        struct pollfd poll_fd = {.fd = p->fd, .events = POLLIN};
        int64_t left = until - clock_monotonic_ms(&clock_system);
        char *to = buf_reserve(&p->said, 4096);
        if (left <= 0 || !to || poll(&poll_fd, 1, (int)left) <= 0)
            end_with(p, text ? text : "it does not end");
        ssize_t n = read(p->fd, to, 4096);
        if (n <= 0 && text)
            end_with(p, text);
        if (n <= 0)
            return;
        p->said.len += (size_t)n;
        p->said.ptr[p->said.len] = '\0';
    }
}

/* Its exit code, and whether it said `text`. */
static void ends(struct program *p, int code, const char *text)
{
    int status;
    hear(p, NULL);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code || !strstr(buf_cstr(&p->said), text))
        fail_msg("exit %d and \"%s\" expected; status %#x:\n%s", code, text, (unsigned)status,
                 buf_cstr(&p->said));
    close(p->fd);
    buf_finish(&p->said);
}

static void write_file(const char *name, const char *text, char path[static 64])
{
    snprintf(path, 64, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A socket on loopback that accepts nothing by itself. */
static int listening(int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int free_port(void)
{
    int port;
    close(listening(&port));
    return port;
}

static void write_kubeconfig(int port, char path[static 64])
{
    char text[1024];
    snprintf(text, sizeof(text),
             "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
             "clusters:\n- name: k\n  cluster: {server: 'http://127.0.0.1:%d'}\n"
             "users:\n- name: u\n  user: {token: t}\n"
             "contexts:\n- name: c\n  context: {cluster: k, user: u}\n",
             port);
    write_file("kubeconfig", text, path);
}

static void write_config(int results_port, int metrics_port, char path[static 64])
{
    char text[256];
    snprintf(text, sizeof(text),
             "runner: {image: r}\nresults: {listen: '127.0.0.1:%d'}\n"
             "metrics: {listen: '127.0.0.1:%d'}\n",
             results_port, metrics_port);
    write_file("config.yaml", text, path);
}

static void what_it_does_not_start_with(void **state)
{
    (void)state;
    char bad[64], good[64];
    write_file("bad.yaml", "runner: {image: r}\nlimits: {maxConcurent: 3}\n", bad);
    write_config(1, 1, good);
    const struct {
        const char *args[6];
        int code;
        const char *text;
    } rows[] = {
        {{"--version"}, 0, "pyspy-controller "},
        {{"--help"}, 0, "--config FILE"},
        {{"--nonsense"}, 2, "see pyspy-controller --help"},
        {{"--config"}, 2, "see pyspy-controller --help"},
        {{"extra"}, 2, "unexpected argument \"extra\""},
        {{"--config", "/nonexistent"}, 2, "/nonexistent"},
        {{"--config", bad}, 2, "maxConcurent"},
        {{"--config", good, "--log-level", "loud"}, 2, "--log-level"},
        {{"--config", good, "--log-format", "xml"}, 2, "--log-format"},
        {{"--config", good, "--leader-elect=maybe"}, 2, "--leader-elect"},
        {{"--config", good, "--kubeconfig", "/nonexistent"}, 1, "credentials for the API server"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct program p;
        start(&p, rows[i].args);
        ends(&p, rows[i].code, rows[i].text);
    }
}

static void a_port_that_is_taken(void **state)
{
    (void)state;
    char config[64], kubeconfig[64];
    struct program p;
    int port, fd = listening(&port);
    write_kubeconfig(free_port(), kubeconfig);
    write_config(free_port(), port, config);
    start(&p, (const char *const[]){"--config", config, "--kubeconfig", kubeconfig, NULL});
    ends(&p, 1, "Address already in use");
    close(fd);
}

/* Sends SIGTERM once it has said `text`. */
static void stops(const char *const *args, const char *text)
{
    struct program p;
    start(&p, args);
    hear(&p, text);
    int64_t before = clock_monotonic_ms(&clock_system);
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    ends(&p, 0, "stopped");
    assert_true(clock_monotonic_ms(&clock_system) - before < STOP_MS);
}

static void stops_without_an_api_server(void **state)
{
    (void)state;
    char config[64], kubeconfig[64];
    static const char *const elect[] = {"--leader-elect=true", "--leader-elect=false"};
    write_kubeconfig(free_port(), kubeconfig);
    for (size_t i = 0; i < ARRAY_SIZE(elect); i++) {
        write_config(free_port(), free_port(), config);
        stops((const char *const[]){"--config", config, "--kubeconfig", kubeconfig, elect[i], NULL},
              "list or watch failed");
    }
}

/* Connections come about, answers do not; meanwhile it lives, and is not ready. */
static void stops_with_a_silent_api_server(void **state)
{
    (void)state;
    char config[64], kubeconfig[64];
    struct program p;
    int port, metrics = free_port(), fd = listening(&port);
    write_kubeconfig(port, kubeconfig);
    write_config(free_port(), metrics, config);
    start(&p, (const char *const[]){"--config", config, "--kubeconfig", kubeconfig, NULL});
    hear(&p, "starting");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)metrics)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    static const char *const requests[][2] = {
        {"GET /healthz HTTP/1.0\r\n\r\n", " 200 "},
        {"GET /readyz HTTP/1.0\r\n\r\n", "[-]caches failed\n[-]certificate failed\n[+]shutdown ok"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        char answer[2048] = "";
        size_t len = 0;
        int c, tries = 0;
        for (;; close(c)) {
            c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (!connect(c, (struct sockaddr *)&address, sizeof(address)))
                break;
            assert_true(++tries < 500);
            usleep(20000);
        }
        assert_true(send(c, requests[i][0], strlen(requests[i][0]), MSG_NOSIGNAL) > 0);
        for (ssize_t n; (n = recv(c, answer + len, sizeof(answer) - 1 - len, 0)) > 0;)
            len += (size_t)n;
        close(c);
        if (!strstr(answer, requests[i][1]))
            end_with(&p, answer);
    }
    int64_t before = clock_monotonic_ms(&clock_system);
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    ends(&p, 0, "stopped");
    assert_true(clock_monotonic_ms(&clock_system) - before < STOP_MS);
    close(fd);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"bad.yaml", "config.yaml", "kubeconfig"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char path[64];
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_does_not_start_with),
        cmocka_unit_test(a_port_that_is_taken),
        cmocka_unit_test(stops_without_an_api_server),
        cmocka_unit_test(stops_with_a_silent_api_server),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
