/* The upload against a scripted endpoint: what is tried again, what ends it, what is sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "loop/transport.h"
#include "runner/run.h"

#define RECEIPT "{\"kind\":\"ConfigMap\",\"name\":\"x\",\"files\":[],\"mac\":\"ab\"}"
#define STATUS(reason, message)                                                                    \
    "{\"kind\":\"Status\",\"reason\":\"" reason "\",\"message\":\"" message "\"}"

struct answer {
    int status; /* 0: the connection breaks; -1: none ever comes */
    const char *body;
};

struct endpoint {
    struct transport transport;
    struct loop *loop;
    const struct answer *answers;
    size_t asked, cancelled;
    struct http_handlers handlers;
    char token[64];
    int64_t asked_at[8];
};

static void deliver(void *arg)
{
    struct endpoint *e = arg;
    const struct answer *a = &e->answers[e->asked - 1];
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
    const struct answer *a = &e->answers[e->asked++];
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
static struct options options = {.proc = "/proc", .token = token_file};

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

static void begin(struct run *run, struct endpoint *e, const struct answer *answers,
                  int64_t deadline_ms)
{
    static struct upload_file file = {.format = STR("raw"),
                                      .key = STR("raw.txt"),
                                      .media_type = STR("text/plain"),
                                      .content = STR("a 1\n")};
    options.upload_deadline_ms = deadline_ms;
    assert_int_equal(run_set_up(run, &options), 0);
    run->task.ca = STR("PEM");
    run->task.upload_url = STR("https://example.test/v1/results/a/b/c");
    run->upload = (struct upload){.version = 1, .files = {&file, 1}};
    *e = (struct endpoint){.transport = {start, cancel}, .loop = run->loop, .answers = answers};
}

static const struct {
    const char *name;
    struct answer answers[4];
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
        struct run run;
        struct endpoint e;
        begin(&run, &e, rows[i].answers, rows[i].deadline_ms);
        int r = run_upload_over(&run, &e.transport);
        if ((r == 0) != (rows[i].reason == REASON_NONE) || run.outcome.reason != rows[i].reason ||
            e.asked != rows[i].tries || (run.receipt != NULL) != (r == 0) ||
            str_find(str_of(run.outcome.message), str_of(rows[i].says)) < 0)
            fail_msg("%s: %s: %s (%zu tries)", rows[i].name,
                     profile_reason_names[run.outcome.reason], run.outcome.message, e.asked);
        if (e.asked > 1)
            assert_true(e.asked_at[1] - e.asked_at[0] >= 490);
        run_finish(&run);
    }
}

struct push {
    struct loop_timer timer;
};

static void renew_token(struct loop_timer *timer)
{
    (void)timer;
    write_token("second\n");
}

static void test_token_is_read_for_every_try(void **state)
{
    (void)state;
    static const struct answer answers[] = {{401, ""}, {200, RECEIPT}};
    struct run run;
    struct endpoint e;
    begin(&run, &e, answers, 9000);
    struct push push = {.timer = {.fire = renew_token}};
    loop_timer_arm(run.loop, &push.timer, 100);
    assert_int_equal(run_upload_over(&run, &e.transport), 0);
    assert_string_equal(e.token, "Bearer second");
    run_finish(&run);
}

static void test_missing_token(void **state)
{
    (void)state;
    static const struct answer answers[] = {{200, RECEIPT}};
    struct run run;
    struct endpoint e;
    begin(&run, &e, answers, 100);
    options.token = "/nonexistent/token";
    assert_int_equal(run_upload_over(&run, &e.transport), -1);
    options.token = token_file;
    assert_int_equal(run.outcome.reason, REASON_STORAGE_UNAVAILABLE);
    assert_non_null(strstr(run.outcome.message, "/nonexistent/token"));
    assert_int_equal(e.asked, 0);
    run_finish(&run);
}

static void terminate(struct loop_timer *timer)
{
    (void)timer;
    kill(getpid(), SIGTERM);
}

/* While it waits for the next try, SIGTERM ends it at once; a try under way gets 3 s. */
static void test_sigterm(void **state)
{
    (void)state;
    static const struct answer waiting[] = {{503, ""}, {503, ""}}, silent[] = {{-1, ""}};
    static const struct {
        const struct answer *answers;
        int64_t at_ms, least_ms, most_ms;
        size_t cancelled;
    } cases[] = {{waiting, 100, 0, 450, 0}, {silent, 100, 3000, 4500, 1}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct run run;
        struct endpoint e;
        begin(&run, &e, cases[i].answers, 60000);
        struct push push = {.timer = {.fire = terminate}};
        loop_timer_arm(run.loop, &push.timer, cases[i].at_ms);
        int64_t began = clock_monotonic_ms(&clock_system);
        assert_int_equal(run_upload_over(&run, &e.transport), -1);
        assert_in_range(clock_monotonic_ms(&clock_system) - began, cases[i].least_ms,
                        cases[i].most_ms);
        assert_int_equal(run.outcome.reason, REASON_CANCELLED);
        assert_int_equal(e.cancelled, cases[i].cancelled);
        run_finish(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_token_is_read_for_every_try, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_token, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sigterm, set_up, tear_down),
    };
    log_setup(STDERR_FILENO, LOG_ERROR, LOG_LOGFMT);
    return cmocka_run_group_tests_name("runner/upload", tests, NULL, NULL);
}
