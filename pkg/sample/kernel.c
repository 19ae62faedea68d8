/* Which threads run. Asking the kernel for one costs as much as reading a stack, and most threads
 * of most programs sleep; so those that slept when asked last are asked again, in a round of some a
 * look, only when the process has used processor time that nobody accounts for. Neither is one
 * asked that was seen to move. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "sample/sample_internal.h"

#define DESCRIPTORS_MAX 512   /* kept open */
#define HOT_LOOKS       32    /* a thread that ran is asked this often before it counts as asleep */
#define NEW_LOOKS       4     /* and one that has just begun */
#define ROUND_LOOK      256   /* asked in one look of a round at least; more may make it late */
#define ROUND_ASK_NS    50000 /* since the last look, for each that is asked beyond those */
#define ROUND_SHARE     10    /* one part of the time in so many may go into rounds, and accounts */
#define ASK_MOST_NS     100000     /* what takes longer waits for a processor */
#define UNSEEN_NS       2000000    /* processor time that threads believed asleep may use unseen */
#define BURST_NS        200000     /* and one of them, before it is asked often again */
#define STATUS_MAX      (1u << 20) /* bytes; 65,536 groups take most of them */
#define NAME_LOOKS      1000       /* a name is read again after this many looks */
#define STAT_STATE      3          /* fields of /proc/PID/task/TID/stat, the first being 1 */
#define STAT_CORE       39

struct kernel_thread {
    pid_t outer, inner;
    int stat, runtime; /* descriptors; -1: opened each time */
    bool open, found;
    bool matched; /* Python knows it; others never hold the lock, and are only accounted for */
    unsigned hot;
    unsigned round; /* in which it was asked last */
    /* ns used when the present account began, or when it was asked last; -1: not known */
    int64_t runtime_base;
    unsigned name_wait, name_looks; /* looks until the name is read again; in all */
    bool given;                     /* the name: by Python */
    char *name;                     /* NULL: not known */
    const void *mark;
    void *owner;
};

struct kernel {
    int proc;
    pid_t pid;
    struct kernel_thread **threads; /* by inner */
    size_t n, cap;
    size_t open, most_open, victim; /* with descriptors; who may be the next to lose its own */
    unsigned round;
    bool asking;       /* a round is under way */
    size_t may_ask;    /* in this look of it */
    bool left;         /* some could not be asked in this look */
    int64_t spent_ns;  /* in it so far */
    int64_t looked_ns; /* monotonic; the last look */
    bool crowded;      /* in this look nobody was found to take descriptors from */
    int64_t rest_ns;   /* monotonic; no other round before */
    bool begun;        /* threads were listed before */
    bool accounts;
    bool gone;                  /* one that was asked for has ended */
    int64_t unanswered;         /* asked for without a descriptor to ask with, at this look */
    int64_t account_base, past; /* ns; past: of threads that were hot in this account */
};

static int open_file(const struct kernel *k, const struct kernel_thread *t, const char *file)
{
    char path[64];
    snprintf(path, sizeof(path), "%d/task/%d/%s", (int)k->pid, (int)t->outer, file);
    return openat(k->proc, path, O_RDONLY | O_CLOEXEC);
}

static int read_file(const struct kernel *k, const struct kernel_thread *t, const char *file,
                     char *to, size_t cap)
{
    int fd = open_file(k, t, file);
    if (fd < 0)
        return -errno;
    ssize_t n = pread(fd, to, cap - 1, 0);
    int e = errno;
    close(fd);
    if (n < 0)
        return -e;
    to[n] = '\0';
    return (int)n;
}

int kernel_create(int proc, pid_t pid, struct kernel **ret, struct err *err)
{
    struct kernel *k = xcalloc(1, sizeof(*k));
    *k = (struct kernel){.proc = proc, .pid = pid, .most_open = DESCRIPTORS_MAX / 2};
    int r = kernel_refresh(k, err);
    if (r < 0)
        kernel_destroy(k);
    else
        *ret = k;
    return r;
}

static void close_files(struct kernel *k, struct kernel_thread *t)
{
    if (!t->open)
        return;
    k->open--;
    close(t->stat);
    if (t->runtime >= 0)
        close(t->runtime);
    t->open = false;
}

