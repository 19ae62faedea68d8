/* The hand-over to pyspy-upload: the program itself against a server on loopback, seen from outside
 * while it waits for the answer; and programs in its place that fail in all ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/run.h"
#include "runner/spawn.h"
#include "runner/upload/handover.h"

#define RECEIPT "{\"kind\":\"ConfigMap\",\"name\":\"x\",\"files\":[],\"mac\":\"ab\"}"

/* One connection, one request, one answer; `seen` runs while the client waits. */
struct server {
    int listener, stop_fds[2];
    pthread_t thread;
    const char *answer; /* NULL: never */
    int delay_ms;
    struct buf request;
    void (*seen)(struct server *s);
    pid_t client; /* our child */
    char status[4096], descriptors[64];
    ssize_t environment;
    char stranger; /* exit status of one that tries to look into it */
};

static bool is_whole(const struct buf *in)
{
    ssize_t head = str_find(buf_str(in), STR("\r\n\r\n")),
            at = str_find(buf_str(in), STR("Content-Length: "));
    return head >= 0 && at >= 0 && at < head &&
           in->len >= (size_t)head + 4 + (size_t)strtoll(in->ptr + at + 16, NULL, 10);
}

static void serve_one(struct server *s, int fd)
{
    while (!is_whole(&s->request)) {
        char *room = buf_reserve(&s->request, 4096);
        ssize_t n = room ? read(fd, room, 4096) : 0;
        if (n <= 0)
            return;
        s->request.len += (size_t)n;
    }
    if (s->seen)
        s->seen(s);
    struct pollfd stop = {s->stop_fds[0], POLLIN, 0};
    if (poll(&stop, 1, s->answer ? s->delay_ms : -1) > 0 || !s->answer)
        return;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(1 << 20);
    buf_appendf(&out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(s->answer),
                s->answer);
    assert_int_equal(send(fd, out.ptr, out.len, MSG_NOSIGNAL), (ssize_t)out.len);
}

static void *serve(void *arg)
{
    struct server *s = arg;
    struct pollfd fds[2] = {{s->listener, POLLIN, 0}, {s->stop_fds[0], POLLIN, 0}};
    if (poll(fds, 2, -1) > 0 && fds[0].revents) {
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        serve_one(s, fd);
        close(fd);
    }
    return NULL;
}

