/* What the files of pkg/sample share: symbols of the interpreter, the cache of code objects, the
 * stack of one thread, and what the kernel knows about threads. One thread at a time. */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "sample/memory.h"
#include "sample/offsets.h"
#include "sample/target.h"

/* Where CPython lies in a process. */
struct symbols {
    uint64_t runtime;   /* _PyRuntime; never 0 */
    uint64_t code_type; /* PyCode_Type; 0: not found */
    char version[16];   /* "3.11.7", "3.11", "" unknown */
};
/* ERR_INVALID: not Python, or without what is needed. */
int symbols_find(int proc, pid_t pid, struct memory_reader *reader, struct symbols *ret,
                 struct err *err);
/* Of a text like "3.11.7"; 0: unknown. */
unsigned version_minor(const char *version);
/* What an ELF file that may hold anything says: addresses before it is moved. */
struct file_symbols {
    uint64_t first;              /* of its first byte */
    uint64_t runtime, code_type; /* 0: not told */
    uint64_t data, data_len;     /* what may be written in memory */
};
int symbols_of_file(int fd, struct file_symbols *ret, struct err *err);
/* The address of _PyRuntime among `len` bytes of a process, before 3.10; 0: it is not there. */
uint64_t runtime_search(struct memory_reader *reader, const struct python_offsets *o,
                        uint64_t start, uint64_t len);

/* The program that a process runs. A child of fork() runs the same; exec() makes another, even of
 * the same file. */
struct program {
    dev_t device;
    ino_t inode;
    uint64_t start_code, start_stack; /* addresses; 0: not told */
};
/* ERR_NOT_FOUND: the process is gone. */
int program_read(int proc, pid_t pid, struct program *ret, struct err *err);
bool program_same(const struct program *a, const struct program *b);

/* Characters of a str object. */
struct text_shape {
    size_t at, bytes; /* from the object's beginning */
    unsigned kind;    /* bytes of one: 1, 2 or 4 */
    bool apart;       /* at `at` lies their address: an object of a subclass */
};
/* From its first offsets->text_ascii bytes. At most max_bytes of it. 0, or -1: it is none. */
int text_shape(const struct python_offsets *offsets, const uint8_t *head, size_t max_bytes,
               struct text_shape *ret);
/* As UTF-8, NUL replaced. */
void text_decode(const struct text_shape *shape, const uint8_t *bytes, struct buf *out);
/* The object at `address`, at most SAMPLE_TEXT_MAX bytes of it. NULL: it is none. ret_size: bytes
 * of the object that text_same() asks for. */
char *text_read(struct memory_reader *reader, const struct python_offsets *offsets,
                uint64_t address, size_t *ret_size);
/* Whether the object, of which so many bytes were read, is still what text_read() returned. One
 * with its characters apart is not asked for them. */
bool text_same(const struct python_offsets *offsets, const uint8_t *object, size_t size,
               const char *text);

/* Code objects by address. What is kept of one is checked against the object's head each time that
 * it is used, because another one may have got its place, and against its name, its file's name
 * and its line table as well, because those may have got theirs: each time while it is new, now and
 * then when it was the same for long, and always where one of those was another one after all. */
struct codes;
struct codes *codes_create(struct memory_reader *reader, const struct python_offsets *offsets,
                           uint64_t code_type);
void codes_destroy(struct codes *c); /* NULL is fine */

/* A frame as it stands in the target's memory. */
struct raw_frame {
    uint64_t address, code, instruction;
};
#define STACK_DEPTH_MAX 4096
/* The address in a reference that a frame holds: from 3.14 on its low bits are a tag. */
static inline uint64_t stack_reference(const struct python_offsets *o, uint64_t reference)
{
    return o->minor >= 14 ? reference & ~UINT64_C(3) : reference;
}

/* The code objects of the last stack of a thread and of some before: the next one reads them along
 * with the frames. */
#define CODE_SET_MAX 32
struct code_set {
    uint64_t addresses[CODE_SET_MAX];
    size_t n;
};

/* Frames from raw ones, innermost first in both. max: bytes that may be kept; what is kept beyond
 * it is forgotten at the next call. heads: as just read of the first n_heads of `set`, which then
 * holds those of this stack. 0, or -1 when one of them is none (torn), or when the stack alone
 * takes more than twice that. NULL in `ret`: a frame that is not to be shown. */
int codes_resolve(struct codes *c, const struct raw_frame *raw, size_t n, size_t max,
                  struct code_set *set, const uint8_t *heads, size_t n_heads,
                  struct sample_frame **ret);

/* What is remembered of one thread from look to look, so that its stack takes one system call, or,
 * before 3.11, a few. */
