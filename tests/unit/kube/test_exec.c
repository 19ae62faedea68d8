/* Exec credential plugins. Named after client-go's plugin/pkg/client/auth/exec/exec_test. The
 * plugins are shell scripts; that they are run by their shebang is the kernel's doing, not ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "kube/config.h"
#include "sim_time.h"

#define V1      "client.authentication.k8s.io/v1"
#define V1BETA1 "client.authentication.k8s.io/v1beta1"

/* Wall time is ours, so that expiry can be tested; waiting is real, for processes are. */
struct fixture {
    struct clock clock;
    int64_t wall_ms;
    char folder[32];
    struct loop *loop;
    struct kube_config *config;
    struct err err;
    int answers;
    struct buf headers;
    char *cert, *key;
    uint64_t generation;
};

static struct fixture *current;

static int64_t real_monotonic(const struct clock *self)
{
    (void)self;
    return clock_monotonic_ms(&clock_system);
}

static int64_t own_wall(const struct clock *self)
{
    (void)self;
    return current->wall_ms;
}

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    current = f;
    f->clock = (struct clock){real_monotonic, own_wall};
    f->wall_ms = sim_epoch_ms;
    f->headers = BUF_INIT(65536);
    snprintf(f->folder, sizeof(f->folder), "/tmp/test-exec-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    *state = f;
    return loop_create(&f->clock, &f->loop, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kube_config_destroy(f->config);
    loop_destroy(f->loop);
    static const char *const names[] = {"plugin", "config", "answer", "seen", "count", "child"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", f->folder, names[i]);
        unlink(path);
    }
    int failed = rmdir(f->folder);
    buf_finish(&f->headers);
    free(f->cert);
    free(f->key);
    free(f);
    return failed;
}

static void write_file(struct fixture *f, const char *name, const char *text)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", f->folder, name);
    /* Made anew: a script that runs cannot be written to. */
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static char *read_file(struct fixture *f, const char *name)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", f->folder, name);
    struct buf text = BUF_INIT(1 << 20);
    buf_read_file(&text, path, NULL);
    return text.ptr ? buf_take(&text) : xstrdup("");
}

/* The plugin prints the file "answer", and leaves what it was given in "seen". */
static const char printing[] = "#!/bin/sh\n"
                               "cd \"$(dirname \"$0\")\"\n"
                               "echo run >> count\n"
                               "{ printf '%s|' \"$@\"; echo; echo \"$KUBERNETES_EXEC_INFO\";\n"
                               "  echo \"$OWN-$OVER\"; ls /proc/self/fd | tr '\\n' ' ';\n"
                               "  readlink /proc/$$/fd/0; } > seen\n"
                               "cat answer\n";

static int load(struct fixture *f, const char *exec)
{
    _cleanup_(freep) char *text =
        xasprintf("current-context: x\n"
                  "contexts: [{name: x, context: {cluster: c, user: u}}]\n"
                  "clusters: [{name: c, cluster: {server: 'https://a', tls-server-name: n,\n"
                  "  certificate-authority-data: Q0E=, extensions: [\n"
                  "  {name: client.authentication.k8s.io/exec, extension: {audience: z}}]}}]\n"
                  "users: [{name: u, user: {exec: {command: ./plugin, %s}}}]\n",
                  exec);
    write_file(f, "config", text);
    _cleanup_(freep) char *path = xasprintf("%s/config", f->folder);
    static const char *const environment[] = {"PATH=/usr/bin:/bin", "OWN=own", "OVER=old", NULL};
    struct kube_config_options options = {.kubeconfig = path, .environment = environment};
    kube_config_destroy(f->config);
    f->config = NULL;
    return kube_config_load(&options, &f->config, &f->err);
}

static void load_plain(struct fixture *f)
{
    write_file(f, "plugin", printing);
    assert_int_equal(load(f, "apiVersion: " V1 ", interactiveMode: Never"), 0);
}

static void take(void *context, const struct kube_credentials *credentials, struct err *err)
{
    struct fixture *f = context;
    f->answers++;
    f->err = *err;
    buf_clear(&f->headers);
    if (!credentials)
        return;
    for (size_t i = 0; i < credentials->n_headers; i++)
        buf_appendf(&f->headers, "%.*s: %.*s\n", STR_ARG(credentials->headers[i].name),
                    STR_ARG(credentials->headers[i].value));
    free(f->cert);
    free(f->key);
    f->cert = str_dup(credentials->tls->client_cert);
    f->key = str_dup(credentials->tls->client_key);
    f->generation = credentials->generation;
}

