/* hostile MODE: a process that looks like CPython 3.12 and holds memory made to mislead, exhaust or
 * delay whoever samples it. Says "ready" and spins until it is killed; some turn only at SIGUSR1,
 * when they have been found harmless. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake.h"
#include "sample/objects.h"

#define ARENA    (176u << 20)
#define PAGE_MAX (64u << 10) /* of any kernel */
#define THREADS  4200
#define DEPTH    4400

/* What the sampler looks for in the file. */
extern const unsigned long Py_Version;
const unsigned long Py_Version __attribute__((used)) = 0x030c01f0;
extern uint8_t _PyRuntime[ARENA];
uint8_t _PyRuntime[ARENA] __attribute__((aligned(PAGE_MAX)));

static size_t page_size;
static struct fake f;
static struct fake_thread threads[THREADS];
static const struct fake_thread *list[THREADS];
static uint64_t codes[DEPTH];

static void fail(const char *what)
{
    fprintf(stderr, "hostile: %s: %s\n", what, strerror(errno));
    exit(77);
}

static void make_threads(size_t n, size_t depth)
{
    for (size_t i = 0; i < n; i++) {
        fake_thread(&f, &threads[i], (uint64_t)getpid(), depth);
        list[i] = &threads[i];
    }
    fake_threads(&f, list, n);
}

static void sane(void)
{
    codes[0] = fake_code(&f, "spin", "hostile.py", 1);
    make_threads(1, 8);
    fake_stack(&f, &threads[0], codes, 1, 2);
}

static void cycle_threads(void)
{
    fake_put64(&f, threads[0].address + f.offsets->thread_next, threads[0].address);
}

static void cycle_interpreters(void)
{
    uint64_t other = fake_alloc(&f, 8192);
    fake_put64(&f, f.interpreter + f.offsets->interpreter_next, other);
    fake_put64(&f, other + f.offsets->interpreter_next, f.interpreter);
}

static void cycle_frames(void)
{
    sane();
    make_threads(8, 64);
    for (size_t i = 1; i < 64; i++)
        codes[i] = codes[0];
    for (size_t i = 0; i < 8; i++) {
        fake_stack(&f, &threads[i], codes, 60, 2);
        fake_put64(&f, threads[i].frames + f.offsets->frame_previous, threads[i].frames + 128 * 59);
    }
}

/* 80 bytes each are enough for what is looked at. */
static void million_threads(void)
{
    sane();
    uint64_t first = fake_alloc(&f, 150u << 20), step = 150;
    for (uint64_t i = 0; i < 1000000; i++) {
        uint64_t at = first + i * step;
        fake_put64(&f, at + f.offsets->thread_interpreter, f.interpreter);
        fake_put64(&f, at + f.offsets->thread_next, at + step);
    }
    fake_put64(&f, f.interpreter + f.offsets->interpreter_threads, first);
}

static void wild(void)
{
    sane();
    make_threads(500, 64);
    for (size_t i = 1; i < 64; i++)
        codes[i] = UINT64_C(0xdeadbeef000) * i;
    for (size_t i = 0; i < 500; i++) {
        fake_stack(&f, &threads[i], codes, 1 + i % 60, 2);
        fake_put64(&f, threads[i].frames + 128 + f.offsets->frame_previous, UINT64_MAX - i);
    }
}

static void endless_texts(void)
{
    sane();
    make_threads(64, 512);
    for (size_t i = 0; i < 500; i++) {
        char name[32];
        snprintf(name, sizeof(name), "f%zu", i);
        codes[i] = fake_code(&f, name, "hostile.py", 1);
        uint64_t text = fake_alloc(&f, 8192);
        fake_put64(&f, text + f.offsets->text_length, i % 2 ? UINT64_MAX : 60u << 20);
        uint32_t state = 1u << 2 | 32 | 64;
        fake_put(&f, text + f.offsets->text_state, &state, sizeof(state));
        fake_name(&f, codes[i], text);
    }
    for (size_t i = 0; i < 64; i++)
        fake_stack(&f, &threads[i], codes, 500, 2);
}

