/* One process that runs CPython, looked at from outside: its threads and their stacks at a moment.
 * Only reads; never stops or signals the process, which may do what it likes meanwhile: exit, exec,
 * change under the reader, or hold memory made up to mislead. Up to 3.10 a thread that does not
 * stand still waits while it is read, because the caller then runs on its core. Frames given out
 * live until the callback that they are given to returns. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/str.h"
#include "sample/memory.h"
#include "sample/offsets.h"

#define SAMPLE_THREADS_MAX      8192
#define SAMPLE_INTERPRETERS_MAX 64
#define SAMPLE_TEXT_MAX         1024        /* bytes of a name or path; longer ones are cut */
#define SAMPLE_NAME_MAX         256         /* bytes of a thread's name; longer ones are cut */
#define SAMPLE_LOOK_MS          250         /* a look that takes longer is cut short */
#define SAMPLE_MEMORY_MAX       (64u << 20) /* bytes kept from look to look; see sample_shared */
#define SAMPLE_ALL_THREADS_MAX  16384       /* of all targets that share them */
#define SAMPLE_NO_ID            UINT32_MAX

struct sample_frame {
    struct str function, file;
    int64_t line, first_line;    /* of the instruction, of the function */
    uint32_t id, id_of_function; /* for the caller; SAMPLE_NO_ID at first */
};

struct sample_thread {
    uint64_t id;       /* as long as it lives */
    pid_t tid;         /* as this /proc numbers it; 0 unknown */
    struct str name;   /* Python's, else the kernel's; "" unknown or not asked for */
    const void **mark; /* for the caller, NULL at first: stays with the thread and its name; NULL:
                          there is no place for one */
    bool running, gil; /* runs or waits for a core; holds the interpreter's lock */
    bool asked;        /* whether the kernel said what `running` says */
    struct sample_frame *const *frames; /* innermost first */
    size_t depth;
    bool cut;  /* there are more frames, further out than those */
    int error; /* why there are no frames, see sample_options.all: -EAGAIN, they kept changing;
                  -EFAULT, they lead nowhere; -ETIME, it was not its turn. 0: there are, or it is
                  not in Python code */
    struct str
        task; /* asyncio's, if asked for: "Task-7" where it has no name; "" none, or unknown */
    size_t task_at; /* the frame of its coroutine, outside of which is only what runs tasks */
};

/* Targets that are sampled together, by one thread, share what bounds memory. */
struct sample_shared {
    size_t targets, threads;
    size_t parts;            /* that it is divided into, one of which is theirs; 0: all of it is */
    struct visitor *visitor; /* NULL at first; visitor_destroy() is the owner's to call */
};

struct sample_options {
    bool gil;         /* only who holds the lock */
    bool idle;        /* who sleeps as well */
    bool names;       /* fill sample_thread.name */
    bool tasks;       /* fill sample_thread.task */
    bool all;         /* who has no stack, or none that can be read, as well */
    bool nonblocking; /* no thread waits while it is read */
    bool hurry;       /* opening does not wait for an interpreter that is just starting */
    struct sample_shared *shared; /* outlives the targets; NULL: alone */
};

struct sample_counts {
    int64_t looks;   /* at the process */
    int64_t stacks;  /* given out */
    int64_t errors;  /* stacks that could not be read as they were at one moment */
    int64_t retries; /* of stacks that changed while they were read */
    int64_t held;    /* times that a thread waited while it was read */
    int64_t cut;     /* looks that took too long: what was left of them is among the errors */
    int64_t unasked; /* of the errors: the kernel could not be asked, for want of descriptors */
    int64_t unread;  /* of the errors: stacks that were tried to read, in vain */
};

struct target;

/* Opens the process. ERR_INVALID: not a Python that can be sampled, and why. ERR_FORBIDDEN,
 * ERR_NOT_FOUND. */
int target_open(int proc, pid_t pid, const struct sample_options *options, struct target **ret,
                struct err *err);
/* As target_open() for a child of `parent`, which mostly is a copy of it: that spares reading the
 * program's file again. */
int target_open_child(const struct target *parent, pid_t pid, struct target **ret, struct err *err);
/* For tests: an image of memory; every thread runs. The reader stays the caller's. */
int target_open_memory(struct memory_reader *reader, uint64_t runtime, unsigned minor,
                       const struct sample_options *options, struct target **ret, struct err *err);
void target_close(struct target *t); /* NULL is fine */
DEFINE_CLEANUP(struct target *, target_close);

/* Calls fn once for each thread that is to be counted at this moment. ERR_NOT_FOUND: the process is
 * gone; ERR_CONFLICT: it runs another program now, open it anew. Others are counted as errors: it
 * lives, and may be read again next time. */
typedef void target_fn(void *context, const struct sample_thread *thread);
int target_look(struct target *t, target_fn *fn, void *context, struct err *err);

const char *target_version(const struct target *t); /* "3.11.7" */
bool target_shows_tasks(const struct target *t);    /* as asked for; not all versions do */
#define TARGET_WITHOUT_TASKS                                                                       \
    "Python %s does not show its tasks; 3.12 to 3.14 do, unless free-threaded"
struct sample_counts target_counts(const struct target *t);
