#include "sample/target.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "sample/hold.h"
#include "sample/objects.h"
#include "sample/threads.h"

#define OPEN_TRIES 5            /* at least, */
#define OPEN_MS    1000         /* and for so long: an interpreter may be about to start */
#define COPY_KEPT  (256u << 10) /* bytes of the copy of a stack that stay from look to look */
#define ATTACHED   (1u << 4)    /* status: may run Python code; with a lock only its holder is */

struct target {
    int proc;
    pid_t pid;
    struct program program;
    struct memory_process process;
    struct memory_reader *reader;
    struct python_offsets offsets;
    struct sample_options options;
    struct symbols symbols;
    struct kernel *kernel; /* NULL: an image, in which everything runs */
    struct codes *codes;
    struct objects *objects; /* NULL: not wanted, or not in this version; so are the next two */
    struct async *async;
    struct names *names;
    struct stack_reader stack;
    struct hold hold;
    struct visitor *visitor; /* NULL also where it is shared */
    struct threads threads;
    size_t first; /* thread that the next look begins with: the one that had no time left */
    struct thread *expected; /* the only one with a stack at the last look; NULL: other than one */
    struct thread *begun;    /* whose task has been read, its stack not yet; NULL: none's */
    struct sample_counts counts;
    struct sample_frame *frames[STACK_DEPTH_MAX];
};

_Static_assert(offsetof(struct interpreter, locked) ==
                   offsetof(struct interpreter, holder) + sizeof(uint64_t),
               "read as one");

static int refresh(struct target *t)
{
    t->expected = t->begun = NULL;
    t->stack.prepared = NULL;
    return threads_refresh(&t->threads);
}

/* The heads of the lists of threads and the locks, and the stack that will most probably be wanted,
 * in one call. A new interpreter is seen at the next refresh. */
static int look_at_heads(struct target *t, struct thread *expected, bool *ret_same)
{
    const struct python_offsets *o = &t->offsets;
    struct memory_batch *b = &t->stack.batch;
    uint64_t heads[SAMPLE_INTERPRETERS_MAX] = {0};
    for (size_t i = 0; i < t->threads.n_interpreters; i++) {
        struct interpreter *ip = &t->threads.interpreters[i];
        ip->locked = 0;
        memory_batch_add(b, ip->address + o->interpreter_threads, &heads[i], sizeof(heads[i]));
        if (ip->gil && o->gil_locked == o->gil_holder + sizeof(ip->holder)) {
            memory_batch_add(b, ip->gil + o->gil_holder, &ip->holder,
                             sizeof(ip->holder) + sizeof(ip->locked));
        } else if (ip->gil) {
            memory_batch_add(b, ip->gil + o->gil_holder, &ip->holder, sizeof(ip->holder));
            memory_batch_add(b, ip->gil + o->gil_locked, &ip->locked, sizeof(ip->locked));
        }
    }
    bool along = expected && stack_prepare(&t->stack, &expected->memory, expected->address);
    int e = memory_batch_read(t->reader, b);
    t->stack.took_ns = b->took_ns;
    if (e < 0 && along) {
        t->stack.prepared = NULL;
        return look_at_heads(t, NULL, ret_same);
    }
    bool same = e == 0 && t->threads.n_interpreters > 0;
    for (size_t i = 0; same && i < t->threads.n_interpreters; i++)
        same = heads[i] == t->threads.interpreters[i].head;
    *ret_same = same;
    return e;
}

/* Free-threaded builds tell for each thread whether it is attached. */
static void look_at_status(struct target *t)
{
    struct memory_batch *b = &t->stack.batch;
    uint32_t at = t->offsets.thread_status;
    int e = 0;
    for (size_t i = 0; at && i < t->threads.n; i++) {
        uint32_t *to = &t->threads.at[i]->status;
        *to = 0;
        if (e == 0 && !memory_batch_add(b, t->threads.at[i]->address + at, to, sizeof(*to))) {
            e = memory_batch_read(t->reader, b);
            memory_batch_add(b, t->threads.at[i]->address + at, to, sizeof(*to));
        }
    }
    /* Those behind one that has gone count as not attached. */
    if (memory_batch_read(t->reader, b) < 0 || e < 0)
        threads_expire(&t->threads);
}

