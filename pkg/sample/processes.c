#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "proc/proc.h"
#include "sample/core.h"
#include "sample/record_internal.h"

#define SWEEP_MS     20 /* a storm of children must not keep the sampler from sampling */
#define OPEN_TRIES   8  /* a child may take a while until it is Python */
#define FIRST_TRIES  5  /* the first one some seconds, when it runs another program */
#define FIRST_TRY_MS 200
#define CHILDREN_MAX 16384 /* bytes of a list of children */
#define OPEN_FILES   6     /* descriptors with which a process can be opened */

static void add_counts(struct sample_counts *to, const struct sample_counts *from)
{
    to->looks += from->looks;
    to->stacks += from->stacks;
    to->errors += from->errors;
    to->retries += from->retries;
    to->held += from->held;
    to->cut += from->cut;
    to->unasked += from->unasked;
    to->unread += from->unread;
}

static void free_process(struct process *p)
{
    target_close(p->target);
    if (p->pidfd >= 0)
        close(p->pidfd);
    free(p);
}

void processes_finish(struct processes *ps)
{
    for (size_t i = 0; i < ps->n; i++)
        free_process(ps->at[i]);
    ps->n = 0;
    visitor_destroy(ps->shared.visitor);
    ps->shared.visitor = NULL;
}

bool process_ended(const struct process *p)
{
    struct pollfd fd = {.fd = p->pidfd, .events = POLLIN};
    return p->pidfd >= 0 && poll(&fd, 1, 0) > 0;
}

size_t processes_watch(struct processes *ps)
{
    for (size_t i = 0; i < ps->n; i++)
        ps->fds[i] = (struct pollfd){.fd = ps->at[i]->pidfd, .events = POLLIN};
    return ps->n;
}

void processes_watched(struct processes *ps)
{
    bool gone = false;
    for (size_t i = 0; i < ps->n; i++) {
        ps->at[i]->gone = ps->at[i]->gone || ps->fds[i].revents;
        gone = gone || ps->at[i]->gone;
    }
    if (gone)
        processes_drop_gone(ps);
}

void process_close(struct processes *ps, struct process *p)
{
    if (p->target) {
        struct sample_counts c = target_counts(p->target);
        add_counts(&ps->gone, &c);
    }
    target_close(p->target);
    p->target = NULL;
    p->tries = 0;
    p->try_ms = 0;
}

struct sample_counts processes_counts(const struct processes *ps)
{
    struct sample_counts sum = ps->gone;
    for (size_t i = 0; i < ps->n; i++) {
        if (!ps->at[i]->target)
            continue;
        struct sample_counts c = target_counts(ps->at[i]->target);
        add_counts(&sum, &c);
    }
    return sum;
}

static struct process *find(const struct processes *ps, pid_t pid)
{
    for (size_t i = 0; i < ps->n; i++)
        if (ps->at[i]->pid == pid)
            return ps->at[i];
    return NULL;
}

static void count_opened(struct processes *ps, const struct target *t)
{
    ps->sampled++;
    if (ps->options.tasks && !target_shows_tasks(t) && !ps->without_tasks[0])
        snprintf(ps->without_tasks, sizeof(ps->without_tasks), "%s",
                 target_version(t)[0] ? target_version(t) : "3");
}

/* Whether fewer descriptors are left, to us or to the whole machine, than it takes to open a
 * process: what failed did so for that reason, most likely. */
static bool is_short(const struct processes *ps)
{
    int fds[OPEN_FILES], n = 0;
    while (n < OPEN_FILES && (fds[n] = openat(ps->proc, ".", O_PATH | O_CLOEXEC)) >= 0)
        n++;
    bool is = n < OPEN_FILES;
    while (n > 0)
        close(fds[--n]);
    return is;
}

/* The descriptor comes first, then what the number means: from then on it means nothing else.
 * parent: 0 any. NULL: there is no such process. */
static struct process *hold(struct processes *ps, pid_t pid, pid_t parent)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0u);
    struct proc_process about = {0};
    struct process *p = xcalloc(1, sizeof(*p));
    *p = (struct process){.pid = pid, .inner = pid, .pidfd = pidfd, .frame = SAMPLE_NO_ID};
    int r = proc_read(ps->proc, arena, pid, &about, NULL);
    /* A child that cannot be held could be taken for another one later on. */
    if (parent && (r < 0 || pidfd < 0 || about.parent != parent)) {
        free_process(p);
        ps->unlisted = ps->unlisted || is_short(ps);
        return NULL;
    }
    if (r == 0) {
        p->start_time = about.start_time;
        p->inner = about.container_pid ? about.container_pid : pid;
    }
    return p;
}

int processes_open(struct processes *ps, pid_t pid, struct err *err)
{
    struct process *p = hold(ps, pid, 0);
    ps->options.shared = &ps->shared;
    int r = target_open(ps->proc, pid, &ps->options, &p->target, err);
    if (r < 0) {
        free_process(p);
        return r;
    }
    p->first = true;
    ps->options.hurry = true; /* from now on: others are being sampled meanwhile */
    ps->at[ps->n++] = p;
    count_opened(ps, p->target);
    return 0;
}

void processes_take(struct processes *ps, struct target *target)
{
    struct process *p = xcalloc(1, sizeof(*p));
    *p = (struct process){
        .pidfd = -1, .target = target, .tries = FIRST_TRIES, .first = true, .frame = SAMPLE_NO_ID};
    ps->at[ps->n++] = p;
    count_opened(ps, target);
}

