/* What pyspy-runner and pyspy-upload say to each other. Both ways go through memory files
 * (memfd_create(2)) that the runner makes: a handover that is sealed, so that it can be mapped and
 * nobody changes it, and an answer of a fixed size. pyspy-upload speaks with the network and has no
 * capabilities; the runner has them and takes its answer for what it is, a text from outside. */
#pragma once

#include "api/task.h"
#include "base/log.h"

#define HANDOVER_FD      3 /* in pyspy-upload */
#define ANSWER_FD        4
#define HANDOVER_TRY_MS  60000 /* the longest that one try may take */
#define HANDOVER_TERM_MS 3000  /* for the try that is under way when SIGTERM comes */
#define ANSWER_MAX       16384 /* bytes; a summary, which takes the receipt, has 4096 */

struct handover {
    struct str url, ca; /* of the result endpoint */
    struct str token;   /* file; read anew for every try */
    int64_t deadline_ms;
    int log_level;        /* enum log_level */
    struct upload upload; /* contents as they are stored, without digests */
};

/* A new descriptor; close it. ERR_TOO_LARGE or ERR_IO. */
int handover_create(const struct handover *h, int *ret, struct err *err);
/* bytes: the whole of it; contents point into it. ERR_INVALID. */
int handover_read(struct arena *arena, struct str bytes, struct handover *ret, struct err *err);

/* What came of it: either a receipt, or a reason with a message. */
struct answer {
    int reason;              /* enum profile_reason; REASON_NONE: stored */
    struct str message;      /* of a reason */
    struct receipt *receipt; /* of none */
};

int answer_create(int *ret, struct err *err);
/* 0, or ERR_TOO_LARGE or ERR_IO: then the answer is not there. */
int answer_write(int fd, const struct answer *a, struct err *err);
/* What was written until now, as text. */
int answer_text(int fd, struct arena *arena, struct str *ret, struct err *err);
int answer_parse(struct arena *arena, struct str text, struct answer *ret, struct err *err);