static uint16_t server_start(struct server *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    buf_finish(&s->request);
    s->request = BUF_INIT(1 << 20);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(s->listener, 1), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(pipe2(s->stop_fds, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    return ntohs(address.sin_port);
}

/* What it has seen is there to be looked at afterwards. */
static void server_stop(struct server *s)
{
    close(s->stop_fds[1]);
    pthread_join(s->thread, NULL);
    close(s->stop_fds[0]);
    close(s->listener);
}

/* The run */

struct fixture {
    struct run run;
    struct options options;
    struct server server;
    char folder[32], token[64], program[64];
};

static void put_file(const char *path, const char *text, int mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int set_up(void **state)
{
    static struct upload_file files[] = {{.format = STR("raw"),
                                          .key = STR("raw.txt"),
                                          .media_type = STR("text/plain"),
                                          .size_bytes = 3,
                                          .content = STR("abc")}};
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->folder, sizeof(f->folder), "/tmp/test-upload-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->token, sizeof(f->token), "%s/token", f->folder);
    snprintf(f->program, sizeof(f->program), "%s/program", f->folder);
    put_file(f->token, "secret\n", 0600);
    f->options = (struct options){.proc = "/proc",
                                  .uploader = UPLOADER,
                                  .token = f->token,
                                  .upload_deadline_ms = 20000,
                                  .log_level = LOG_ERROR};
    assert_int_equal(run_set_up(&f->run, &f->options), 0);
    f->run.task.ca = STR("");
    f->run.upload = (struct upload){.version = 1, .files = {files, 1}};
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    run_finish(&f->run);
    buf_finish(&f->server.request);
    unlink(f->token);
    unlink(f->program);
    assert_int_equal(rmdir(f->folder), 0);
    free(f);
    return 0;
}

static void serve_at(struct fixture *f)
{
    f->run.task.upload_url = str_of(arena_printf(
        f->run.arena, "http://127.0.0.1:%d/v1/results/a/b/c", server_start(&f->server)));
}

static void test_stored(void **state)
{
    struct fixture *f = *state;
    f->server.answer = RECEIPT;
    serve_at(f);
    int r = run_upload(&f->run);
    server_stop(&f->server);
    assert_int_equal(r, 0);
    assert_true(str_is(f->run.receipt->name, "x") && str_is(f->run.receipt->mac, "ab"));
    assert_int_equal(f->run.outcome.reason, REASON_NONE);
    assert_true(str_find(buf_str(&f->server.request), STR("Authorization: Bearer secret\r\n")) > 0);
    assert_true(str_find(buf_str(&f->server.request), STR("\"content\":\"abc\"")) > 0);
    assert_true(str_find(buf_str(&f->server.request), STR("\"sha256\":\"ba7816bf")) > 0);
}

/* What it may do, as the kernel tells it from outside. */

static pid_t find_child(void)
{
    DIR *dir = opendir("/proc/self/task");
    int pid = 0;
    assert_non_null(dir);
    for (struct dirent *d; pid == 0 && (d = readdir(dir)) != NULL;) {
        char path[300];
        snprintf(path, sizeof(path), "/proc/self/task/%s/children", d->d_name);
        FILE *file = fopen(path, "re");
        if (file && fscanf(file, "%d", &pid) != 1)
            pid = 0;
        if (file)
            fclose(file);
    }
    closedir(dir);
    return pid;
}

/* One of the same user and as powerless: whether it can look into the process. '0': it can. */
static char ask_stranger(pid_t pid)
{
    char script[96], said = '?';
    int fds[2];
    snprintf(script, sizeof(script), "cat /proc/%d/environ >&2; printf $? >&3", (int)pid);
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    static const char *const none[] = {NULL};
    if (pipe2(fds, O_CLOEXEC) < 0)
        return said;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    struct spawn s = {.argv = argv,
                      .environment = none,
                      .fds = &fds[1],
                      .n_fds = 1,
                      .output = null,
                      .complaints = SPAWN_FD,
                      .join = -1};
    pid_t stranger; /* the loop reaps it */
    int r = spawn_program(&s, &stranger, NULL);
    close(fds[1]);
    close(null);
    if (r == 0 && read(fds[0], &said, 1) != 1)
        said = '?';
    close(fds[0]);
    return said;
}

static void look_at_client(struct server *s)
{
    char path[64];
    s->client = find_child();
    snprintf(path, sizeof(path), "/proc/%d/status", (int)s->client);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, s->status, sizeof(s->status) - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)s->client);
    DIR *dir = opendir(path);
    for (struct dirent *d; dir && (d = readdir(dir)) != NULL;) {
        char target[64] = "", link[350];
        snprintf(link, sizeof(link), "%s/%s", path, d->d_name);
        if (readlink(link, target, sizeof(target) - 1) > 0 && strstr(target, "memfd:"))
            snprintf(s->descriptors + strlen(s->descriptors), 24, "%.2s ", d->d_name);
    }
    if (dir)
        closedir(dir);
    snprintf(path, sizeof(path), "/proc/%d/environ", (int)s->client);
    char environment[16];
    fd = open(path, O_RDONLY | O_CLOEXEC);
    s->environment = fd >= 0 ? read(fd, environment, sizeof(environment)) : -1;
    if (fd >= 0)
        close(fd);
    s->stranger = ask_stranger(s->client);
}

static void test_it_has_no_rights(void **state)
{
    struct fixture *f = *state;
    f->server.answer = RECEIPT;
    f->server.seen = look_at_client;
    f->server.delay_ms = 100;
    setenv("PYSPY_TEST_SECRET", "1", 1);
    serve_at(f);
    int passed_on = open("/etc/passwd", O_RDONLY); /* not close-on-exec */
    int r = run_upload(&f->run);
    close(passed_on);
    server_stop(&f->server);
    assert_int_equal(r, 0);
    struct str status = str_of(f->server.status);
    static const char *const lines[] = {
        "\nCapInh:\t0000000000000000\n",
        "\nCapPrm:\t0000000000000000\n",
        "\nCapEff:\t0000000000000000\n",
        "\nCapAmb:\t0000000000000000\n",
        "\nNoNewPrivs:\t1\n",
    };
    assert_true(str_find(status, STR("Name:\tpyspy-upload\n")) == 0);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
        if (str_find(status, str_of(lines[i])) < 0)
            fail_msg("no %s in:\n%s", lines[i] + 1, f->server.status);
    if (prctl(PR_CAPBSET_READ, 8 /* CAP_SETPCAP */, 0, 0, 0) == 1 && geteuid() == 0)
        assert_true(str_find(status, STR("\nCapBnd:\t0000000000000000\n")) >= 0);
    assert_true(strcmp(f->server.descriptors, "3 4 ") == 0 ||
                strcmp(f->server.descriptors, "4 3 ") == 0);
    assert_int_equal(f->server.stranger, '1');
    if (geteuid() == 0)
        assert_int_equal(f->server.environment, 0);
}

/* A refused connection, and nobody's answer: its own deadline ends it. */
static void test_its_reason_is_ours(void **state)
{
    struct fixture *f = *state;
    f->options.upload_deadline_ms = 10;
    f->run.task.upload_url = STR("http://127.0.0.1:1/v1/results/a/b/c");
    assert_int_equal(run_upload(&f->run), -1);
    assert_int_equal(f->run.outcome.reason, REASON_STORAGE_UNAVAILABLE);
    assert_non_null(strstr(f->run.outcome.message, "given up after 1 tries"));
}

/* A receipt that no summary could take: control characters are six bytes in JSON. */
static void test_a_receipt_that_is_too_large(void **state)
{
    struct fixture *f = *state;
    _cleanup_(buf_finish) struct buf receipt = BUF_INIT(1 << 20);
    buf_append_cstr(&receipt, "{\"kind\":\"ConfigMap\",\"name\":\"x\",\"mac\":\"ab\",\"files\":[");
    for (int i = 0; i < UPLOAD_FILES_MAX; i++) {
        buf_append_cstr(&receipt,
                        i ? ",{\"format\":\"raw\",\"key\":\"" : "{\"format\":\"raw\",\"key\":\"");
        for (int k = 0; k < 250; k++)
            buf_append_cstr(&receipt, "\\u0001");
        buf_append_cstr(&receipt, "\",\"mediaType\":\"a\",\"sizeBytes\":1,\"sha256\":\"ab\"}");
    }
    buf_append_cstr(&receipt, "]}");
    f->server.answer = buf_cstr(&receipt);
    serve_at(f);
    assert_int_equal(run_upload(&f->run), -1);
    server_stop(&f->server);
    assert_int_equal(f->run.outcome.reason, REASON_STORAGE_UNAVAILABLE);
    assert_non_null(strstr(f->run.outcome.message, "the answer is larger than"));
}

struct push {
    struct loop_timer timer;
};

static void terminate(struct loop_timer *timer)
{
    (void)timer;
    kill(getpid(), SIGTERM);
}

/* The try under way may finish, for 3 s. */
static void test_sigterm(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *answer;
        int delay_ms, least_ms, most_ms;
    } cases[] = {{RECEIPT, 1500, 1400, 3000}, {NULL, 0, 3300, 4900}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        f->server.answer = cases[i].answer;
        f->server.delay_ms = cases[i].delay_ms;
        f->run.cancelled = false;
        f->run.receipt = NULL;
        serve_at(f);
        struct push push = {.timer = {.fire = terminate}};
        loop_timer_arm(f->run.loop, &push.timer, 500);
        int64_t began = clock_monotonic_ms(&clock_system);
        int r = run_upload(&f->run);
        int64_t took = clock_monotonic_ms(&clock_system) - began;
        server_stop(&f->server);
        assert_in_range(took, cases[i].least_ms, cases[i].most_ms);
        assert_true(f->run.cancelled);
        assert_int_equal(r, cases[i].answer ? 0 : -1);
        if (!cases[i].answer) {
            assert_int_equal(f->run.outcome.reason, REASON_CANCELLED);
            assert_non_null(strstr(f->run.outcome.message, "cancelled before the results were"));
        }
    }
}

