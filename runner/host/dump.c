#include <errno.h>
#include <unistd.h>

#include "base/map.h"
#include "runner/host/host.h"

#define LOOKS    8
#define PAUSE_US 20000

struct dump {
    struct map *printed; /* by the ID of a thread: any pointer */
    size_t n_read, n_unread;
    int looks; /* this one included */
};

static struct str key_of(const uint64_t *id)
{
    return (struct str){(const char *)id, sizeof(*id)};
}

static void print_head(const struct sample_thread *t)
{
    if (t->tid)
        printf("Thread %d", (int)t->tid);
    else
        printf("Thread (ID unknown)");
    if (t->error != -ETIME)
        printf(" (%s%s)",
               t->running ? "running"
               : t->asked ? "idle"
                          : "not known whether it runs",
               t->gil ? ", GIL" : "");
    if (t->name.len) {
        fputs(": \"", stdout);
        host_print(stdout, t->name);
        fputs("\"", stdout);
    }
    putchar('\n');
}

static void print_stack(const struct sample_thread *t)
{
    print_head(t);
    if (!t->depth)
        puts("    no Python code at the moment");
    for (size_t i = 0; i < t->depth; i++) {
        const struct sample_frame *f = t->frames[i];
        fputs("    ", stdout);
        host_print(stdout, f->function);
        fputs(" (", stdout);
        host_print(stdout, f->file);
        printf(":%lld)\n", (long long)f->line);
        if (t->task.len && i == t->task_at) {
            fputs("    task ", stdout);
            host_print(stdout, t->task);
            putchar('\n');
        }
    }
    if (t->cut)
        printf("    %s\n", RECORD_CUT);
}

static void print_unread(const struct dump *d, const struct sample_thread *t)
{
    print_head(t);
    printf("    no stack: %s (%d looks)\n",
           t->error == -EAGAIN   ? "it changed while it was read"
           : t->error == -ETIME  ? "there was no time left for it"
           : t->error == -EFAULT ? "what was read is none: it changed, or its memory is damaged"
                                 : strerror(-t->error),
           d->looks);
}

/* A thread that could not be read gets another look, until the last one. */
static void on_thread(void *context, const struct sample_thread *t)
{
    struct dump *d = context;
    if (map_get(d->printed, key_of(&t->id)))
        return;
    if (t->error && d->looks < LOOKS) {
        d->n_unread++;
        return;
    }
    if (t->error)
        print_unread(d, t);
    else
        print_stack(t);
    d->n_read += !t->error;
    map_set(d->printed, key_of(&t->id), d);
}

int host_dump(int proc, const struct host_arguments *a, struct err *err)
{
    struct sample_options options = {.idle = true,
                                     .names = true,
                                     .tasks = a->options.async_tasks,
                                     .nonblocking = a->options.nonblocking,
                                     .all = true};
    _cleanup_(target_closep) struct target *t = NULL;
    if (target_open(proc, (pid_t)a->pid, &options, &t, err) < 0)
        return host_explain(proc, a, err);
    _cleanup_(map_destroyp) struct map *printed = map_create();
    struct dump d = {.printed = printed};
    bool whole = false;
    printf("Process %lld: Python %s\n\n", (long long)a->pid, target_version(t));
    while (d.looks < LOOKS && !(whole && d.n_unread == 0)) {
        if (d.looks++)
            usleep(PAUSE_US);
        int64_t looks = target_counts(t).looks;
        d.n_unread = 0;
        int r = target_look(t, on_thread, &d, err);
        if (r < 0)
            return r;
        whole = target_counts(t).looks > looks;
    }
    if (d.n_read == 0)
        return err_set(err, ERR_IO, "no stack could be read in %d looks", d.looks);
    if (!whole)
        puts("The list of threads changed while it was read; some may be missing.");
    if (a->options.async_tasks && !target_shows_tasks(t))
        fprintf(stderr, "--async-tasks: " TARGET_WITHOUT_TASKS "\n", target_version(t));
    return 0;
}
