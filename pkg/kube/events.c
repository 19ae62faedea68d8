#include "kube/events.h"

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "json/write.h"

enum {
    MAX_QUEUED = 1000,
    MAX_SERIES = 1024,
    MAX_NOTE = 1024, /* what the API takes */
    MAX_NAME = 253,
    MAX_EVENT = 16 * 1024,
    SERIES_MS = 6 * 60 * 1000,
    MAX_TRIES = 12,
    RETRY_MS = 10 * 1000,
};

static const struct kube_resource events = {"events.k8s.io", "v1", "events"};

/* An Event that may become, or is, a series. */
struct series {
    struct list node;
    char *key;
    char *namespace_, *name; /* of the Event */
    int64_t count, written_count;
    int64_t last_wall_ms;
    int64_t written_ms; /* monotonic: when it was last queued for writing */
};

struct write {
    struct list node;
    enum kube_verb verb;            /* create, or patch of the series */
    char *namespace_, *name, *body; /* name: of the Event */
    int tries;
};

struct event_recorder {
    struct event_recorder_options options;
    char *controller, *instance;
    struct list queue; /* struct write; the first is the one under way */
    size_t n_queued, max_queued;
    struct kube_call *call;
    struct loop_timer retry;
    struct map *by_key;
    struct list by_age; /* struct series, the longest untouched first */
    struct loop_timer flush;
    int64_t dropped;
};

static int64_t now_ms(const struct event_recorder *r)
{
    return clock_monotonic_ms(loop_clock(r->options.loop));
}

/* Writing */

static void write_free(struct write *w)
{
    free(w->namespace_);
    free(w->name);
    free(w->body);
    free(w);
}

static void series_free(struct event_recorder *r, struct series *s)
{
    list_remove(&s->node);
    map_remove(r->by_key, str_of(s->key));
    free(s->key);
    free(s->namespace_);
    free(s->name);
    free(s);
}

/* The Event is not there, or no longer: what comes next begins anew. */
static void forget(struct event_recorder *r, const char *name)
{
    LIST_FOREACH(&r->by_age, node)
    {
        struct series *s = CONTAINER_OF(node, struct series, node);
        if (strcmp(s->name, name) == 0)
            series_free(r, s);
    }
}

static void send_next(struct event_recorder *r);

static void first_done(struct event_recorder *r)
{
    write_free(CONTAINER_OF(list_pop(&r->queue), struct write, node));
    r->n_queued--;
    send_next(r);
}

static void sent(void *context, struct kube_object *object, struct err *err)
{
    struct event_recorder *r = context;
    struct write *w = CONTAINER_OF(r->queue.next, struct write, node);
    (void)object;
    r->call = NULL;
    bool worth_it = err->code == ERR_IO || err->code == ERR_TIMEOUT || err->code == ERR_THROTTLED;
    if (worth_it && ++w->tries < MAX_TRIES) {
        loop_timer_arm(r->options.loop, &r->retry, random_jitter(r->options.random, RETRY_MS, 0.5));
        return;
    }
    if (err->code) {
        r->dropped++;
        forget(r, w->name);
    }
    first_done(r);
}

static void send_next(struct event_recorder *r)
{
    if (r->call || loop_timer_armed(&r->retry) || list_empty(&r->queue))
        return;
    const struct write *w = CONTAINER_OF(r->queue.next, struct write, node);
    struct kube_request request = {
        .verb = w->verb,
        .resource = &events,
        .namespace_ = str_of(w->namespace_),
        .name = w->verb == KUBE_CREATE ? STR_NULL : str_of(w->name),
        .body = str_of(w->body),
        .patch = KUBE_PATCH_MERGE,
        .discard_reply = true,
    };
    r->call = kube_send(r->options.client, &request, sent, r);
}

static void retry_due(struct loop_timer *timer)
{
    send_next(CONTAINER_OF(timer, struct event_recorder, retry));
}