static int still_there(const struct target *t, struct err *err)
{
    struct program now;
    if (!t->kernel)
        return err_set(err, ERR_IO, "the image does not hold an interpreter");
    int r = program_read(t->proc, t->pid, &now, err);
    if (r == 0 && !program_same(&now, &t->program))
        r = err_set(err, ERR_CONFLICT, "process %d runs another program now", (int)t->pid);
    return r;
}

/* Bytes that may be kept of this target from look to look. */
static size_t memory_share(const struct target *t)
{
    const struct sample_shared *s = t->options.shared;
    return s ? SAMPLE_MEMORY_MAX / s->targets / (s->parts ? s->parts : 1) : SAMPLE_MEMORY_MAX;
}

static int read_stack(struct target *t, struct thread *thread, bool running)
{
    struct stack_memory *m = &thread->memory;
    bool may_hold = running && thread->kernel && !t->options.nonblocking;
    t->stack.holder = may_hold ? &t->hold.holder : NULL;
    hold_begin(&t->hold, thread->kernel);
    size_t before = m->cap_objects;
    int e = stack_read(&t->stack, m, thread->address);
    t->threads.objects += m->cap_objects - before;
    if (t->threads.objects * sizeof(*m->objects) > memory_share(t) / 4) {
        t->threads.objects -= m->cap_objects;
        stack_memory_finish(m);
    }
    return e;
}

/* A task is read before the stack, and again after it. So what was read along of a stack before
 * another one's task counts no more. */
static void begin_task(struct target *t, struct thread *thread)
{
    if (!t->async || t->begun == thread)
        return;
    async_begin(t->async, t->threads.interpreters[thread->interpreter].address, thread->address);
    t->begun = thread;
    t->stack.prepared = NULL;
}

/* -EAGAIN: the stack is that of a task which began only after tasks were looked at. */
static int end_task(struct target *t, struct thread *thread, bool again, struct str *ret_name,
                    size_t *ret_at)
{
    const struct stack_reader *s = &t->stack;
    t->begun = NULL;
    *ret_name = STR("");
    if (!t->async || async_end(t->async, s->frames, s->depth, ret_name, ret_at) || !again ||
        !async_missed(t->async, t->threads.interpreters[thread->interpreter].address,
                      thread->address, s->frames, s->depth))
        return 0;
    t->begun = thread;
    return -EAGAIN;
}

static struct str name_of(struct target *t, const struct thread *thread)
{
    const struct threads *ts = &t->threads;
    struct kernel_thread *k = thread->kernel;
    struct str name = STR("");
    bool now = true;
    if (k ? !kernel_thread_name_due(k) : t->kernel != NULL)
        return k ? kernel_thread_name(k) : name;
    if (t->names && ts->n_interpreters)
        now = names_read(t->names, ts->interpreters[ts->n_interpreters - 1].address,
                         ts->interpreters[thread->interpreter].address, thread->pthread, &name);
    if (!k)
        return name;
    if (now || !kernel_thread_name(k).len)
        kernel_thread_rename(t->kernel, k, name, t->names != NULL);
    return kernel_thread_name(k);
}

static struct sample_thread about(struct target *t, const struct thread *thread)
{
    struct sample_thread sample = {.id = thread->address};
    if (thread->kernel) {
        sample.tid = kernel_thread_id(thread->kernel);
        sample.mark = kernel_thread_mark(thread->kernel);
    }
    if (t->options.names)
        sample.name = name_of(t, thread);
    return sample;
}

/* Leaves out what is not to be shown. */
static void compact(struct target *t, size_t *task_at)
{
    size_t kept = 0, at = *task_at;
    for (size_t i = 0; i < t->stack.depth; i++) {
        if (t->frames[i])
            t->frames[kept++] = t->frames[i];
        else
            *task_at -= i < at;
    }
    t->stack.depth = kept;
}

