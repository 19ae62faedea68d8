#include "runner/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS         30000 /* to read the symbols of the target; large binaries take seconds */
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
    end_early(s, REASON_PROFILER_FAILED,
              s->target_stopped
                  ? "the process is stopped (state T), and reading its memory does not "
                    "come back; what was sampled is lost"
                  : "reading the process's memory does not come back; what was "
                    "sampled is lost");
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

static void on_native_end(void *context);

static void watch_target(struct sampler *s)
{
    s->target_watch.fd = s->handle.pidfd;
    loop_watch_add(s->run->loop, &s->target_watch);
    loop_timer_arm(s->run->loop, &s->look, LOOK_EVERY_MS);
}

static int start_native(struct sampler *s, struct err *err)
{
    struct run *run = s->run;
    const struct sampling_spec *sampling = &run->task.sampling;
    if (!sampling->command_lines)
        profile_scrub_process_frames(s->profile);
    int r = native_start(run, s->handle.pid, sampling->subprocesses && run->chosen.len == 1,
                         s->profile, on_native_end, s, &s->native, err);
    if (r < 0)
        return r;
    s->accuracy = native_accuracy(sampling);
    s->state = SAMPLER_SAMPLING;
    s->attached = true;
    s->began_ms = clock_monotonic_ms(&clock_system);
    watch_target(s);
    loop_timer_arm(run->loop, &s->deadline, s->duration_ms + STUCK_MS);
    return 0;
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

static int start_engine(struct sampler *s, struct err *err)
{
    const struct sampling_spec *sampling = &s->run->task.sampling;
    enum engine_reason why;
    int engine = native_or_not(sampling, &why);
    tell_engine(s, engine, why,
                why == ENGINE_REASON_NATIVE_STACKS
                    ? "sampling.native: the stacks of C are read by py-spy only"
                    : "");
    if (engine == ENGINE_PYSPY)
        return start_pyspy(s, err);
    int r = start_native(s, err);
    why = r < 0 ? native_takeover(sampling, r) : ENGINE_REASON_NONE;
    if (r < 0 && why == ENGINE_REASON_NONE)
        return err_wrap(err, "sampling.engine Native");
    if (r == 0)
        return 0;
    tell_engine(s, ENGINE_PYSPY, why, err->message);
    *err = ERR_INIT;
    return start_pyspy(s, err);
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
        end_early(s,
                  r == ERR_NOT_FOUND                               ? REASON_PROCESS_EXITED
                  : r == ERR_FORBIDDEN                             ? REASON_PERMISSION_DENIED
                  : r == ERR_INVALID && s->engine == ENGINE_NATIVE ? REASON_UNSUPPORTED_PYTHON
                                                                   : REASON_PROFILER_FAILED,
                  err.message);
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
    struct err err = ERR_INIT;
    snprintf(text, sizeof(text), "%lld stacks could not be read in %lld looks, and none could",
             (long long)result->counts.unread, (long long)result->looks);
    tell_engine(s, ENGINE_PYSPY, ENGINE_REASON_NATIVE_FAILED, text);
    log_warn("py-spy takes over", LOG_I("pid", s->handle.pid), LOG_C("why", text));
    native_destroy(s->native);
    s->native = NULL;
    profile_destroy(s->profile);
    s->profile = run_create_profile(s->run, true);
    int64_t left = s->duration_ms - (s->ended_ms - s->began_ms);
    s->duration_ms = left > TAKEOVER_MIN_MS ? left : TAKEOVER_MIN_MS;
    s->began_ms = 0;
    s->attached = false;
    if (start_pyspy(s, &err) < 0)
        end_early(s, REASON_PROFILER_FAILED, err.message);
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

static void collect_native(struct sampler *s)
{
    struct record_result result = native_result(s->native);
    struct native_facts facts = {
        .result = &result,
        .samples = profile_samples(s->profile),
        .gil = s->run->task.sampling.gil,
        .cancelled = s->cancelled,
        .target_stopped = s->target_stopped,
        .target_exited = result.exited,
    };
    profile_set_about(s->profile, &(struct profile_about){.rate = s->run->task.sampling.rate});
    native_judge(&facts, &s->outcome);
    s->status.samples = facts.samples;
    s->status.errors = result.counts.errors;
    s->status.late = result.late;
    s->status.held = result.counts.held;
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

static void unmap(struct str *text)
{
    if (text->len)
        munmap((void *)(uintptr_t)text->ptr, text->len);
    *text = STR_NULL;
}

/* Mapped, so that it is in memory once; sealed, so that it stays as long as it is. */
static int map_profile(struct sampler *s, struct str *ret, struct err *err)
{
    struct stat st;
    if (fcntl(s->profile_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE) < 0 ||
        fstat(s->profile_fd, &st) < 0)
        return err_set_errno(err, errno, "look at py-spy's profile");
    size_t len = (size_t)st.st_size;
    const char *at =
        len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, s->profile_fd, 0) : NULL;
    if (at == MAP_FAILED)
        return err_set_errno(err, errno, "map py-spy's profile");
    close(s->profile_fd);
    s->profile_fd = -1;
    *ret = (struct str){at, len};
    return 0;
}

static int parse_profile(struct sampler *s, struct err *err)
{
    const struct sampling_spec *sampling = &s->run->task.sampling;
    _cleanup_(unmap) struct str mapped = STR_NULL;
    int r = map_profile(s, &mapped, err);
    if (r < 0)
        return r;
    struct str text = mapped;
    /* Without samples raw is empty, but speedscope is not. */
    if (text.len == 0)
        return s->ordered && WIFEXITED(s->wait_status) && WEXITSTATUS(s->wait_status) == 0
                   ? err_set(err, ERR_PROTOCOL, "it is empty")
                   : 0;
    profile_set_about(s->profile, &(struct profile_about){.rate = sampling->rate});
    if (!sampling->command_lines)
        profile_scrub_process_frames(s->profile);
    if (s->ordered)
        return profile_read_speedscope(s->profile, text, err);
    if (pyspy_was_cut(s->wait_status))
        text.len = (size_t)(str_rfind_char(text, '\n') + 1);
    if (sampling->command_lines || !sampling->subprocesses || s->run->chosen.len > 1)
        return profile_read_raw(s->profile, text, err);
    _cleanup_(buf_finish) struct buf clean = BUF_INIT(PYSPY_OUTPUT_MAX);
    scrub_raw(text, &clean);
    unmap(&mapped);
    r = buf_error(&clean, "py-spy's profile", err);
    return r < 0 ? r : profile_read_raw(s->profile, buf_str(&clean), err);
}

void sampler_collect(struct sampler *s)
{
    if (s->native) {
        collect_native(s);
        return;
    }
    if (s->child == 0)
        return; /* never started; the outcome is known */
    const struct sampling_spec *sampling = &s->run->task.sampling;
    struct err err = ERR_INIT;
    int r = parse_profile(s, &err);
    bool full = r == ERR_TOO_LARGE;
    if ((r < 0 && !full) || !s->attached) {
        /* Half-read, or of whoever got the number next. */
        profile_destroy(s->profile);
        s->profile = run_create_profile(s->run, true);
    }
    int64_t ran_ms = s->began_ms ? s->ended_ms - s->began_ms : 0;
    int64_t looks = sampling->rate * ran_ms / 1000;
    int64_t most = sampling->rate * s->duration_ms / 1000;
    struct pyspy_facts facts = {
        .wait_status = s->wait_status,
        .output = &s->output,
        .samples = profile_samples(s->profile),
        .looks = looks < most ? looks : most,
        .accuracy = s->accuracy,
        .unreadable = r < 0 && !full ? err.message : NULL,
        .full = full ? err.message : NULL,
        .cancelled = s->cancelled,
        .timed_out = s->timed_out,
        .target_exited = s->target_exited,
        .target_stopped = s->target_stopped,
        .attached = s->attached,
    };
    pyspy_judge(&facts, &s->outcome);
    s->status.samples = facts.samples;
    s->status.errors = s->output.errors;
    s->status.late = s->output.late;
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
