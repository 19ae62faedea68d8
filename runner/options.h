/* Command line of pyspy-runner. Values point into argv. */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

enum command { COMMAND_RUN, COMMAND_HELP, COMMAND_VERSION };

struct options {
    enum command command;
    const char *py_spy;   /* program */
    const char *uploader; /* program */
    const char *proc;     /* mount point of the node's /proc */
    const char *token;    /* file, read anew for every upload */
    const char *summary;  /* file that takes the summary */
    int64_t upload_deadline_ms;
    enum log_level log_level;
};

/* ERR_INVALID names what was not understood. */
int options_parse(int argc, char *const *argv, struct options *ret, struct err *err);
void options_help(void); /* to standard output */
void options_version(void);
