#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "runner/host/host.h"
#include "runner/host/outfile.h"

#define OUTPUT_MAX (512u << 20)

#define PATIENCE 3 /* signals that only ask for the end */

static struct record *running; /* for the signal handler */
static volatile sig_atomic_t signals;

/* timeout(1) sends two at once; who sends many wants no profile any more. */
static void on_signal(int signal_number)
{
    if (signals == PATIENCE) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
    signals++;
    if (running)
        record_stop(running);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal}, old;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
}

struct progress {
    const struct record *record;
    const struct profile *profile;
    const struct host_arguments *arguments;
    int64_t start_ms;
};

static void show_progress(void *context)
{
    const struct progress *p = context;
    struct record_result r = record_result(p->record);
    int64_t ms = clock_monotonic_ms(&clock_system) - p->start_ms;
    fprintf(stderr, "\r%5.1f of %lld s  %lld samples  %lld errors  %lld late ", (double)ms / 1000,
            (long long)(p->arguments->options.duration_ms / 1000),
            (long long)profile_samples(p->profile), (long long)r.counts.errors, (long long)r.late);
    fflush(stderr);
}

static int no_samples(const struct host_arguments *a, const struct record_result *result,
                      struct err *err)
{
    long long looks = (long long)result->looks;
    if (result->exited && looks == 0)
        return err_set(err, ERR_NOT_FOUND, "the process ended before there was a look at it");
    if (result->counts.errors)
        return err_set(err, ERR_NOT_FOUND,
                       "no samples: %lld stacks could not be read in %lld looks, and none could%s",
                       (long long)result->counts.errors, looks,
                       result->counts.unasked ? ": too few descriptors, see ulimit -n" : "");
    return err_set(err, ERR_NOT_FOUND, "no samples: in %lld looks no thread %s", looks,
                   a->options.gil    ? "held the interpreter's lock"
                   : a->options.idle ? "had Python code"
                                     : "ran; --idle counts sleeping ones as well");
}

static void tell(const char *path, const struct profile *profile,
                 const struct record_result *result)
{
    fprintf(stderr,
            "%s: %lld samples of Python %s in %lld looks; %lld errors, %lld late; %lld "
            "process%s%s%s%s%s\n",
            str_is(str_of(path), "-") ? "standard output" : path,
            (long long)profile_samples(profile), result->version, (long long)result->looks,
            (long long)result->counts.errors, (long long)result->late, (long long)result->processes,
            result->processes == 1 ? "" : "es",
            result->replaced ? "; it runs another program now"
            : result->exited ? "; it ended"
                             : "",
            result->full ? "; stopped: too large" : "",
            result->left_out ? "; more children than can be followed" : "",
            result->counts.unasked ? "; too few descriptors, see ulimit -n" : "");
    if (result->counts.held)
        fprintf(stderr, "a thread waited %lld times while it was read; --nonblocking forbids it\n",
                (long long)result->counts.held);
    if (result->without_tasks[0])
        fprintf(stderr, "--async-tasks: " TARGET_WITHOUT_TASKS "\n", result->without_tasks);
}

int host_record(int proc, struct host_arguments *a, struct err *err)
{
    _cleanup_(freep) char *path =
        a->output ? xstrdup(a->output) : xasprintf("%lld%s", (long long)a->pid, a->format->ending);
    _cleanup_(outfile_finish) struct outfile file = {.fd = -1};
    int e = outfile_open(path, &file, err);
    if (e < 0)
        return e;
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct progress progress = {
        .profile = profile, .arguments = a, .start_ms = clock_monotonic_ms(&clock_system)};
    if (!a->quiet && isatty(STDERR_FILENO)) {
        a->options.progress = show_progress;
        a->options.context = &progress;
    }
    int64_t start = clock_wall_ms(&clock_system);
    _cleanup_(record_destroyp) struct record *r = NULL;
    if (record_create(proc, (pid_t)a->pid, &a->options, profile, &r, err) < 0)
        return host_explain(proc, a, err);
    progress.record = r;
    running = r;
    catch_signals();
    record_run(r);
    running = NULL;

    struct record_result result = record_result(r);
    if (a->options.progress)
        fputc('\n', stderr);
    _cleanup_(freep) char *title =
        xasprintf("process %lld, Python %s", (long long)a->pid, result.version);
    profile_set_about(profile, &(struct profile_about){
                                   .title = str_of(title),
                                   .start_ms = start,
                                   .duration_ms = clock_wall_ms(&clock_system) - start,
                                   .rate = a->options.rate,
                               });
    if (profile_samples(profile) == 0)
        return no_samples(a, &result, err);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(OUTPUT_MAX);
    e = a->format->write(profile, &text, err);
    if (e == 0)
        e = outfile_write(&file, buf_str(&text), err);
    if (e == 0 && !a->quiet)
        tell(path, profile, &result);
    return e;
}
