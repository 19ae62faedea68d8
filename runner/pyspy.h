/* py-spy as a child process: its arguments, what it says, and what the way it ended means. The
 * decisions are pure functions, so that tables test them. One thread. */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "runner/run.h"
#include "runner/spawn.h"

#define PYSPY_ARGUMENTS_MAX 32
#define PYSPY_OUTPUT_FD     SPAWN_FD /* in the child: where its profile goes */
#define PYSPY_LINE_MAX      1024
#define PYSPY_OUTPUT_MAX    (64u << 20) /* bytes of its profile, of several together */

/* What to ask for. */
struct pyspy_request {
    pid_t pid;          /* as py-spy's own /proc numbers it */
    bool own_namespace; /* py-spy and the target share their PID namespace */
    bool joined;        /* … because py-spy enters it */
    struct str python;  /* version of the target's */
    bool subprocesses;  /* not when they are sampled on their own */
    bool ordered;       /* samples in their order (speedscope) or collapsed (raw) */
};

struct pyspy_arguments {
    const char *argv[PYSPY_ARGUMENTS_MAX]; /* NULL-ended; texts live in the arena */
    const char *accuracy;                  /* Full, GILOnly, IdleCounted */
};

/* Whether these options can be had at all. 0, or -1 with a reason of the API and its message. */
int pyspy_check_options(const struct sampling_spec *sampling, const struct pyspy_request *request,
                        struct outcome *ret);
/* Whether to keep the order of samples: that takes memory for each, collapsed stacks only for each
 * distinct one. threads: of the target. */
bool pyspy_wants_order(const struct sampling_spec *sampling, const struct pyspy_request *request,
                       int threads);
void pyspy_make_arguments(struct arena *arena, const char *program,
                          const struct sampling_spec *sampling, const struct pyspy_request *request,
                          struct pyspy_arguments *ret);

/* What py-spy says on its standard output and error, line by line. */
struct pyspy_output {
    struct buf line; /* one that is not at its end yet */
    bool started;    /* it reads the interpreter and samples now */
    bool process_exited;
    int64_t late;               /* "behind in sampling" lines, about one for each second behind */
    int64_t errors;             /* stacks that it failed to read, from its last line */
    char error[PYSPY_LINE_MAX]; /* "Error: …" or a panic, with the innermost cause behind */
    char last[PYSPY_LINE_MAX];  /* last line that is no progress message */
    bool in_causes, in_panic;
};
void pyspy_output_init(struct pyspy_output *o);
void pyspy_output_feed(struct pyspy_output *o, struct str bytes);
void pyspy_output_end(struct pyspy_output *o); /* takes a last line without an end */
void pyspy_output_finish(struct pyspy_output *o);

/* Everything that is known once py-spy has ended. */
struct pyspy_facts {
    int wait_status;
    const struct pyspy_output *output;
    int64_t samples; /* counted by us */
    int64_t looks;   /* samples of one thread that there could be in the time that it ran */
    const char *accuracy;
    const char *unreadable; /* why its profile could not be read; NULL: it could */
    const char *full;       /* why only a part of it was; NULL: all was */
    bool cancelled, timed_out;
    bool target_exited, target_stopped;
    bool attached; /* the target lived when sampling had begun: it is the one that was chosen */
};
/* Its profile would have become larger than it may. */
bool pyspy_was_cut(int wait_status);
void pyspy_judge(const struct pyspy_facts *facts, struct outcome *ret);

/* Takes the command lines out of what --subprocesses recorded as raw: `process 7:"python app.py
 * --password=…"` frames become `process 7`. (speedscope: profile_scrub_process_frames().) Appends
 * to out. */
void scrub_raw(struct str text, struct buf *out);

/* Starts it: minimal environment, no descriptor but 0 to 3, no capability but what tracing needs,
 * killed when we die. output takes output_max bytes. output, pipe: descriptors that stay the
 * caller's. join: pidfd of the process whose PID namespace to enter, or -1. ERR_FORBIDDEN: a
 * namespace may not be entered. */
int pyspy_spawn(const struct pyspy_arguments *arguments, int output, uint64_t output_max, int pipe,
                int join, pid_t *ret, struct err *err);