static void drop(struct kernel *k, struct kernel_thread *t)
{
    close_files(k, t);
    free(t->name);
    free(t);
}

void kernel_destroy(struct kernel *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++)
        drop(k, k->threads[i]);
    free(k->threads);
    free(k);
}

/* The last number behind "NSpid:" is the innermost. */
static pid_t inner_id(const struct kernel *k, pid_t tid)
{
    char path[64];
    snprintf(path, sizeof(path), "%d/task/%d/status", (int)k->pid, (int)tid);
    _cleanup_(buf_finish) struct buf text = BUF_INIT(STATUS_MAX);
    if (buf_read_file_at(&text, k->proc, path, NULL) < 0)
        return 0;
    const char *line = strstr(buf_cstr(&text), "\nNSpid:");
    if (!line)
        return tid;
    line += strlen("\nNSpid:");
    pid_t id = 0;
    for (char *end; *line && *line != '\n'; line = end) {
        id = (pid_t)strtol(line, &end, 10);
        if (end == line)
            break;
        while (*end == ' ' || *end == '\t')
            end++;
    }
    return id;
}

static int compare(const void *a, const void *b)
{
    const struct kernel_thread *const *x = a, *const *y = b;
    return ((*x)->inner > (*y)->inner) - ((*x)->inner < (*y)->inner);
}

/* They are mostly listed in the order in which they are kept. */
static struct kernel_thread *by_outer(struct kernel *k, size_t known, pid_t outer, size_t *hint)
{
    for (size_t n = 0, i = *hint; n < known; n++, i++) {
        i = i < known ? i : 0;
        if (k->threads[i]->outer == outer && !k->threads[i]->found) {
            *hint = i + 1;
            return k->threads[i];
        }
    }
    return NULL;
}

static int64_t runtime_of(const struct kernel *k, const struct kernel_thread *t);

/* One that was not there before most likely runs. What it used until now nobody accounts for: it
 * may have been there for long. */
static void add(struct kernel *k, pid_t outer, pid_t inner)
{
    if (k->n == k->cap) {
        k->cap = k->cap ? k->cap * 2 : 16;
        k->threads = xrealloc(k->threads, k->cap, sizeof(struct kernel_thread *));
    }
    struct kernel_thread *t = xcalloc(1, sizeof(*t));
    *t = (struct kernel_thread){.outer = outer,
                                .inner = inner,
                                .stat = -1,
                                .runtime = -1,
                                .found = true,
                                .hot = k->begun ? NEW_LOOKS : 0,
                                .runtime_base = -1};
    if (k->begun)
        t->runtime_base = runtime_of(k, t);
    k->threads[k->n++] = t;
}

int kernel_refresh(struct kernel *k, struct err *err)
{
    char path[32];
    snprintf(path, sizeof(path), "%d/task", (int)k->pid);
    int fd = openat(k->proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int e = errno == ESRCH ? ENOENT : errno;
        if (fd >= 0)
            close(fd);
        return err_set_errno(err, e, "threads of process %d", (int)k->pid);
    }
    size_t known = k->n, seen = 0, hint = 0;
    for (size_t i = 0; i < known; i++)
        k->threads[i]->found = false;
    for (struct dirent *d; seen < SAMPLE_THREADS_MAX && (d = readdir(dir)) != NULL;) {
        pid_t tid = (pid_t)strtol(d->d_name, NULL, 10);
        if (tid <= 0)
            continue;
        seen++;
        struct kernel_thread *t = by_outer(k, known, tid, &hint);
        /* A descriptor that was open tells whether the number still means the same thread. */
        if (t && t->open && kernel_thread_state(t) == 0)
            t = NULL;
        if (t) {
            t->found = true;
            continue;
        }
        pid_t inner = inner_id(k, tid);
        if (inner > 0)
            add(k, tid, inner);
    }
    closedir(dir);
    size_t left = 0;
    for (size_t i = 0; i < k->n; i++) {
        if (k->threads[i]->found)
            k->threads[left++] = k->threads[i];
        else
            drop(k, k->threads[i]);
    }
    k->n = left;
    if (left == 0)
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)k->pid);
    qsort(k->threads, k->n, sizeof(struct kernel_thread *), compare);
    k->begun = true;
    return 0;
}

