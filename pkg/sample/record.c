#include "sample/record.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/map.h"
#include "proc/proc.h"
#include "sample/record_internal.h"

#define NS         INT64_C(1000000000)
#define NAP_NS     (NS / 10) /* the longest sleep between two looks at `stop` */
#define SWEEP_NS   (NS / 50) /* between looks for children, while there are new ones */
#define SWEEP_MOST (NS / 4)
#define SWEEP_REST 20         /* times the processor time of the last one, at least */
#define ROUND_NS   NS         /* for one look at all processes */
#define WATCHED_NS (NS / 100) /* in which no number of a process comes round */
#define REST       9      /* times as long as it took rests what takes all the time that it may */
#define ORDER_MAX  300000 /* samples whose order is kept */
#define ROOTS_MAX  4      /* frames beside the stack's own: process, thread, cut, task */
#define DEPTH_MAX  (STACK_DEPTH_MAX - ROOTS_MAX) /* a profile drops the roots of what is deeper */

/* A thread in the profile. */
struct label {
    uint32_t thread;
    uint32_t frame; /* its root frame, where there is one */
};

struct record {
    struct record_options options;
    struct profile *profile;
    struct processes processes;
    size_t first;       /* whom the next look begins with */
    int64_t watched_ns; /* when it was last known who has ended */
    int64_t sweep_at, sweep_ns;
    struct random_seeded random;
    atomic_bool stop;
    struct record_result result;
    struct process *now; /* whose stacks come in */
    struct arena *arena; /* of labels */
    struct map *labels;
    struct label others;
    struct map *tasks; /* names seen; NULL: not wanted */
    size_t process_frames;
    uint32_t frames[STACK_DEPTH_MAX];
};

static int64_t system_now_ns(struct record_time *self)
{
    (void)self;
    return clock_read_ns(CLOCK_MONOTONIC);
}

static void system_sleep_until(struct record_time *self, int64_t ns, struct pollfd *fds, size_t n)
{
    int64_t left = ns - system_now_ns(self);
    left = left > 0 ? left : 0;
    struct timespec ts = {.tv_sec = left / NS, .tv_nsec = left % NS};
    ppoll(fds, n, &ts, NULL);
}

struct record_time record_time_system = {system_now_ns, system_sleep_until};

static int64_t now_ns(const struct record *r)
{
    return r->options.time->now_ns(r->options.time);
}

static int add_root(struct record *r, struct str text, uint32_t *ret)
{
    return profile_add_frame(r->profile, &(struct profile_frame){.function = text}, ret, NULL);
}

static int process_frame(struct record *r, struct process *p, uint32_t *ret)
{
    if (p->frame == SAMPLE_NO_ID) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        struct proc_process about;
        const char *text = "other processes";
        if (r->process_frames < RECORD_APART_MAX) {
            r->process_frames++;
            text = arena_printf(arena, "process %d", (int)p->inner);
            if (r->options.command_lines &&
                proc_read(r->processes.proc, arena, p->pid, &about, NULL) == 0)
                text = arena_printf(arena, "%s:\"%.*s\"", text, STR_ARG(about.command));
        }
        if (add_root(r, str_of(text), &p->frame) < 0)
            return -1;
    }
    *ret = p->frame;
    return 0;
}

static int add_frame(struct record *r, struct sample_frame *f, uint32_t *ret)
{
    uint32_t *id = r->options.functions ? &f->id_of_function : &f->id;
    if (*id == SAMPLE_NO_ID) {
        struct profile_frame frame = {f->function, f->file,
                                      r->options.functions ? f->first_line : f->line};
        if (profile_add_frame(r->profile, &frame, id, NULL) < 0)
            return -1;
    }
    *ret = *id;
    return 0;
}

/* "Task-" and digits: numbered by asyncio. */
struct str record_task_name(struct str name)
{
    static const struct str prefix = {"Task-", 5};
    int64_t number;
    return str_starts_with(name, prefix) &&
                   str_to_i64(str_sub(name, prefix.len, name.len), 0, INT64_MAX, &number) == 0
               ? STR("Task-*")
               : name;
}

static int task_frame(struct record *r, struct str name, uint32_t *ret)
{
    name = record_task_name(name);
    if (!map_get(r->tasks, name) && map_size(r->tasks) == RECORD_TASKS_MAX)
        name = STR("(other)");
    else
        map_set(r->tasks, name, r);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(SAMPLE_TEXT_MAX * 4);
    buf_appendf(&text, "task %.*s", STR_ARG(name));
    return profile_add_frame(r->profile, &(struct profile_frame){.function = buf_str(&text)}, ret,
                             NULL);
}

static int add_label(struct record *r, struct str text, struct str root, struct label *ret)
{
    int e = profile_add_thread(r->profile, text, &ret->thread, NULL);
    return e == 0 && r->options.threads ? add_root(r, root, &ret->frame) : e;
}

