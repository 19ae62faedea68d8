#include "runner/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS         30000 /* to open the target; the symbols of large binaries take seconds */
#define LATE_MS          1000 /* that it may sample longer than asked for, when it cannot keep up */
#define KILL_AFTER_MS    3000
#define STUCK_MS         2000 /* that our own may take longer than asked for, until it is told */
#define TAKEOVER_MIN_MS  1000
#define LOOK_EVERY_MS    500
#define NAMESPACE_END_MS 500

static void end_early(struct sampler *s, int reason, const char *message)
{
    outcome_set(&s->outcome, reason, "%s", message);
    s->state = SAMPLER_ENDED;
}

static bool target_lives_after(const struct sampler *s, int ms)
{
    struct pollfd p = {.fd = s->handle.pidfd, .events = POLLIN};
    return poll(&p, 1, ms) == 0;
}

static bool target_lives(const struct sampler *s)
{
    return target_lives_after(s, 0);
}

static void begin_end(struct sampler *s)
{
    if (s->state != SAMPLER_STARTING && s->state != SAMPLER_SAMPLING)
        return;
    if (s->native) {
        native_stop(s->native);
        s->state = SAMPLER_ENDING;
        loop_timer_arm(s->run->loop, &s->deadline, KILL_AFTER_MS);
        return;
    }
    /* It is our child and not reaped, so the number is its own. */
    kill(s->child, SIGINT);
    s->state = SAMPLER_ENDING;
    loop_timer_arm(s->run->loop, &s->deadline, KILL_AFTER_MS);
}

static void release(struct sampler *s)
{
    struct loop *loop = s->run->loop;
    if (s->output_watch.fd >= 0) {
        if (s->state != SAMPLER_IDLE)
            loop_watch_remove(loop, &s->output_watch);
        close(s->output_watch.fd);
        s->output_watch.fd = -1;
    }
    if (s->target_watch.fd >= 0) {
        loop_watch_remove(loop, &s->target_watch);
        s->target_watch.fd = -1;
    }
    loop_timer_disarm(loop, &s->deadline);
    loop_timer_disarm(loop, &s->look);
}

static void abandon(struct sampler *s)
{
    native_abandon(s->native);
    s->abandoned = TAKE(s->native);
    s->profile = run_create_profile(s->run, true);
    release(s);
    char text[128];
    snprintf(text, sizeof(text), "%s%s",
             s->target_stopped ? "the process is stopped (state T), and " : "",
             s->attached ? "reading its memory does not come back; what was sampled is lost"
                         : "opening it does not come back");
    end_early(s, REASON_PROFILER_FAILED, text);
}

static void on_deadline(struct loop_timer *timer)
{
    struct sampler *s = CONTAINER_OF(timer, struct sampler, deadline);
    /* It is told first: after a pause of this whole process it has had no time to end. */
    if (s->native && s->state == SAMPLER_ENDING) {
        abandon(s);
        return;
    }
    if (s->native) {
        s->timed_out = s->state == SAMPLER_STARTING;
        begin_end(s);
        return;
    }
    if (s->state == SAMPLER_ENDING) {
        kill(s->child, SIGKILL);
        s->state = SAMPLER_KILLED;
        s->timed_out = true;
        return;
    }
    log_warn("py-spy takes too long; it is interrupted", LOG_I("pid", s->handle.pid),
             LOG_B("sampling", s->state == SAMPLER_SAMPLING));
    s->timed_out = s->state == SAMPLER_STARTING;
    begin_end(s);
}

/* A stopped process (state T: SIGSTOP; not t: traced) keeps its last stack for ever, and without
 * pausing it py-spy would count that as work. */
static void on_look(struct loop_timer *timer)
{
    struct sampler *s = CONTAINER_OF(timer, struct sampler, look);
    struct proc_process process;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    if (proc_read(s->run->proc, arena, s->handle.pid, &process, NULL) < 0)
        return; /* the pidfd tells */
    s->looks_stopped = process.state == 'T' ? s->looks_stopped + 1 : 0;
    if (s->looks_stopped >= 2) {
        s->target_stopped = true;
        begin_end(s);
        return;
    }
    loop_timer_arm(s->run->loop, &s->look, LOOK_EVERY_MS);
}

/* py-spy notices by itself and writes what it has. */
static void on_target_exit(struct loop_watch *watch)
{
    struct sampler *s = CONTAINER_OF(watch, struct sampler, target_watch);
    s->target_exited = true;
    loop_watch_remove(s->run->loop, watch);
    watch->fd = -1;
    loop_timer_disarm(s->run->loop, &s->look);
    if (!s->native && (s->state == SAMPLER_STARTING || s->state == SAMPLER_SAMPLING))
        loop_timer_arm(s->run->loop, &s->deadline, KILL_AFTER_MS);
}

