/* Hands the results to pyspy-upload, a program without capabilities (see runner/upload/main.c), and
 * takes its answer for what it is: a text from outside. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/run.h"
#include "runner/spawn.h"
#include "runner/upload/handover.h"

#define END_MS 2000 /* beyond what it takes when all goes well */

static void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static bool has_ended(void *context)
{
    return ((const struct run *)context)->uploader.ended;
}

static int64_t now_ms(void)
{
    return clock_monotonic_ms(&clock_system);
}

/* Also after SIGTERM. */
static bool wait_for_end(struct run *run, int64_t ms)
{
    for (int64_t until = now_ms() + ms, left;
         !run->uploader.ended && (left = until - now_ms()) > 0;)
        if (loop_step(run->loop, (int)left, NULL) < 0)
            break;
    return run->uploader.ended;
}

/* True: it ended by itself. It gets as long as its own limits allow. */
static bool wait_for_uploader(struct run *run)
{
    int64_t most = run->options->upload_deadline_ms + HANDOVER_TRY_MS + END_MS;
    if (run_wait(run, has_ended, run, most))
        return true;
    /* It is our child and not reaped, so the number is its own. */
    kill(run->uploader.pid, SIGTERM);
    if (wait_for_end(run, HANDOVER_TERM_MS + END_MS))
        return true;
    kill(run->uploader.pid, SIGKILL);
    wait_for_end(run, END_MS);
    return false;
}

static int start(struct run *run, int handover, int answer, struct err *err)
{
    const char *const argv[] = {run->options->uploader, NULL};
    static const char *const environment[] = {NULL};
    const int fds[] = {handover, answer};
    struct spawn s = {
        .argv = argv,
        .environment = environment,
        .fds = fds,
        .n_fds = ARRAY_SIZE(fds),
        .output = -1,
        .complaints = ANSWER_FD,
        .capabilities = 0,
        .hold_term = true,
        .join = -1,
    };
    run->uploader = (struct run_child){.pid = -1};
    return spawn_program(&s, &run->uploader.pid, err);
}

/* What the way it ended says, when it gave no answer. */
static int judge_end(struct run *run, bool by_itself, struct str text)
{
    int status = run->uploader.status;
    if (!by_itself && run->cancelled)
        return run_fail(run, REASON_CANCELLED,
                        "cancelled before the results were stored; pyspy-upload did not end");
    if (!by_itself)
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "pyspy-upload did not end");
    if (WIFSIGNALED(status)) {
        const char *name = sigdescr_np(WTERMSIG(status));
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "pyspy-upload was ended by signal %d (%s)",
                        WTERMSIG(status), name ? name : "?");
    }
    if (WEXITSTATUS(status) == SPAWN_EXIT_SETUP)
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "pyspy-upload was not started: %.*s",
                        STR_ARG(str_sub(str_trim(text), 0, 400)));
    return run_fail(run, REASON_STORAGE_UNAVAILABLE,
                    "pyspy-upload ended with status %d and no answer", WEXITSTATUS(status));
}

static int take_answer(struct run *run, bool by_itself, int fd)
{
    struct err err = ERR_INIT;
    struct str text = STR_NULL;
    struct answer answer;
    if (answer_text(fd, run->arena, &text, &err) < 0)
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "pyspy-upload: %s", err.message);
    int status = run->uploader.status;
    if (!by_itself || !WIFEXITED(status) || WEXITSTATUS(status) == SPAWN_EXIT_SETUP || !text.len)
        return judge_end(run, by_itself, text);
    if (answer_parse(run->arena, text, &answer, &err) < 0)
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "pyspy-upload's answer: %s", err.message);
    if (answer.reason != REASON_NONE)
        return run_fail(run, answer.reason, "%.*s", STR_ARG(answer.message));
    run->receipt = answer.receipt;
    return 0;
}

int run_upload(struct run *run)
{
    struct handover h = {
        .url = run->task.upload_url,
        .ca = run->task.ca,
        .token = str_of(run->options->token),
        .deadline_ms = run->options->upload_deadline_ms,
        .log_level = (int)run->options->log_level,
        .upload = run->upload,
    };
    _cleanup_(close_fdp) int handover = -1;
    _cleanup_(close_fdp) int answer = -1;
    struct err err = ERR_INIT;
    int r = handover_create(&h, &handover, &err);
    if (r == ERR_TOO_LARGE)
        return run_fail(run, REASON_RESULT_TOO_LARGE, "%s", err.message);
    if (r == 0)
        r = answer_create(&answer, &err);
    if (r == 0)
        r = start(run, handover, answer, &err);
    if (r < 0)
        return run_fail(run, REASON_STORAGE_UNAVAILABLE, "pyspy-upload: %s", err.message);
    return take_answer(run, wait_for_uploader(run), answer);
}
