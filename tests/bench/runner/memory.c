/* runner_memory [SHAPE…]: what the runner takes, as its container's limit counts it, for the worst
 * that a target can make of its profile: peaks in MiB while it is sampled, handed over, and written
 * in each format. Fails when one passes 200 MiB. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "runner/sample.h"

#define MOST   200 /* MiB */
#define DEPTH  4000
#define PIECE  512 /* bytes of what the sampler keeps */
#define LABELS 1000

struct shape {
    const char *name;
    int processes;
    bool one;             /* the first one takes all of the room */
    size_t text;          /* bytes of a name */
    bool bidi, no_text;   /* names that become twice as long when they are written; or short ones */
    size_t depth;         /* of the stacks */
    int threads;          /* that have each stack */
    bool ordered;         /* so many samples that only their order takes memory */
    bool raw, speedscope; /* py-spy's */
};

static const struct shape shapes[] = {
    {.name = "long names", .processes = 1, .text = 900, .depth = 1, .threads = 1},
    {.name = "other scripts", .processes = 1, .text = 999, .bidi = true, .depth = 1, .threads = 1},
    {.name = "many frames", .processes = 1, .no_text = true, .depth = 1, .threads = 1},
    {.name = "deep stacks", .processes = 1, .text = 60, .depth = DEPTH, .threads = 1},
    {.name = "many threads", .processes = 1, .text = 60, .depth = 20, .threads = LABELS},
    {.name = "order", .processes = 1, .text = 60, .depth = 20, .threads = LABELS, .ordered = true},
    {.name = "everything", .processes = 1, .text = 33, .bidi = true, .depth = 4, .threads = 8},
    {.name = "py-spy's raw", .processes = 1, .raw = true},
    {.name = "py-spy's order", .processes = 1, .speedscope = true},
    {.name = "one of two",
     .processes = 2,
     .one = true,
     .text = 33,
     .bidi = true,
     .depth = 4,
     .threads = 8},
    {.name = "two", .processes = 2, .text = 33, .bidi = true, .depth = 4, .threads = 8},
    {.name = "32", .processes = 32, .text = 33, .bidi = true, .depth = 4, .threads = 8},
};

static struct options options = {.proc = "/proc"};
static const struct shape *shape;
static bool passed = true;

/* Since it was called last. */
static size_t peak(void)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
    int64_t kib = 0;
    buf_read_file(&text, "/proc/self/status", NULL);
    ssize_t at = str_find(buf_str(&text), STR("VmHWM:"));
    struct str rest = str_trim(str_sub(buf_str(&text), (size_t)at + 6, text.len));
    str_to_i64(str_cut(&rest, ' '), 0, INT64_MAX, &kib);
    FILE *f = fopen("/proc/self/clear_refs", "w");
    fputs("5", f);
    fclose(f);
    return (size_t)kib >> 10;
}

static void tell(const char *stage)
{
    size_t mib = peak();
    printf("  %s %zu", stage, mib);
    passed = passed && mib <= MOST;
}

