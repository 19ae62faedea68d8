#include "runner/native.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

#define HOPELESS 100 /* stacks that could not be read, and none that could */

/* As the thread goes through them. */
enum native_step {
    NATIVE_OPENING,
    NATIVE_SAMPLING,
    NATIVE_FAILED, /* to open it */
    NATIVE_ENDED,
};

struct native {
    struct loop *loop;
    struct loop_watch watch; /* its descriptor becomes readable at each step */
    struct native_events events;
    int proc; /* of the node */
    pid_t pid;
    struct record_options options;
    struct profile *profile; /* the caller's, until it was abandoned */
    bool abandoned;
    pthread_t thread;
    bool joined;
    enum native_step told; /* the loop */

    /* What the thread writes. */
    _Atomic enum native_step step;
    struct record *_Atomic record; /* NULL: not open yet */
    atomic_bool stop;              /* for when it is */
    int code;                      /* of opening, with err, once that has failed */
    struct err err;
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

static void enter(struct native *n, enum native_step step)
{
    uint64_t one = 1;
    atomic_store(&n->step, step);
    while (write(n->watch.fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static void *work(void *argument)
{
    struct native *n = argument;
    struct record *record;
    n->code = record_create(n->proc, n->pid, &n->options, n->profile, &record, &n->err);
    if (n->code < 0) {
        enter(n, NATIVE_FAILED);
        return NULL;
    }
    atomic_store(&n->record, record);
    if (atomic_load(&n->stop))
        record_stop(record);
    enter(n, NATIVE_SAMPLING);
    record_run(record);
    enter(n, NATIVE_ENDED);
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

static void on_step(struct loop_watch *watch)
{
    struct native *n = CONTAINER_OF(watch, struct native, watch);
    uint64_t steps;
    if (read(watch->fd, &steps, sizeof(steps)) < 0)
        return;
    enum native_step step = atomic_load(&n->step), told = n->told;
    n->told = step;
    if (step == NATIVE_FAILED) {
        join(n);
        n->events.opened(n->events.context, n->code, &n->err);
        return;
    }
    if (told == NATIVE_OPENING)
        n->events.opened(n->events.context, 0, NULL);
    if (step == NATIVE_ENDED) {
        join(n);
        n->events.done(n->events.context);
    }
}

int native_start(struct run *run, pid_t pid, bool subprocesses, struct profile *profile,
                 const struct native_events *events, struct native **ret, struct err *err)
{
    const struct sampling_spec *sampling = &run->task.sampling;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "eventfd");
    struct native *n = xcalloc(1, sizeof(*n));
    *n = (struct native){
        .loop = run->loop,
        .watch = {.fd = fd, .ready = on_step},
        .events = *events,
        .proc = run->proc,
        .pid = pid,
        .options =
            {
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
            },
        .profile = profile,
        .err = ERR_INIT,
    };
    int e = pthread_create(&n->thread, NULL, work, n);
    if (e != 0) {
        close(fd);
        free(n);
        return err_set_errno(err, e, "thread of the sampler");
    }
    pthread_setname_np(n->thread, "sampler");
    loop_watch_add(run->loop, &n->watch);
    *ret = n;
    return 0;
}

void native_stop(struct native *n)
{
    atomic_store(&n->stop, true);
    struct record *record = atomic_load(&n->record);
    if (record)
        record_stop(record);
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
    const struct record *record = atomic_load(&n->record);
    return record ? record_result(record) : (struct record_result){0};
}

void native_destroy(struct native *n)
{
    if (!n)
        return;
    native_stop(n);
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
    else if (f->timed_out)
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "it took too long to open the process; nothing was sampled");
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
