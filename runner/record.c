#include "runner/record.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/clock.h"
#include "base/map.h"
#include "sample/record.h"

#define OUTPUT_MAX (512u << 20)
#define TOP_LINES  30
#define TOP_MAX    65536
#define TASK_BYTES 512 /* shown of a task's name */

struct arguments {
    const char *command;
    struct record_options options;
    int64_t pid;
    const char *output, *format;
    bool quiet;
};

static struct record *running; /* for the signal handler */

int record_is_command(const char *name)
{
    return str_is(str_of(name), "record") || str_is(str_of(name), "dump") ||
           str_is(str_of(name), "top");
}

static void help(void)
{
    puts(
        "pyspy-runner record --pid PID [-d SECONDS] [-r RATE] [-o FILE] [-f FORMAT]\n"
        "pyspy-runner top --pid PID [-r RATE]\n"
        "pyspy-runner dump --pid PID\n"
        "\n"
        "Samples a Python process (CPython 3.8 to 3.14) without stopping it. Needs the capability\n"
        "SYS_PTRACE, or the same user where kernel.yama.ptrace_scope allows it.\n"
        "\n"
        "  -p, --pid PID          the process\n"
        "  -d, --duration SECONDS record: until then, or Ctrl-C, or its end (default 30)\n"
        "  -r, --rate RATE        looks a second, 1 to 1000 (default 100)\n"
        "  -o, --output FILE      record: where to; '-' is standard output (default PID.svg and so "
        "on)\n"
        "  -f, --format FORMAT    flamegraph, raw, speedscope, chrometrace (default: by FILE's "
        "ending)\n"
        "  -g, --gil              only threads that hold the interpreter's lock\n"
        "  -i, --idle             threads that sleep as well\n"
        "  -s, --subprocesses     children as well\n"
        "  -t, --threads          each thread apart\n"
        "  -F, --function         by function, not by line\n"
        "  -a, --async-tasks      the running task of asyncio as a frame (Python 3.12 to 3.14)\n"
        "  -q, --quiet            no progress");
}

static int number(const char *text, int64_t min, int64_t max, const char *what, int64_t *ret,
                  struct err *err)
{
    if (str_to_i64(str_of(text), min, max, ret) < 0)
        return err_set(err, ERR_INVALID, "%s is a number from %lld to %lld, not '%s'", what,
                       (long long)min, (long long)max, text);
    return 0;
}

static const char *format_of(const char *output)
{
    struct str name = str_of(output);
    if (str_ends_with(name, STR(".txt")) || str_ends_with(name, STR(".raw")))
        return "raw";
    if (str_ends_with(name, STR(".trace.json")))
        return "chrometrace";
    if (str_ends_with(name, STR(".json")))
        return "speedscope";
    return "flamegraph";
}

static const struct {
    const char *name, *ending;
    int (*write)(const struct profile *p, struct buf *out, struct err *err);
} formats[] = {
    {"flamegraph", ".svg", profile_write_flamegraph},
    {"raw", ".txt", profile_write_raw},
    {"speedscope", ".json", profile_write_speedscope},
    {"chrometrace", ".trace.json", profile_write_chrometrace},
};

static int format_index(const char *name, struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (str_is(str_of(name), formats[i].name))
            return (int)i;
    return err_set(err, ERR_INVALID,
                   "format '%s' is not known: flamegraph, raw, speedscope or chrometrace", name);
}