static bool enqueue(struct event_recorder *r, enum kube_verb verb, const char *namespace_,
                    const char *name, struct buf *body)
{
    if (r->n_queued >= r->max_queued || buf_error(body, "an Event", NULL)) {
        r->dropped++;
        return false;
    }
    struct write *w = xcalloc(1, sizeof(*w));
    w->verb = verb;
    w->namespace_ = xstrdup(namespace_);
    w->name = xstrdup(name);
    w->body = buf_take(body);
    list_append(&r->queue, &w->node);
    r->n_queued++;
    send_next(r);
    return true;
}

/* Series */

static void put_micro_time(struct json_writer *w, const char *name, int64_t wall_ms)
{
    char text[TIME_RFC3339_MAX];
    time_format_micro(wall_ms, text);
    json_put_cstr(w, name, text);
}

static void write_series(struct event_recorder *r, struct series *s)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(MAX_EVENT);
    struct json_writer w = JSON_WRITER(&body);
    json_begin_object(&w, NULL);
    json_begin_object(&w, "series");
    json_put_int(&w, "count", s->count);
    put_micro_time(&w, "lastObservedTime", s->last_wall_ms);
    json_end_object(&w);
    json_end_object(&w);
    s->written_count = s->count;
    s->written_ms = now_ms(r);
    enqueue(r, KUBE_PATCH, s->namespace_, s->name, &body);
}

/* When the oldest series has to be looked at again; INT64_MAX: there is none. */
static int64_t next_flush_ms(const struct event_recorder *r)
{
    if (list_empty(&r->by_age))
        return INT64_MAX;
    return CONTAINER_OF(r->by_age.next, struct series, node)->written_ms + SERIES_MS;
}

static void arm_flush(struct event_recorder *r)
{
    int64_t at = next_flush_ms(r);
    if (at != INT64_MAX)
        loop_timer_arm(r->options.loop, &r->flush, at - now_ms(r));
}

/* What went on since the last writing is written; what was quiet has ended. */
static void flush_due(struct loop_timer *timer)
{
    struct event_recorder *r = CONTAINER_OF(timer, struct event_recorder, flush);
    int64_t now = now_ms(r);
    for (struct list *node; next_flush_ms(r) <= now && (node = list_pop(&r->by_age));) {
        struct series *s = CONTAINER_OF(node, struct series, node);
        if (s->count == s->written_count) {
            series_free(r, s);
            continue;
        }
        write_series(r, s);
        list_append(&r->by_age, &s->node);
    }
    arm_flush(r);
}

static void repeat(struct event_recorder *r, struct series *s)
{
    s->count++;
    s->last_wall_ms = clock_wall_ms(loop_clock(r->options.loop));
    if (s->count > 2)
        return; /* flush_due() writes it, with those that follow */
    write_series(r, s);
    list_remove(&s->node);
    list_append(&r->by_age, &s->node);
    arm_flush(r);
}

static void remember(struct event_recorder *r, struct str key, const char *namespace_,
                     const char *name)
{
    struct list *oldest = map_size(r->by_key) >= MAX_SERIES ? list_pop(&r->by_age) : NULL;
    if (oldest)
        series_free(r, CONTAINER_OF(oldest, struct series, node));
    struct series *s = xcalloc(1, sizeof(*s));
    s->key = str_dup(key);
    s->namespace_ = xstrdup(namespace_);
    s->name = xstrdup(name);
    s->count = s->written_count = 1;
    s->written_ms = now_ms(r);
    map_set(r->by_key, key, s);
    list_append(&r->by_age, &s->node);
    arm_flush(r);
}

/* Recording */

static struct str cut_note(struct str note)
{
    if (note.len <= MAX_NOTE)
        return note;
    note.len = MAX_NOTE;
    while (note.len && ((unsigned char)note.ptr[note.len] & 0xc0) == 0x80)
        note.len--; /* not in the middle of a character */
    return note;
}

static void put_regarding(struct json_writer *w, const struct event_regarding *regarding)
{
    json_begin_object(w, "regarding");
    json_put_cstr(w, "apiVersion", regarding->api_version);
    json_put_cstr(w, "kind", regarding->kind);
    if (regarding->namespace_.len)
        json_put_str(w, "namespace", regarding->namespace_);
    json_put_str(w, "name", regarding->name);
    if (regarding->uid.len)
        json_put_str(w, "uid", regarding->uid);
    if (regarding->resource_version.len)
        json_put_str(w, "resourceVersion", regarding->resource_version);
    json_end_object(w);
}

