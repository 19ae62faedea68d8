#include "sample/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/random.h"
#include "proc/proc.h"

#define NS           INT64_C(1000000000)
#define NAP_NS       (NS / 10) /* the longest sleep between two looks at `stop` */
#define CHILDREN_NS  (NS / 4)
#define OPEN_TRIES   8      /* a child may take a while until it is Python */
#define ORDER_MAX    300000 /* samples whose order is kept */
#define ROOTS_MAX    2      /* frames below the stack's own: process, thread */
#define CHILDREN_MAX 16384  /* bytes of a list of children */

struct process {
    pid_t pid;
    pid_t inner;
    struct target *target; /* NULL: not Python, or not yet */
    int tries;
    bool gone;
    uint32_t frame; /* SAMPLE_NO_ID: not made */
};

struct record {
    int proc;
    struct record_options options;
    struct profile *profile;
    struct process *processes[RECORD_PROCESSES_MAX];
    size_t n;
    struct random_seeded random;
    atomic_bool stop;
    struct record_result result;
    struct process *now; /* whose stacks come in */
    uint32_t frames[4096 + ROOTS_MAX];
};

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS + ts.tv_nsec;
}

static void add_counts(struct sample_counts *to, const struct sample_counts *from)
{
    to->looks += from->looks;
    to->stacks += from->stacks;
    to->errors += from->errors;
    to->retries += from->retries;
}

static void forget(struct record *r, struct process *p)
{
    if (p->target) {
        struct sample_counts c = target_counts(p->target);
        add_counts(&r->result.counts, &c);
    }
    target_close(p->target);
    p->target = NULL;
}

static uint32_t process_frame(struct record *r, struct process *p)
{
    if (p->frame != SAMPLE_NO_ID)
        return p->frame;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_process about;
    const char *text = arena_printf(arena, "process %d", (int)p->inner);
    if (r->options.command_lines && proc_read(r->proc, arena, p->pid, &about, NULL) == 0)
        text = arena_printf(arena, "%s:\"%.*s\"", text, STR_ARG(about.command));
    if (profile_add_frame(r->profile, &(struct profile_frame){.function = str_of(text)}, &p->frame,
                          NULL) < 0)
        r->result.full = true;
    return p->frame;
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

static int thread_frame(struct record *r, const char *text, uint32_t *ret)
{
    return profile_add_frame(r->profile, &(struct profile_frame){.function = str_of(text)}, ret,
                             NULL);
}

static void on_stack(void *context, const struct sample_thread *t)
{
    struct record *r = context;
    size_t n = 0;
    int e = 0;
    char label[96], thread[64];
    if (r->result.full)
        return;
    if (t->name.len)
        snprintf(thread, sizeof(thread), "thread %d (%.*s)", (int)t->tid, STR_ARG(t->name));
    else
        snprintf(thread, sizeof(thread), "thread %d", (int)t->tid);
    snprintf(label, sizeof(label), "%s", thread);
    if (r->options.subprocesses) {
        snprintf(label, sizeof(label), "process %d %s", (int)r->now->inner, thread);
        r->frames[n++] = process_frame(r, r->now);
    }
    if (r->options.threads)
        e = thread_frame(r, thread, &r->frames[n++]);
    for (size_t i = t->depth; e == 0 && i-- > 0;)
        e = add_frame(r, t->frames[i], &r->frames[n++]);
    uint32_t id;
    if (e == 0)
        e = profile_add_thread(r->profile, str_of(label), &id, NULL);
    if (e == 0)
        e = profile_add_sample(r->profile, id, r->frames, n, 1, NULL);
    if (e < 0)
        r->result.full = true;
    if (profile_samples(r->profile) == ORDER_MAX)
        profile_drop_order(r->profile);
}

static pid_t inner_pid(const struct record *r, pid_t pid)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct proc_process about;
    if (proc_read(r->proc, arena, pid, &about, NULL) < 0 || about.container_pid == 0)
        return pid;
    return about.container_pid;
}

static struct process *add_process(struct record *r, pid_t pid)
{
    if (r->n == RECORD_PROCESSES_MAX)
        return NULL;
    struct process *p = xcalloc(1, sizeof(*p));
    *p = (struct process){.pid = pid, .inner = inner_pid(r, pid), .frame = SAMPLE_NO_ID};
    r->processes[r->n++] = p;
    return p;
}

static struct sample_options target_options(const struct record *r)
{
    return (struct sample_options){.gil = r->options.gil, .idle = r->options.idle, .names = true};
}

int record_create(int proc, pid_t pid, const struct record_options *options,
                  struct profile *profile, struct record **ret, struct err *err)
{
    if (options->rate < 1 || options->rate > 1000)
        return err_set(err, ERR_INVALID, "rate: 1 to 1000 samples a second");
    struct record *r = xcalloc(1, sizeof(*r));
    r->proc = proc;
    r->options = *options;
    r->profile = profile;
    random_seed(&r->random, random_u64(&random_system));
    struct process *p = add_process(r, pid);
    struct sample_options o = target_options(r);
    int e = target_open(proc, pid, &o, &p->target, err);
    if (e < 0) {
        record_destroy(r);
        return e;
    }
    r->result.processes = 1;
    snprintf(r->result.version, sizeof(r->result.version), "%s", target_version(p->target));
    *ret = r;
    return 0;
}

