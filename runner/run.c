#include "runner/run.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/sample.h"

/* They quote py-spy, which quotes its target: shown as they may reach a status and a terminal. */
static void set(struct outcome *o, int reason, const char *format, va_list args)
{
    char draft[2 * sizeof(o->message)]; /* cut below, between characters */
    vsnprintf(draft, sizeof(draft), format, args);
    o->reason = reason;
    str_show(str_of(draft), o->message, sizeof(o->message));
}

void outcome_set(struct outcome *o, int reason, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(o, reason, format, args);
    va_end(args);
}

int run_fail(struct run *run, int reason, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(&run->outcome, reason, format, args);
    va_end(args);
    return -1;
}

struct wait_timer {
    struct loop_timer timer;
    bool over;
};

static void wait_over(struct loop_timer *timer)
{
    CONTAINER_OF(timer, struct wait_timer, timer)->over = true;
}

bool run_wait(struct run *run, bool (*done)(void *context), void *context, int64_t ms)
{
    struct wait_timer wait = {.timer = {.fire = wait_over}};
    if (ms >= 0)
        loop_timer_arm(run->loop, &wait.timer, ms);
    bool is_done = false;
    struct err err = ERR_INIT;
    while (!run->cancelled && !wait.over && !(is_done = done && done(context))) {
        if (loop_step(run->loop, -1, &err) < 0) {
            log_error("loop", LOG_ERR(&err));
            break;
        }
    }
    loop_timer_disarm(run->loop, &wait.timer);
    return is_done;
}

/* As PID 1 of the container we also get the orphans of others. */
static void reap(struct run *run)
{
    int status;
    pid_t pid;
    struct rusage usage;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        if (pid == run->uploader.pid && !run->uploader.ended) {
            run->uploader.ended = true;
            run->uploader.status = status;
        }
        for (size_t i = 0; i < run->n_samplers; i++) {
            if (run->samplers[i].child == pid && run->samplers[i].state != SAMPLER_ENDED)
                sampler_reaped(&run->samplers[i], status, usage.ru_maxrss * INT64_C(1024));
        }
    }
}

static void on_signal(void *context, int signo)
{
    struct run *run = context;
    if (signo == SIGCHLD) {
        reap(run);
        return;
    }
    if (!run->cancelled)
        log_info("asked to end", LOG_I("signal", signo));
    run->cancelled = true;
}

static double seconds(const struct timeval *t)
{
    return (double)t->tv_sec + (double)t->tv_usec / 1e6;
}

/* With the process it is about, when it is not the same for others. */
static struct str engine_message(const struct run *run)
{
    const struct sampler *s = run->engine_from;
    bool differ = false;
    for (size_t i = 0; i < run->n_samplers; i++)
        differ = differ || strcmp(run->samplers[i].engine_message, s->engine_message) != 0;
    if (!s->engine_message[0] || !differ)
        return str_of(s->engine_message);
    return str_of(
        arena_printf(run->arena, "process %lld: %s", (long long)s->status.pid, s->engine_message));
}

/* Of the program that runs now: ru_maxrss remembers what the container's runtime took before it. */
static int64_t own_memory(void)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
    int64_t kib = 0;
    buf_read_file(&text, "/proc/self/status", NULL);
    for (struct str rest = buf_str(&text); rest.ptr;) {
        struct str line = str_cut(&rest, '\n'), name = str_cut(&line, ':');
        line = str_trim(line);
        if (str_is(name, "VmHWM"))
            str_to_i64(str_cut(&line, ' '), 0, INT64_MAX / 1024, &kib);
    }
    return kib * 1024;
}

int64_t run_memory(const struct run *run)
{
    int64_t memory = own_memory();
    for (size_t i = 0; i < run->n_samplers; i++)
        memory += run->samplers[i].max_memory;
    return memory;
}

static void sum_up(const struct run *run, struct buf *out)
{
    struct rusage own = {0}, children = {0};
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &children);
    double cpu = seconds(&own.ru_utime) + seconds(&own.ru_stime) + seconds(&children.ru_utime) +
                 seconds(&children.ru_stime);
    struct process_status *processes =
        arena_array(run->arena, run->n_samplers + 1, sizeof(*processes));
    struct summary summary = {
        .version = 1,
        .reason = run->outcome.reason,
        .message = str_of(run->outcome.message),
        .container = run->chosen.len ? run->chosen.items[0].container : STR_NULL,
        .accuracy = str_of(run->accuracy),
        .start_ms = run->start_ms,
        .end_ms = run->end_ms,
        .samples = run->profile ? profile_samples(run->profile) : 0,
        .expected = run->task.sampling.rate * run->task.sampling.duration_ms / 1000,
        .processes = {processes, run->n_samplers},
        .cpu_seconds = str_of(arena_printf(run->arena, "%.2f", cpu)),
        .max_memory_bytes = run_memory(run),
        .receipt = run->receipt,
    };
    if (run->engine_from) {
        summary.engine = str_of(sampling_engine_names[run->engine_from->engine]);
        summary.engine_reason = str_of(engine_reason_names[run->engine_from->engine_reason]);
        summary.engine_message = engine_message(run);
    }
    for (size_t i = 0; i < run->n_samplers; i++) {
        processes[i] = run->samplers[i].status;
        summary.errors += processes[i].errors;
        summary.late += processes[i].late;
    }
    summary_write(out, &summary);
}

