/* Stands in for libFuzzer where there is none: runs every file of a corpus and mutations of it that
 * depend only on the file and a number, so that a failure comes again. On a failure it says which
 * mutation of which file it was and saves the input as fuzz-failure in the current folder.
 *
 *   fuzz_x FILE                            runs that one input
 *   fuzz_x FOLDER [MUTATIONS [SECONDS]]    runs the corpus */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define INPUT_MAX 65536

struct input {
    char *name;
    uint8_t *bytes;
    size_t len;
};

/* What is running, for the one who has to report it. */
static struct {
    const char *name;
    unsigned long mutation;
    const uint8_t *bytes;
    size_t len;
} now;

/* Called from signal handlers and from the sanitizers' death: async-signal-safe but for snprintf,
 * which a dying process may risk. */
static void report(void)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "\nfailed: mutation %lu of %s, saved as fuzz-failure\n",
                     now.mutation, now.name ? now.name : "?");
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
    int fd = open("fuzz-failure", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0 && now.len > 0 && write(fd, now.bytes, now.len) < 0)
        return;
}

static void on_signal(int number)
{
    report();
    signal(number, SIG_DFL);
    raise(number);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void report_setup(void)
{
    const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(report);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        signal(numbers[i], on_signal);
}

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t bound)
{
    return bound ? (size_t)(random_next(state) % bound) : 0;
}

/* Memory of exactly that size, so that ASan sees a read past the end. */
static void run(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact)
        abort();
    if (len)
        memcpy(exact, bytes, len);
    now.bytes = exact;
    now.len = len;
    alarm(20); /* an input that takes this long is a failure of its own */
    LLVMFuzzerTestOneInput(exact, len);
    alarm(0);
    now.bytes = NULL;
    now.len = 0;
    free(exact);
}

/* Replaces `drop` bytes at `at` by n others, where that fits. */
static void replace(uint8_t *bytes, size_t *len, size_t at, size_t drop, const uint8_t *by,
                    size_t n)
{
    if (drop > *len - at)
        drop = *len - at;
    if (*len - drop + n > INPUT_MAX)
        return;
    memmove(bytes + at + n, bytes + at + drop, *len - at - drop);
    memcpy(bytes + at, by, n);
    *len = *len - drop + n;
}

static const char *const tokens[] = {
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ":",
    ",",
    "\n",
    "\r\n",
    " ",
    "\t",
    "- ",
    "? ",
    ": ",
    "# ",
    "'",
    "|\n",
    ">\n",
    "&a ",
    "*a",
    "!!str ",
    "---\n",
    "...\n",
    "%",
    "0",
    "-1",
    "1e999",
    "0x",
    "0o7",
    ".inf",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "4294967296",
    "null",
    "true",
    "\\u0000",
    "\\ud800",
    "\xF0\x9F\x98\x80",
    "\xC3",
    "\xFF",
    "\xEF\xBB\xBF",
    "/",
    "../",
    ";",
    "=",
    "(",
    ")",
    "<",
    "&",
    "%s",
    "%n",
};

static void mutate(uint8_t *bytes, size_t *len, const struct input *other, uint64_t *state)
{
    uint8_t piece[256];
    size_t at = below(state, *len + 1), n = 1 + below(state, 32);
    switch (below(state, 9)) {
    case 0: /* a bit */
        if (at < *len)
            bytes[at] = (uint8_t)(bytes[at] ^ (1u << below(state, 8)));
        break;
    case 1: /* a byte */
        piece[0] = (uint8_t)random_next(state);
        replace(bytes, len, at, 1, piece, 1);
        break;
    case 2: /* less */
        replace(bytes, len, at, n, piece, 0);
        break;
    case 3: /* cut off */
        *len = at;
        break;
    case 4: { /* a piece again, elsewhere */
        size_t from = below(state, *len + 1);
        n = n > *len - from ? *len - from : n;
        memcpy(piece, bytes + from, n);
        replace(bytes, len, at, 0, piece, n);
        break;
    }
    case 5: { /* the same piece many times: depth and length */
        size_t times = 1 + below(state, 400);
        size_t from = below(state, *len + 1);
        n = 1 + n % 4;
        n = n > *len - from ? *len - from : n;
        memcpy(piece, bytes + from, n);
        for (size_t i = 0; i < times; i++)
            replace(bytes, len, at, 0, piece, n);
        break;
    }
    case 6: { /* the end of another file */
        size_t from = below(state, other->len + 1);
        replace(bytes, len, at, *len, other->bytes + from, other->len - from);
        break;
    }
    default: {
        const char *token = tokens[below(state, sizeof(tokens) / sizeof(tokens[0]))];
        replace(bytes, len, at, below(state, 2), (const uint8_t *)token, strlen(token));
    }
    }
}