/* state: running, gil and asked of it. Whether it had a stack, be it one that could not be read. */
static bool count_stack(struct target *t, struct thread *thread, struct sample_thread state,
                        target_fn *fn, void *context)
{
    int e = -EAGAIN;
    bool waited = false;
    struct str task = STR("");
    size_t task_at = 0;
    /* A code object that is not one now may be the trace of a change; so once more. */
    for (int attempt = 0; attempt < 3 && e < 0 && e != -ETIME; attempt++) {
        t->counts.retries += attempt > 0;
        begin_task(t, thread);
        e = read_stack(t, thread, state.running);
        t->counts.held += t->hold.waited && !waited;
        waited = waited || t->hold.waited;
        state.running = state.running && (!t->hold.slept || t->options.gil);
        if (!state.running && !t->options.idle) {
            t->begun = NULL;
            return true;
        }
        if (e == 0)
            e = end_task(t, thread, attempt < 2, &task, &task_at);
        else
            t->begun = NULL;
        if (e == 0 && codes_resolve(t->codes, t->stack.frames, t->stack.depth, memory_share(t) / 4,
                                    &thread->memory.codes, t->stack.copy + t->stack.codes,
                                    t->stack.n_codes, t->frames) < 0)
            e = -EFAULT;
    }
    if (e < 0) {
        t->counts.errors++;
        t->counts.unread += e != -ETIME;
        threads_expire(&t->threads);
    } else {
        compact(t, &task_at);
    }
    bool read = e == 0 && t->stack.depth > 0; /* else not in Python code: just begun, or ending */
    if (!read && !t->options.all)
        return e < 0;
    struct sample_thread sample = about(t, thread);
    sample.running = state.running;
    sample.gil = state.gil;
    sample.asked = state.asked;
    sample.error = e;
    if (read) {
        sample.frames = t->frames;
        sample.depth = t->stack.depth;
        sample.cut = t->stack.cut;
        sample.task = task;
        sample.task_at = task_at;
        t->counts.stacks++;
    }
    fn(context, &sample);
    return e < 0 || read;
}

/* last: it had the lock last. */
static bool has_lock(const struct target *t, const struct thread *thread, bool *ret_last)
{
    const struct interpreter *ip = &t->threads.interpreters[thread->interpreter];
    if (t->offsets.thread_status)
        return *ret_last = thread->status & ATTACHED;
    *ret_last = ip->holder == thread->address;
    return *ret_last && ip->locked == 1;
}

static void ask(struct target *t, struct thread *thread, bool last, bool gil,
                struct sample_thread *state)
{
    bool moved = gil && stack_moved(&t->stack, &thread->memory);
    state->running = kernel_thread_runs(t->kernel, thread->kernel, last, moved);
    if (!state->running && kernel_misses_threads(t->kernel)) {
        /* Of threads that begin and end all the time, the next mostly gets the last one's place. */
        if (threads_renew(&t->threads, thread))
            state->running = kernel_thread_runs(t->kernel, thread->kernel, true, moved);
        else
            threads_expire(&t->threads);
    }
    int64_t unasked = kernel_unanswered(t->kernel);
    t->counts.unasked += unasked;
    t->counts.errors += unasked;
    state->asked = unasked == 0;
}

struct looked {
    struct thread *only; /* the one whose stack was asked for, and how many there were */
    size_t stacks;
};

/* A thread as the kernel knows it may have a state in each of several interpreters: it runs in the
 * one whose lock it has, or else in the one that was begun last. */
static void look_at_states(struct target *t, struct thread *const *states, size_t n,
                           struct looked *looked, target_fn *fn, void *context)
{
    struct sample_thread state = {0};
    bool begun = false;
    for (int with = 1; with >= 0; with--)
        for (size_t i = 0; i < n; i++) {
            struct thread *thread = states[i];
            bool last, gil = has_lock(t, thread, &last);
            if (gil != with || (t->options.gil && !gil))
                continue;
            if (!begun) {
                begun = state.running = true;
                if (t->kernel && !t->options.gil && !thread->kernel)
                    state.running = gil;
                else if (t->kernel && !t->options.gil)
                    ask(t, thread, last, gil, &state);
            }
            if (!state.running && !t->options.idle)
                return;
            state.gil = gil;
            looked->only = thread;
            looked->stacks++;
            if (count_stack(t, thread, state, fn, context))
                return;
        }
}

/* Those that this look has no time for. */
static void count_rest(struct target *t, size_t k, size_t first, target_fn *fn, void *context)
{
    t->counts.cut++;
    t->counts.errors += t->options.gil ? 1 : (int64_t)(t->threads.n - k);
    t->first = (first + k) % t->threads.n;
    for (; t->options.all && k < t->threads.n; k++) {
        struct sample_thread sample = about(t, t->threads.at[(first + k) % t->threads.n]);
        sample.error = -ETIME;
        fn(context, &sample);
    }
}