/* Others in its place */

#define LARGE                                                                                      \
    "i=0; while [ $i -lt 400 ]; do printf '%0100d' 0; i=$((i+1)); done >&4 2>/dev/null; exit 0\n"

static const struct {
    const char *name, *script;
    int reason;
    const char *says;
} rows[] = {
    {"crashed", "kill -SEGV $$\n", REASON_STORAGE_UNAVAILABLE, "ended by signal 11 (Segmentation"},
    {"killed", "kill -KILL $$\n", REASON_STORAGE_UNAVAILABLE, "ended by signal 9 (Killed)"},
    {"killed after an answer",
     "printf '{\"reason\":\"\",\"message\":\"\",\"receipt\":" RECEIPT "}' >&4; kill -KILL $$\n",
     REASON_STORAGE_UNAVAILABLE, "ended by signal 9"},
    {"silent", "exit 0\n", REASON_STORAGE_UNAVAILABLE, "ended with status 0 and no answer"},
    {"failed", "exit 3\n", REASON_STORAGE_UNAVAILABLE, "ended with status 3 and no answer"},
    {"garbage", "echo hello >&4\n", REASON_STORAGE_UNAVAILABLE, "pyspy-upload's answer: "},
    {"too large", LARGE, REASON_STORAGE_UNAVAILABLE, "pyspy-upload's answer: "},
    {"no such reason", "printf '{\"reason\":\"Sunshine\"}' >&4\n", REASON_STORAGE_UNAVAILABLE,
     "\"Sunshine\" is none"},
    {"neither", "printf '{\"reason\":\"\"}' >&4\n", REASON_STORAGE_UNAVAILABLE,
     "neither a receipt nor a reason"},
    {"both", "printf '{\"reason\":\"StorageForbidden\",\"receipt\":" RECEIPT "}' >&4\n",
     REASON_STORAGE_UNAVAILABLE, "or both"},
    {"half a receipt", "printf '{\"reason\":\"\",\"receipt\":{\"kind\":\"Secret\"}}' >&4\n",
     REASON_STORAGE_UNAVAILABLE, "name"},
    {"refused", "printf '{\"reason\":\"StorageForbidden\",\"message\":\"no\"}' >&4; exit 1\n",
     REASON_STORAGE_FORBIDDEN, "no"},
    {"the handover is sealed", "(echo x >&3) 2>/dev/null || exit 4\n", REASON_STORAGE_UNAVAILABLE,
     "status 4"},
    {"stored", "printf '{\"reason\":\"\",\"message\":\"\",\"receipt\":" RECEIPT "}' >&4\n",
     REASON_NONE, ""},
};