static void wait_for(struct fixture *f, int answers)
{
    int64_t end = clock_monotonic_ms(&clock_system) + 30000;
    while (f->answers < answers && clock_monotonic_ms(&clock_system) < end) {
        loop_step(f->loop, 0, NULL);
        usleep(1000);
    }
    assert_int_equal(f->answers, answers);
}

static const char *ask(struct fixture *f, bool renew)
{
    int before = f->answers;
    kube_config_credentials(f->config, f->loop, renew, take, f);
    wait_for(f, before + 1);
    return buf_cstr(&f->headers);
}

#define ANSWER(version, status)                                                                    \
    "{\"kind\":\"ExecCredential\",\"apiVersion\":\"" version "\",\"status\":{" status "}}"

static size_t runs(struct fixture *f)
{
    _cleanup_(freep) char *count = read_file(f, "count");
    return strlen(count) / strlen("run\n");
}

/* What comes back */

static void test_refresh_creds(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *exec, *answer, *headers, *message; /* message: of the failure, or NULL */
    } rows[] = {
        {"apiVersion: " V1 ", interactiveMode: Never", ANSWER(V1, "\"token\":\"t\""),
         "Authorization: Bearer t\n", NULL},
        {"apiVersion: " V1BETA1, ANSWER(V1BETA1, "\"token\":\"t\""), "Authorization: Bearer t\n",
         NULL},
        {"apiVersion: " V1BETA1, ANSWER(V1, "\"token\":\"t\""), "", "answered " V1},
        {"apiVersion: " V1BETA1, "{\"kind\":\"Other\",\"apiVersion\":\"" V1BETA1 "\"}", "",
         "no ExecCredential"},
        {"apiVersion: " V1BETA1, "{\"kind\":\"ExecCredential\",\"apiVersion\":\"" V1BETA1 "\"}", "",
         "no status"},
        {"apiVersion: " V1BETA1, ANSWER(V1BETA1, ""), "", "neither a token nor"},
        {"apiVersion: " V1BETA1, ANSWER(V1BETA1, "\"clientCertificateData\":\"C\""), "",
         "need each other"},
        {"apiVersion: " V1BETA1, ANSWER(V1BETA1, "\"token\":\"t\",\"clientKeyData\":\"K\""), "",
         "need each other"},
        {"apiVersion: " V1BETA1, ANSWER(V1BETA1, "\"token\":7"), "", "status.token"},
        {"apiVersion: " V1BETA1, "garbage", "", "decoding its answer"},
        {"apiVersion: " V1BETA1, "", "", "decoding its answer"},
    };
    write_file(f, "plugin", printing);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(load(f, rows[i].exec), 0);
        write_file(f, "answer", rows[i].answer);
        assert_string_equal(ask(f, false), rows[i].headers);
        assert_int_equal(f->err.code != 0, rows[i].message != NULL);
        if (rows[i].message && !strstr(f->err.message, rows[i].message))
            fail_msg("row %zu: %s", i, f->err.message);
    }
}

static void test_tls_credentials(void **state)
{
    struct fixture *f = *state;
    load_plain(f);
    write_file(f, "answer",
               ANSWER(V1, "\"clientCertificateData\":\"CERT\",\"clientKeyData\":\"KEY\","
                          "\"expirationTimestamp\":\"2026-01-01T00:01:00Z\""));
    assert_string_equal(ask(f, false), "");
    assert_string_equal(f->cert, "CERT");
    assert_string_equal(f->key, "KEY");
    f->wall_ms += 61 * 1000;
    write_file(f, "answer",
               ANSWER(V1, "\"clientCertificateData\":\"CERT2\",\"clientKeyData\":\"KEY2\""));
    ask(f, false);
    assert_string_equal(f->cert, "CERT2");
    assert_string_equal(f->key, "KEY2");
}

