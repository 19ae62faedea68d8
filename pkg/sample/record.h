/* Samples a process, and its children if asked, for a while, into a profile. Looks are spaced at
 * random (exponentially, so that nothing that the program does in a rhythm is preferred); those
 * that cannot be had in time are counted and left out. Memory is bounded: by the different stacks,
 * not by the time or the number of threads and processes that come and go. Runs on the caller's
 * thread, which it blocks; record_stop() may be called from any thread or signal handler. */
#pragma once

#include <poll.h>
#include <stdatomic.h>

#include "base/random.h"
#include "profile/profile.h"
#include "sample/target.h"

#define RECORD_PROCESSES_MAX 256  /* followed at once */
#define RECORD_APART_MAX     1000 /* threads, and processes, told apart; more are put together */
/* Different names of tasks in one profile; those beyond share "task (other)". Tasks without a name
 * of their own share "task Task-*" from the first on: they are numbered, so that a long run would
 * hold nothing but stacks seen once. */
#define RECORD_TASKS_MAX 256
/* Frame at the root of stacks that are too deep to be taken whole. */
#define RECORD_CUT "(outer frames left out)"

/* Time through a seam, so that a test can live through a day in a minute. */
struct record_time {
    int64_t (*now_ns)(struct record_time *self); /* monotonic */
    /* Sleeps, but not beyond the moment at which one of the descriptors is ready. */
    void (*sleep_until)(struct record_time *self, int64_t ns, struct pollfd *fds, size_t n);
};

extern struct record_time record_time_system;

/* Until the next look, of rate a second. Looks are independent of one another: the gaps of a
 * Poisson process. */
int64_t record_gap_ns(struct random_source *random, int64_t rate);

/* Looks a second. With more, no thread waits while it is read: to get to its core takes some
 * milliseconds now and then. */
#define RECORD_HOLD_RATE_MAX 250

struct record_options {
    int64_t rate;        /* looks a second, 1 to 1000 */
    int64_t duration_ms; /* 0: until stopped or the process ends */
    bool gil, idle;
    bool subprocesses;
    bool threads;       /* a root frame for each thread */
    bool functions;     /* each with the line where it begins */
    bool async_tasks;   /* a frame for the running task of asyncio, where it is shown */
    bool nonblocking;   /* no thread waits while it is read, see target.h */
    bool command_lines; /* in the root frames of processes; they may hold secrets */
    int64_t hopeless;   /* stacks that cannot be read before one can, at which it ends; 0: none */
    size_t parts;       /* records that run at the same time and share what bounds memory; 0: one */
    void (*progress)(void *context); /* about every 100 ms; NULL: none */
    void *context;
    struct record_time *time; /* NULL: the system's */
    uint64_t seed;            /* of the gaps between looks; 0: random */
};

struct record_result {
    struct sample_counts counts; /* over all processes */
    int64_t looks;               /* at all processes, planned and done */
    int64_t late;                /* planned, and left out because it was too late for them */
    int64_t processes;           /* sampled */
    bool exited;                 /* the process ended first, or is no Python any more */
    bool replaced;               /* it is no Python any more: it runs another program */
    bool hopeless;               /* ended early: nothing but errors */
    bool left_out;               /* children: more than are followed, or than descriptors allow */
    bool full;                   /* the profile took no more */
    char version[16];
    char
        without_tasks[16]; /* version of a process that shows no tasks, though asked for; "" none */
};

struct record;
/* Opens the process, so that errors are told before any time passes. The profile stays the
 * caller's. Errors as of target_open(). */
int record_create(int proc, pid_t pid, const struct record_options *options,
                  struct profile *profile, struct record **ret, struct err *err);
/* For tests: samples a target that was opened with target_open_memory(), which it then owns. */
struct record *record_create_target(struct target *target, const struct record_options *options,
                                    struct profile *profile);
void record_destroy(struct record *r); /* NULL is fine */
DEFINE_CLEANUP(struct record *, record_destroy);
void record_run(struct record *r);
void record_stop(struct record *r);
struct record_result record_result(const struct record *r);
/* What stands for a task of this name where many are counted: "Task-*" if asyncio numbered it. */
struct str record_task_name(struct str name);