#define STACK_CHUNKS_MAX 64
#define STACK_WINDOW_MAX (32u << 10)
#define STACK_TOPS       16
#define STACK_CALLERS    2
#define STACK_ASIDE      64
#define STACK_NEAR       8 /* frames that are read between two readings of the pointer */
struct stack_chunk {
    uint64_t address;
    uint32_t size, used; /* bytes; used: as far as frames were seen, and some more */
    uint32_t at;         /* where its copy begins */
};
struct stack_top {
    uint64_t frame;                  /* was the innermost one of late */
    uint64_t callers[STACK_CALLERS]; /* the last one first; 0: not known */
    unsigned seen;                   /* how often */
};
struct stack_memory {
    struct stack_chunk chunks[STACK_CHUNKS_MAX]; /* newest first */
    size_t n_chunks;
    size_t near_chunk; /* the one with the innermost frame of late */
    uint64_t *objects; /* addresses of frames outside of them */
    size_t n_objects, cap_objects;
    uint64_t aside[STACK_ASIDE]; /* outer ones that were there before, the last ones first */
    size_t n_aside;
    struct code_set codes;
    uint64_t window;      /* of the C stack, with the cframes that were in use of late; 0: none */
    uint32_t window_size; /* bytes */
    uint64_t recent_start, recent_end; /* where cframes were in the last `recent` readings */
    unsigned recent;
    struct stack_top tops[STACK_TOPS]; /* the most frequent one first */
    size_t n_tops;
    int64_t usual_ns;  /* that a copy takes where nothing interrupts it; 0: not known */
    uint64_t root;     /* the outermost frame; 0: none */
    unsigned alone;    /* looks in a row that saw only a suspended generator's */
    unsigned unsteady; /* how often calls were seen of late */
    unsigned restless; /* looks to come in which it is not expected to stand still by itself */
};
void stack_memory_finish(struct stack_memory *m);

/* One reading of the pointer to the innermost frame. In 3.11 and 3.12 that lies on the C stack, and
 * each piece of C code that calls Python makes another one. */
struct stack_cells {
    uint64_t frame, cframe;
};

/* Keeps the thread that is to be read from running, without stopping it. */
struct stack_holder {
    /* Calls work() where it can be held meanwhile. False: it did not. */
    bool (*visit)(struct stack_holder *self, void (*work)(void *context), void *context);
    bool (*begin)(struct stack_holder *self); /* there, each time: whether it waits, or sleeps */
    bool (*held)(struct stack_holder *self);  /* whether it did not run since then */
};

/* One for all threads: where copies go. */
#define STACK_TAIL 256
struct stack_reader {
    struct memory_reader *reader;
    const struct python_offsets *offsets;
    struct memory_batch batch;
    /* The frames, the frames a second time, the near ones between, the code objects. */
    uint8_t *copy;
    size_t cap, half, codes; /* half: bytes of the frames; codes: where the code objects begin */
    size_t n_codes;
    struct stack_cells cells[STACK_NEAR + 2]; /* before the first near piece, and behind each */
    size_t n_cells;
    uint8_t windows[2][STACK_WINDOW_MAX]; /* where cframes lie: before the near chunk, and behind */
    struct stack_top near[STACK_NEAR];    /* before 3.11 */
    size_t n_near;
    uint8_t tail[STACK_TAIL]; /* what lies at the last top, once more, where that is in a chunk */
    size_t tail_len;
    int64_t took_ns;                     /* the copy */
    const struct stack_memory *prepared; /* whose copy the batch's next reading makes */
    struct stack_holder *holder;         /* of the thread to be read; NULL: nothing holds it */
    bool held;                           /* it is, if the holder says so afterwards */
    bool calls;                          /* a call was seen while it was not held */
    bool moving;                         /* it did not stand still, and was not held */
    struct raw_frame frames[STACK_DEPTH_MAX];
    uint64_t objects[STACK_DEPTH_MAX + 1]; /* of the way through the copy */
    size_t depth;
    uint64_t doubtful; /* of which an attempt before could not say whether it has returned */
    bool cut;          /* there are more, further out */
    bool suspended;    /* the outermost frame is a generator's without a caller */
};
void stack_reader_finish(struct stack_reader *r);
/* Adds to r->batch what the next stack_read() of this thread begins with, so that it comes along
 * with whatever else is read. False: nothing was added. */
bool stack_prepare(struct stack_reader *r, struct stack_memory *m, uint64_t thread);
/* Whether the copy that came along shows the thread at work: its innermost frames stood otherwise
 * in the second half. */
bool stack_moved(const struct stack_reader *r, const struct stack_memory *m);
/* Reads the frames of the thread state at `thread` into r->frames, innermost first. 0, or -errno:
 * -EAGAIN: it kept changing while it was read. -EFAULT: pointers that lead nowhere. */
int stack_read(struct stack_reader *r, struct stack_memory *m, uint64_t thread);

