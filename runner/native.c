#include "runner/native.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

#define HOPELESS 100 /* stacks that could not be read, and none that could */

struct native {
    struct loop *loop;
    struct loop_watch watch; /* its descriptor becomes readable at the end */
    struct record *record;
    struct profile *profile; /* the caller's, until it was abandoned */
    bool abandoned;
    pthread_t thread;
    bool joined;
    void (*done)(void *context);
    void *context;
};

int native_or_not(const struct sampling_spec *sampling, enum engine_reason *ret_why)
{
    if (sampling->engine != ENGINE_AUTO) {
        *ret_why = ENGINE_REASON_REQUESTED;
        return sampling->engine;
    }
    *ret_why = sampling->native ? ENGINE_REASON_NATIVE_STACKS : ENGINE_REASON_PREFERRED;
    return sampling->native ? ENGINE_PYSPY : ENGINE_NATIVE;
}

enum engine_reason native_takeover(const struct sampling_spec *sampling, int code)
{
    if (sampling->engine != ENGINE_AUTO)
        return ENGINE_REASON_NONE;
    switch (code) {
    case ERR_NOT_FOUND: /* gone */
    case ERR_FORBIDDEN: /* py-spy needs the same rights */
        return ENGINE_REASON_NONE;
    case ERR_INVALID:
        return ENGINE_REASON_UNSUPPORTED_PYTHON;
    default:
        return ENGINE_REASON_NATIVE_FAILED;
    }
}

const char *native_accuracy(const struct sampling_spec *sampling)
{
    return sampling->gil ? "GILOnly" : sampling->idle ? "IdleCounted" : "Full";
}

static void *work(void *argument)
{
    struct native *n = argument;
    record_run(n->record);
    uint64_t one = 1;
    while (write(n->watch.fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    return NULL;
}

static void join(struct native *n)
{
    if (n->joined)
        return;
    pthread_join(n->thread, NULL);
    n->joined = true;
    if (!n->abandoned)
        loop_watch_remove(n->loop, &n->watch);
    close(n->watch.fd);
    n->watch.fd = -1;
}

static void on_end(struct loop_watch *watch)
{
    struct native *n = CONTAINER_OF(watch, struct native, watch);
    join(n);
    n->done(n->context);
}

int native_start(struct run *run, pid_t pid, bool subprocesses, struct profile *profile,
                 void (*done)(void *context), void *context, struct native **ret, struct err *err)
{
    const struct sampling_spec *sampling = &run->task.sampling;
    struct record_options options = {
        .rate = sampling->rate,
        .duration_ms = sampling->duration_ms,
        .gil = sampling->gil,
        .idle = sampling->idle,
        .subprocesses = subprocesses,
        .threads = sampling->threads,
        .functions = sampling->functions,
        .async_tasks = sampling->async_tasks,
        .nonblocking = sampling->nonblocking,
        .command_lines = sampling->command_lines,
        .hopeless = sampling->engine == ENGINE_AUTO ? HOPELESS : 0,
        .parts = run->chosen.len,
    };
    _cleanup_(record_destroyp) struct record *record = NULL;
    int r = record_create(run->proc, pid, &options, profile, &record, err);
    if (r < 0)
        return r;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "eventfd");
    struct native *n = xcalloc(1, sizeof(*n));
    *n = (struct native){.loop = run->loop,
                         .watch = {.fd = fd, .ready = on_end},
                         .record = record,
                         .profile = profile,
                         .done = done,
                         .context = context};
    int e = pthread_create(&n->thread, NULL, work, n);
    if (e != 0) {
        close(fd);
        free(n);
        return err_set_errno(err, e, "thread of the sampler");
    }
    pthread_setname_np(n->thread, "sampler");
    (void)TAKE(record);
    loop_watch_add(run->loop, &n->watch);
    *ret = n;
    return 0;
}

void native_stop(struct native *n)
{
    record_stop(n->record);
}

void native_abandon(struct native *n)
{
    loop_watch_remove(n->loop, &n->watch);
    n->abandoned = true;
}

bool native_gives_up(const struct sampling_spec *sampling, const struct record_result *result)
{
    return sampling->engine == ENGINE_AUTO && result->hopeless && !result->exited;
}

struct record_result native_result(const struct native *n)
{
    return record_result(n->record);
}

void native_destroy(struct native *n)
{
    if (!n)
        return;
    record_stop(n->record);
    join(n);
    record_destroy(n->record);
    if (n->abandoned)
        profile_destroy(n->profile);
    free(n);
}

/* Rows are tried from the top. */
void native_judge(const struct native_facts *f, struct outcome *ret)
{
    long long samples = f->samples, looks = f->result->looks;
    if (f->cancelled)
        outcome_set(ret, REASON_CANCELLED, "cancelled after %lld samples", samples);
    else if (f->target_stopped)
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "the process is stopped (state T); %lld samples until then are kept", samples);
    else if (f->result->full)
        outcome_set(ret, REASON_RESULT_TOO_LARGE,
                    "more different stacks than fit; %lld samples until then are kept; sample for "
                    "a shorter time, or by function",
                    samples);
    else if (f->result->replaced)
        outcome_set(ret, REASON_PROCESS_EXITED,
                    "the process runs another program now, which is no Python; %lld samples until "
                    "then are kept",
                    samples);
    else if (f->target_exited && samples > 0)
        outcome_set(ret, REASON_PROCESS_EXITED,
                    "the process ended while it was sampled; %lld samples until then are kept",
                    samples);
    else if (f->target_exited)
        outcome_set(ret, REASON_PROCESS_EXITED,
                    "the process ended before there was a sample to keep");
    else if (samples > 0)
        outcome_set(ret, REASON_NONE, "%s", "");
    else if (f->result->counts.errors > 0)
        outcome_set(ret, REASON_NO_SAMPLES,
                    "%lld stacks could not be read in %lld looks, and none could",
                    (long long)f->result->counts.errors, looks);
    else if (f->gil)
        outcome_set(ret, REASON_NO_SAMPLES,
                    "the GIL was free in %lld of %lld looks: idle, or in native code", looks,
                    looks);
    else
        outcome_set(ret, REASON_NO_SAMPLES, "no thread was running in %lld of %lld looks: idle",
                    looks, looks);
}
