/* A scripted API server behind the transport seam: an in-memory store with versions, lists with
 * pages and stale answers, watches with bookmarks, expiry and initial events, optimistic
 * concurrency, patches, status subresources, and faults by a seed. Time is the loop's. One thread.
 *
 *     struct sim_apiserver *s = sim_apiserver_create(loop, &random);
 *     sim_apiserver_add_kind(s, &(struct sim_kind){"batch", "v1", "jobs", "Job", true, NULL});
 *     options.transport = sim_apiserver_transport(s);
 *     sim_do(s, "POST", "/apis/batch/v1/namespaces/x/jobs", "", text, NULL);  // without faults
 */
#pragma once

#include "base/buf.h"
#include "base/random.h"
#include "loop/transport.h"
#include "sim_store.h"

struct sim_apiserver;

/* Chances in a thousand, of each request unless it says otherwise. All zero: a healthy server. */
struct sim_faults {
    unsigned lost;          /* never arrives; the connection breaks */
    unsigned answer_lost;   /* done, but the answer never comes back */
    unsigned throttled;     /* 429 with Retry-After: 1 */
    unsigned failed;        /* 500 */
    unsigned hung;          /* neither done nor answered */
    unsigned stale;         /* a list with resourceVersion=0 is answered from the past */
    unsigned expired;       /* a watch or a continue token is 410, as status or as ERROR event */
    unsigned too_large;     /* a list at a version: 504, ResourceVersionTooLarge */
    unsigned short_watch;   /* a watch ends at once */
    unsigned cut;           /* of each event: the stream breaks in the middle of it */
    unsigned error_event;   /* of each event: an ERROR event of 500 comes before it */
    unsigned compacted;     /* of each write: the history up to here is forgotten */
    int64_t max_latency_ms; /* each way takes up to this long */
};

struct sim_request {
    const char *method, *path, *query; /* decoded path; raw query */
    const char *accept, *content_type;
    struct str body;
};

struct sim_answer {
    int status;
    struct buf body;
    int64_t retry_after_ms;
};

struct sim_apiserver *sim_apiserver_create(struct loop *loop, struct random_source *random);
void sim_apiserver_destroy(struct sim_apiserver *s); /* breaks what is open without calling back */
struct transport *sim_apiserver_transport(struct sim_apiserver *s);
void sim_apiserver_add_kind(struct sim_apiserver *s, const struct sim_kind *kind); /* kept */
void sim_apiserver_set_faults(struct sim_apiserver *s, const struct sim_faults *faults);
/* As of API servers before 1.27 (false), or of 1.34 (true, the default). */
void sim_apiserver_set_watch_list(struct sim_apiserver *s, bool offered);
struct sim_store *sim_apiserver_store(struct sim_apiserver *s);

/* Breaks all connections and refuses new ones for so long. */
void sim_apiserver_restart(struct sim_apiserver *s, int64_t down_ms);
void sim_apiserver_compact(struct sim_apiserver *s);

/* Asked before a request is handled (after == false; true answers in its stead) and told of each
 * answer before it is sent (after == true). For resources that only answer (TokenReview), and to
 * stop a program at a chosen write. Watches are not told. */
typedef bool (*sim_hook)(void *context, const struct sim_request *request,
                         struct sim_answer *answer, bool after);
void sim_apiserver_set_hook(struct sim_apiserver *s, sim_hook hook, void *context);
/* Sets the answer to a Status. cause: NULL or the reason of a cause. */
void sim_answer_status(struct sim_answer *answer, int status, const char *reason,
                       const char *message, const char *cause);

/* A request without transport, faults and latency, as another client makes it. content_type: for
 * patches, "" for JSON. reply: NULL or a buffer for the body. Returns the status. */
int sim_do(struct sim_apiserver *s, const char *method, const char *path, const char *content_type,
           const char *body, struct buf *reply);

struct sim_counts {
    int64_t requests, lists, watches, faults;
    size_t open; /* requests and watches under way */
};
struct sim_counts sim_apiserver_counts(const struct sim_apiserver *s);