int target_look(struct target *t, target_fn *fn, void *context, struct err *err)
{
    bool same;
    t->reader->deadline_ms = memory_now_ms() + SAMPLE_LOOK_MS;
    t->begun = NULL;
    if (t->expected)
        begin_task(t, t->expected);
    int e = look_at_heads(t, t->expected, &same);
    if (e == 0 && (!same || threads_stale(&t->threads))) {
        e = refresh(t);
        if (e == 0 || t->threads.n)
            e = look_at_heads(t, NULL, &same);
        if (!threads_holder_first(&t->threads))
            threads_seek(&t->threads);
    }
    if (e < 0) {
        int r = e == -ETIME ? 0 : still_there(t, err);
        if (r == 0 && e == -EPERM)
            r = err_set_errno(err, EPERM, "memory of process %d", (int)t->pid);
        t->counts.errors += r != ERR_NOT_FOUND && r != ERR_CONFLICT;
        t->counts.cut += e == -ETIME;
        threads_expire(&t->threads);
        return r;
    }
    t->counts.looks++;
    if (t->names)
        names_begin(t->names);
    look_at_status(t);
    if (t->kernel && !t->options.gil)
        kernel_begin(t->kernel, t->options.all);
    struct looked looked = {0};
    bool cut = false;
    size_t states = 1, first = t->first < t->threads.n ? t->first : 0;
    t->first = 0;
    for (size_t k = 0; k < t->threads.n; k += states) {
        size_t i = (first + k) % t->threads.n;
        if (memory_late(t->reader)) {
            count_rest(t, k, first, fn, context);
            cut = true;
            break;
        }
        states = threads_states(&t->threads, i);
        look_at_states(t, &t->threads.at[i], states, &looked, fn, context);
    }
    t->expected = looked.stacks == 1 ? looked.only : NULL;
    t->stack.prepared = NULL;
    if (t->kernel) {
        kernel_end(t->kernel, cut);
        if (kernel_misses_threads(t->kernel))
            threads_expire(&t->threads);
    }
    if (t->stack.cap > COPY_KEPT)
        stack_reader_finish(&t->stack);
    return 0;
}

static int find_offsets(struct target *t, unsigned minor, struct err *err)
{
    uint8_t bytes[OFFSETS_DEBUG_MAX];
    int r = ERR_NOT_FOUND;
    if (memory_read(t->reader, t->symbols.runtime, bytes, sizeof(bytes)) == 0)
        r = offsets_from_runtime(bytes, sizeof(bytes), &t->offsets, err);
    if (r != ERR_NOT_FOUND)
        return r;
    const struct python_offsets *o = offsets_find(minor);
    if (!o)
        return err_set(err, ERR_INVALID, "Python %s is not supported (3.8 to 3.14 are)",
                       t->symbols.version[0] ? t->symbols.version : "of an unknown version");
    t->offsets = *o;
    return 0;
}

static void start(struct target *t)
{
    t->codes = codes_create(t->reader, &t->offsets, t->symbols.code_type);
    t->stack.reader = t->reader;
    t->stack.offsets = &t->offsets;
    hold_init(&t->hold, t->kernel, t->options.shared ? &t->options.shared->visitor : &t->visitor);
    t->threads.reader = t->reader;
    t->threads.offsets = &t->offsets;
    t->threads.runtime = t->symbols.runtime;
    t->threads.kernel = t->kernel;
    t->threads.shared = t->options.shared;
    if (t->options.tasks || t->options.names)
        t->objects = objects_create(t->reader, &t->offsets, &t->stack.batch);
    if (t->objects && t->options.tasks)
        t->async = async_create(t->objects);
    if (t->objects && t->options.names)
        t->names = names_create(t->objects);
    if (t->options.shared)
        t->options.shared->targets++;
}