struct kernel_thread *kernel_find(struct kernel *k, pid_t inner)
{
    struct kernel_thread key = {.inner = inner}, *p = &key;
    struct kernel_thread **found =
        k->n ? bsearch(&p, k->threads, k->n, sizeof(struct kernel_thread *), compare) : NULL;
    if (!found)
        return NULL;
    (*found)->matched = true;
    return *found;
}

pid_t kernel_thread_id(const struct kernel_thread *t)
{
    return t->outer;
}

struct str kernel_thread_name(const struct kernel_thread *t)
{
    return str_of(t->name);
}

bool kernel_thread_name_due(struct kernel_thread *t)
{
    if (t->name_wait == 0)
        return true;
    t->name_wait--;
    return false;
}

void kernel_thread_rename(struct kernel *k, struct kernel_thread *t, struct str given, bool more)
{
    char text[32];
    struct str name = given;
    t->given = t->given || given.len;
    if (!t->given && read_file(k, t, "comm", text, sizeof(text)) > 0)
        name = str_trim(str_of(text));
    /* A thread that just begins gets its name soon, or never. */
    t->name_looks = t->given || !more ? NAME_LOOKS : t->name_looks * 2 + 1;
    t->name_looks = t->name_looks < NAME_LOOKS ? t->name_looks : NAME_LOOKS;
    t->name_wait = t->name_looks - 1;
    if (!name.len || str_eq(name, str_of(t->name)))
        return;
    free(t->name);
    t->name = str_dup(name);
    t->mark = NULL;
}

const void **kernel_thread_mark(struct kernel_thread *t)
{
    return &t->mark;
}

void **kernel_thread_owner(struct kernel_thread *t)
{
    return &t->owner;
}

/* Of others than Python's threads, which are never asked, there may be thousands: what is used by
 * those without descriptors nobody accounts for. */
static bool is_accounted(const struct kernel_thread *t)
{
    return t->matched ? t->hot : t->open;
}

static bool is_hot(const struct kernel_thread *t)
{
    return t->matched && t->hot;
}

/* Takes the descriptors of one that sleeps, of Python's first. */
static bool make_room(struct kernel *k)
{
    for (int others = 0; others <= 1 && !k->crowded; others++)
        for (size_t i = 0; i < k->n; i++) {
            k->victim = k->victim + 1 < k->n ? k->victim + 1 : 0;
            struct kernel_thread *t = k->threads[k->victim];
            if (!t->open || is_hot(t) || (!t->matched && !others))
                continue;
            close_files(k, t);
            return true;
        }
    k->crowded = true;
    return false;
}

/* There are no more: some serve to ask with from now on, so that each thread can be asked for. */
static bool leave_some(struct kernel *k)
{
    bool left = make_room(k);
    for (size_t i = 0; i < k->n && !left; i++) {
        left = k->threads[i]->open;
        close_files(k, k->threads[i]);
    }
    k->most_open = k->open;
    return left;
}

static void open_files(struct kernel *k, struct kernel_thread *t)
{
    if (t->open || (k->open >= k->most_open && !(is_hot(t) && make_room(k))))
        return;
    t->stat = open_file(k, t, "stat");
    if (t->stat < 0 && errno == EMFILE)
        leave_some(k);
    if (t->stat < 0)
        return;
    t->open = true;
    k->open++;
    t->runtime = open_file(k, t, "schedstat");
    if (t->runtime < 0 && errno == EMFILE) {
        close_files(k, t);
        k->most_open = k->open;
    }
}

static char state_of(const char *text, ssize_t n)
{
    if (n <= 0)
        return 0;
    ssize_t end = str_rfind_char((struct str){text, (size_t)n}, ')');
    return end >= 0 && end + 2 < n ? text[end + 2] : 0;
}

char kernel_thread_state(struct kernel_thread *t)
{
    char text[128]; /* the state comes behind the name, which has 16 bytes at most */
    return t->open ? state_of(text, pread(t->stat, text, sizeof(text), 0)) : 0;
}

