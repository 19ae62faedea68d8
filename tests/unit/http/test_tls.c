/* TLS versions, certificates that are replaced under load, and many connections at once. */
#include "fixture.h"

static atomic_int failures;

/* ---- many ---- */

static void *load(void *argument)
{
    int seed = *(int *)argument;
    struct client c;
    struct response r;
    bool secure = seed % 2;
    if (!(secure ? client_open_tls(&c, tls(), 0) : client_open(&c, plain()))) {
        atomic_fetch_add(&failures, 1);
        return NULL;
    }
    for (int i = 0; i < 5; i++) {
        client_send_text(&c, (seed + i) % 3 ? "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                                            : "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
        bool got = client_receive(&c, &r, false);
        if (!got || r.status != ((seed + i) % 3 ? 200 : 503))
            atomic_fetch_add(&failures, 1);
        response_finish(&r);
    }
    client_close(&c);
    return NULL;
}

enum { MANY = 200 };

static void test_many_at_once(void **state)
{
    (void)state;
    static pthread_t threads[MANY];
    static int seeds[MANY];
    start((struct http_server_options){0});
    atomic_store(&failures, 0);
    int n = 0;
    for (int seed = 0; seed < MANY; seed++)
        for (int i = 0; i < 5; i++)
            n += (seed + i) % 3 == 0;
    pthread_t answering;
    pthread_create(&answering, NULL, answer_kept, &n);
    for (int i = 0; i < MANY; i++) {
        seeds[i] = i;
        pthread_create(&threads[i], NULL, load, &seeds[i]);
    }
    for (int i = 0; i < MANY; i++)
        pthread_join(threads[i], NULL);
    pthread_join(answering, NULL);
    assert_int_equal(atomic_load(&failures), 0);
}

/* ---- TLS ---- */

static void test_tls_versions(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct client c;
    assert_false(client_open_tls(&c, tls(), TLS1_1_VERSION));
    assert_true(client_open_tls(&c, tls(), TLS1_2_VERSION));
    client_close(&c);
    assert_true(client_open_tls(&c, tls(), TLS1_3_VERSION));
    const unsigned char *protocol;
    unsigned len;
    SSL_get0_alpn_selected(c.ssl, &protocol, &len);
    assert_int_equal(len, 8);
    assert_memory_equal(protocol, "http/1.1", 8);
    client_close(&c);
}

static atomic_bool rotating;

static void *rotate_load(void *argument)
{
    (void)argument;
    while (atomic_load(&rotating)) {
        struct client c;
        struct response r;
        if (!client_open_tls(&c, tls(), 0)) {
            atomic_fetch_add(&failures, 1);
            continue;
        }
        client_send_text(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        if (!client_receive(&c, &r, false))
            atomic_fetch_add(&failures, 1);
        response_finish(&r);
        client_close(&c);
    }
    return NULL;
}

static void test_certificate_is_replaced_under_load(void **state)
{
    (void)state;
    start((struct http_server_options){0});
    struct buf certificate = BUF_INIT(65536), key = BUF_INIT(65536);
    make_certificate("second", &certificate, &key);
    struct client before, after;
    struct response r;
    char name[64];
    pthread_t threads[4];
    atomic_store(&failures, 0);
    atomic_store(&rotating, true);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_create(&threads[i], NULL, rotate_load, NULL);
    assert_true(client_open_tls(&before, tls(), 0));
    client_peer_name(&before, name, sizeof(name));
    assert_string_equal(name, "first");

    struct err err = ERR_INIT;
    for (int i = 0; i < 51; i++) {
        bool second = i % 2 == 0;
        assert_int_equal(
            http_server_set_certificate(t.server, buf_str(second ? &certificate : &t.certificate),
                                        buf_str(second ? &key : &t.key), &err),
            0);
        usleep(1000);
    }
    /* What does not fit together changes nothing. */
    assert_int_equal(
        http_server_set_certificate(t.server, buf_str(&t.certificate), buf_str(&key), &err),
        ERR_INVALID);
    assert_int_equal(http_server_set_certificate(t.server, STR("no PEM"), buf_str(&key), &err),
                     ERR_INVALID);
    assert_true(client_open_tls(&after, tls(), 0));
    client_peer_name(&after, name, sizeof(name));
    assert_string_equal(name, "second");
    client_send_text(&before, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(client_receive(&before, &r, false));
    assert_body(&r, "hello");
    atomic_store(&rotating, false);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&failures), 0);
    client_close(&before);
    client_close(&after);
    buf_finish(&certificate);
    buf_finish(&key);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_teardown(f, stop)
    const struct CMUnitTest tests[] = {
        CASE(test_many_at_once),
        CASE(test_tls_versions),
        CASE(test_certificate_is_replaced_under_load),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
