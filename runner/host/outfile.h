/* A file that a person names: whether it can be written is known before there is anything to write,
 * and it appears whole or not at all. One thread at a time. */
#pragma once

#include "base/cleanup.h"
#include "base/str.h"

struct outfile {
    char *path;
    int fd; /* what takes the bytes as they come: a pipe, a terminal, a device; -1: a file */
};

/* "-" is standard output. Pipes and devices are opened. A file is replaced when the new one is
 * whole, never written through; symbolic links are refused, they may be another's. */
int outfile_open(const char *path, struct outfile *ret, struct err *err);
int outfile_write(struct outfile *f, struct str text, struct err *err);
void outfile_finish(struct outfile *f);