/* Nanoseconds on a processor; -errno. */
static int64_t runtime_of(const struct kernel *k, const struct kernel_thread *t)
{
    char text[64];
    if (t->open && t->runtime < 0)
        return -ENOSYS;
    ssize_t n = t->open ? pread(t->runtime, text, sizeof(text) - 1, 0)
                        : read_file(k, t, "schedstat", text, sizeof(text));
    if (n <= 0)
        return n == 0 ? -EIO : t->open ? -errno : n;
    text[n] = '\0';
    return strtoll(text, NULL, 10);
}

static bool cut_number(struct str *rest, int64_t *ret)
{
    return str_to_i64(str_trim(str_cut(rest, ' ')), 0, INT64_MAX, ret) == 0;
}

/* How often a core began to run it; 0: not known. */
static int64_t turns_of(const struct kernel_thread *t)
{
    char text[96];
    ssize_t n = t->open && t->runtime >= 0 ? pread(t->runtime, text, sizeof(text), 0) : -1;
    struct str rest = {text, n > 0 ? (size_t)n : 0};
    int64_t ran, waited, turns;
    return cut_number(&rest, &ran) && cut_number(&rest, &waited) && cut_number(&rest, &turns)
               ? turns
               : 0;
}

bool kernel_thread_place(struct kernel *k, struct kernel_thread *t, struct kernel_place *ret)
{
    char text[1024];
    int64_t core, priority, policy;
    open_files(k, t);
    ret->turns = turns_of(t); /* first, so that it tells of all that is after the rest */
    ssize_t n = t->open ? pread(t->stat, text, sizeof(text), 0) : -1;
    struct str rest = {text, n > 0 ? (size_t)n : 0};
    if (!ret->turns || state_of(text, n) != 'R')
        return false;
    rest = str_sub(rest, (size_t)str_rfind_char(rest, ')') + 2, sizeof(text));
    for (int i = STAT_STATE; i < STAT_CORE; i++)
        str_cut(&rest, ' ');
    if (!cut_number(&rest, &core) || core > INT_MAX || !cut_number(&rest, &priority) ||
        !cut_number(&rest, &policy))
        return false;
    ret->core = (int)core;
    return policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
}

bool kernel_thread_same_turn(const struct kernel_thread *t, const struct kernel_place *since)
{
    return turns_of(t) == since->turns;
}