/* The most that a look could be made to do: every cap at once. */
static void exhausting(void)
{
    uint64_t first = fake_code(&f, "f", "hostile.py", 1);
    uint64_t table = fake_alloc(&f, 1u << 20);
    fake_put64(&f, table + f.offsets->bytes_length, (1u << 20) - 4096);
    fake_put64(&f, first + f.offsets->code_lines, table);
    for (size_t i = 0; i < DEPTH; i++)
        codes[i] = fake_clone(&f, first);
    make_threads(1, DEPTH + 1);
    fake_stack(&f, &threads[0], codes, DEPTH, 2);
    for (size_t i = 1; i < THREADS; i++) {
        fake_thread(&f, &threads[i], (uint64_t)getpid(), 1);
        list[i] = &threads[i];
        uint64_t innermost = threads[0].frames + 128u * (DEPTH - 1);
        fake_put64(&f, threads[i].innermost, innermost);
    }
    fake_threads(&f, list, THREADS);
}

/* New names without an end: what can be told apart grows. */
static void *rename_all(void *argument)
{
    static uint64_t texts[512];
    for (size_t i = 0; i < 512; i++) {
        char name[900];
        memset(name, 'n', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        texts[i] = fake_text(&f, name);
    }
    for (uint64_t number = 0;; number++) {
        for (size_t i = 0; i < 512; i++) {
            char digits[32];
            snprintf(digits, sizeof(digits), "%020llu", (unsigned long long)number * 512 + i);
            fake_put(&f, texts[(i + number) % 512] + f.offsets->text_ascii, digits, 20);
            fake_name(&f, codes[i], texts[(i + number) % 512]);
        }
        usleep(200);
    }
    return argument;
}

static void in_background(void *(*work)(void *))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0)
        fail("pthread_create");
}

static void endless_names(void)
{
    for (size_t i = 0; i < 512; i++)
        codes[i] = fake_code(&f, "f", "hostile.py", 1);
    make_threads(16, 513);
    for (size_t i = 0; i < 16; i++)
        fake_stack(&f, &threads[i], codes, 512, 2);
    in_background(rename_all);
}

/* Keys lead nowhere, but for the last one. kind: 0 any, 1 text. */
static uint64_t wild_dict(const struct object_offsets *o, uint8_t kind, size_t n, uint64_t hash,
                          uint64_t key, uint64_t value)
{
    size_t size = kind ? 16 : 24;
    uint64_t dict = fake_alloc(&f, 64), type = fake_alloc(&f, 1024);
    uint64_t keys = fake_alloc(&f, o->keys_head + 8 + n * size), at = keys + o->keys_head + 8;
    uint8_t index = 3;
    fake_put64(&f, type + o->type_name, fake_text(&f, "dict") + f.offsets->text_ascii);
    fake_put64(&f, dict + f.offsets->object_type, type);
    fake_put64(&f, dict + o->dict_keys, keys);
    fake_put(&f, keys + o->keys_index_bytes, &index, 1);
    fake_put(&f, keys + o->keys_kind, &kind, 1);
    fake_put64(&f, keys + o->keys_entries, n);
    for (size_t i = 0; i < n; i++, at += size) {
        bool last = i == n - 1;
        if (!kind)
            fake_put64(&f, at, hash);
        fake_put64(&f, at + size - 16, last || !kind ? key : UINT64_C(0xdeadbeef000) + i);
        fake_put64(&f, at + size - 8, value);
    }
    return dict;
}

/* A name of a thread that takes as long to find as can be, and is none. */
static void wild_names(void)
{
    const struct object_offsets *o = objects_table;
    while (o->minor != 12)
        o++;
    sane();
    uint64_t number = UINT64_C(1) << 40, key = fake_alloc(&f, 64), module = fake_alloc(&f, 64);
    uint64_t type = fake_alloc(&f, 1024), object = fake_alloc(&f, 128) + 64;
    fake_put64(&f, threads[0].address + f.offsets->thread_pthread, number);
    fake_put64(&f, key + o->int_count, 2u << 3);
    fake_put64(&f, key + o->int_digits, number >> 30 << 32);
    fake_put64(&f, object + f.offsets->object_type, type);
    fake_put64(&f, type + o->type_flags, 1u << 4);
    fake_put64(&f, object - o->instance_dict,
               wild_dict(o, 1, 4096, 0, fake_text(&f, "_name"), object));
    uint64_t active = wild_dict(o, 0, 16384, number, key, object);
    fake_put64(&f, module + o->module_dict,
               wild_dict(o, 1, 4096, 0, fake_text(&f, "_active"), active));
    fake_put64(&f, f.interpreter + o->interpreter_modules,
               wild_dict(o, 1, 32768, 0, fake_text(&f, "threading"), module));
}

