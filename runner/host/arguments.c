#include <getopt.h>

#include "base/clock.h"
#include "runner/host/host.h"

#define DURATION_MAX_S 604800
#define RATE_MAX       1000

enum { RECORD = 1, DUMP = 2, TOP = 4 };

static const struct {
    const char *name;
    int bit;
    const char *about;
} commands[] = {
    {"record", RECORD,
     "Samples a Python process and writes what it spent its time on. Ends after the duration, at\n"
     "Ctrl-C, or with the process; what was sampled until then is written."},
    {"dump", DUMP, "Prints what each thread of a Python process does now."},
    {"top", TOP,
     "Shows every second which functions of a Python process take the time; Ctrl-C ends it."},
};

/* In the order of the help. Those without a value are bool, at their offset. */
static const struct flag {
    char letter;
    int commands;
    const char *name, *value, *help;
    size_t offset;
} flags[] = {
    {'p', RECORD | DUMP | TOP, "pid", "PID", "the process; required", 0},
    {'d', RECORD, "duration", "TIME", "seconds, or as in 90s, 5m, 1h30m; 1 s to 7 days [30]", 0},
    {'r', RECORD | TOP, "rate", "RATE", "looks a second, 1 to 1000 [100]", 0},
    {'o', RECORD, "output", "FILE", "where to; - is standard output [PID.svg, or as the format's]",
     0},
    {'f', RECORD, "format", "FORMAT",
     "flamegraph, speedscope, raw, chrometrace\n"
     "[by FILE: .svg flamegraph, .json speedscope, .txt or .raw raw,\n"
     ".trace.json chrometrace; without an ending flamegraph]",
     0},
    {'i', RECORD | TOP, "idle", NULL, "threads that sleep as well",
     offsetof(struct host_arguments, options.idle)},
    {'g', RECORD | TOP, "gil", NULL, "only the thread that holds the interpreter's lock",
     offsetof(struct host_arguments, options.gil)},
    {'s', RECORD, "subprocesses", NULL, "its children as well, each under a frame of its own",
     offsetof(struct host_arguments, options.subprocesses)},
    {'t', RECORD, "threads", NULL, "each thread under a frame of its own",
     offsetof(struct host_arguments, options.threads)},
    {'F', RECORD, "function", NULL, "by function, not by line",
     offsetof(struct host_arguments, options.functions)},
    {'a', RECORD | DUMP | TOP, "async-tasks", NULL,
     "the running task of asyncio as a frame (Python 3.12 to 3.14)",
     offsetof(struct host_arguments, options.async_tasks)},
    {'b', RECORD | DUMP | TOP, "nonblocking", NULL,
     "no thread waits while it is read, as beyond a rate of 250 none does:\n"
     "less exact before Python 3.11",
     offsetof(struct host_arguments, options.nonblocking)},
    {'q', RECORD, "quiet", NULL, "neither progress nor a word about the result",
     offsetof(struct host_arguments, quiet)},
    {'h', RECORD | DUMP | TOP, "help", NULL, "this", offsetof(struct host_arguments, help)},
};

static const struct host_format formats[] = {
    {"flamegraph", ".svg", profile_write_flamegraph},
    {"speedscope", ".json", profile_write_speedscope},
    {"raw", ".txt", profile_write_raw},
    {"chrometrace", ".trace.json", profile_write_chrometrace},
};

static int bit_of(const char *command)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (str_is(str_of(command), commands[i].name))
            return commands[i].bit;
    return 0;
}

bool host_is_command(const char *name)
{
    return bit_of(name) != 0;
}

static void help_flag(const struct flag *f, struct buf *out)
{
    struct str rest = str_of(f->help);
    buf_appendf(out, "  -%c, --%-13s %-7s", f->letter, f->name, f->value ? f->value : "");
    buf_append_str(out, str_cut(&rest, '\n'));
    while (rest.ptr) {
        struct str line = str_cut(&rest, '\n');
        buf_appendf(out, "\n%29s%.*s", "", STR_ARG(line));
    }
    buf_append_char(out, '\n');
}

void host_help(const char *command, struct buf *out)
{
    int bit = bit_of(command);
    buf_appendf(out, "usage: pyspy-runner %s --pid PID [flags]\n\n", command);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (commands[i].bit == bit)
            buf_appendf(out, "%s\n", commands[i].about);
    buf_append_cstr(
        out, "CPython 3.8 to 3.14; the process is never stopped. Takes the capability SYS_PTRACE, "
             "as root has\nit, or the same user where kernel.yama.ptrace_scope is 0.\n\n");
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        if (flags[i].commands & bit)
            help_flag(&flags[i], out);
    buf_append_cstr(
        out, bit == RECORD
                 ? "\nFILE is replaced when the profile is whole; nothing is left where it fails.\n"
                   "Exit status: 0 a profile was written, 1 not, 2 for a wrong command line.\n"
             : bit == DUMP
                 ? "\nExit status: 0, 1 when no stack could be read, 2 for a wrong command "
                   "line.\n"
                 : "\nExit status: 0 at Ctrl-C or the end of the process, 1 when it cannot be "
                   "read, 2 for a wrong\ncommand line.\n");
}