/* One that is not Python now may become it: an interpreter takes a moment to start, and exec()
 * changes what runs. */
static void try_open(struct processes *ps, struct process *p, const struct process *parent)
{
    char path[32];
    struct stat st;
    struct err err = ERR_INIT;
    int64_t now = memory_now_ms();
    snprintf(path, sizeof(path), "%d/exe", (int)p->pid);
    if (fstatat(ps->proc, path, &st, 0) < 0) {
        p->gone = errno == ENOENT || errno == ESRCH;
        return;
    }
    if (st.st_dev != p->device || st.st_ino != p->inode) {
        p->device = st.st_dev;
        p->inode = st.st_ino;
        p->tries = 0;
        p->try_ms = 0;
    }
    if (p->tries >= OPEN_TRIES || now < p->try_ms)
        return;
    p->try_ms = now + ((int64_t)FIRST_TRY_MS << p->tries++);
    int e = parent && parent->target
                ? target_open_child(parent->target, p->pid, &p->target, &err)
                : target_open(ps->proc, p->pid, &ps->options, &p->target, &err);
    /* Whom it was opened by number only is known if it still lives. */
    if (e == ERR_NOT_FOUND || process_ended(p))
        p->gone = true;
    else if (e == 0)
        count_opened(ps, p->target);
    p->left_out = e < 0 && !p->first && !p->gone && is_short(ps);
}

static void add_child(struct processes *ps, const struct process *parent, pid_t pid)
{
    if (find(ps, pid))
        return;
    if (ps->n == RECORD_PROCESSES_MAX) {
        ps->left_out = true;
        return;
    }
    struct process *p = hold(ps, pid, parent->pid);
    if (!p)
        return;
    ps->at[ps->n++] = p;
    ps->held++;
    try_open(ps, p, parent);
}

/* Of one thread. A list that is longer than the buffer: its beginning. */
static void list_children(struct processes *ps, const struct process *parent, int task,
                          const char *tid, int64_t until)
{
    char path[280], text[CHILDREN_MAX];
    snprintf(path, sizeof(path), "%s/children", tid);
    int fd = openat(task, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        ps->unlisted = ps->unlisted || is_short(ps);
        return;
    }
    ssize_t n = read(fd, text, sizeof(text));
    close(fd);
    struct str rest = {text, n > 0 ? (size_t)n : 0};
    while (rest.len && memory_now_ms() < until) {
        ssize_t end = str_find_char(rest, ' ');
        int64_t pid;
        if (end < 0)
            break;
        if (str_to_i64(str_sub(rest, 0, (size_t)end), 1, INT32_MAX, &pid) == 0)
            add_child(ps, parent, (pid_t)pid);
        rest = str_sub(rest, (size_t)end + 1, rest.len);
    }
}

static void list_threads(struct processes *ps, struct process *p, int64_t until)
{
    char path[32];
    snprintf(path, sizeof(path), "%d/task", (int)p->pid);
    int fd = openat(ps->proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        p->gone = p->gone || errno == ENOENT || errno == ESRCH;
        if (fd >= 0)
            close(fd);
        ps->unlisted = ps->unlisted || is_short(ps);
        return;
    }
    pid_t last = p->swept;
    struct dirent *d;
    while ((d = readdir(dir)) != NULL && memory_now_ms() < until) {
        /* In ascending order, as the kernel lists them. */
        pid_t tid = (pid_t)strtol(d->d_name, NULL, 10);
        if (tid <= last)
            continue;
        list_children(ps, p, fd, d->d_name, until);
        p->swept = tid;
    }
    if (!d)
        p->swept = 0;
    closedir(dir);
}

void processes_sweep(struct processes *ps, bool children)
{
    int64_t until = memory_now_ms() + SWEEP_MS;
    ps->unlisted = false;
    /* Children that are found on the way have their turn as well. */
    for (size_t done = 0; done < ps->n && memory_now_ms() < until; done++) {
        ps->next = ps->next < ps->n ? ps->next : 0;
        struct process *p = ps->at[ps->next++];
        if (process_ended(p))
            p->gone = true;
        if (!p->target && !p->gone)
            try_open(ps, p, NULL);
        if (children && !p->gone)
            list_threads(ps, p, until);
    }
    processes_drop_gone(ps);
}

void processes_drop_gone(struct processes *ps)
{
    size_t left = 0;
    for (size_t i = 0; i < ps->n; i++) {
        struct process *p = ps->at[i];
        if (p->gone) {
            ps->left_out = ps->left_out || p->left_out;
            process_close(ps, p);
            free_process(p);
        } else {
            ps->at[left++] = p;
        }
    }
    ps->n = left;
}

bool processes_left_out(const struct processes *ps)
{
    bool left_out = ps->left_out || ps->unlisted;
    for (size_t i = 0; i < ps->n; i++)
        left_out = left_out || ps->at[i]->left_out;
    return left_out;
}

/* Children that are not Python are kept only for the sake of theirs. */
bool processes_alive(const struct processes *ps)
{
    for (size_t i = 0; i < ps->n; i++)
        if (ps->at[i]->target || (ps->at[i]->first && ps->at[i]->tries < FIRST_TRIES))
            return true;
    return false;
}