static void test_token_expires(void **state)
{
    struct fixture *f = *state;
    load_plain(f);
    write_file(f, "answer",
               ANSWER(V1, "\"token\":\"one\",\"expirationTimestamp\":"
                          "\"2026-01-01T01:00:00+01:00\"")); /* now, elsewhere */
    ask(f, false);
    ask(f, false);
    assert_int_equal(runs(f), 2); /* it had expired when it came */
    write_file(f, "answer",
               ANSWER(V1, "\"token\":\"two\",\"expirationTimestamp\":\"2026-01-01T01:00:00Z\""));
    assert_string_equal(ask(f, false), "Authorization: Bearer two\n");
    for (int i = 0; i < 5; i++)
        ask(f, false);
    assert_int_equal(runs(f), 3);
    f->wall_ms += 3600 * 1000;
    write_file(f, "answer", ANSWER(V1, "\"token\":\"three\"")); /* never expires */
    assert_string_equal(ask(f, false), "Authorization: Bearer three\n");
    f->wall_ms += 1000LL * 3600 * 1000;
    assert_string_equal(ask(f, false), "Authorization: Bearer three\n");
    assert_int_equal(runs(f), 4);
    write_file(f, "answer", ANSWER(V1, "\"token\":\"four\""));
    assert_string_equal(ask(f, true), "Authorization: Bearer four\n"); /* after a 401 */
    assert_int_equal(runs(f), 5);
}

static void test_concurrent_asks_share_one_run(void **state)
{
    struct fixture *f = *state;
    load_plain(f);
    write_file(f, "answer", ANSWER(V1, "\"token\":\"t\""));
    for (int i = 0; i < 5; i++)
        kube_config_credentials(f->config, f->loop, i % 2, take, f);
    assert_int_equal(f->answers, 0);
    int gone;
    kube_config_credentials(f->config, f->loop, false, take, &gone);
    kube_config_credentials_cancel(f->config, &gone);
    wait_for(f, 5);
    assert_int_equal(runs(f), 1);
}

/* What goes in */

static void test_arguments_environment_and_info(void **state)
{
    struct fixture *f = *state;
    write_file(f, "plugin", printing);
    write_file(f, "answer", ANSWER(V1, "\"token\":\"t\""));
    assert_int_equal(load(f, "apiVersion: " V1 ", interactiveMode: IfAvailable, "
                             "args: ['a b', '$(touch x)', ''], provideClusterInfo: true, "
                             "env: [{name: OVER, value: new}]"),
                     0);
    assert_string_equal(ask(f, false), "Authorization: Bearer t\n");
    _cleanup_(freep) char *seen = read_file(f, "seen");
    assert_non_null(strstr(seen, "a b|$(touch x)||\n")); /* no shell came near them */
    assert_non_null(strstr(seen, "\nown-new\n"));
    assert_non_null(strstr(seen, "\"kind\":\"ExecCredential\",\"apiVersion\":\"" V1 "\""));
    assert_non_null(strstr(seen, "\"cluster\":{\"server\":\"https://a\",\"tls-server-name\":\"n\","
                                 "\"certificate-authority-data\":\"Q0E=\","
                                 "\"config\":{\"audience\":\"z\"}}"));
    if (!isatty(STDIN_FILENO)) {
        assert_non_null(strstr(seen, "\"interactive\":false"));
        assert_non_null(strstr(seen, "/dev/null"));
    }
}

static void test_nothing_of_ours_is_left_open(void **state)
{
    struct fixture *f = *state;
    load_plain(f);
    write_file(f, "answer", ANSWER(V1, "\"token\":\"t\""));
    int leak = dup2(STDERR_FILENO, 100); /* without close-on-exec */
    ask(f, false);
    close(leak);
    _cleanup_(freep) char *seen = read_file(f, "seen");
    assert_null(strstr(seen, "100 "));
}

static void test_signals_are_as_the_plugin_expects(void **state)
{
    struct fixture *f = *state;
    sigset_t blocked, old;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, &old);
    write_file(f, "plugin", "#!/bin/sh\nkill -TERM $$\nsleep 20\n");
    assert_int_equal(load(f, "apiVersion: " V1BETA1), 0);
    ask(f, false);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_non_null(strstr(f->err.message, "ended by signal 15"));
}

/* What goes wrong */