static int file_read(int folder, const char *name, struct input *ret)
{
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    uint8_t *bytes = malloc(INPUT_MAX + 1);
    size_t len = 0;
    ssize_t n = 0;
    while (bytes && len <= INPUT_MAX && (n = read(fd, bytes + len, INPUT_MAX + 1 - len)) > 0)
        len += (size_t)n;
    close(fd);
    if (!bytes || n < 0 || len > INPUT_MAX) {
        free(bytes);
        return -1;
    }
    *ret = (struct input){.name = strdup(name), .bytes = bytes, .len = len};
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct input *)a)->name, ((const struct input *)b)->name);
}

/* All files of the folder, in an order that does not depend on the file system. */
static struct input *corpus_read(const char *path, size_t *ret_len)
{
    struct input *inputs = NULL;
    size_t len = 0;
    DIR *folder = opendir(path);
    if (!folder)
        return NULL;
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(folder), e->d_name, &st, 0) != 0 ||
            !S_ISREG(st.st_mode))
            continue;
        inputs = reallocarray(inputs, len + 1, sizeof(*inputs));
        if (!inputs || file_read(dirfd(folder), e->d_name, &inputs[len]) != 0) {
            fprintf(stderr, "%s/%s: cannot be read, or is over %d bytes\n", path, e->d_name,
                    INPUT_MAX);
            exit(2);
        }
        len++;
    }
    closedir(folder);
    if (len > 0)
        qsort(inputs, len, sizeof(*inputs), by_name);
    *ret_len = len;
    return inputs;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Round by round over the files, so that a time limit cuts all of them alike. */
static unsigned long corpus_run(const struct input *inputs, size_t len, unsigned long mutations,
                                double limit)
{
    static uint8_t bytes[INPUT_MAX];
    unsigned long runs = 0;
    double end = seconds() + limit;
    for (unsigned long round = 0; round <= mutations; round++) {
        for (size_t i = 0; i < len; i++) {
            uint64_t state = round * 1000003 + i;
            size_t n = inputs[i].len;
            memcpy(bytes, inputs[i].bytes, n);
            for (size_t k = round ? 1 + below(&state, 4) : 0; k > 0; k--)
                mutate(bytes, &n, &inputs[below(&state, len)], &state);
            now.name = inputs[i].name;
            now.mutation = round;
            run(bytes, n);
            runs++;
        }
        if (seconds() > end)
            break;
    }
    return runs;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: %s FILE | FOLDER [MUTATIONS [SECONDS]]\n", argv[0]);
        return 2;
    }
    report_setup();
    struct input single;
    struct stat st;
    if (stat(argv[1], &st) == 0 && S_ISREG(st.st_mode) &&
        file_read(AT_FDCWD, argv[1], &single) == 0) {
        now.name = argv[1];
        run(single.bytes, single.len);
        free(single.name);
        free(single.bytes);
        return 0;
    }
    size_t len = 0;
    struct input *inputs = corpus_read(argv[1], &len);
    if (len == 0) {
        fprintf(stderr, "%s: no corpus there\n", argv[1]);
        return 2;
    }
    unsigned long mutations = argc > 2 ? strtoul(argv[2], NULL, 10) : 2000;
    double limit = argc > 3 ? strtod(argv[3], NULL) : 5;
    unsigned long runs = corpus_run(inputs, len, mutations, limit);
    printf("%zu files, %lu runs\n", len, runs);
    for (size_t i = 0; i < len; i++) {
        free(inputs[i].name);
        free(inputs[i].bytes);
    }
    free(inputs);
    return 0;
}
