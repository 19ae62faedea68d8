/* One run of the runner, and what its steps share: task → find → choose → sample → results →
 * upload → summary. Each step is a file; it either fills its part of struct run or ends the run
 * with run_fail(). Everything happens on one thread. */
#pragma once

#include <sys/resource.h>

#include "api/task.h"
#include "base/arena.h"
#include "loop/loop.h"
#include "proc/proc.h"
#include "profile/profile.h"
#include "runner/options.h"

#define RUN_PROCESSES_MAX 32   /* sampled at once with select: All */
#define RUN_SCAN_MAX      4096 /* processes of a container that are looked at */

/* Why a run, or one process of it, ended: a reason of the API with a message for people. */
struct outcome {
    int reason; /* enum profile_reason */
    char message[768];
};
void outcome_set(struct outcome *o, int reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A Python process of the target. */
struct candidate {
    struct proc_process process;
    struct proc_python python;
    struct str container, container_id;
};

struct candidates {
    struct candidate *items;
    size_t len;
};

struct sampler;

/* A child that is told of when it was reaped. */
struct run_child {
    pid_t pid; /* 0 or -1: none */
    bool ended;
    int status; /* of waitpid() */
};

struct run {
    const struct options *options;
    struct arena *arena;
    struct loop *loop;
    int proc; /* descriptor of the node's /proc */
    struct task task;
    bool cancelled; /* SIGTERM came */

    struct candidates found, chosen;
    struct sampler *samplers; /* one for each chosen one */
    size_t n_samplers;
    bool same_namespace;         /* target and runner share their PID namespace */
    const char *accuracy;        /* of the samples; "" none were taken */
    struct sampler *engine_from; /* whose engine speaks for all; NULL: none was taken */
    bool engines_differ;

    struct profile_room room; /* for the samplers' profiles */
    struct profile *profile;  /* everything sampled */
    int64_t start_ms, end_ms; /* wall */
    struct upload upload;     /* contents as they are stored, without digests */
    struct run_child uploader;
    struct receipt *receipt;
    struct outcome outcome;
};

/* Ends the run with a reason; -1. */
int run_fail(struct run *run, int reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Lets the loop run until done(context) or SIGTERM or ms have passed (-1: without an end). True
 * when done. */
bool run_wait(struct run *run, bool (*done)(void *context), void *context, int64_t ms);

/* A profile that fits into the container's memory: for everything, or for one sampler, which shares
 * what there is with the others. */
struct profile *run_create_profile(struct run *run, bool of_sampler);

/* Peak in bytes of what samples: this program and the py-spys that it started. They need not
 * coincide, so this is an upper bound; what hands the results in comes later and is not in it. */
int64_t run_memory(const struct run *run);

/* The whole, from the task's text to the summary. Exit status. */
int run_main(const struct options *options);

/* Loop, signals and /proc. 0, or -1 after run_fail(). */
int run_set_up(struct run *run, const struct options *options);
void run_finish(struct run *run); /* whatever of it was set up */

/* The steps. 0, or -1 after run_fail(). */
int run_find(struct run *run);
int run_choose(struct run *run);
int run_sample(struct run *run);
int run_make_results(struct run *run);
int run_upload(struct run *run);
