/* One sampler, our own or py-spy, at one process: held, started, watched, ended, its profile read.
 * A state machine that the loop's call-backs drive. */
#pragma once

#include "runner/native.h"
#include "runner/pyspy.h"

enum sampler_state {
    SAMPLER_IDLE,     /* not started */
    SAMPLER_STARTING, /* it finds the interpreter */
    SAMPLER_SAMPLING,
    SAMPLER_ENDING, /* SIGINT is sent, or ours was told to stop */
    SAMPLER_KILLED, /* SIGKILL is sent */
    SAMPLER_ENDED,
};

struct sampler {
    struct run *run;
    const struct candidate *candidate;
    struct proc_handle handle; /* of the target */
    enum sampler_state state;
    bool own_namespace, ordered;

    int engine; /* enum sampling_engine; ENGINE_AUTO: none was taken yet */
    enum engine_reason engine_reason;
    char engine_message[512]; /* what it could not do, why not ours; "" nothing to tell */
    const char *accuracy;     /* of that engine, Full, GILOnly, IdleCounted; NULL as long as none */

    int64_t duration_ms;      /* of this engine */
    struct native *native;    /* our own; NULL: py-spy, which the next ones are about */
    struct native *abandoned; /* never ended; its thread may still read */
    pid_t child;
    int profile_fd; /* memory; py-spy's --output */
    struct loop_watch output_watch, target_watch;
    struct loop_timer deadline; /* next step of ending it */
    struct loop_timer look;     /* at the target's state */
    struct pyspy_output output;
    struct pyspy_arguments arguments;

    bool attached, target_exited, target_stopped, cancelled, timed_out;
    int looks_stopped; /* in a row */
    int wait_status;
    int64_t max_memory;         /* bytes; of py-spy */
    int64_t began_ms, ended_ms; /* monotonic; of sampling */

    struct profile *profile;
    struct outcome outcome;
    struct process_status status; /* for the summary */
};

/* Holds the target and starts its sampler. When that fails, the sampler is at its end with an
 * outcome.
 */
void sampler_start(struct sampler *s, struct run *run, const struct candidate *candidate,
                   bool own_namespace);
/* SIGINT, which lets py-spy write its profile; SIGKILL 3 s later. Ours stops by itself; after the
 * same time it is left behind. */
void sampler_cancel(struct sampler *s);
/* py-spy was reaped. max_memory: bytes. */
void sampler_reaped(struct sampler *s, int wait_status, int64_t max_memory);
/* Reads the profile and judges; ends the state machine's work. After SAMPLER_ENDED. */
void sampler_collect(struct sampler *s);
/* Its profile becomes part of the run's. prefix: a root frame put under each stack, "" for none. */
void sampler_hand_over(struct sampler *s, struct str prefix);
void sampler_finish(struct sampler *s);