/* Threads that come and go for days would fill the profile with their names. NULL: it is full. */
static const struct label *make_label(struct record *r, const struct sample_thread *t)
{
    char thread[SAMPLE_NAME_MAX + 32], text[sizeof(thread) + 32];
    if (t->name.len)
        snprintf(thread, sizeof(thread), "thread %d (%.*s)", (int)t->tid, STR_ARG(t->name));
    else
        snprintf(thread, sizeof(thread), "thread %d", (int)t->tid);
    if (r->options.subprocesses)
        snprintf(text, sizeof(text), "process %d %s", (int)r->now->inner, thread);
    else
        memcpy(text, thread, sizeof(thread));
    struct label *known = map_get(r->labels, str_of(text)), label = {0};
    if (known)
        return known;
    if (map_size(r->labels) >= RECORD_APART_MAX) {
        if (r->others.thread == SAMPLE_NO_ID &&
            add_label(r, STR("other threads"), STR("other threads"), &r->others) < 0)
            return NULL;
        return &r->others;
    }
    if (add_label(r, str_of(text), str_of(thread), &label) < 0)
        return NULL;
    struct label *kept = arena_alloc(r->arena, sizeof(*kept));
    *kept = label;
    map_set(r->labels, str_of(text), kept);
    return kept;
}

static const struct label *label_of(struct record *r, const struct sample_thread *t)
{
    if (t->mark && *t->mark)
        return *t->mark;
    const struct label *label = make_label(r, t);
    if (t->mark)
        *t->mark = label;
    return label;
}

static void on_stack(void *context, const struct sample_thread *t)
{
    struct record *r = context;
    size_t n = 0, depth = t->depth < DEPTH_MAX ? t->depth : DEPTH_MAX;
    if (r->result.full)
        return;
    const struct label *label = label_of(r, t);
    int e = label ? 0 : -1;
    if (e == 0 && r->options.subprocesses)
        e = process_frame(r, r->now, &r->frames[n++]);
    if (e == 0 && r->options.threads)
        r->frames[n++] = label->frame;
    if (e == 0 && (t->cut || depth < t->depth))
        e = add_root(r, STR(RECORD_CUT), &r->frames[n++]);
    for (size_t i = depth; e == 0 && i-- > 0;) {
        if (t->task.len && i == t->task_at)
            e = task_frame(r, t->task, &r->frames[n++]);
        if (e == 0)
            e = add_frame(r, t->frames[i], &r->frames[n++]);
    }
    if (e == 0)
        e = profile_add_sample(r->profile, label->thread, r->frames, n, 1, NULL);
    if (e < 0)
        r->result.full = true;
    if (profile_samples(r->profile) == ORDER_MAX)
        profile_drop_order(r->profile);
}

static struct record *new_record(const struct record_options *options, struct profile *profile)
{
    struct record *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    if (!r->options.time)
        r->options.time = &record_time_system;
    r->profile = profile;
    r->sweep_ns = SWEEP_NS;
    r->arena = arena_create(0);
    r->labels = map_create();
    r->others.thread = SAMPLE_NO_ID;
    random_seed(&r->random, options->seed ? options->seed : random_u64(&random_system));
    r->processes.shared.parts = options->parts;
    r->tasks = options->async_tasks ? map_create() : NULL;
    r->processes.options = (struct sample_options){
        .gil = options->gil,
        .idle = options->idle,
        .names = true,
        .tasks = options->async_tasks,
        .nonblocking = options->nonblocking || options->rate > RECORD_HOLD_RATE_MAX};
    return r;
}

int record_create(int proc, pid_t pid, const struct record_options *options,
                  struct profile *profile, struct record **ret, struct err *err)
{
    if (options->rate < 1 || options->rate > 1000)
        return err_set(err, ERR_INVALID, "rate: 1 to 1000 samples a second");
    struct record *r = new_record(options, profile);
    r->processes.proc = proc;
    int e = processes_open(&r->processes, pid, err);
    if (e < 0) {
        record_destroy(r);
        return e;
    }
    snprintf(r->result.version, sizeof(r->result.version), "%s",
             target_version(r->processes.at[0]->target));
    *ret = r;
    return 0;
}

struct record *record_create_target(struct target *target, const struct record_options *options,
                                    struct profile *profile)
{
    struct record *r = new_record(options, profile);
    r->processes.proc = -1;
    processes_take(&r->processes, target);
    snprintf(r->result.version, sizeof(r->result.version), "%s", target_version(target));
    return r;
}

void record_destroy(struct record *r)
{
    if (!r)
        return;
    processes_finish(&r->processes);
    map_destroy(r->labels);
    map_destroy(r->tasks);
    arena_destroy(r->arena);
    free(r);
}

void record_stop(struct record *r)
{
    atomic_store(&r->stop, true);
}

