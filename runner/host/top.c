#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/map.h"
#include "runner/host/host.h"

#define LINES       30
#define LINES_ABOVE 3
#define ENTRIES_MAX 65536
#define SECOND_NS   INT64_C(1000000000)
#define NAP_NS      (SECOND_NS / 10)
#define TASK_BYTES  2048 /* of a task's name */

/* Functions by samples of the last second. */
struct entry {
    struct str function, file;
    int64_t self, total, last_stack;
};

struct top {
    struct map *index; /* function NUL file */
    struct arena *arena;
    struct entry *entries[ENTRIES_MAX];
    size_t n;
    int64_t stacks;
    const char *without_tasks; /* the version that shows none, though asked for; NULL: it does */
};

static struct entry *entry_of(struct top *top, struct str function, struct str file)
{
    _cleanup_(buf_finish) struct buf key = BUF_INIT(function.len + file.len + 2);
    buf_append_str(&key, function);
    buf_append_char(&key, '\0');
    buf_append_str(&key, file);
    struct entry *e = map_get(top->index, buf_str(&key));
    if (e || top->n == ENTRIES_MAX)
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
    struct entry *e = entry_of(top, function, file);
    if (!e)
        return;
    e->self += self;
    e->total += e->last_stack != top->stacks;
    e->last_stack = top->stacks;
}

static void count(void *context, const struct sample_thread *t)
{
    struct top *top = context;
    top->stacks++;
    for (size_t i = 0; i < t->depth; i++)
        count_entry(top, t->frames[i]->function, t->frames[i]->file, i == 0);
    if (t->cut)
        count_entry(top, STR(RECORD_CUT), STR(""), false);
    if (t->task.len) {
        char text[TASK_BYTES];
        snprintf(text, sizeof(text), "task %.*s", STR_ARG(record_task_name(t->task)));
        count_entry(top, str_of(text), STR("asyncio"), false);
    }
}

static int by_self(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    if ((*x)->self != (*y)->self)
        return (*x)->self < (*y)->self ? 1 : -1;
    return ((*x)->total < (*y)->total) - ((*x)->total > (*y)->total);
}

/* How many functions fit on the screen. */
static size_t lines(const struct top *top)
{
    struct winsize size;
    int above = LINES_ABOVE + (top->without_tasks != NULL);
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row <= above)
        return LINES;
    return (size_t)(size.ws_row - above);
}

static int show(struct top *top, const struct host_arguments *a, int64_t looks, int64_t errors,
                struct err *err)
{
    qsort(top->entries, top->n, sizeof(void *), by_self);
    /* From the upper left, and long lines are cut. */
    if (isatty(STDOUT_FILENO))
        fputs("\033[?7l\033[H\033[2J", stdout);
    printf("process %lld: %lld samples in %lld looks, %lld errors\n", (long long)a->pid,
           (long long)top->stacks, (long long)looks, (long long)errors);
    if (top->without_tasks)
        printf("--async-tasks: " TARGET_WITHOUT_TASKS "\n", top->without_tasks);
    puts(" %own %total  function (file)");
    for (size_t i = 0, n = lines(top); i < top->n && i < n; i++) {
        const struct entry *e = top->entries[i];
        if (e->total == 0)
            break;
        printf("%5.1f  %5.1f  ", 100.0 * (double)e->self / (double)looks,
               100.0 * (double)e->total / (double)looks);
        host_print(stdout, e->function);
        if (e->file.len) {
            fputs(" (", stdout);
            host_print(stdout, e->file);
            fputs(")", stdout);
        }
        putchar('\n');
    }
    if (isatty(STDOUT_FILENO))
        fputs("\033[?7h", stdout);
    for (size_t i = 0; i < top->n; i++)
        top->entries[i]->self = top->entries[i]->total = top->entries[i]->last_stack = 0;
    top->stacks = 0;
    return host_flush(err);
}

static volatile sig_atomic_t ended;

static void end(int signal_number)
{
    (void)signal_number;
    ended = 1;
}

/* In naps: a signal may come just before one of them. */
static void sleep_until(struct record_time *time, int64_t ns)
{
    for (int64_t now; !ended && (now = time->now_ns(time)) < ns;)
        time->sleep_until(time, ns - now > NAP_NS ? now + NAP_NS : ns, NULL, 0);
}

static int run(struct target *t, struct top *top, const struct host_arguments *a, struct err *err)
{
    struct record_time *time = a->options.time ? a->options.time : &record_time_system;
    struct random_seeded random;
    random_seed(&random, a->options.seed ? a->options.seed : random_u64(&random_system));
    int64_t looks = 0, errors = 0, shown = time->now_ns(time), next = shown;
    while (!ended) {
        /* What is late is not made up for. */
        do {
            next += record_gap_ns(&random.source, a->options.rate);
        } while (next < time->now_ns(time) - SECOND_NS / a->options.rate);
        sleep_until(time, next);
        if (ended)
            break;
        int r = target_look(t, count, top, err);
        if (r < 0)
            return r;
        looks++;
        int64_t now = time->now_ns(time);
        if (now - shown >= SECOND_NS) {
            int64_t all = target_counts(t).errors;
            r = show(top, a, looks, all - errors, err);
            if (r < 0)
                return r;
            errors = all;
            shown = now;
            looks = 0;
        }
    }
    return 0;
}

int host_top(int proc, const struct host_arguments *a, struct err *err)
{
    struct sample_options options = {.idle = a->options.idle,
                                     .gil = a->options.gil,
                                     .tasks = a->options.async_tasks,
                                     .nonblocking = a->options.nonblocking ||
                                                    a->options.rate > RECORD_HOLD_RATE_MAX};
    _cleanup_(target_closep) struct target *t = NULL;
    if (target_open(proc, (pid_t)a->pid, &options, &t, err) < 0)
        return host_explain(proc, a, err);
    _cleanup_(freep) struct top *top = xcalloc(1, sizeof(*top));
    _cleanup_(map_destroyp) struct map *index = map_create();
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    top->index = index;
    top->arena = arena;
    if (a->options.async_tasks && !target_shows_tasks(t))
        top->without_tasks = target_version(t);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int r = run(t, top, a, err);
    if (r == ERR_NOT_FOUND || r == ERR_CONFLICT) {
        fprintf(stderr, "%s\n", r == ERR_NOT_FOUND ? "the process ended" : err->message);
        return 0;
    }
    return r;
}