static void create(struct event_recorder *r, struct str key,
                   const struct event_regarding *regarding, enum event_type type,
                   const char *reason, const char *action, struct str note)
{
    enum { SUFFIX = 17 }; /* "." and 16 digits */
    _cleanup_(freep) char *name =
        xasprintf("%.*s.%016llx", STR_ARG(str_sub(regarding->name, 0, MAX_NAME - SUFFIX)),
                  (unsigned long long)random_u64(r->options.random));
    /* Events of what is in no namespace go to this one, as everywhere. */
    _cleanup_(freep) char *namespace_ =
        regarding->namespace_.len ? str_dup(regarding->namespace_) : xstrdup("default");

    _cleanup_(buf_finish) struct buf body = BUF_INIT(MAX_EVENT);
    struct json_writer w = JSON_WRITER(&body);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "events.k8s.io/v1");
    json_put_cstr(&w, "kind", "Event");
    json_begin_object(&w, "metadata");
    json_put_cstr(&w, "name", name);
    json_put_cstr(&w, "namespace", namespace_);
    json_end_object(&w);
    put_micro_time(&w, "eventTime", clock_wall_ms(loop_clock(r->options.loop)));
    json_put_cstr(&w, "reportingController", r->controller);
    json_put_cstr(&w, "reportingInstance", r->instance);
    json_put_cstr(&w, "type", type == EVENT_WARNING ? "Warning" : "Normal");
    json_put_cstr(&w, "reason", reason);
    json_put_cstr(&w, "action", action);
    put_regarding(&w, regarding);
    json_put_str(&w, "note", cut_note(note));
    json_end_object(&w);

    if (enqueue(r, KUBE_CREATE, namespace_, name, &body))
        remember(r, key, namespace_, name);
}

void event_record(struct event_recorder *r, const struct event_regarding *regarding,
                  enum event_type type, const char *reason, const char *action, struct str note)
{
    _cleanup_(buf_finish) struct buf key = BUF_INIT(MAX_EVENT);
    buf_appendf(&key, "%d\n%s\n%s\n%s\n%s\n", (int)type, reason, action, regarding->api_version,
                regarding->kind);
    const struct str parts[] = {regarding->namespace_, regarding->name, regarding->uid};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        buf_append_str(&key, parts[i]);
        buf_append_char(&key, '\n');
    }
    if (buf_error(&key, "an Event", NULL)) {
        r->dropped++;
        return;
    }
    struct series *s = map_get(r->by_key, buf_str(&key));
    if (s)
        repeat(r, s);
    else
        create(r, buf_str(&key), regarding, type, reason, action, note);
}

int64_t event_recorder_dropped(const struct event_recorder *r)
{
    return r->dropped;
}

int event_recorder_create(const struct event_recorder_options *options, struct event_recorder **ret,
                          struct err *err)
{
    if (!options->client || !options->loop || !options->random || !options->controller ||
        !options->instance)
        return err_set(err, ERR_INVALID,
                       "client, loop, random, controller and instance are required");
    struct event_recorder *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    r->controller = xstrdup(options->controller);
    r->instance = xstrdup(options->instance);
    r->max_queued = options->max_queued ? options->max_queued : MAX_QUEUED;
    r->by_key = map_create();
    list_init(&r->queue);
    list_init(&r->by_age);
    r->retry.fire = retry_due;
    r->flush.fire = flush_due;
    *ret = r;
    return 0;
}

void event_recorder_destroy(struct event_recorder *r)
{
    if (!r)
        return;
    kube_cancel(r->options.client, r->call);
    loop_timer_disarm(r->options.loop, &r->retry);
    loop_timer_disarm(r->options.loop, &r->flush);
    for (struct list *node; (node = list_pop(&r->queue));)
        write_free(CONTAINER_OF(node, struct write, node));
    for (struct list *node; (node = list_pop(&r->by_age));)
        series_free(r, CONTAINER_OF(node, struct series, node));
    map_destroy(r->by_key);
    free(r->controller);
    free(r->instance);
    free(r);
}