/* False: it rests. */
static bool look_at(struct record *r, struct process *p)
{
    int64_t begun = now_ns(r);
    if (begun < p->rest_ns)
        return false;
    if (begun - r->watched_ns > WATCHED_NS && process_ended(p)) {
        p->gone = true;
        return true;
    }
    struct err err = ERR_INIT;
    int64_t cut = target_counts(p->target).cut;
    r->now = p;
    int e = target_look(p->target, on_stack, r, &err);
    if (e == ERR_CONFLICT) {
        process_close(&r->processes, p);
        return true;
    }
    p->gone = e == ERR_NOT_FOUND;
    /* Whoever makes it take so long shall not have the processor, nor the others' time. Once may be
     * for want of a processor here. */
    p->cuts = target_counts(p->target).cut > cut ? p->cuts + 1 : 0;
    if (p->cuts > 1) {
        int64_t now = now_ns(r);
        p->rest_ns = now + (now - begun) * REST;
    }
    return true;
}

/* Late when there was somebody to look at, and no time for any. */
static void look_at_all(struct record *r, int64_t end)
{
    struct processes *ps = &r->processes;
    size_t looked = 0, open = 0, first = r->first < ps->n ? r->first : 0;
    int64_t until = now_ns(r) + ROUND_NS;
    bool gone = false;
    r->first = 0;
    for (size_t k = 0; k < ps->n; k++) {
        size_t i = (first + k) % ps->n;
        struct process *p = ps->at[i];
        if (!p->target)
            continue;
        int64_t now = k ? now_ns(r) : 0;
        if (now >= until || now >= end || atomic_load(&r->stop)) {
            r->first = i;
            break;
        }
        open++;
        looked += look_at(r, p);
        gone = gone || p->gone;
    }
    if (looked || !open)
        r->result.looks++;
    else
        r->result.late++;
    if (gone)
        processes_drop_gone(ps);
}

int64_t record_gap_ns(struct random_source *random, int64_t rate)
{
    return (int64_t)(random_exponential(random) * (double)NS / (double)rate);
}

/* What is late asks who has ended all the same. */
static void nap_until(struct record *r, int64_t until)
{
    struct processes *ps = &r->processes;
    int64_t now = now_ns(r);
    do {
        int64_t end = until - now > NAP_NS ? now + NAP_NS : until;
        size_t n = processes_watch(ps);
        r->options.time->sleep_until(r->options.time, end, ps->fds, n);
        processes_watched(ps);
        r->watched_ns = now = now_ns(r);
    } while (now < until && processes_alive(ps) && !atomic_load(&r->stop));
}

static bool is_hopeless(const struct record *r)
{
    return r->options.hopeless && profile_samples(r->profile) == 0 &&
           processes_counts(&r->processes).unread >= r->options.hopeless;
}

static bool sweep_due(const struct record *r)
{
    const struct processes *ps = &r->processes;
    return r->options.subprocesses || (ps->n && !ps->at[0]->target);
}

/* Who has begun one may soon begin the next, each for a moment only. */
static void sweep(struct record *r, int64_t now)
{
    struct processes *ps = &r->processes;
    int64_t begun = clock_read_ns(CLOCK_THREAD_CPUTIME_ID), before = ps->held;
    processes_sweep(ps, r->options.subprocesses);
    int64_t rest = (clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - begun) * SWEEP_REST;
    r->sweep_ns = ps->held > before ? SWEEP_NS : 2 * r->sweep_ns;
    r->sweep_ns = r->sweep_ns > rest ? r->sweep_ns : rest;
    r->sweep_ns = r->sweep_ns < SWEEP_MOST ? r->sweep_ns : SWEEP_MOST;
    r->sweep_at = now + r->sweep_ns;
}

void record_run(struct record *r)
{
    int64_t start = now_ns(r), next = start, told = start;
    int64_t end = r->options.duration_ms ? start + r->options.duration_ms * 1000000 : INT64_MAX;
    int64_t interval = NS / r->options.rate;
    struct slices slices = slices_shorten();
    while (processes_alive(&r->processes) && !atomic_load(&r->stop) && !r->result.full) {
        next += record_gap_ns(&r->random.source, r->options.rate);
        if (next >= end) {
            nap_until(r, end);
            break;
        }
        /* A look that comes one interval late would crowd upon the next one. */
        if (next < now_ns(r) - interval) {
            r->result.late++;
            continue;
        }
        nap_until(r, next);
        if (atomic_load(&r->stop) || !processes_alive(&r->processes))
            break;
        look_at_all(r, end);
        r->result.hopeless = is_hopeless(r);
        if (r->result.hopeless)
            break;
        int64_t now = now_ns(r);
        if (now >= r->sweep_at && sweep_due(r))
            sweep(r, now);
        if (r->options.progress && now - told > NAP_NS) {
            told = now;
            r->options.progress(r->options.context);
        }
    }
    slices_restore(&slices);
    r->result.exited = !processes_alive(&r->processes);
    for (size_t i = 0; i < r->processes.n; i++) {
        struct process *p = r->processes.at[i];
        if (r->result.exited && p->first && !p->gone && !process_ended(p))
            r->result.replaced = true;
        process_close(&r->processes, p);
    }
}

struct record_result record_result(const struct record *r)
{
    struct record_result result = r->result;
    result.counts = processes_counts(&r->processes);
    result.processes = r->processes.sampled;
    result.left_out = processes_left_out(&r->processes);
    memcpy(result.without_tasks, r->processes.without_tasks, sizeof(result.without_tasks));
    return result;
}