static int number(const char *text, int64_t max, const char *what, int64_t *ret, struct err *err)
{
    if (str_to_i64(str_of(text), 1, max, ret) < 0)
        return err_set(err, ERR_INVALID, "%s is a number from 1 to %lld, not '%s'", what,
                       (long long)max, text);
    return 0;
}

static int duration(const char *text, int64_t *ret_ms, struct err *err)
{
    int64_t ms, seconds;
    if (str_to_i64(str_of(text), 0, INT32_MAX, &seconds) == 0)
        ms = seconds * 1000;
    else if (duration_parse(str_of(text), &ms) < 0)
        return err_set(err, ERR_INVALID, "--duration is seconds, or as in 90s or 5m, not '%s'",
                       text);
    if (ms < 1000 || ms > DURATION_MAX_S * INT64_C(1000))
        return err_set(err, ERR_INVALID, "--duration is from 1 second to 7 days, not '%s'", text);
    *ret_ms = ms;
    return 0;
}

static int format_named(const char *name, const struct host_format **ret, struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (str_is(str_of(name), formats[i].name)) {
            *ret = &formats[i];
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "--format is flamegraph, speedscope, raw or chrometrace, not '%s'", name);
}

/* The first that fits: the longer ones stand before. */
static const struct {
    const char *ending, *format;
} endings[] = {
    {".svg", "flamegraph"},  {".trace.json", "chrometrace"},
    {".json", "speedscope"}, {".txt", "raw"},
    {".raw", "raw"},
};

/* A name without an ending wants a flame graph; whoever wants what there is not is not given one.
 */
static int format_of_file(const char *output, const struct host_format **ret, struct err *err)
{
    struct str name = str_of(output);
    name = str_sub(name, (size_t)(str_rfind_char(name, '/') + 1), name.len);
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++)
        if (str_ends_with(name, str_of(endings[i].ending)))
            return format_named(endings[i].format, ret, err);
    if (str_rfind_char(name, '.') <= 0)
        return format_named("flamegraph", ret, err);
    return err_set(err, ERR_INVALID,
                   "--output '%s': no format has this ending, but .svg, .json (speedscope), .txt "
                   "and .raw, .trace.json have; for another name say --format",
                   output);
}

static int take(const struct flag *f, const char *value, struct host_arguments *a, struct err *err)
{
    switch (f->letter) {
    case 'p':
        return number(value, INT32_MAX, "--pid", &a->pid, err);
    case 'd':
        return duration(value, &a->options.duration_ms, err);
    case 'r':
        return number(value, RATE_MAX, "--rate", &a->options.rate, err);
    case 'o':
        a->output = value;
        return *value ? 0 : err_set(err, ERR_INVALID, "--output is empty");
    case 'f':
        return format_named(value, &a->format, err);
    default:
        *(bool *)((char *)a + f->offset) = true;
        return 0;
    }
}

static const struct flag *flag_of(int letter)
{
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        if (flags[i].letter == letter)
            return &flags[i];
    return NULL;
}

/* known: the one that optopt names, if this command takes it. */
static int refuse(int c, const struct flag *known, char *const *argv, struct err *err)
{
    if (optopt && known)
        return err_set(err, ERR_INVALID, "--%s %s", known->name,
                       c == ':' ? "needs a value" : "takes no value");
    if (optopt)
        return err_set(err, ERR_INVALID, "'-%c' is no flag of %s", optopt, argv[1]);
    return err_set(err, ERR_INVALID, "'%s' is no flag of %s", argv[optind], argv[1]);
}

int host_parse(int argc, char *const *argv, struct host_arguments *ret, struct err *err)
{
    struct option names[ARRAY_SIZE(flags) + 1] = {0};
    char letters[2 * ARRAY_SIZE(flags) + 2] = ":";
    struct host_arguments a = {
        .options = {.rate = 100, .duration_ms = 30000, .command_lines = true}};
    int bit = bit_of(argv[1]), r = 0;
    size_t n = 0, len = 1;
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (!(flags[i].commands & bit))
            continue;
        names[n++] = (struct option){
            flags[i].name, flags[i].value ? required_argument : no_argument, NULL, flags[i].letter};
        letters[len++] = flags[i].letter;
        if (flags[i].value)
            letters[len++] = ':';
    }
    opterr = 0;
    optind = 0; /* begins anew */
    for (int c; r == 0 && (c = getopt_long(argc - 1, argv + 1, letters, names, NULL)) != -1;) {
        if (c == ':' || c == '?')
            return refuse(c, strchr(letters + 1, optopt) ? flag_of(optopt) : NULL, argv, err);
        r = take(flag_of(c), optarg, &a, err);
    }
    if (r == 0 && !a.help && optind + 1 < argc)
        return err_set(err, ERR_INVALID, "'%s' is no flag", argv[optind + 1]);
    if (r == 0 && !a.help && a.pid == 0)
        return err_set(err, ERR_INVALID, "--pid PID is missing: the process to look at");
    if (r < 0)
        return r;
    if (!a.format)
        r = format_of_file(a.output ? a.output : "", &a.format, err);
    if (r < 0)
        return r;
    *ret = a;
    return 0;
}
