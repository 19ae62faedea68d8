/* The upload against a scripted endpoint: what is tried again, what ends it, what is sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "crypto/digest.h"
#include "runner/upload/post.h"

#define RECEIPT "{\"kind\":\"ConfigMap\",\"name\":\"x\",\"files\":[],\"mac\":\"ab\"}"
#define STATUS(reason, message)                                                                    \
    "{\"kind\":\"Status\",\"reason\":\"" reason "\",\"message\":\"" message "\"}"

struct answer_row {
    int status; /* 0: the connection breaks; -1: none ever comes */
    const char *body;
};

struct endpoint {
    struct transport transport;
    struct loop *loop;
    const struct answer_row *answers;
    size_t asked, cancelled;
    struct http_handlers handlers;
    char token[64];
    int64_t asked_at[8];
};

static void deliver(void *arg)
{
    struct endpoint *e = arg;
    const struct answer_row *a = &e->answers[e->asked - 1];
    struct err err = ERR_INIT;
    if (a->status == 0) {
        err_set(&err, ERR_IO, "connection reset");
        e->handlers.on_done(e->handlers.context, NULL, &err);
        return;
    }
    struct http_reply reply = {.status = a->status, .body = str_of(a->body), .content_type = ""};
    e->handlers.on_done(e->handlers.context, &reply, &err);
}

static struct http_call *start(struct transport *self, const struct http_request *request,
                               const struct http_handlers *handlers)
{
    struct endpoint *e = (struct endpoint *)(void *)self;
    assert_string_equal(request->method, "POST");
    assert_true(str_is(request->headers[0].name, "Authorization"));
    snprintf(e->token, sizeof(e->token), "%.*s", STR_ARG(request->headers[0].value));
    assert_true(str_is(request->tls->ca, "PEM"));
    assert_true(str_starts_with(request->body, STR("{\"version\":1,\"files\":[")));
    assert_in_range(e->asked, 0, 7);
    e->asked_at[e->asked] = clock_monotonic_ms(&clock_system);
    e->handlers = *handlers;
    const struct answer_row *a = &e->answers[e->asked++];
    if (a->status >= 0)
        loop_post(e->loop, deliver, e);
    return (struct http_call *)(void *)e;
}

static void cancel(struct transport *self, struct http_call *call)
{
    (void)call;
    ((struct endpoint *)(void *)self)->cancelled++;
}

static char token_file[] = "/tmp/test-token-XXXXXX";

static void write_token(const char *text)
{
    int fd = open(token_file, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    memcpy(token_file + sizeof(token_file) - 7, "XXXXXX", 6);
    int fd = mkstemp(token_file);
    assert_true(fd >= 0);
    close(fd);
    write_token("first\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(token_file);
}

/* One try after another over a scripted endpoint. */
struct fixture {
    struct endpoint endpoint;
    struct handover handover;
    struct post post;
    struct answer answer;
};

static void begin(struct fixture *f, const struct answer_row *answers, int64_t deadline_ms)
{
    static struct upload_file file = {.format = STR("raw"),
                                      .key = STR("raw.txt"),
                                      .media_type = STR("text/plain"),
                                      .content = STR("a 1\n")};
    *f = (struct fixture){
        .handover = {.url = STR("https://example.test/v1/results/a/b/c"),
                     .ca = STR("PEM"),
                     .token = str_of(token_file),
                     .deadline_ms = deadline_ms,
                     .upload = {.version = 1, .files = {&file, 1}}},
        .endpoint = {.transport = {start, cancel}, .answers = answers},
    };
    f->post = (struct post){.arena = arena_create(0), .handover = &f->handover};
    assert_int_equal(loop_create(&clock_system, &f->post.loop, NULL), 0);
    f->endpoint.loop = f->post.loop;
}

static void run(struct fixture *f)
{
    post_run(&f->post, &f->endpoint.transport, &f->answer);
}

static void end(struct fixture *f)
{
    loop_destroy(f->post.loop);
    arena_destroy(f->post.arena);
}

static const struct {
    const char *name;
    struct answer_row answers[4];
    int64_t deadline_ms;
    int reason; /* REASON_NONE: stored */
    const char *says;
    size_t tries;
} rows[] = {
    {"at once", {{200, RECEIPT}}, 9000, REASON_NONE, "", 1},
    {"created", {{201, RECEIPT}}, 9000, REASON_NONE, "", 1},
    {"broken connection", {{0, ""}, {200, RECEIPT}}, 9000, REASON_NONE, "", 2},
    {"busy", {{503, ""}, {200, RECEIPT}}, 9000, REASON_NONE, "", 2},
    {"too many", {{429, ""}, {200, RECEIPT}}, 9000, REASON_NONE, "", 2},
    {"token renewed", {{401, ""}, {200, RECEIPT}}, 9000, REASON_NONE, "", 2},
    {"no receipt", {{200, "{}"}, {200, RECEIPT}}, 9000, REASON_NONE, "", 2},
    {"garbage for a receipt", {{200, "<html>"}, {200, RECEIPT}}, 9000, REASON_NONE, "", 2},
    {"not ours",
     {{403, STATUS("StorageForbidden", "belongs to another")}},
     9000,
     REASON_STORAGE_FORBIDDEN,
     "belongs to another",
     1},
    {"too large",
     {{413, STATUS("RequestEntityTooLarge", "no")}},
     9000,
     REASON_RESULT_TOO_LARGE,
     "no",
     1},
    {"invalid",
     {{422, STATUS("Invalid", "files[0].key")}},
     9000,
     REASON_STORAGE_FORBIDDEN,
     "files[0].key",
     1},
    {"unknown path", {{404, "nothing here"}}, 9000, REASON_STORAGE_FORBIDDEN, "404", 1},
    {"never up",
     {{503, ""}, {503, ""}, {503, ""}, {503, ""}},
     100,
     REASON_STORAGE_UNAVAILABLE,
     "given up after 1 tries",
     1},
    {"its own reason",
     {{500, STATUS("StorageForbidden", "quota")}},
     100,
     REASON_STORAGE_FORBIDDEN,
     "quota",
     1},
};

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct fixture f;
        begin(&f, rows[i].answers, rows[i].deadline_ms);
        run(&f);
        const struct answer *a = &f.answer;
        bool stored = rows[i].reason == REASON_NONE;
        if (a->reason != rows[i].reason || f.endpoint.asked != rows[i].tries ||
            (a->receipt != NULL) != stored || str_find(a->message, str_of(rows[i].says)) < 0)
            fail_msg("%s: %s: %.*s (%zu tries)", rows[i].name, profile_reason_names[a->reason],
                     STR_ARG(a->message), f.endpoint.asked);
        if (f.endpoint.asked > 1)
            assert_true(f.endpoint.asked_at[1] - f.endpoint.asked_at[0] >= 490);
        end(&f);
    }
}