void record_destroy(struct record *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++) {
        target_close(r->processes[i]->target);
        free(r->processes[i]);
    }
    free(r);
}

void record_stop(struct record *r)
{
    atomic_store(&r->stop, true);
}

/* One that is not Python now may become it by exec(), and may have children that are. */
static void try_open(struct record *r, struct process *p, const struct process *parent)
{
    struct err err = ERR_INIT;
    struct sample_options o = target_options(r);
    p->tries++;
    int e = parent && parent->target ? target_open_child(parent->target, p->pid, &p->target, &err)
                                     : target_open(r->proc, p->pid, &o, &p->target, &err);
    if (e == 0)
        r->result.processes++;
    else if (e == ERR_NOT_FOUND)
        p->gone = true;
}

static struct process *find_process(const struct record *r, pid_t pid)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->processes[i]->pid == pid)
            return r->processes[i];
    return NULL;
}

static void children_of_thread(struct record *r, struct process *parent, int task, const char *tid)
{
    char path[280];
    struct err ignored = ERR_INIT;
    snprintf(path, sizeof(path), "%s/children", tid);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(CHILDREN_MAX);
    if (buf_read_file_at(&text, task, path, &ignored) < 0)
        return;
    for (struct str rest = buf_str(&text); rest.ptr;) {
        int64_t pid;
        if (str_to_i64(str_trim(str_cut(&rest, ' ')), 1, INT32_MAX, &pid) < 0 ||
            find_process(r, (pid_t)pid))
            continue;
        struct process *child = add_process(r, (pid_t)pid);
        if (child)
            try_open(r, child, parent);
    }
}

static void find_children(struct record *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct process *p = r->processes[i];
        if (!p->target && !p->gone && i > 0 && p->tries < OPEN_TRIES)
            try_open(r, p, NULL);
        char path[32];
        snprintf(path, sizeof(path), "%d/task", (int)p->pid);
        int fd = openat(r->proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        if (!dir) {
            if (fd >= 0)
                close(fd);
            p->gone = true;
            continue;
        }
        size_t seen = 0;
        for (struct dirent *d; seen < SAMPLE_THREADS_MAX && (d = readdir(dir)) != NULL;) {
            if (d->d_name[0] < '0' || d->d_name[0] > '9')
                continue;
            seen++;
            children_of_thread(r, p, fd, d->d_name);
        }
        closedir(dir);
    }
}

static void drop_gone(struct record *r)
{
    size_t left = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct process *p = r->processes[i];
        if (p->gone) {
            forget(r, p);
            free(p);
        } else {
            r->processes[left++] = p;
        }
    }
    r->n = left;
}

static void look_at_all(struct record *r)
{
    bool any_gone = false;
    for (size_t i = 0; i < r->n; i++) {
        struct process *p = r->processes[i];
        if (!p->target)
            continue;
        r->now = p;
        struct err err = ERR_INIT;
        int e = target_look(p->target, on_stack, r, &err);
        if (e == ERR_CONFLICT) {
            forget(r, p);
            p->tries = 0;
            try_open(r, p, NULL);
        } else if (e < 0) {
            p->gone = true;
        }
        any_gone = any_gone || p->gone;
    }
    r->result.looks++;
    if (any_gone)
        drop_gone(r);
}

/* Looks are independent of one another: the gaps of a Poisson process. */
static int64_t gap_ns(struct record *r)
{
    return (int64_t)(random_exponential(&r->random.source) * (double)NS / (double)r->options.rate);
}

/* Children that are not Python are kept only for the sake of theirs. */
static bool alive(const struct record *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->processes[i]->target)
            return true;
    return false;
}

static void nap_until(const struct record *r, int64_t until)
{
    int64_t now = now_ns();
    while (now < until && !atomic_load(&r->stop)) {
        int64_t end = until - now > NAP_NS ? now + NAP_NS : until;
        struct timespec ts = {.tv_sec = end / NS, .tv_nsec = end % NS};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
        now = now_ns();
    }
}

void record_run(struct record *r)
{
    int64_t start = now_ns(), next = start, children_at = start, told = start;
    int64_t end = r->options.duration_ms ? start + r->options.duration_ms * 1000000 : INT64_MAX;
    int64_t interval = NS / r->options.rate;
    while (alive(r) && !atomic_load(&r->stop) && !r->result.full) {
        next += gap_ns(r);
        int64_t now = now_ns();
        /* A look that comes one interval late would crowd upon the next one. */
        while (next < now - interval && next < end) {
            r->result.late++;
            next += gap_ns(r);
        }
        if (next >= end) {
            nap_until(r, end);
            break;
        }
        nap_until(r, next);
        if (atomic_load(&r->stop))
            break;
        look_at_all(r);
        now = now_ns();
        if (r->options.subprocesses && now >= children_at) {
            find_children(r);
            drop_gone(r);
            children_at = now + CHILDREN_NS;
        }
        if (r->options.progress && now - told > NAP_NS) {
            told = now;
            r->options.progress(r->options.context);
        }
    }
    r->result.exited = !alive(r);
    for (size_t i = 0; i < r->n; i++)
        forget(r, r->processes[i]);
}

struct record_result record_result(const struct record *r)
{
    struct record_result result = r->result;
    for (size_t i = 0; i < r->n; i++)
        if (r->processes[i]->target) {
            struct sample_counts c = target_counts(r->processes[i]->target);
            add_counts(&result.counts, &c);
        }
    return result;
}