static int64_t process_runtime(const struct kernel *k)
{
    /* What clock_getcpuclockid() makes, without its extra call. */
    clockid_t clock = (clockid_t)((~(unsigned)k->pid << 3) | 2u);
    struct timespec ts;
    if (clock_gettime(clock, &ts) < 0)
        return -1;
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* Nanoseconds since then that went into asking, as far as can be told. */
static int64_t spent_since(int64_t begun_ns, int64_t asked)
{
    int64_t spent = clock_read_ns(CLOCK_MONOTONIC) - begun_ns, most = asked * ASK_MOST_NS;
    return spent < most ? spent : most;
}

static void begin_account(struct kernel *k, int64_t total)
{
    k->account_base = total;
    k->accounts = total >= 0;
    k->past = 0;
    for (size_t i = 0; i < k->n; i++) {
        struct kernel_thread *t = k->threads[i];
        if (t->hot || !t->matched)
            open_files(k, t);
        if (is_accounted(t))
            t->runtime_base = runtime_of(k, t);
    }
}

/* Whether threads that are believed asleep have used processor time since the account began. */
static bool is_unseen(struct kernel *k, int64_t total)
{
    int64_t explained = k->past;
    for (size_t i = 0; i < k->n; i++) {
        struct kernel_thread *t = k->threads[i];
        if (!is_accounted(t))
            continue;
        int64_t now = runtime_of(k, t);
        if (now == -ENOENT || now == -ESRCH) {
            t->hot = 0;
            close_files(k, t);
            continue; /* it has ended; what it used is not known */
        }
        if (now < 0 || t->runtime_base < 0)
            return true;
        explained += now - t->runtime_base;
    }
    return total - k->account_base - explained > UNSEEN_NS;
}

static void rest(struct kernel *k, int64_t now_ns)
{
    k->rest_ns = now_ns + k->spent_ns * (ROUND_SHARE - 1);
    k->spent_ns = 0;
}

void kernel_begin(struct kernel *k, bool all)
{
    k->most_open += k->most_open < DESCRIPTORS_MAX / 2; /* there may be some again */
    if (k->n == 1)
        return; /* it is hot, or the only one to ask */
    int64_t now = clock_read_ns(CLOCK_MONOTONIC), since = now - k->looked_ns;
    size_t most = (size_t)(since / ROUND_ASK_NS);
    k->looked_ns = now;
    k->may_ask = all ? SIZE_MAX : most > ROUND_LOOK ? most : ROUND_LOOK;
    k->left = k->crowded = false;
    if (k->asking || (!all && now < k->rest_ns))
        return;
    int64_t total = process_runtime(k);
    bool known = k->accounts && total >= 0;
    if (known && total - k->account_base <= UNSEEN_NS)
        return;
    bool unseen = !known || is_unseen(k, total);
    if (unseen) {
        k->asking = true;
        k->round++;
        begin_account(k, total);
    }
    k->spent_ns = spent_since(now, 2 * (int64_t)k->n);
    if (!unseen)
        rest(k, now);
}

void kernel_end(struct kernel *k, bool cut)
{
    if (!k->asking || k->left || cut)
        return;
    k->asking = false;
    rest(k, clock_read_ns(CLOCK_MONOTONIC));
}

static char ask_state(struct kernel *k, struct kernel_thread *t)
{
    if (t->open)
        return kernel_thread_state(t);
    char text[128];
    int n = read_file(k, t, "stat", text, sizeof(text));
    if (n == -EMFILE && leave_some(k))
        n = read_file(k, t, "stat", text, sizeof(text));
    if (n == -EMFILE || n == -ENFILE || n == -ENOMEM) {
        k->unanswered++;
        t->round = k->round - 1; /* it stays due */
        k->left = true;
    }
    return state_of(text, n);
}

/* One that slept when it was asked last is asked once in a round. */
static bool is_due(struct kernel *k, struct kernel_thread *t)
{
    if (!k->asking || t->round == k->round)
        return false;
    k->left = k->left || !k->may_ask;
    if (!k->may_ask)
        return false;
    k->may_ask--;
    t->round = k->round;
    return true;
}

static bool ask(struct kernel *k, struct kernel_thread *t, bool hot, bool due, bool moved)
{
    open_files(k, t);
    char state = moved ? 'R' : ask_state(k, t);
    k->gone = k->gone || state == 0;
    if (state == 'R') {
        if (!hot)
            t->runtime_base = runtime_of(k, t);
        t->hot = HOT_LOOKS;
        return true;
    }
    if ((hot && --t->hot > 0) || k->n == 1)
        return false;
    if (!hot && !due)
        return false;
    int64_t now = runtime_of(k, t), used = now - t->runtime_base;
    if (now < 0 || t->runtime_base < 0)
        k->accounts = k->accounts && !hot;
    else if (due && used >= BURST_NS)
        t->hot = HOT_LOOKS; /* it ran since, if not now */
    else if (hot)
        k->past += used;
    t->runtime_base = now;
    return false;
}

bool kernel_thread_runs(struct kernel *k, struct kernel_thread *t, bool suspect, bool moved)
{
    bool hot = t->hot, due = !hot && k->n > 1 && is_due(k, t);
    if (!suspect && !hot && !due && k->n > 1)
        return false;
    int64_t begun = due ? clock_read_ns(CLOCK_MONOTONIC) : 0;
    bool runs = ask(k, t, hot, due, moved);
    if (due)
        k->spent_ns += spent_since(begun, 1);
    return runs;
}

int64_t kernel_unanswered(struct kernel *k)
{
    int64_t n = k->unanswered;
    k->unanswered = 0;
    return n;
}

bool kernel_misses_threads(struct kernel *k)
{
    bool gone = k->gone;
    k->gone = false;
    return gone;
}