struct push {
    struct loop_timer timer;
    struct post *post;
};

static void renew_token(struct loop_timer *timer)
{
    (void)timer;
    write_token("second\n");
}

static void test_token_is_read_for_every_try(void **state)
{
    (void)state;
    static const struct answer_row answers[] = {{401, ""}, {200, RECEIPT}};
    struct fixture f;
    begin(&f, answers, 9000);
    struct push push = {.timer = {.fire = renew_token}};
    loop_timer_arm(f.post.loop, &push.timer, 100);
    run(&f);
    assert_int_equal(f.answer.reason, REASON_NONE);
    assert_string_equal(f.endpoint.token, "Bearer second");
    end(&f);
}

static void test_missing_token(void **state)
{
    (void)state;
    static const struct answer_row answers[] = {{200, RECEIPT}};
    struct fixture f;
    begin(&f, answers, 100);
    f.handover.token = STR("/nonexistent/token");
    run(&f);
    assert_int_equal(f.answer.reason, REASON_STORAGE_UNAVAILABLE);
    assert_true(str_find(f.answer.message, STR("/nonexistent/token")) >= 0);
    assert_int_equal(f.endpoint.asked, 0);
    end(&f);
}

static void terminate(struct loop_timer *timer)
{
    CONTAINER_OF(timer, struct push, timer)->post->cancelled = true;
}

/* While it waits for the next try, SIGTERM ends it at once; a try under way gets 3 s. */
static void test_sigterm(void **state)
{
    (void)state;
    static const struct answer_row waiting[] = {{503, ""}, {503, ""}}, silent[] = {{-1, ""}};
    static const struct {
        const struct answer_row *answers;
        int64_t least_ms, most_ms;
        size_t cancelled;
    } cases[] = {{waiting, 0, 450, 0}, {silent, 3000, 4500, 1}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture f;
        begin(&f, cases[i].answers, 60000);
        struct push push = {.timer = {.fire = terminate}, .post = &f.post};
        loop_timer_arm(f.post.loop, &push.timer, 100);
        int64_t began = clock_monotonic_ms(&clock_system);
        run(&f);
        assert_in_range(clock_monotonic_ms(&clock_system) - began, cases[i].least_ms,
                        cases[i].most_ms);
        assert_int_equal(f.answer.reason, REASON_CANCELLED);
        assert_int_equal(f.endpoint.cancelled, cases[i].cancelled);
        end(&f);
    }
}

/* Digests are of what is stored; what is no text goes as base64. */
static void test_body(void **state)
{
    (void)state;
    static struct upload_file files[] = {
        {.format = STR("raw"),
         .key = STR("raw.txt"),
         .media_type = STR("text/plain"),
         .size_bytes = 3,
         .content = STR("abc")},
        {.format = STR("speedscope"),
         .key = STR("s.json.gz"),
         .media_type = STR("application/json"),
         .encoding = STR("gzip"),
         .size_bytes = 4,
         .content = {"\x1f\x8b\0\xff", 4}},
    };
    struct handover h = {.upload = {.version = 1, .files = {files, ARRAY_SIZE(files)}}};
    _cleanup_(buf_finish) struct buf body = BUF_INIT(65536);
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct upload sent;
    assert_int_equal(post_body(&h, &body, NULL), 0);
    assert_int_equal(upload_decode(arena, buf_str(&body), &sent, NULL), 0);
    assert_int_equal(sent.files.len, 2);
    const struct upload_file *f = sent.files.items;
    assert_true(str_is(f[0].content, "abc"));
    /* FIPS 180-4, the example of "abc". */
    assert_true(
        str_is(f[0].sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_true(str_is(f[1].content, "H4sA/w=="));
    char digest[CRYPTO_SHA256_HEX];
    crypto_sha256_hex(files[1].content, digest);
    assert_true(str_is(f[1].sha256, digest));
    assert_int_equal(f[1].size_bytes, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_token_is_read_for_every_try, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_token, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sigterm, set_up, tear_down),
        cmocka_unit_test(test_body),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/post", tests, NULL, NULL);
}