static void read_output(struct sampler *s)
{
    char bytes[4096];
    for (int i = 0; i < 64; i++) {
        ssize_t n = read(s->output_watch.fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        pyspy_output_feed(&s->output, (struct str){bytes, (size_t)n});
    }
}

static void on_output(struct loop_watch *watch)
{
    struct sampler *s = CONTAINER_OF(watch, struct sampler, output_watch);
    read_output(s);
    if (s->state == SAMPLER_STARTING && s->output.started) {
        s->state = SAMPLER_SAMPLING;
        s->attached = target_lives(s);
        s->began_ms = clock_monotonic_ms(&clock_system);
        loop_timer_arm(s->run->loop, &s->deadline, s->duration_ms + LATE_MS);
    }
}

static int spawn_pyspy(struct sampler *s, struct err *err)
{
    struct run *run = s->run;
    struct sampling_spec own = run->task.sampling, *sampling = &own;
    own.duration_ms = s->duration_ms;
    bool join = s->own_namespace && !run->same_namespace;
    struct pyspy_request request = {
        .pid = join ? s->candidate->process.container_pid : s->handle.pid,
        .own_namespace = s->own_namespace,
        .joined = join,
        .python = s->status.python_version,
        .subprocesses = sampling->subprocesses && run->chosen.len == 1,
    };
    int threads = 1;
    proc_thread_count(run->proc, s->handle.pid, &threads, NULL);
    request.ordered = s->ordered = pyspy_wants_order(sampling, &request, threads);
    pyspy_make_arguments(run->arena, run->options->py_spy, sampling, &request, &s->arguments);
    s->accuracy = s->arguments.accuracy;

    s->profile_fd = memfd_create("profile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->profile_fd < 0)
        return err_set_errno(err, errno, "memory for the profile");
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return err_set_errno(err, errno, "pipe for py-spy's output");
    s->output_watch.fd = pipe_fds[0];
    /* Its own end may block: it waits for us, not the other way round. */
    fcntl(pipe_fds[1], F_SETFL, 0);
    int r = pyspy_spawn(&s->arguments, s->profile_fd, PYSPY_OUTPUT_MAX / run->chosen.len,
                        pipe_fds[1], join ? s->handle.pidfd : -1, &s->child, err);
    close(pipe_fds[1]);
    return r;
}

static void watch_target(struct sampler *s)
{
    s->target_watch.fd = s->handle.pidfd;
    loop_watch_add(s->run->loop, &s->target_watch);
    loop_timer_arm(s->run->loop, &s->look, LOOK_EVERY_MS);
}

static void tell_engine(struct sampler *s, int engine, enum engine_reason why, const char *message)
{
    s->engine = engine;
    s->engine_reason = why;
    snprintf(s->engine_message, sizeof(s->engine_message), "%s", message);
}

static void tell_also(struct sampler *s, const char *text)
{
    size_t n = strlen(s->engine_message);
    snprintf(s->engine_message + n, sizeof(s->engine_message) - n, "%s%s", n ? "; " : "", text);
}

static int start_pyspy(struct sampler *s, struct err *err)
{
    if (s->run->task.sampling.async_tasks)
        tell_also(s, "sampling.asyncTasks: py-spy does not show the tasks of asyncio");
    int r = spawn_pyspy(s, err);
    if (r < 0)
        return r;
    s->state = SAMPLER_STARTING;
    loop_watch_add(s->run->loop, &s->output_watch);
    loop_timer_arm(s->run->loop, &s->deadline, START_MS);
    watch_target(s);
    return 0;
}

static void fail_start(struct sampler *s, int code, const char *message)
{
    end_early(s,
              code == ERR_NOT_FOUND                               ? REASON_PROCESS_EXITED
              : code == ERR_FORBIDDEN                             ? REASON_PERMISSION_DENIED
              : code == ERR_INVALID && s->engine == ENGINE_NATIVE ? REASON_UNSUPPORTED_PYTHON
                                                                  : REASON_PROFILER_FAILED,
              message);
}

static void start_pyspy_instead(struct sampler *s, enum engine_reason why, const char *message)
{
    struct err err = ERR_INIT;
    tell_engine(s, ENGINE_PYSPY, why, message);
    log_warn("py-spy takes over", LOG_I("pid", s->handle.pid), LOG_C("why", message));
    int r = start_pyspy(s, &err);
    if (r < 0)
        fail_start(s, r, err.message);
}

/* Why it is to end already, or has; false: there is no reason. */
static bool is_over(const struct sampler *s, struct outcome *ret)
{
    struct record_result nothing = {0};
    struct native_facts facts = {
        .result = &nothing,
        .cancelled = s->cancelled,
        .timed_out = s->timed_out,
        .target_stopped = s->target_stopped,
        .target_exited = !target_lives(s),
    };
    native_judge(&facts, ret);
    return facts.cancelled || facts.timed_out || facts.target_stopped || facts.target_exited;
}

static void on_native_failed(struct sampler *s, int code, struct err *err)
{
    const struct sampling_spec *sampling = &s->run->task.sampling;
    struct outcome over;
    native_destroy(s->native);
    s->native = NULL;
    release(s);
    enum engine_reason why = native_takeover(sampling, code);
    if (is_over(s, &over)) {
        end_early(s, over.reason, over.message);
    } else if (why != ENGINE_REASON_NONE) {
        start_pyspy_instead(s, why, err->message);
    } else {
        if (sampling->engine == ENGINE_NATIVE)
            err_wrap(err, "sampling.engine Native");
        fail_start(s, code, err->message);
    }
}

static void on_native_opened(void *context, int code, const struct err *err)
{
    struct sampler *s = context;
    if (code < 0) {
        struct err own = *err;
        on_native_failed(s, code, &own);
        return;
    }
    s->accuracy = native_accuracy(&s->run->task.sampling);
    s->began_ms = clock_monotonic_ms(&clock_system);
    /* The number may have become another's before it was opened. */
    s->attached = target_lives(s);
    if (!s->attached)
        native_stop(s->native);
    if (s->state != SAMPLER_STARTING)
        return; /* it is to end already */
    s->state = SAMPLER_SAMPLING;
    loop_timer_arm(s->run->loop, &s->deadline, s->duration_ms + STUCK_MS);
}

static void on_native_end(void *context);

static void start_native(struct sampler *s)
{
    struct run *run = s->run;
    const struct sampling_spec *sampling = &run->task.sampling;
    struct native_events events = {on_native_opened, on_native_end, s};
    struct err err = ERR_INIT;
    if (!sampling->command_lines)
        profile_scrub_process_frames(s->profile);
    s->state = SAMPLER_STARTING;
    int r = native_start(run, s->handle.pid, sampling->subprocesses && run->chosen.len == 1,
                         s->profile, &events, &s->native, &err);
    if (r < 0) {
        on_native_failed(s, r, &err);
        return;
    }
    watch_target(s);
    loop_timer_arm(run->loop, &s->deadline, START_MS);
}

static int start_engine(struct sampler *s, struct err *err)
{
    enum engine_reason why;
    int engine = native_or_not(&s->run->task.sampling, &why);
    tell_engine(s, engine, why,
                why == ENGINE_REASON_NATIVE_STACKS
                    ? "sampling.native: the stacks of C are read by py-spy only"
                    : "");
    if (engine == ENGINE_PYSPY)
        return start_pyspy(s, err);
    start_native(s);
    return 0;
}

static int hold(struct sampler *s, struct err *err)
{
    const struct candidate *c = s->candidate;
    int r = proc_hold(s->run->proc, &c->process, c->container_id, &s->handle, err);
    if (r < 0)
        return r;
    struct proc_process now;
    r = proc_read(s->run->proc, s->run->arena, s->handle.pid, &now, err);
    if (r == 0 && now.state == 'T')
        return err_set(err, ERR_INVALID, "the process is stopped (state T); nothing runs in it");
    return r;
}

void sampler_start(struct sampler *s, struct run *run, const struct candidate *candidate,
                   bool own_namespace)
{
    *s = (struct sampler){
        .run = run,
        .candidate = candidate,
        .handle = {.pidfd = -1},
        .own_namespace = own_namespace,
        .duration_ms = run->task.sampling.duration_ms,
        .profile_fd = -1,
        .output_watch = {.fd = -1, .ready = on_output},
        .target_watch = {.fd = -1, .ready = on_target_exit},
        .deadline = {.fire = on_deadline},
        .look = {.fire = on_look},
        .profile = run_create_profile(run, true),
    };
    pyspy_output_init(&s->output);
    s->status = (struct process_status){
        .host_pid = candidate->process.pid,
        .pid = candidate->process.container_pid,
        .command = run->task.sampling.command_lines ? candidate->process.command
                                                    : candidate->process.program,
        .python_version = str_of(candidate->python.version),
    };

    struct err err = ERR_INIT;
    int r = hold(s, &err);
    if (r == 0)
        r = start_engine(s, &err);
    if (r < 0)
        fail_start(s, r, err.message);
}

void sampler_cancel(struct sampler *s)
{
    if (s->state == SAMPLER_STARTING || s->state == SAMPLER_SAMPLING)
        s->cancelled = true;
    begin_end(s);
}

/* Ours read nothing but errors: py-spy may know better, in what is left of the time. */
static void take_over(struct sampler *s, const struct record_result *result)
{
    char text[128];
    snprintf(text, sizeof(text), "%lld stacks could not be read in %lld looks, and none could",
             (long long)result->counts.unread, (long long)result->looks);
    native_destroy(s->native);
    s->native = NULL;
    profile_destroy(s->profile);
    s->profile = run_create_profile(s->run, true);
    int64_t left = s->duration_ms - (s->ended_ms - s->began_ms);
    s->duration_ms = left > TAKEOVER_MIN_MS ? left : TAKEOVER_MIN_MS;
    s->began_ms = 0;
    s->attached = false;
    start_pyspy_instead(s, ENGINE_REASON_NATIVE_FAILED, text);
}

static void on_native_end(void *context)
{
    struct sampler *s = context;
    const struct sampling_spec *sampling = &s->run->task.sampling;
    struct record_result result = native_result(s->native);
    s->ended_ms = clock_monotonic_ms(&clock_system);
    if (!target_lives(s))
        s->target_exited = true;
    release(s);
    if (s->state == SAMPLER_SAMPLING && !s->target_exited && native_gives_up(sampling, &result)) {
        take_over(s, &result);
        return;
    }
    if (result.left_out) {
        char text[128];
        snprintf(text, sizeof(text),
                 "sampling.subprocesses: more children than can be followed (%d, and descriptors)",
                 RECORD_PROCESSES_MAX);
        tell_also(s, text);
    }
    if (result.without_tasks[0]) {
        char text[128];
        snprintf(text, sizeof(text), "sampling.asyncTasks: " TARGET_WITHOUT_TASKS,
                 result.without_tasks);
        tell_also(s, text);
    }
    s->state = SAMPLER_ENDED;
}

/* A tracer that is killed between PTRACE_ATTACH and the stop that it asked for leaves a SIGSTOP
 * behind. Who was stopped by somebody else stays so. */
static void continue_target(struct sampler *s)
{
    int stopped = 0;
    if (s->target_stopped || s->target_exited ||
        proc_stopped_threads(s->run->proc, s->handle.pid, &stopped, NULL) < 0 || stopped == 0)
        return;
    if (syscall(SYS_pidfd_send_signal, s->handle.pidfd, SIGCONT, NULL, 0) < 0)
        log_error("py-spy left the process stopped, and it may not be continued",
                  LOG_I("pid", s->handle.pid), LOG_C("err", strerror(errno)));
    else
        log_warn("py-spy left the process stopped; continued it", LOG_I("pid", s->handle.pid));
}

void sampler_reaped(struct sampler *s, int wait_status, int64_t max_memory)
{
    s->wait_status = wait_status;
    s->max_memory = max_memory;
    s->ended_ms = clock_monotonic_ms(&clock_system);
    read_output(s);
    pyspy_output_end(&s->output);
    if (s->output.started && s->state == SAMPLER_STARTING) {
        s->began_ms = s->ended_ms;
        s->attached = target_lives(s) || s->output.process_exited;
    }
    /* A namespace whose first process ends takes the others along, py-spy among them, before that
     * process is seen to end. */
    bool taken_along = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL &&
                       s->state != SAMPLER_KILLED && s->own_namespace;
    if (!target_lives_after(s, taken_along ? NAMESPACE_END_MS : 0))
        s->target_exited = true;
    if (WIFSIGNALED(wait_status))
        continue_target(s);
    release(s);
    s->state = SAMPLER_ENDED;
}

void sampler_finish(struct sampler *s)
{
    native_destroy(s->native);
    s->native = NULL;
    if (s->child > 0 && s->state != SAMPLER_ENDED && s->state != SAMPLER_IDLE) {
        kill(s->child, SIGKILL);
        waitpid(s->child, NULL, 0);
        continue_target(s);
    }
    release(s);
    if (s->profile_fd >= 0)
        close(s->profile_fd);
    proc_release(&s->handle);
    pyspy_output_finish(&s->output);
    profile_destroy(s->profile);
}
