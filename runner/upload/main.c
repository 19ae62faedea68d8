/* pyspy-upload: the part of the runner that speaks with the network, as a program of its own. What
 * a server, or who stands between, sends to TLS, HTTP and JSON code reaches a process that holds no
 * capability, gains none by any exec (no_new_privs), has no descriptor and no environment of the
 * runner's, and whose memory, which holds the token, nobody without CAP_SYS_PTRACE may read. What
 * remains is the user root without capabilities, because the token's file is root's.
 *
 * The runner starts it (runner/upload.c) and drops the rights before the exec, so that neither the
 * loader nor a constructor of a library runs with them. */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/http.h"
#include "runner/upload/post.h"

static int map_handover(struct str *ret, struct err *err)
{
    struct stat st;
    if (fstat(HANDOVER_FD, &st) < 0 || st.st_size <= 0)
        return err_set(err, ERR_INVALID, "pyspy-upload is started by pyspy-runner");
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, HANDOVER_FD, 0);
    if (bytes == MAP_FAILED)
        return err_set_errno(err, errno, "map the handover");
    *ret = (struct str){bytes, (size_t)st.st_size};
    return 0;
}

static void on_signal(void *context, int signo)
{
    struct post *p = context;
    (void)signo;
    p->cancelled = true;
}

static int post(struct post *p, struct answer *ret, struct err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, 0};
    _cleanup_(loop_destroyp) struct loop *loop = NULL;
    struct transport *transport = NULL;
    int r = loop_create(&clock_system, &loop, err);
    if (r == 0)
        r = loop_signals(loop, signals, on_signal, p, err);
    if (r == 0)
        r = http_transport_create(loop, "pyspy-runner/" PYSPY_OPERATOR_VERSION, &transport, err);
    if (r < 0)
        return r;
    p->loop = loop;
    post_run(p, transport, ret);
    http_transport_destroy(transport);
    return 0;
}

static int upload(struct arena *arena, struct answer *ret, struct err *err)
{
    struct str bytes = STR_NULL;
    struct handover handover = {.log_level = LOG_INFO};
    int r = map_handover(&bytes, err);
    if (r == 0)
        r = handover_read(arena, bytes, &handover, err);
    if (r != 0)
        return r;
    log_setup(STDERR_FILENO, (enum log_level)handover.log_level, LOG_JSON);
    struct post p = {.arena = arena, .handover = &handover};
    return post(&p, ret, err);
}

int main(void)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    log_setup(STDERR_FILENO, LOG_INFO, LOG_JSON);

    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct err err = ERR_INIT;
    struct answer answer = {.reason = REASON_STORAGE_UNAVAILABLE};
    if (upload(arena, &answer, &err) < 0)
        answer.message = str_of(err.message);
    struct err unsaid = ERR_INIT;
    if (answer_write(ANSWER_FD, &answer, &unsaid) < 0) {
        /* A receipt without end; its reason fits. */
        answer = (struct answer){.reason = REASON_STORAGE_UNAVAILABLE,
                                 .message = str_of(unsaid.message)};
        if (answer_write(ANSWER_FD, &answer, NULL) < 0) {
            log_error("the answer cannot be handed back", LOG_ERR(&unsaid));
            return 2;
        }
    }
    return answer.reason == REASON_NONE ? 0 : 1;
}