static void test_plugin_fails(void **state)
{
    struct fixture *f = *state;
    write_file(f, "plugin", "#!/bin/sh\nexit 3\n");
    assert_int_equal(load(f, "apiVersion: " V1BETA1 ", installHint: 'run setup'"), 0);
    ask(f, false);
    assert_int_equal(f->err.code, ERR_IO);
    assert_non_null(strstr(f->err.message, "exit code 3"));
    assert_non_null(strstr(f->err.message, "run setup"));
    /* The next one is asked anew. */
    write_file(f, "plugin", printing);
    write_file(f, "answer", ANSWER(V1BETA1, "\"token\":\"t\""));
    assert_string_equal(ask(f, false), "Authorization: Bearer t\n");
}

static void test_install_hint(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(load(f, "apiVersion: " V1BETA1 ", installHint: 'get it from x'"), 0);
    kube_config_credentials(f->config, f->loop, false, take, f);
    assert_int_equal(f->answers, 1);
    assert_non_null(strstr(f->err.message, "cannot run"));
    assert_non_null(strstr(f->err.message, "get it from x"));
}

static void test_output_is_capped(void **state)
{
    struct fixture *f = *state;
    write_file(f, "plugin", "#!/bin/sh\nexec cat /dev/zero\n");
    assert_int_equal(load(f, "apiVersion: " V1BETA1), 0);
    ask(f, false);
    assert_int_equal(f->err.code, ERR_TOO_LARGE);
}

/* It ends; that a child of its own still holds its output open is no reason to wait. */
static void test_children_that_stay(void **state)
{
    struct fixture *f = *state;
    write_file(f, "plugin",
               "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nsleep 20 & echo $! > child\n"
               "echo '" ANSWER(V1BETA1, "\"token\":\"t\"") "'\n");
    assert_int_equal(load(f, "apiVersion: " V1BETA1), 0);
    int64_t before = clock_monotonic_ms(&clock_system);
    assert_string_equal(ask(f, false), "Authorization: Bearer t\n");
    assert_true(clock_monotonic_ms(&clock_system) - before < 15000);
    _cleanup_(freep) char *child = read_file(f, "child");
    kill((pid_t)strtol(child, NULL, 10), SIGKILL);
}

/* Destroying the configuration ends the plugin and its children, and calls nobody. */
static void test_destroyed_while_it_runs(void **state)
{
    struct fixture *f = *state;
    write_file(f, "plugin",
               "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nsleep 60 & echo $! > child\nwait\n");
    assert_int_equal(load(f, "apiVersion: " V1BETA1), 0);
    kube_config_credentials(f->config, f->loop, false, take, f);
    pid_t pid = 0;
    for (int i = 0; i < 2000 && pid <= 0; i++) {
        _cleanup_(freep) char *child = read_file(f, "child");
        pid = (pid_t)strtol(child, NULL, 10);
        usleep(5000);
    }
    assert_true(pid > 0);
    kube_config_destroy(f->config);
    f->config = NULL;
    assert_int_equal(f->answers, 0);
    /* The child is init's now, which reaps it when it likes: gone, or a zombie. */
    bool ended = false;
    for (int i = 0; i < 1000 && !ended; i++) {
        _cleanup_(freep) char *path = xasprintf("/proc/%d/stat", pid);
        _cleanup_(buf_finish) struct buf stat = BUF_INIT(4096);
        ended = buf_read_file(&stat, path, NULL) != 0 || strstr(buf_cstr(&stat), ") Z ");
        usleep(5000);
    }
    assert_true(ended);
}

static void test_interactive_needs_a_terminal(void **state)
{
    struct fixture *f = *state;
    int saved = dup(STDIN_FILENO), null = open("/dev/null", O_RDONLY);
    dup2(null, STDIN_FILENO);
    assert_int_equal(load(f, "apiVersion: " V1 ", interactiveMode: Always"), ERR_INVALID);
    dup2(saved, STDIN_FILENO);
    close(saved);
    close(null);
    assert_non_null(strstr(f->err.message, "no terminal"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refresh_creds),
        TEST(test_tls_credentials),
        TEST(test_token_expires),
        TEST(test_concurrent_asks_share_one_run),
        TEST(test_arguments_environment_and_info),
        TEST(test_nothing_of_ours_is_left_open),
        TEST(test_signals_are_as_the_plugin_expects),
        TEST(test_plugin_fails),
        TEST(test_install_hint),
        TEST(test_output_is_capped),
        TEST(test_children_that_stay),
        TEST(test_destroyed_while_it_runs),
        TEST(test_interactive_needs_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
