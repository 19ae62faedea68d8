/* A profile in memory: stacks with counts, by process and thread, and their order in time when it
 * is known. Frames and stacks are interned, so that a stack seen a million times costs one counter
 * (and, when order is kept, one index a sample). Owns all its memory; one thread at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct profile;

struct profile_limits {
    size_t max_frames;  /* distinct frames [1,000,000] */
    size_t max_stacks;  /* distinct stacks [1,000,000] */
    size_t max_depth;   /* frames in a stack [4096]; deeper ones are cut at the root's side */
    size_t max_samples; /* kept in order [10,000,000] */
};

struct profile *profile_create(const struct profile_limits *limits); /* NULL: defaults */
void profile_destroy(struct profile *p);
DEFINE_CLEANUP(struct profile *, profile_destroy);

/* function: never empty; file may be empty; line 0: none. Returns the frame's index. */
struct profile_frame {
    struct str function, file;
    int64_t line;
};
int profile_add_frame(struct profile *p, const struct profile_frame *frame, uint32_t *ret,
                      struct err *err);
/* frames: root first. weight in samples. thread: label such as "MainThread" or "" for all; samples
 * are kept in the order of the calls when `ordered`. */
int profile_add_sample(struct profile *p, uint32_t thread, const uint32_t *frames, size_t depth,
                       int64_t weight, struct err *err);
int profile_add_thread(struct profile *p, struct str label, uint32_t *ret, struct err *err);

int64_t profile_samples(const struct profile *p); /* sum of the weights */
size_t profile_stacks(const struct profile *p);

/* Describes the run in every format's header. Texts are copied. */
struct profile_about {
    struct str title;    /* "shop/checkout-7d9f8b-x2x9z · app" */
    int64_t start_ms;    /* wall */
    int64_t duration_ms;
    int64_t rate;        /* samples a second */
    struct str note;     /* accuracy and the like; may be empty */
};
void profile_set_about(struct profile *p, const struct profile_about *about);

/* Readers. py-spy's "raw" (collapsed stacks: "a (f.py:1);b (f.py:2) 17") and "speedscope" JSON with
 * its per-thread, ordered samples. text is not kept. Lines or members that make no sense are
 * ERR_INVALID with the line. */
int profile_read_raw(struct profile *p, struct str text, struct err *err);
int profile_read_speedscope(struct profile *p, struct str text, struct err *err);
/* Adds all of `other`. prefix: a root frame put under each stack, "" for none. */
int profile_merge(struct profile *p, const struct profile *other, struct str prefix,
                  struct err *err);

/* Writers; out's maximum is the cap: buf_error(). */
int profile_write_raw(const struct profile *p, struct buf *out, struct err *err);
int profile_write_speedscope(const struct profile *p, struct buf *out, struct err *err);
int profile_write_chrometrace(const struct profile *p, struct buf *out, struct err *err);
int profile_write_flamegraph(const struct profile *p, struct buf *out, struct err *err);

/* gzip (zlib, level 6) of `in`. */
int profile_gzip(struct str in, struct buf *out, struct err *err);