static void test_others_in_its_place(void **state)
{
    struct fixture *f = *state;
    f->options.uploader = f->program;
    f->run.task.upload_url = STR("https://example.test/");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        put_file(f->program, arena_printf(f->run.arena, "#!/bin/sh\n%s", rows[i].script), 0700);
        outcome_set(&f->run.outcome, REASON_NONE, "%s", "");
        f->run.receipt = NULL;
        int r = run_upload(&f->run);
        if ((r == 0) != (rows[i].reason == REASON_NONE) || (r == 0) != (f->run.receipt != NULL) ||
            f->run.outcome.reason != rows[i].reason ||
            !strstr(f->run.outcome.message, rows[i].says))
            fail_msg("%s: %s: %s", rows[i].name, profile_reason_names[f->run.outcome.reason],
                     f->run.outcome.message);
    }
}

static void test_it_is_missing(void **state)
{
    struct fixture *f = *state;
    f->options.uploader = "/nonexistent/pyspy-upload";
    f->run.task.upload_url = STR("https://example.test/");
    assert_int_equal(run_upload(&f->run), -1);
    assert_int_equal(f->run.outcome.reason, REASON_STORAGE_UNAVAILABLE);
    assert_string_equal(f->run.outcome.message,
                        "pyspy-upload was not started: Error: /nonexistent/pyspy-upload: No such "
                        "file or directory");
}

/* One that hears nothing is ended, and what it left is no answer. */
static void test_one_that_hangs(void **state)
{
    struct fixture *f = *state;
    f->options.uploader = f->program;
    f->run.task.upload_url = STR("https://example.test/");
    put_file(f->program, "#!/bin/sh\nexec sleep 60\n", 0700);
    struct push push = {.timer = {.fire = terminate}};
    loop_timer_arm(f->run.loop, &push.timer, 100);
    int64_t began = clock_monotonic_ms(&clock_system);
    assert_int_equal(run_upload(&f->run), -1);
    assert_in_range(clock_monotonic_ms(&clock_system) - began, 5000, 7000);
    assert_int_equal(f->run.outcome.reason, REASON_CANCELLED);
    assert_true(f->run.uploader.ended); /* reaped */
    assert_non_null(strstr(f->run.outcome.message, "pyspy-upload did not end"));
}

/* The program alone, without a runner. */
static void test_without_a_handover(void **state)
{
    (void)state;
    const char *const argv[] = {UPLOADER, NULL};
    static const char *const none[] = {NULL};
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), answer, status;
    assert_int_equal(answer_create(&answer, NULL), 0);
    const int fds[] = {null, answer};
    struct spawn s = {.argv = argv,
                      .environment = none,
                      .fds = fds,
                      .n_fds = 2,
                      .output = -1,
                      .complaints = 2,
                      .join = -1};
    pid_t pid;
    struct str text;
    struct answer a;
    assert_int_equal(spawn_program(&s, &pid, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_int_equal(answer_text(answer, arena, &text, NULL), 0);
    assert_int_equal(answer_parse(arena, text, &a, NULL), 0);
    assert_int_equal(a.reason, REASON_STORAGE_UNAVAILABLE);
    assert_true(str_find(a.message, STR("started by pyspy-runner")) >= 0);
    close(null);
    close(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_stored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_has_no_rights, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_its_reason_is_ours, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_receipt_that_is_too_large, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sigterm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others_in_its_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_that_hangs, set_up, tear_down),
        cmocka_unit_test(test_without_a_handover),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/upload", tests, NULL, NULL);
}