static uint32_t noise(void)
{
    static _Thread_local uint64_t state = 0;
    if (!state)
        state = (uint64_t)(uintptr_t)&state;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static int add_name(struct profile *p, uint32_t *ret)
{
    static const char bidi[] = {'\xe2', '\x80', '\xae'};
    char name[1024], file[1024];
    size_t n = 0, text = shape->no_text ? 9 : shape->text, mark = sizeof(bidi);
    n += (size_t)snprintf(name, sizeof(name), "%08x", noise());
    for (; n + mark < text; n += mark)
        memcpy(name + n, bidi, mark);
    if (!shape->bidi)
        for (size_t i = 8; i < n; i++)
            name[i] = (char)('!' + noise() % 90);
    memcpy(file, name, n);
    file[0] = '/';
    return profile_add_frame(
        p, &(struct profile_frame){{name, n}, {file, shape->text > 500 ? 0 : n}, 0}, ret, NULL);
}

/* A quarter of the frames are new until no more fit; the stacks differ at their roots. */
static void add_stack(struct profile *p, uint32_t *n_frames, bool *named, const uint32_t *threads)
{
    static _Thread_local uint32_t stack[DEPTH];
    for (size_t i = 0; i < shape->depth; i++) {
        uint32_t frame = *n_frames ? noise() % *n_frames : 0;
        if (!*named && (*n_frames < 1000 || i % 4 == 0)) {
            *named = add_name(p, &frame) < 0;
            *n_frames = *named ? *n_frames : frame + 1;
        }
        stack[i] = frame;
    }
    for (int i = 0; i < shape->threads; i++)
        profile_add_sample(p, threads[i], stack, shape->depth, 1, NULL);
    if (profile_samples(p) > 300000)
        profile_drop_order(p);
}

static size_t room_left(struct profile_room *r)
{
    return r->frames + r->text + r->samples + r->nodes;
}

static void fill(struct profile *p, struct profile_room *room, const uint32_t *threads)
{
    uint32_t n_frames = 0;
    bool named = false;
    int refused = 0;
    if (shape->ordered) {
        uint32_t frames[2];
        add_name(p, &frames[0]);
        add_name(p, &frames[1]);
        for (size_t i = 0; i < 299999; i++)
            profile_add_sample(p, threads[i % (size_t)shape->threads],
                               &frames[i / (size_t)shape->threads % 2], 1, 1, NULL);
        return;
    }
    /* Not the end at the first refusal: other stacks may fit, or more of them on other threads. */
    while (refused < 1000) {
        size_t before = room_left(room);
        add_stack(p, &n_frames, &named, threads);
        refused = room_left(room) == before ? refused + 1 : 0;
    }
}

static void *sample(void *context)
{
    struct sampler *s = context;
    uint32_t threads[LABELS];
    size_t kept = SAMPLE_MEMORY_MAX / (size_t)shape->processes / PIECE;
    void **pieces = xcalloc(kept, sizeof(*pieces));
    for (int i = 0; i < shape->threads; i++) {
        char label[64];
        snprintf(label, sizeof(label), "thread %d (worker)", i);
        profile_add_thread(s->profile, str_of(label), &threads[i], NULL);
    }
    for (size_t i = 0; i < kept; i++) {
        pieces[i] = xcalloc(1, PIECE);
        memset(pieces[i], 1, PIECE);
    }
    fill(s->profile, &s->run->room, threads);
    for (size_t i = 0; i < kept; i++)
        free(pieces[i]);
    free(pieces);
    return NULL;
}

/* As --subprocesses has it: command lines are to be taken out. */
static void write_raw(FILE *f)
{
    while (ftell(f) < (long)PYSPY_OUTPUT_MAX - 300) {
        fputs("process 1:\"python\"", f);
        for (int i = 0; i < 4; i++)
            fprintf(f, ";%0*u (/srv/%u.py:7)", 20, noise() % 300000, noise() % 300000);
        fputs(" 1\n", f);
    }
}

static void write_speedscope(FILE *f)
{
    int samples = 0;
    fputs("{\"shared\":{\"frames\":[", f);
    for (int i = 0; i < 150000; i++)
        fprintf(f, "%s{\"name\":\"%040d\",\"file\":\"/srv/%032d.py\",\"line\":1}", i ? "," : "", i,
                i);
    fputs("]},\"profiles\":[{\"type\":\"sampled\",\"name\":\"Thread "
          "1\",\"unit\":\"seconds\",\"samples\":[",
          f);
    for (; ftell(f) < (long)PYSPY_OUTPUT_MAX - 12000000; samples++)
        fprintf(f, "%s[1,2,3,%u,%u]", samples ? "," : "", noise() % 150000, noise() % 150000);
    fputs("],\"weights\":[0.01", f);
    while (--samples > 0)
        fputs(",0.01", f);
    fputs("]}]}", f);
}

static void read_pyspy(struct sampler *s)
{
    s->child = 1;
    s->attached = true;
    s->accuracy = "Full";
    s->ordered = shape->speedscope;
    s->profile_fd = memfd_create("profile", MFD_ALLOW_SEALING);
    FILE *f = fdopen(dup(s->profile_fd), "w");
    (shape->raw ? write_raw : write_speedscope)(f);
    fclose(f);
    pyspy_output_init(&s->output);
    s->run->task.sampling.subprocesses = true;
    sampler_collect(s);
}

static void write_formats(struct run *run)
{
    for (int f = 0; f < FORMAT_COUNT; f++) {
        run->task.formats = 1u << f;
        run->outcome.reason = REASON_NONE;
        run_make_results(run);
        tell(profile_format_names[f]);
        if (run->outcome.reason != REASON_NONE)
            printf("!");
    }
}

static void sample_all(struct run *run)
{
    pthread_t threads[RUN_PROCESSES_MAX];
    for (size_t i = 0; i < run->n_samplers; i++) {
        struct sampler *s = &run->samplers[i];
        *s = (struct sampler){.run = run, .profile = run_create_profile(run, true)};
        if (shape->raw || shape->speedscope)
            read_pyspy(s);
        else
            pthread_create(&threads[i], NULL, sample, s);
        if (shape->one && i == 0)
            pthread_join(threads[0], NULL);
    }
    for (size_t i = shape->one; !shape->raw && !shape->speedscope && i < run->n_samplers; i++)
        pthread_join(threads[i], NULL);
}

static void measure(void)
{
    struct run run;
    struct task_container container = {.name = STR("app")};
    run_set_up(&run, &options);
    run.task = (struct task){.containers = {&container, 1},
                             .sampling = {.rate = 100, .duration_ms = 1000},
                             .max_result_bytes = 1000 << 10};
    run.chosen.items = arena_array(run.arena, 1, sizeof(*run.chosen.items));
    run.chosen.len = run.n_samplers = (size_t)shape->processes;
    run.samplers = arena_array(run.arena, run.n_samplers, sizeof(*run.samplers));
    sample_all(&run);
    tell("sampling");
    malloc_trim(0);
    for (size_t i = 0; i < run.n_samplers; i++)
        sampler_hand_over(&run.samplers[i], run.n_samplers > 1 ? STR("process 1") : STR_NULL);
    tell("merge");
    write_formats(&run);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        shape = &shapes[i];
        bool wanted = argc < 2;
        for (int k = 1; k < argc; k++)
            wanted = wanted || str_is(str_of(argv[k]), shape->name);
        if (!wanted)
            continue;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            printf("%-14s", shape->name);
            measure();
            puts("");
            fflush(stdout);
            _exit(passed ? 0 : 1);
        }
        int status;
        waitpid(pid, &status, 0);
        passed = passed && status == 0;
    }
    puts(passed ? "below 200 MiB" : "NOT below 200 MiB");
    return passed ? 0 : 1;
}
