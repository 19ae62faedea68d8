/* A profile in memory: stacks with counts, by process and thread, and their order in time when it
 * is known. Frames and stacks are interned, so that a stack seen a million times costs one counter
 * (and, when order is kept, one index a sample). Owns all its memory; one thread at a time. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

struct profile;

/* What profiles that fill at the same time, each on its thread, may still take together. */
struct profile_room {
    atomic_size_t frames, text, samples, nodes;
};

struct profile_limits {
    size_t max_frames;  /* distinct frames [1,000,000] */
    size_t max_text;    /* bytes of different names, files and labels of threads [64 MiB] */
    size_t max_stacks;  /* distinct stacks [1,000,000] */
    size_t max_depth;   /* frames in a stack [4096]; deeper ones are cut at the root's side */
    size_t max_samples; /* equal ones in a row counted once [4,000,000]; order is dropped first */
    size_t max_nodes;   /* of the call tree that the stacks make [2,000,000] */
    size_t max_input;   /* bytes that a reader takes [64 MiB] */
    struct profile_room *room; /* outlives the profile; NULL: it is alone */
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
/* frames: root first, at least one. weight: samples, 1 to 2^32-1. Samples of a thread are kept in
 * the order of the calls. */
int profile_add_sample(struct profile *p, uint32_t thread, const uint32_t *frames, size_t depth,
                       int64_t weight, struct err *err);
/* label "": all threads together, in no order. A label that was added before is that thread. */
int profile_add_thread(struct profile *p, struct str label, uint32_t *ret, struct err *err);

/* From here on equal samples of a thread are counted in one place, and those before are put there:
 * memory then grows with the different stacks only. Formats that show time show them side by side.
 */
void profile_drop_order(struct profile *p);

int64_t profile_samples(const struct profile *p); /* sum of the weights */
size_t profile_stacks(const struct profile *p);

/* Describes the run in every format's header. Texts are copied. */
struct profile_about {
    struct str title; /* "shop/checkout-7d9f8b-x2x9z · app" */
    int64_t start_ms; /* wall */
    int64_t duration_ms;
    int64_t rate;    /* samples a second */
    struct str note; /* accuracy and the like; may be empty */
};
void profile_set_about(struct profile *p, const struct profile_about *about);

/* Readers of what py-spy 0.4.3 writes; text is not kept. ERR_INVALID tells the place,
 * ERR_TOO_LARGE that a limit was passed: what was read until then is there. After other errors the
 * profile is good for nothing but profile_destroy(). One sample is one stack of one thread at one
 * look, in both formats alike: profile_samples() is the number that py-spy prints behind
 * "Samples:".
 *
 * Which to record? speedscope: it keeps the threads (with and without --threads) and each one's
 * order, whole file names, and is unambiguous. raw has none of these and replaces neither ';' nor
 * line ends in names, so a command line (--subprocesses) that holds both and numbers can be taken
 * for stacks (where it is to be scrubbed, the reader refuses instead). But raw's size is that of
 * the different stacks, while py-spy keeps every sample until the end and then copies them: about
 * 500 bytes of its memory a sample at a depth of 20 (61,082 samples: 35 MB), and 50 bytes of file.
 * In a container of 256 MiB that is 400,000 samples: 1 h at 100 Hz of one busy thread, 80 s of 50.
 * Record raw where duration x rate x threads may pass PROFILE_SPEEDSCOPE_SAMPLES; chrometrace and
 * speedscope are then without order. */
#define PROFILE_SPEEDSCOPE_SAMPLES 300000

/* "a (f.py:1);b (f.py:2) 17" a line. */
int profile_read_raw(struct profile *p, struct str text, struct err *err);
/* Times become samples by about.rate, which is therefore set before; without it each counts one. */
int profile_read_speedscope(struct profile *p, struct str text, struct err *err);
/* From here on `process 12:"command line"` (--subprocesses) is read as `process 12`: command lines
 * may hold secrets. To be called before anything is read. */
void profile_scrub_process_frames(struct profile *p);
/* Adds all of `other`; what fits of it, if ERR_TOO_LARGE. prefix: a root frame put under each
 * stack, "" for none. */
int profile_merge(struct profile *p, const struct profile *other, struct str prefix,
                  struct err *err);

/* Writers. out's maximum is the cap: ERR_TOO_LARGE, with out cut off. The same profile always gives
 * the same bytes; names are UTF-8 in all of them.
 * raw: collapsed stacks as flamegraph.pl takes them, short file names, siblings in byte order; it
 *   has no place for profile_about. ';' in names becomes ','.
 * speedscope: one sampled profile a thread; the unit is seconds where the rate is known.
 * chrometrace: B and E events in microseconds. A thread's n-th sample stands at n / rate: py-spy
 *   leaves out looks at which a thread was idle, so threads do not line up unless it ran --idle.
 * flamegraph: one SVG, root on top, without anything from elsewhere. It grows no larger than about
 *   800 KB: frames narrower than 0.1 % (more, where need be) are left out, and it says how many. It
 * is a document (or an image), not to be pasted into a page: its style sheet takes all of it. A
 * view can be linked to: #s=TEXT searches, &x=N zooms. */
int profile_write_raw(const struct profile *p, struct buf *out, struct err *err);
int profile_write_speedscope(const struct profile *p, struct buf *out, struct err *err);
int profile_write_chrometrace(const struct profile *p, struct buf *out, struct err *err);
int profile_write_flamegraph(const struct profile *p, struct buf *out, struct err *err);

/* gzip (zlib, level 6) of `in`; equal input gives equal output. */
int profile_gzip(struct str in, struct buf *out, struct err *err);