static void write_summary(const struct run *run)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(SUMMARY_MAX);
    sum_up(run, &text);
    log_info("ended", LOG_C("reason", profile_reason_names[run->outcome.reason]),
             LOG_C("message", run->outcome.message), LOG_B("stored", run->receipt != NULL));
    int fd = open(run->options->summary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text.ptr, text.len) != (ssize_t)text.len)
        log_error("summary not written", LOG_C("file", run->options->summary),
                  LOG_C("err", strerror(errno)));
    if (fd >= 0)
        close(fd);
}

static int read_task(struct run *run)
{
    const char *text = getenv(TASK_VARIABLE);
    struct err err = ERR_INIT;
    if (!text)
        return run_fail(run, REASON_INVALID, "the environment has no " TASK_VARIABLE);
    struct str copy = arena_str(run->arena, str_of(text));
    if (task_decode(run->arena, copy, &run->task, &err) < 0)
        return run_fail(run, REASON_INVALID, TASK_VARIABLE ": %s", err.message);
    return 0;
}

/* Together with the writers', the samplers' and py-spy's memory below 200 of the 256 MiB that the
 * container has: tests/bench/runner/memory.c. */
#define FRAMES_MAX  250000
#define TEXT_MAX    ((size_t)16 << 20)
#define SAMPLES_MAX 500000
#define NODES_MAX   1000000

struct profile *run_create_profile(struct run *run, bool of_sampler)
{
    /* Merging puts a root under each process and before the names of its threads. */
    size_t more = of_sampler ? 0 : 1;
    return profile_create(&(struct profile_limits){
        .max_frames = FRAMES_MAX + more * RUN_PROCESSES_MAX,
        .max_text = TEXT_MAX + (more << 20),
        .max_samples = SAMPLES_MAX,
        .max_nodes = NODES_MAX + more * RUN_PROCESSES_MAX,
        .max_input = PYSPY_OUTPUT_MAX,
        .room = of_sampler ? &run->room : NULL,
    });
}

int run_set_up(struct run *run, const struct options *options)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGCHLD, 0};
    struct err err = ERR_INIT;
    /* What is large goes back to the system as soon as it is free; by default, less and less. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    *run = (struct run){
        .options = options,
        .arena = arena_create(0),
        .proc = -1,
        .room = {FRAMES_MAX, TEXT_MAX, SAMPLES_MAX, NODES_MAX},
        .accuracy = "",
    };
    run->profile = run_create_profile(run, false);
    if (loop_create(&clock_system, &run->loop, &err) < 0 ||
        loop_signals(run->loop, signals, on_signal, run, &err) < 0)
        return run_fail(run, REASON_PROFILER_FAILED, "%s", err.message);
    run->proc = open(options->proc, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->proc < 0)
        return run_fail(run, REASON_PROFILER_FAILED, "open %s: %s", options->proc, strerror(errno));
    return 0;
}

void run_finish(struct run *run)
{
    for (size_t i = 0; i < run->n_samplers; i++)
        sampler_finish(&run->samplers[i]);
    profile_destroy(run->profile);
    if (run->proc >= 0)
        close(run->proc);
    loop_destroy(run->loop);
    arena_destroy(run->arena);
}

static int (*const steps[])(struct run *run) = {
    read_task, run_find, run_choose, run_sample, run_make_results, run_upload,
};

int run_main(const struct options *options)
{
    struct run run;
    int r = run_set_up(&run, options);
    for (size_t i = 0; i < ARRAY_SIZE(steps) && r == 0; i++)
        r = steps[i](&run);
    write_summary(&run);
    int status = run.receipt ? 0 : 1;
    /* A thread that was left behind may still use what is here: it ends with the process. */
    for (size_t i = 0; i < run.n_samplers; i++)
        if (run.samplers[i].abandoned)
            _exit(status);
    run_finish(&run);
    return status;
}