/* The same program at the same address, as fork() leaves it. */
int target_open_child(const struct target *parent, pid_t pid, struct target **ret, struct err *err)
{
    _cleanup_(target_closep) struct target *t = xcalloc(1, sizeof(*t));
    struct program program;
    int found = program_read(parent->proc, pid, &program, err);
    if (found < 0)
        return found;
    if (program_same(&program, &parent->program)) {
        *t = (struct target){.proc = parent->proc,
                             .pid = pid,
                             .program = program,
                             .options = parent->options,
                             .symbols = parent->symbols,
                             .offsets = parent->offsets};
        memory_process_init(&t->process, pid);
        t->reader = &t->process.reader;
        int r = kernel_create(t->proc, pid, &t->kernel, err);
        if (r < 0)
            return r;
        start(t);
        t->reader->deadline_ms = memory_now_ms() + SAMPLE_LOOK_MS;
        if (refresh(t) == 0 && t->threads.n) {
            *ret = TAKE(t);
            return 0;
        }
    }
    struct sample_options options = parent->options;
    options.hurry = true;
    return target_open(parent->proc, pid, &options, ret, err);
}

int target_open(int proc, pid_t pid, const struct sample_options *options, struct target **ret,
                struct err *err)
{
    _cleanup_(target_closep) struct target *t = xcalloc(1, sizeof(*t));
    t->proc = proc;
    t->pid = pid;
    t->options = *options;
    memory_process_init(&t->process, pid);
    t->reader = &t->process.reader;

    int r = program_read(proc, pid, &t->program, err);
    if (r < 0)
        return r;
    r = symbols_find(proc, pid, t->reader, &t->symbols, err);
    if (r < 0)
        return r;
    uint64_t probe;
    int e = memory_read(t->reader, t->symbols.runtime, &probe, sizeof(probe));
    if (e == -EPERM || e == -EACCES)
        return err_set(
            err, ERR_FORBIDDEN,
            "may not read the memory of process %d: that takes the capability SYS_PTRACE, "
            "or the same user and a permissive kernel.yama.ptrace_scope",
            (int)pid);
    if (e < 0)
        return err_set_errno(err, -e, "memory of process %d", (int)pid);
    r = find_offsets(t, version_minor(t->symbols.version), err);
    if (r == 0)
        r = kernel_create(proc, pid, &t->kernel, err);
    if (r < 0)
        return r;
    start(t);
    /* It may be busy changing the list just now, or about to make its first interpreter. */
    int64_t until = options->hurry ? 0 : memory_now_ms() + OPEN_MS;
    int least = options->hurry ? 1 : OPEN_TRIES;
    for (int attempt = 0; attempt < least || memory_now_ms() < until; attempt++) {
        if (attempt)
            usleep(10000);
        t->reader->deadline_ms = memory_now_ms() + SAMPLE_LOOK_MS;
        e = refresh(t);
        if ((e == 0 && t->threads.n) || e == -ETIME)
            break;
    }
    if ((e < 0 && e != -ETIME) || t->threads.n == 0) {
        r = still_there(t, err);
        return r < 0 ? r
                     : err_set(err, ERR_INVALID,
                               "no interpreter of Python %s found in process %d: it is just "
                               "starting, or a build with another layout",
                               t->symbols.version, (int)pid);
    }
    *ret = TAKE(t);
    return 0;
}

int target_open_memory(struct memory_reader *reader, uint64_t runtime, unsigned minor,
                       const struct sample_options *options, struct target **ret, struct err *err)
{
    _cleanup_(target_closep) struct target *t = xcalloc(1, sizeof(*t));
    t->proc = -1;
    t->options = *options;
    t->reader = reader;
    t->symbols.runtime = runtime;
    snprintf(t->symbols.version, sizeof(t->symbols.version), "3.%u", minor % 100);
    int r = find_offsets(t, minor, err);
    if (r < 0)
        return r;
    start(t);
    *ret = TAKE(t);
    return 0;
}

void target_close(struct target *t)
{
    if (!t)
        return;
    threads_finish(&t->threads);
    if (t->codes && t->options.shared)
        t->options.shared->targets--;
    visitor_destroy(t->visitor);
    kernel_destroy(t->kernel);
    codes_destroy(t->codes);
    async_destroy(t->async);
    names_destroy(t->names);
    free(t->objects);
    stack_reader_finish(&t->stack);
    free(t);
}

const char *target_version(const struct target *t)
{
    return t->symbols.version;
}

bool target_shows_tasks(const struct target *t)
{
    return t->async != NULL;
}

struct sample_counts target_counts(const struct target *t)
{
    return t->counts;
}