/* Pages that come and go. */
static void *unmap(void *argument)
{
    uint64_t from = (threads[1].address + page_size) & ~(uint64_t)(page_size - 1);
    for (unsigned i = 0;; i++) {
        void *page = (void *)(uintptr_t)(from + i % 2000 * page_size);
        mprotect(page, page_size, i % 3 ? PROT_NONE : PROT_READ | PROT_WRITE);
    }
    return argument;
}

static void many(void)
{
    sane();
    make_threads(2000, 32);
    for (size_t i = 1; i < 32; i++)
        codes[i] = codes[0];
    for (size_t i = 0; i < 2000; i++)
        fake_stack(&f, &threads[i], codes, 30, 2);
}

static void vanish(void)
{
    in_background(unmap);
}

/* The pages behind `from` become those of a file that is then cut off. */
static void truncated(void)
{
    uint64_t from = (threads[100].address + page_size - 1) & ~(uint64_t)(page_size - 1);
    size_t len = (f.base + f.used - from + page_size - 1) & ~(size_t)(page_size - 1);
    int fd = memfd_create("hostile", MFD_CLOEXEC);
    if (fd < 0 || write(fd, (void *)(uintptr_t)from, len) != (ssize_t)len ||
        mmap((void *)(uintptr_t)from, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
            MAP_FAILED ||
        ftruncate(fd, 0) < 0)
        fail("truncated");
}

static int faults;

/* Each page comes after 20 ms. */
static void *serve_slowly(void *argument)
{
    static uint8_t page[PAGE_MAX];
    struct uffd_msg m;
    while (read(faults, &m, sizeof(m)) == (ssize_t)sizeof(m)) {
        usleep(20000);
        struct uffdio_copy copy = {.dst = m.arg.pagefault.address & ~(uint64_t)(page_size - 1),
                                   .src = (uint64_t)(uintptr_t)page,
                                   .len = page_size};
        ioctl(faults, UFFDIO_COPY, &copy);
    }
    return argument;
}

/* Threads whose frames lie in pages that nobody has touched yet. */
static void slow(void)
{
    sane();
    make_threads(2000, 1);
    size_t len = 2000 * page_size;
    uint8_t *pages = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uint64_t)(uintptr_t)pages, len},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (pages == MAP_FAILED || faults < 0 || ioctl(faults, UFFDIO_API, &api) < 0 ||
        ioctl(faults, UFFDIO_REGISTER, &range) < 0)
        fail("userfaultfd");
    for (size_t i = 0; i < 2000; i++)
        fake_put64(&f, threads[i].innermost, (uint64_t)(uintptr_t)pages + i * page_size + 64);
    in_background(serve_slowly);
}

static const struct {
    const char *name;
    void (*make)(void);
    void (*turn)(void);
} modes[] = {
    {"sane", sane},
    {"cycle-threads", sane, cycle_threads},
    {"cycle-interpreters", sane, cycle_interpreters},
    {"cycle-frames", cycle_frames},
    {"million-threads", million_threads},
    {"wild", wild},
    {"endless-texts", endless_texts},
    {"endless-names", endless_names},
    {"wild-names", wild_names},
    {"exhausting", exhausting},
    {"vanishing", many, vanish},
    {"truncated", many, truncated},
    {"slow", slow},
};

static volatile sig_atomic_t turning;

static void on_signal(int number)
{
    turning = number;
}

int main(int argc, char **argv)
{
    signal(SIGUSR1, on_signal);
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    fake_init(&f, 12, _PyRuntime, ARENA, (uint64_t)(uintptr_t)_PyRuntime);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (argc != 2 || strcmp(argv[1], modes[i].name) != 0)
            continue;
        modes[i].make();
        if (write(STDOUT_FILENO, "ready\n", 6) != 6)
            return 1;
        while (!turning)
            ;
        if (modes[i].turn)
            modes[i].turn();
        for (volatile unsigned long n = 0;; n++)
            ;
    }
    fprintf(stderr, "hostile MODE\n");
    return 2;
}
