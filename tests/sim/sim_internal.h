/* Private to the simulated API server: requests are understood and answered in sim_answer.c,
 * carried in sim_apiserver.c, watches streamed in sim_watch.c. */
#pragma once

#include "sim_apiserver.h"

enum { SIM_MAX_KINDS = 32, SIM_MAX_TEXT = 64 * 1024 * 1024 };

struct sim_apiserver {
    struct transport transport;
    struct loop *loop;
    struct random_source *random;
    struct sim_store store;
    const struct sim_kind *kinds[SIM_MAX_KINDS];
    size_t n_kinds;
    struct sim_faults faults;
    bool no_watch_list;
    int64_t down_until_ms;
    sim_hook hook;
    void *hook_context;
    struct list calls;
    struct sim_counts counts;
};

enum sim_call_state {
    SIM_ARRIVING,  /* on its way to the server */
    SIM_ANSWERING, /* the answer is on its way back */
    SIM_WATCHING,
    SIM_ENDING, /* the stream's end is on its way back */
    SIM_HANGING,
};

struct http_call {
    struct list node;
    struct sim_apiserver *server;
    struct http_handlers handlers;
    enum sim_call_state state;
    struct loop_timer timer;    /* of the state */
    struct loop_timer deadline; /* of the client */
    bool busy, gone;            /* a handler is on the stack; it was cancelled there */
    char *method, *path, *query, *accept, *content_type;
    struct buf body;
    struct sim_answer answer;
    struct err failure; /* ends the call instead of an answer */
    /* A watch. */
    struct sim_selector selector;
    char *labels, *fields, *namespace_;
    bool metadata_only;
    int64_t position; /* of the last change that was sent */
    int64_t end_ms, bookmark_ms;
    struct buf out; /* sent, not yet arrived */
};

/* A path taken apart. */
struct sim_target {
    const struct sim_kind *kind;
    struct str namespace_, name, subresource;
};
bool sim_chance(struct sim_apiserver *s, unsigned per_mille);
/* Answers a request that is no watch. */
void sim_answer(struct sim_apiserver *s, const struct sim_request *request,
                struct sim_answer *answer, bool with_faults);
int sim_find_target(const struct sim_apiserver *s, const char *path, struct sim_target *ret);
/* The decoded value of a parameter, to be freed; NULL when it is not there. */
char *sim_parameter(const char *query, const char *name);
void sim_put_object(struct buf *out, const struct kube_object *object, bool metadata_only);

bool sim_is_watch(const struct http_call *call);
/* A watch has arrived: answers with an error, or goes into SIM_WATCHING. */
void sim_watch_begin(struct http_call *call);
/* The timer of a watch: sends what there is. */
void sim_watch_pump(struct http_call *call);
/* Something was written. */
void sim_watch_poke(struct sim_apiserver *s);

/* Moves on to a state after the time that one way takes. */
void sim_call_go(struct http_call *call, enum sim_call_state state);
/* Gives bytes to the handler; false when the call is over. */
bool sim_call_deliver(struct http_call *call, struct str bytes);
void sim_call_fail(struct http_call *call, int code, const char *message);