/* Where the running tasks of asyncio are: in 3.12 and 3.13 in a dictionary from loops to tasks in
 * the state of the module _asyncio, in 3.14 in the state of their thread. Made by hack/offsets. */
struct async_offsets {
    uint32_t minor;
    uint32_t task_coro, task_name;
    uint32_t coro_frame;  /* the frame, which is in the object */
    uint32_t thread_task; /* 0: in the dictionary, which the next ones lead to */
    uint32_t state_task_type, state_current;
};
extern const struct async_offsets async_table[];
extern const size_t async_table_len;

struct objects; /* see objects.h */

/* The asyncio task that a thread runs: a living task whose coroutine's own frame is in the stack,
 * before and after the stack was read. What does not check out is no task. */
struct async;
/* The objects stay the caller's. NULL: this version does not show tasks. */
struct async *async_create(struct objects *objects);
void async_destroy(struct async *a); /* NULL is fine */
/* Before the stack of a thread is read; addresses of its interpreter and of its state. */
void async_begin(struct async *a, uint64_t interpreter, uint64_t thread);
/* After. The task's name, "Task-7" where it was given none, and the index of the frame that it
 * begins with; false: no task. The name lives until async_begin(). */
bool async_end(struct async *a, const struct raw_frame *frames, size_t n, struct str *ret_name,
               size_t *ret_at);
/* After there was none: whether a task that began meanwhile is in the stack, which should then be
 * read again. Does what async_begin() does. */
bool async_missed(struct async *a, uint64_t interpreter, uint64_t thread,
                  const struct raw_frame *frames, size_t n);

/* What Python calls its threads: threading._active. */
struct names;
struct names *names_create(struct objects *objects); /* which stay the caller's */
void names_destroy(struct names *n);                 /* NULL is fine */
/* Once a look: how many may be read in it is bounded. */
void names_begin(struct names *n);
/* Of the thread that pthread_self() says this of; main: the first interpreter, which mostly knows
 * it, own: the one of its state. "" where Python has none for it. Lives until the next call. False:
 * not at this look. */
bool names_read(struct names *n, uint64_t main, uint64_t own, uint64_t pthread,
                struct str *ret_name);

/* Threads as the kernel knows them. */
struct kernel;
struct kernel_thread;
/* ERR_NOT_FOUND: gone. */
int kernel_create(int proc, pid_t pid, struct kernel **ret, struct err *err);
void kernel_destroy(struct kernel *k); /* NULL is fine */
/* Reads /proc/PID/task anew. At most SAMPLE_THREADS_MAX threads. */
int kernel_refresh(struct kernel *k, struct err *err);
/* By the number that the thread itself sees (gettid() in its namespace); NULL: there is none. Valid
 * until the next refresh that does not find it. */
struct kernel_thread *kernel_find(struct kernel *k, pid_t inner);
pid_t kernel_thread_id(const struct kernel_thread *t); /* as this /proc numbers it */
/* Its name, "" at first; whether to find it out (again), which counts the calls; and the one that
 * Python gives it, "": the kernel's stands for it, if there never was any. `more`: there may be one
 * soon. */
struct str kernel_thread_name(const struct kernel_thread *t);
bool kernel_thread_name_due(struct kernel_thread *t);
void kernel_thread_rename(struct kernel *k, struct kernel_thread *t, struct str given, bool more);
/* Whatever is put there goes when the thread, or its name, does. */
const void **kernel_thread_mark(struct kernel_thread *t);
void **kernel_thread_owner(struct kernel_thread *t); /* the same for who matches threads */
/* 'R', 'S', …; 0: gone. */
char kernel_thread_state(struct kernel_thread *t);
struct kernel_place {
    int core;
    int64_t turns; /* how often it began to run on any */
};
/* The core on which it runs or waits. False: it does neither, or need not share that with others,
 * or it is not known. */
bool kernel_thread_place(struct kernel *k, struct kernel_thread *t, struct kernel_place *ret);
/* Whether it has had no other turn since. */
bool kernel_thread_same_turn(const struct kernel_thread *t, const struct kernel_place *since);
/* Once before the states of a look are asked for: finds out whether threads that slept when they
 * were asked last can have run since. all: each is asked in this look, however long it takes. */
void kernel_begin(struct kernel *k, bool all);
/* After the last one. cut: there was no time left for some. */
void kernel_end(struct kernel *k, bool cut);
/* Whether it runs or waits for a core. suspect: there is reason to ask the kernel now. moved: it
 * was seen to run, just now. */
bool kernel_thread_runs(struct kernel *k, struct kernel_thread *t, bool suspect, bool moved);
/* Whether one that was asked for since the last call had ended: another may stand in its place. */
bool kernel_misses_threads(struct kernel *k);
/* How many threads could not be asked for since the last call: no descriptors are left. */
int64_t kernel_unanswered(struct kernel *k);
