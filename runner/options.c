#include "runner/options.h"

#include "api/task.h"
#include "base/cleanup.h"
#include "base/clock.h"

struct flag {
    const char *name, *value_name, *help;
    size_t offset; /* of a const char * */
};

static const struct flag flags[] = {
    {"--py-spy", "FILE", "the py-spy program [/usr/bin/py-spy]", offsetof(struct options, py_spy)},
    {"--uploader", "FILE", "the program that hands the results in [/usr/bin/pyspy-upload]",
     offsetof(struct options, uploader)},
    {"--proc", "DIR", "the node's /proc [/proc]", offsetof(struct options, proc)},
    {"--token", "FILE", "token for the upload [" TASK_TOKEN_PATH "]",
     offsetof(struct options, token)},
    {"--summary", "FILE", "takes the JSON summary [/dev/termination-log]",
     offsetof(struct options, summary)},
};

void options_help(void)
{
    printf("usage: pyspy-runner COMMAND [flags]\n\n"
           "On any host, for a Python process given by its PID; --help behind each tells more:\n"
           "  record  samples it and writes a flame graph, or another format\n"
           "  top     shows which of its functions take the time\n"
           "  dump    prints what its threads do now\n\n"
           "In the Jobs that pyspy-controller makes:\n"
           "  run     samples the processes that the task in " TASK_VARIABLE
           " names, and hands the results in\n\n"
           "Flags of run:\n");
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        printf("  %-17s %-8s %s\n", flags[i].name, flags[i].value_name, flags[i].help);
    printf("  %-17s %-8s %s\n", "--upload-deadline", "DURATION",
           "how long a failing upload is tried again [10m]");
    printf("  %-17s %-8s %s\n", "--log-level", "LEVEL", "debug, info, warn or error [info]");
    printf("  --help, --version\n\n"
           "Exit status of run: 0 when results were stored, 1 otherwise, 2 for a wrong command "
           "line.\n");
}

void options_version(void)
{
    printf("pyspy-runner " PYSPY_OPERATOR_VERSION "\n");
}

/* "--name value" or "--name=value": the value, and how many arguments it took. */
static const char *flag_value(const char *name, int i, int argc, char *const *argv, int *ret_taken)
{
    struct str arg = str_of(argv[i]), flag = str_of(name);
    if (!str_starts_with(arg, flag))
        return NULL;
    if (arg.len == flag.len && i + 1 < argc) {
        *ret_taken = 2;
        return argv[i + 1];
    }
    if (arg.len > flag.len && arg.ptr[flag.len] == '=') {
        *ret_taken = 1;
        return argv[i] + flag.len + 1;
    }
    return NULL;
}

static int parse_flag(int i, int argc, char *const *argv, struct options *o, struct err *err)
{
    int taken = 0;
    for (size_t k = 0; k < ARRAY_SIZE(flags); k++) {
        const char *value = flag_value(flags[k].name, i, argc, argv, &taken);
        if (value) {
            memcpy((char *)o + flags[k].offset, &value, sizeof(value));
            return taken;
        }
    }
    const char *deadline = flag_value("--upload-deadline", i, argc, argv, &taken);
    if (deadline) {
        if (duration_parse(str_of(deadline), &o->upload_deadline_ms) < 0)
            return err_set(err, ERR_INVALID, "--upload-deadline: \"%s\" is no duration such as 10m",
                           deadline);
        return taken;
    }
    const char *level = flag_value("--log-level", i, argc, argv, &taken);
    if (level) {
        if (log_level_parse(str_of(level), &o->log_level) < 0)
            return err_set(err, ERR_INVALID,
                           "--log-level: \"%s\" is none of debug, info, warn, "
                           "error",
                           level);
        return taken;
    }
    return err_set(err, ERR_INVALID, "%s: no such flag, or its value is missing", argv[i]);
}

int options_parse(int argc, char *const *argv, struct options *ret, struct err *err)
{
    struct options o = {
        .command = COMMAND_RUN,
        .py_spy = "/usr/bin/py-spy",
        .uploader = "/usr/bin/pyspy-upload",
        .proc = "/proc",
        .token = TASK_TOKEN_PATH,
        .summary = "/dev/termination-log",
        .upload_deadline_ms = 10 * 60 * 1000,
        .log_level = LOG_INFO,
    };
    for (int i = 1; i < argc; i++) {
        struct str arg = str_of(argv[i]);
        if (str_is(arg, "--help") || str_is(arg, "-h") || str_is(arg, "--version")) {
            o.command = str_is(arg, "--version") ? COMMAND_VERSION : COMMAND_HELP;
            *ret = o;
            return 0;
        }
    }
    if (argc < 2 || !str_is(str_of(argv[1]), "run"))
        return err_set(err, ERR_INVALID,
                       "expected a command: record, top, dump or run; see --help");
    for (int i = 2; i < argc;) {
        int taken = parse_flag(i, argc, argv, &o, err);
        if (taken < 0)
            return taken;
        i += taken;
    }
    *ret = o;
    return 0;
}
