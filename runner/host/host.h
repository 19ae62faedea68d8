/* The commands for hosts without Kubernetes: record, dump and top sample a process given by its PID
 * with our own sampler and talk to a person. They run on the main thread. */
#pragma once

#include "sample/record.h"

/* Whether `name` is one of them. */
bool host_is_command(const char *name);
/* argv[1] is the command. Exit status: 0 done, 1 failed, 2 not understood. */
int host_main(int argc, char *const *argv);

struct host_format {
    const char *name, *ending;
    int (*write)(const struct profile *p, struct buf *out, struct err *err);
};

struct host_arguments {
    int64_t pid;
    struct record_options options;
    const struct host_format *format;
    const char *output; /* NULL: the PID and the format's ending; "-": standard output */
    bool quiet, help;
};
/* ERR_INVALID names what was not understood. Values point into argv. */
int host_parse(int argc, char *const *argv, struct host_arguments *ret, struct err *err);
void host_help(const char *command, struct buf *out);

/* From now on a SIGINT, SIGTERM or SIGHUP that this thread does not take for some seconds ends the
 * program: it waits for a page of the process that never comes, which only that can end. */
int host_watch(struct err *err);

/* 0, or what failed. */
int host_record(int proc, struct host_arguments *a, struct err *err);
int host_dump(int proc, const struct host_arguments *a, struct err *err);
int host_top(int proc, const struct host_arguments *a, struct err *err);

/* Why the process of a->pid could not be opened, for a person; err is as the opening left it.
 * Returns its code. */
int host_explain(int proc, const struct host_arguments *a, struct err *err);

/* Prints what may come from a process; see str_show(). */
void host_print(FILE *to, struct str s);
/* Standard output took all that was printed so far. */
int host_flush(struct err *err);
