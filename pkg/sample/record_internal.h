/* The processes that a record follows. One thread at a time. */
#pragma once

#include "sample/record.h"
#include "sample/sample_internal.h"

struct process {
    pid_t pid, inner;
    int pidfd; /* -1: none */
    uint64_t start_time;
    struct target *target; /* NULL: not Python, or not yet */
    int tries;             /* to open the program that it runs */
    int64_t try_ms;        /* when the next one is due, as memory_now_ms() tells it */
    dev_t device;          /* of the program at the last try */
    ino_t inode;
    pid_t swept;     /* thread up to which its children were listed; 0: all */
    int64_t rest_ns; /* not looked at before */
    int cuts;        /* looks in a row that took all the time that they may */
    uint32_t frame;  /* SAMPLE_NO_ID: not made */
    bool first, gone;
    bool left_out; /* could not be opened, for want of descriptors */
};

struct processes {
    int proc;
    struct sample_options options;
    struct sample_shared shared;
    struct process *at[RECORD_PROCESSES_MAX];
    struct pollfd fds[RECORD_PROCESSES_MAX]; /* of the processes, in the same order */
    size_t n, next;                          /* next: whom the next sweep begins with */
    int64_t sampled, held;                   /* how many there were of targets, and of processes */
    bool left_out;                           /* children that had no room, or have ended */
    bool unlisted;             /* the last sweep had not the descriptors to find all */
    char without_tasks[16];    /* version of the first that shows none, though asked for */
    struct sample_counts gone; /* of targets that are closed */
};

/* The first one. Errors as of target_open(). */
int processes_open(struct processes *ps, pid_t pid, struct err *err);
/* For tests: an image of memory. */
void processes_take(struct processes *ps, struct target *target);
void processes_finish(struct processes *ps);

/* It ended, even if its number means another one by now. */
bool process_ended(const struct process *p);
/* Of all processes at once: fills fds, of which it returns the number, for poll(); and drops those
 * that it found ready. */
size_t processes_watch(struct processes *ps);
void processes_watched(struct processes *ps);
/* It runs another program now, which is opened when the next sweep comes by. */
void process_close(struct processes *ps, struct process *p);
/* Opens what became Python, and with `children` looks for new ones. Takes some 20 ms at most, and
 * goes on from there the next time. */
void processes_sweep(struct processes *ps, bool children);
void processes_drop_gone(struct processes *ps);
/* Whether there is one to sample, or the first one may become one. */
bool processes_alive(const struct processes *ps);
/* Whether there are children who are not sampled, for want of room or of descriptors. */
bool processes_left_out(const struct processes *ps);
struct sample_counts processes_counts(const struct processes *ps);

/* Of processor time, for the calling thread: asks for short ones; and for those of before. */
struct slices {
    uint64_t ns;
    bool known;
};
struct slices slices_shorten(void);
void slices_restore(const struct slices *before);