/* 1: help was asked for. */
static int parse(int argc, char *const *argv, struct arguments *a, struct err *err)
{
    static const struct option names[] = {
        {"pid", required_argument, NULL, 'p'},   {"duration", required_argument, NULL, 'd'},
        {"rate", required_argument, NULL, 'r'},  {"output", required_argument, NULL, 'o'},
        {"gil", no_argument, NULL, 'g'},         {"format", required_argument, NULL, 'f'},
        {"idle", no_argument, NULL, 'i'},        {"subprocesses", no_argument, NULL, 's'},
        {"threads", no_argument, NULL, 't'},     {"function", no_argument, NULL, 'F'},
        {"async-tasks", no_argument, NULL, 'a'}, {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    *a = (struct arguments){.command = argv[1],
                            .options = {.rate = 100, .duration_ms = 30000, .command_lines = true}};
    int64_t seconds = 30;
    int r = 0;
    opterr = 0;
    optind = 2;
    for (int c;
         r == 0 && (c = getopt_long(argc, argv, ":p:d:r:o:f:gistFaqh", names, NULL)) != -1;) {
        switch (c) {
        case 'p':
            r = number(optarg, 1, INT32_MAX, "--pid", &a->pid, err);
            break;
        case 'd':
            r = number(optarg, 1, 604800, "--duration", &seconds, err);
            break;
        case 'r':
            r = number(optarg, 1, 1000, "--rate", &a->options.rate, err);
            break;
        case 'o':
            a->output = optarg;
            break;
        case 'f':
            a->format = optarg;
            break;
        case 'g':
            a->options.gil = true;
            break;
        case 'i':
            a->options.idle = true;
            break;
        case 's':
            a->options.subprocesses = true;
            break;
        case 't':
            a->options.threads = true;
            break;
        case 'F':
            a->options.functions = true;
            break;
        case 'a':
            a->options.async_tasks = true;
            break;
        case 'q':
            a->quiet = true;
            break;
        case 'h':
            return 1;
        case ':':
            return err_set(err, ERR_INVALID, "%s needs a value", argv[optind - 1]);
        default:
            return err_set(err, ERR_INVALID, "%s is not known", argv[optind - 1]);
        }
    }
    a->options.duration_ms = seconds * 1000;
    if (r == 0 && optind < argc)
        return err_set(err, ERR_INVALID, "'%s' is not known", argv[optind]);
    if (r == 0 && a->pid == 0)
        return err_set(err, ERR_INVALID, "--pid says which process");
    if (r == 0 && a->format && format_index(a->format, err) < 0)
        return ERR_INVALID;
    return r;
}

static void on_signal(int signal_number)
{
    (void)signal_number;
    if (running)
        record_stop(running);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

struct progress {
    const struct record *record;
    const struct profile *profile;
    const struct arguments *arguments;
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

static int write_file(const char *path, struct str text, struct err *err)
{
    bool standard = str_is(str_of(path), "-");
    int fd = standard ? STDOUT_FILENO : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set_errno(err, errno, "write %s", path);
    int r = 0;
    for (size_t done = 0; r == 0 && done < text.len;) {
        ssize_t n = write(fd, text.ptr + done, text.len - done);
        if (n < 0 && errno != EINTR)
            r = err_set_errno(err, errno, "write %s", path);
        done += n > 0 ? (size_t)n : 0;
    }
    if (!standard && close(fd) < 0 && r == 0)
        r = err_set_errno(err, errno, "write %s", path);
    return r;
}

static int record(int proc, struct arguments *a, struct err *err)
{
    const char *name = a->format ? a->format : a->output ? format_of(a->output) : "flamegraph";
    int format = format_index(name, err);
    if (format < 0)
        return format;
    _cleanup_(freep) char *path =
        a->output ? xstrdup(a->output)
                  : xasprintf("%lld%s", (long long)a->pid, formats[format].ending);
    _cleanup_(profile_destroyp) struct profile *profile = profile_create(NULL);
    struct progress progress = {
        .profile = profile, .arguments = a, .start_ms = clock_monotonic_ms(&clock_system)};
    if (!a->quiet && isatty(STDERR_FILENO)) {
        a->options.progress = show_progress;
        a->options.context = &progress;
    }
    int64_t start = clock_wall_ms(&clock_system);
    _cleanup_(record_destroyp) struct record *r = NULL;
    int e = record_create(proc, (pid_t)a->pid, &a->options, profile, &r, err);
    if (e < 0)
        return e;
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
        return err_set(err, ERR_NOT_FOUND,
                       "no samples: in %lld looks no thread ran%s (%lld stacks could not be read)",
                       (long long)result.looks,
                       a->options.idle ? " Python code" : "; --idle counts sleeping ones as well",
                       (long long)result.counts.errors);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(OUTPUT_MAX);
    e = formats[format].write(profile, &text, err);
    if (e == 0)
        e = write_file(path, buf_str(&text), err);
    if (e == 0 && !a->quiet)
        fprintf(stderr,
                "%s: %lld samples of Python %s in %lld looks; %lld errors, %lld late; %lld "
                "process%s%s%s\n",
                path, (long long)profile_samples(profile), result.version, (long long)result.looks,
                (long long)result.counts.errors, (long long)result.late,
                (long long)result.processes, result.processes == 1 ? "" : "es",
                result.exited ? "; it ended" : "", result.full ? "; stopped: too large" : "");
    return e;
}

static void print_text(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        /* Names come from the process and must not drive the terminal. */
        putchar(c < 32 || c == 127 ? '?' : c);
    }
}

static void print_stack(void *context, const struct sample_thread *t)
{
    (void)context;
    printf("Thread %d (%s%s): \"", (int)t->tid, t->running ? "running" : "idle",
           t->gil ? ", GIL" : "");
    print_text(t->name);
    puts("\"");
    for (size_t i = 0; i < t->depth; i++) {
        const struct sample_frame *f = t->frames[i];
        printf("    ");
        print_text(f->function);
        printf(" (");
        print_text(f->file);
        printf(":%lld)\n", (long long)f->line);
        if (t->task.len && i == t->task_at) {
            printf("    task ");
            print_text(t->task);
            putchar('\n');
        }
    }
}

static int dump(int proc, const struct arguments *a, struct err *err)
{
    struct sample_options options = {.idle = true, .names = true, .tasks = a->options.async_tasks};
    _cleanup_(target_closep) struct target *t = NULL;
    int r = target_open(proc, (pid_t)a->pid, &options, &t, err);
    if (r < 0)
        return r;
    printf("Process %lld: Python %s\n\n", (long long)a->pid, target_version(t));
    return target_look(t, print_stack, NULL, err);
}

/* Functions by samples of the last second. */
struct top_entry {
    struct str function, file;
    int64_t self, total, last_stack;
};

struct top {
    struct map *index; /* function NUL file */
    struct arena *arena;
    struct top_entry *entries[TOP_MAX];
    size_t n;
    int64_t stacks;
};

static struct top_entry *top_entry(struct top *top, struct str function, struct str file)
{
    _cleanup_(buf_finish) struct buf key = BUF_INIT(function.len + file.len + 2);
    buf_append_str(&key, function);
    buf_append_char(&key, '\0');
    buf_append_str(&key, file);
    struct top_entry *e = map_get(top->index, buf_str(&key));
    if (e || top->n == TOP_MAX)
        return e;
    e = arena_alloc(top->arena, sizeof(*e));
    e->function = arena_str(top->arena, function);
    e->file = arena_str(top->arena, file);
    map_set(top->index, buf_str(&key), e);
    top->entries[top->n++] = e;
    return e;
}

static void count_entry(struct top *top, struct str function, struct str file, bool self)
{
    struct top_entry *e = top_entry(top, function, file);
    if (!e)
        return;
    e->self += self;
    e->total += e->last_stack != top->stacks;
    e->last_stack = top->stacks;
}

static void count_top(void *context, const struct sample_thread *t)
{
    struct top *top = context;
    top->stacks++;
    for (size_t i = 0; i < t->depth; i++)
        count_entry(top, t->frames[i]->function, t->frames[i]->file, i == 0);
    if (t->task.len) {
        char text[TASK_BYTES];
        snprintf(text, sizeof(text), "task %.*s", STR_ARG(record_task_name(t->task)));
        count_entry(top, str_of(text), STR("asyncio"), false);
    }
}

static int by_self(const void *a, const void *b)
{
    const struct top_entry *const *x = a, *const *y = b;
    if ((*x)->self != (*y)->self)
        return (*x)->self < (*y)->self ? 1 : -1;
    return ((*x)->total < (*y)->total) - ((*x)->total > (*y)->total);
}

static void show_top(struct top *top, const struct arguments *a, int64_t looks)
{
    qsort(top->entries, top->n, sizeof(void *), by_self);
    if (isatty(STDOUT_FILENO))
        printf("\033[H\033[2J");
    printf("process %lld: %lld samples in %lld looks\n %%own %%total  function (file)\n",
           (long long)a->pid, (long long)top->stacks, (long long)looks);
    for (size_t i = 0; i < top->n && i < TOP_LINES; i++) {
        const struct top_entry *e = top->entries[i];
        if (e->total == 0)
            break;
        printf("%5.1f  %5.1f  ", 100.0 * (double)e->self / (double)looks,
               100.0 * (double)e->total / (double)looks);
        print_text(e->function);
        printf(" (");
        print_text(e->file);
        puts(")");
    }
    fflush(stdout);
    for (size_t i = 0; i < top->n; i++)
        top->entries[i]->self = top->entries[i]->total = top->entries[i]->last_stack = 0;
    top->stacks = 0;
}

static volatile sig_atomic_t top_ended;

static void end_top(int signal_number)
{
    (void)signal_number;
    top_ended = 1;
}

static int top(int proc, const struct arguments *a, struct err *err)
{
    struct sample_options options = {
        .idle = a->options.idle, .gil = a->options.gil, .tasks = a->options.async_tasks};
    _cleanup_(target_closep) struct target *t = NULL;
    int r = target_open(proc, (pid_t)a->pid, &options, &t, err);
    if (r < 0)
        return r;
    _cleanup_(freep) struct top *state = xcalloc(1, sizeof(*state));
    _cleanup_(map_destroyp) struct map *index = map_create();
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    state->index = index;
    state->arena = arena;
    struct sigaction action = {.sa_handler = end_top};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int64_t looks = 0, shown = clock_monotonic_ms(&clock_system);
    while (r == 0 && !top_ended) {
        usleep((useconds_t)(1000000 / a->options.rate));
        r = target_look(t, count_top, state, err);
        looks++;
        int64_t now = clock_monotonic_ms(&clock_system);
        if (now - shown >= 1000) {
            show_top(state, a, looks);
            shown = now;
            looks = 0;
        }
    }
    return r;
}

int record_main(int argc, char *const *argv)
{
    struct arguments a;
    struct err err = ERR_INIT;
    int r = parse(argc, argv, &a, &err);
    if (r == 1) {
        help();
        return 0;
    }
    if (r < 0) {
        fprintf(stderr, "pyspy-runner %s: %s; --help tells more\n", argv[1], err.message);
        return 2;
    }
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0) {
        fprintf(stderr, "pyspy-runner %s: /proc: %s\n", a.command, strerror(errno));
        return 1;
    }
    if (str_is(str_of(a.command), "record"))
        r = record(proc, &a, &err);
    else if (str_is(str_of(a.command), "dump"))
        r = dump(proc, &a, &err);
    else
        r = top(proc, &a, &err);
    close(proc);
    if (r < 0)
        fprintf(stderr, "pyspy-runner %s: %s\n", a.command, err.message);
    return r < 0 ? 1 : 0;
}
