/* The libcurl transport over TLS, against `openssl s_server`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "crypto/x509.h"
#include "http_fixture.h"

/* `openssl s_server`, with a certificate made for the test. */
struct tls_server {
    pid_t pid;
    uint16_t port;
    char folder[32];
    struct buf ca, ca_key, cert, key, other_ca, other_key;
};

static struct tls_server tls_server; /* pid 0: none */

static void write_pem(const char *folder, const char *name, const struct buf *pem)
{
    _cleanup_(freep) char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(pem->ptr, 1, pem->len, file), pem->len);
    fclose(file);
}

static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    close(fd);
    return ntohs(address.sin_port);
}

static bool is_listening(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return ok;
}

/* The server's certificate is for the given name alone; clients need one of the same authority. */
static void tls_start(struct tls_server *s, const char *name)
{
    *s = (struct tls_server){.port = free_port(), .folder = "/tmp/test-http-XXXXXX"};
    int64_t now = clock_wall_ms(&clock_system);
    const char *const names[] = {name, NULL};
    struct buf *all[] = {&s->ca, &s->ca_key, &s->cert, &s->key, &s->other_ca, &s->other_key};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        *all[i] = BUF_INIT(CRYPTO_PEM_MAX);
    assert_int_equal(crypto_make_ca("ca", 3600, now, &s->ca, &s->ca_key, NULL), 0);
    assert_int_equal(crypto_make_ca("other", 3600, now, &s->other_ca, &s->other_key, NULL), 0);
    assert_int_equal(crypto_make_leaf(buf_str(&s->ca), buf_str(&s->ca_key), names, 3600, now,
                                      &s->cert, &s->key, NULL),
                     0);
    assert_non_null(mkdtemp(s->folder));
    write_pem(s->folder, "ca", &s->ca);
    write_pem(s->folder, "cert", &s->cert);
    write_pem(s->folder, "key", &s->key);
    char port[32];
    snprintf(port, sizeof(port), "127.0.0.1:%d", s->port);
    _cleanup_(freep) char *cert = xasprintf("%s/cert", s->folder);
    _cleanup_(freep) char *key = xasprintf("%s/key", s->folder);
    char *const argv[] = {"openssl", "s_server", "-accept", port,     "-cert", cert,
                          "-key",    key,        "-www",    "-quiet", NULL};
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", 1, 0);
    int failed = posix_spawnp(&s->pid, "openssl", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    assert_int_equal(failed, 0);
    for (int i = 0; i < 2000 && !is_listening(s->port); i++)
        usleep(10000);
}

static void tls_stop(struct tls_server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    static const char *const names[] = {"ca", "cert", "key"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        _cleanup_(freep) char *path = xasprintf("%s/%s", s->folder, names[i]);
        unlink(path);
    }
    rmdir(s->folder);
    struct buf *all[] = {&s->ca, &s->ca_key, &s->cert, &s->key, &s->other_ca, &s->other_key};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        buf_finish(all[i]);
}

static int tear_down_tls(void **state)
{
    if (tls_server.pid)
        tls_stop(&tls_server);
    tls_server.pid = 0;
    return tear_down(state);
}

static void tls_get(struct fixture *f, const struct tls_server *s, struct tls_config tls)
{
    _cleanup_(freep) char *url = xasprintf("https://127.0.0.1:%d/", s->port);
    struct tls_config *copy = xcalloc(1, sizeof(*copy));
    *copy = tls;
    start(f, (struct http_request){.url = url, .tls = copy, .timeout_ms = 19000}, false);
    free(copy); /* the transport has taken what it needs */
    run_until_done(f, f->done + 1);
}

static void test_tls_trusts_what_it_is_given_only(void **state)
{
    struct fixture *f = *state;
    struct tls_server *s = &tls_server;
    tls_start(s, "127.0.0.1");
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca)});
    assert_int_equal(f->status, 200);
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->other_ca)});
    assert_int_equal(f->err.code, ERR_IO);
    tls_get(f, s, (struct tls_config){0}); /* the system's */
    assert_int_equal(f->err.code, ERR_IO);
    tls_get(f, s, (struct tls_config){.insecure = true});
    assert_int_equal(f->status, 200);
    tls_get(f, s, (struct tls_config){.ca = STR("not PEM")});
    assert_int_not_equal(f->err.code, 0);
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca)}); /* what failed left nothing behind */
    assert_int_equal(f->status, 200);
}

static void test_tls_server_name(void **state)
{
    struct fixture *f = *state;
    struct tls_server *s = &tls_server;
    tls_start(s, "api.example");
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca)});
    assert_int_equal(f->err.code, ERR_IO); /* it is not the certificate of 127.0.0.1 */
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca), .server_name = "api.example"});
    assert_int_equal(f->status, 200);
    tls_get(f, s, (struct tls_config){.ca = buf_str(&s->ca), .server_name = "other.example"});
    assert_int_equal(f->err.code, ERR_IO);
}

static void test_tls_client_certificate(void **state)
{
    struct fixture *f = *state;
    struct tls_server *s = &tls_server;
    tls_start(s, "127.0.0.1");
    tls_get(f, s,
            (struct tls_config){.ca = buf_str(&s->ca),
                                .client_cert = buf_str(&s->cert),
                                .client_key = buf_str(&s->key)});
    assert_int_equal(f->status, 200);
    tls_get(f, s,
            (struct tls_config){.ca = buf_str(&s->ca),
                                .client_cert = buf_str(&s->cert),
                                .client_key = STR("not a key")});
    assert_int_equal(f->err.code, ERR_INVALID);
}

#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_tls)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TLS_TEST(test_tls_trusts_what_it_is_given_only),
        TLS_TEST(test_tls_server_name),
        TLS_TEST(test_tls_client_certificate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
