#include "cache/reflector.h"

#include <malloc.h>

#include "base/alloc.h"
#include "cache/store.h"

enum {
    PAGE_ITEMS = 500,
    WATCH_S = 290,
    WATCH_JITTER_S = 20,
    SHORT_WATCH_MS = 1000,
    TRIM_BYTES = 1024 * 1024, /* of transient memory that is worth giving back at once */
};

enum state {
    IDLE,
    LISTING,   /* pages come into `fresh` */
    STREAMING, /* WatchList: the initial events come into `fresh` */
    WATCHING,  /* events change the store */
    PAUSED,    /* the timer leads on to `next` */
};

struct reflector {
    struct reflector_options options;
    enum state state, next;
    struct store store;
    struct store fresh; /* what a list brings together before it replaces the store */
    struct kube_call *call;
    struct loop_timer timer;
    struct backoff backoff;
    char *version;        /* the last one seen; NULL: none yet */
    bool version_lost;    /* the server no longer has it, or not yet: list what there is */
    bool expired;         /* a watch was told so, and none has lived since */
    char *continue_token; /* of the list under way; NULL: its first page */
    bool whole_list;      /* continuing expired: without pages this time */
    bool use_watch_list;
    bool without_fields; /* the API server refused the field selector */
    bool synced;
    int64_t watch_started_ms;
    int64_t watch_events;
    size_t transient_bytes;
    struct reflector_stats stats;
};

static void go_on(struct reflector *r, enum state state);

static const char *or_empty(const char *s)
{
    return s ? s : "";
}

static const char *field_selector(const struct reflector *r)
{
    return r->without_fields ? NULL : r->options.field_selector;
}

static void set_text(char **text, struct str value)
{
    char *copy = value.len ? str_dup(value) : NULL;
    free(*text);
    *text = copy;
}

/* Changes */

/* What is kept of the object: a reference of ours, or NULL for nothing. */
static struct kube_object *transformed(struct reflector *r, struct kube_object *object)
{
    if (!r->options.transform)
        return kube_object_ref(object);
    return r->options.transform(r->options.context, object);
}

static void tell(struct reflector *r, struct kube_object *old, struct kube_object *now)
{
    enum cache_change change = !old ? CACHE_ADDED : now ? CACHE_UPDATED : CACHE_DELETED;
    if (r->options.changed)
        r->options.changed(r->options.context, change, old, now);
}

static bool is_same_thing(const struct kube_object *a, const struct kube_object *b)
{
    return str_eq(a->uid, b->uid);
}

static bool is_same_state(const struct kube_object *a, const struct kube_object *b)
{
    return is_same_thing(a, b) && str_eq(a->resource_version, b->resource_version);
}

/* A thing that was deleted and made again under its name is two changes, even where only the
 * outcome was seen. */
static void tell_replaced(struct reflector *r, struct kube_object *old, struct kube_object *now)
{
    if (is_same_thing(old, now)) {
        tell(r, old, now);
        return;
    }
    tell(r, old, NULL);
    tell(r, NULL, now);
}

static void remove_object(struct reflector *r, const struct kube_object *like)
{
    _cleanup_(kube_object_unrefp) struct kube_object *old = store_remove(&r->store, like);
    if (old)
        tell(r, old, NULL);
}

static void put_object(struct reflector *r, struct kube_object *object)
{
    const struct kube_object *known = store_get(&r->store, object);
    if (known && is_same_state(known, object))
        return;
    struct kube_object *kept = transformed(r, object);
    if (!kept) {
        remove_object(r, object);
        return;
    }
    _cleanup_(kube_object_unrefp) struct kube_object *now = kube_object_ref(kept);
    _cleanup_(kube_object_unrefp) struct kube_object *old = store_set(&r->store, kept);
    if (old)
        tell_replaced(r, old, now);
    else
        tell(r, NULL, now);
}

static void put_fresh(struct reflector *r, struct kube_object *object)
{
    r->transient_bytes += arena_size(object->arena);
    struct kube_object *known = store_get(&r->store, object);
    bool is_known = known && is_same_state(known, object);
    struct kube_object *kept = is_known ? kube_object_ref(known) : transformed(r, object);
    if (kept)
        kube_object_unref(store_set(&r->fresh, kept));
}

/* The store becomes what was listed; deletions are told for what has vanished. */
static void replace_store(struct reflector *r)
{
    store_swap(&r->store, &r->fresh);
    struct store was = r->fresh;
    store_init(&r->fresh);
    for (struct map_iter it = {0}; map_next(was.objects, &it);) {
        struct kube_object *old = it.value;
        if (!store_get(&r->store, old))
            tell(r, old, NULL);
    }
    for (struct map_iter it = {0}; map_next(r->store.objects, &it);) {
        struct kube_object *now = it.value, *old = store_get(&was, now);
        if (!old)
            tell(r, NULL, now);
        else if (old != now) /* see put_fresh() */
            tell_replaced(r, old, now);
    }
    store_finish(&was);
    if (r->transient_bytes >= TRIM_BYTES)
        malloc_trim(0);
    r->transient_bytes = 0;
    r->version_lost = false;
    if (!r->synced) {
        r->synced = true;
        if (r->options.synced)
            r->options.synced(r->options.context);
    }
}

static void clear_fresh(struct reflector *r)
{
    store_finish(&r->fresh);
    store_init(&r->fresh);
    set_text(&r->continue_token, STR_NULL);
}

/* Failing */

static void pause_then(struct reflector *r, enum state next, const struct err *err)
{
    r->stats.errors++;
    if (r->options.failed)
        r->options.failed(r->options.context, err);
    int64_t wait = backoff_next(&r->backoff, loop_now(r->options.loop), r->options.random);
    if (err->retry_after_ms > wait)
        wait = err->retry_after_ms;
    r->next = next;
    r->state = PAUSED;
    loop_timer_arm(r->options.loop, &r->timer, wait);
}

static void timer_fired(struct loop_timer *timer)
{
    struct reflector *r = CONTAINER_OF(timer, struct reflector, timer);
    go_on(r, r->next);
}

/* The state in which all there is gets listed. */
static enum state anew(const struct reflector *r)
{
    return r->use_watch_list ? STREAMING : LISTING;
}

/* An API server before 1.31 refuses field selectors of custom resources. */
static bool drop_field_selector(struct reflector *r, const struct err *err)
{
    if (!r->options.field_selector_optional || !field_selector(r) || err->http_status != 400)
        return false;
    r->without_fields = true;
    return true;
}

/* Listing */

static void list_item(void *context, struct kube_object *object)
{
    put_fresh(context, object);
}

static void list_failed(struct reflector *r, const struct err *err)
{
    bool in_the_middle = r->continue_token;
    clear_fresh(r);
    if (err->code == ERR_GONE && in_the_middle && !r->whole_list) {
        r->whole_list = true; /* the pages have expired; in one piece they cannot */
        go_on(r, LISTING);
    } else if (err->code == ERR_GONE && !r->version_lost) {
        r->version_lost = true;
        go_on(r, LISTING);
    } else if (drop_field_selector(r, err)) {
        go_on(r, LISTING);
    } else {
        pause_then(r, LISTING, err);
    }
}

static void list_end(void *context, struct str resource_version, struct str continue_token,
                     struct err *err)
{
    struct reflector *r = context;
    r->call = NULL;
    if (err) {
        list_failed(r, err);
        return;
    }
    set_text(&r->continue_token, continue_token);
    if (r->continue_token) {
        go_on(r, LISTING);
        return;
    }
    r->whole_list = false;
    set_text(&r->version, resource_version);
    replace_store(r);
    go_on(r, WATCHING);
}

static void list(struct reflector *r)
{
    if (!r->continue_token) {
        r->stats.lists++;
        if (r->synced)
            r->stats.relists++;
    }
    struct kube_list_options options = {
        .resource = r->options.resource,
        .namespace_ = str_of(or_empty(r->options.namespace_)),
        .label_selector = r->options.label_selector,
        .field_selector = field_selector(r),
        .metadata_only = r->options.metadata_only,
        .limit = r->whole_list ? 0 : r->options.page_items,
        .continue_token = r->continue_token,
    };
    /* A continue token carries its version; and of a lost one there is nothing to ask for. */
    if (!r->continue_token && !r->version_lost) {
        options.resource_version = r->version ? r->version : "0";
        /* Together with a limit a version would else mean exactly that one. */
        if (r->version && options.limit)
            options.resource_version_match = "NotOlderThan";
    }
    struct kube_list_handlers handlers = {.item = list_item, .end = list_end, .context = r};
    r->call = kube_list(r->options.client, &options, &handlers);
}

/* Watching, and streaming before it */

static bool is_initial_end(const struct kube_object *bookmark)
{
    return str_is(kube_object_annotation(bookmark, "k8s.io/initial-events-end"), "true");
}

static void bookmark(struct reflector *r, struct kube_object *object)
{
    r->stats.bookmarks++;
    if (r->state == STREAMING && is_initial_end(object)) {
        r->state = WATCHING; /* the same stream goes on */
        replace_store(r);
    }
}

static void relist_now(struct reflector *r)
{
    r->version_lost = true;
    go_on(r, anew(r));
}

/* At once, but not again and again: a server whose history is shorter than a list takes would be
 * asked for lists without a pause. */
static void watch_expired(struct reflector *r, const struct err *err)
{
    bool again = r->expired;
    r->expired = r->version_lost = true;
    if (again)
        pause_then(r, anew(r), err);
    else
        go_on(r, anew(r));
}

static void watch_failed(struct reflector *r, const struct err *err)
{
    if (err->code == ERR_GONE)
        watch_expired(r, err);
    else if (err->http_status == 500)
        pause_then(r, anew(r), err);
    else if (drop_field_selector(r, err))
        go_on(r, anew(r));
    else
        /* Refused, throttled, cut: what was seen stays true, and the version good. */
        pause_then(r, WATCHING, err);
}

/* An API server before 1.32, one with the gate off, or over an etcd that cannot report progress.
 * Each says so in its own way; a list works with all of them. */
static bool is_refused(const struct err *err)
{
    return err->http_status && err->code != ERR_THROTTLED && err->code != ERR_UNAUTHORIZED &&
           err->code != ERR_FORBIDDEN && err->code != ERR_GONE;
}

static void streaming_failed(struct reflector *r, const struct err *err)
{
    clear_fresh(r);
    if (err->code == ERR_GONE && !r->version_lost) {
        relist_now(r);
    } else if (drop_field_selector(r, err)) {
        go_on(r, STREAMING);
    } else if (is_refused(err)) {
        r->use_watch_list = false;
        go_on(r, LISTING);
    } else {
        pause_then(r, anew(r), err);
    }
}

static void watch_over(struct reflector *r, const struct err *err)
{
    r->call = NULL;
    struct err failure = err ? *err : (struct err)ERR_INIT;
    if (r->state == STREAMING) {
        if (!failure.code) {
            r->use_watch_list = false; /* it does not know how to end the initial events */
            err_set(&failure, ERR_PROTOCOL, "the stream ended before the initial events did");
        }
        streaming_failed(r, &failure);
        return;
    }
    int64_t lasted_ms = loop_now(r->options.loop) - r->watch_started_ms;
    if (lasted_ms >= SHORT_WATCH_MS)
        r->expired = false;
    if (failure.code)
        watch_failed(r, &failure);
    else if (lasted_ms < SHORT_WATCH_MS && !r->watch_events) {
        err_set(&failure, ERR_IO, "very short watch: it ended within a second, without events");
        pause_then(r, WATCHING, &failure);
    } else {
        go_on(r, WATCHING);
    }
}

static void watch_event(void *context, enum kube_event_type type, struct kube_object *object,
                        struct err *status_err)
{
    struct reflector *r = context;
    if (type == KUBE_ERROR) {
        kube_cancel(r->options.client, r->call); /* nothing can follow */
        watch_over(r, status_err);
        return;
    }
    r->watch_events++;
    r->stats.events++;
    /* Before telling, so that whoever is told may look at a consistent reflector. While streaming
     * only the end's version is one to go on from. */
    if (r->state == WATCHING || (type == KUBE_BOOKMARK && is_initial_end(object)))
        set_text(&r->version, object->resource_version);
    if (r->state == WATCHING)
        r->expired = false;
    if (type == KUBE_BOOKMARK)
        bookmark(r, object);
    else if (r->state == STREAMING && type == KUBE_DELETED)
        kube_object_unref(store_remove(&r->fresh, object));
    else if (r->state == STREAMING)
        put_fresh(r, object);
    else if (type == KUBE_DELETED)
        remove_object(r, object);
    else
        put_object(r, object);
}

static void watch_end(void *context, struct err *err)
{
    watch_over(context, err);
}

static void watch(struct reflector *r, bool with_initial_events)
{
    r->stats.watches++;
    r->watch_started_ms = loop_now(r->options.loop);
    r->watch_events = 0;
    struct kube_watch_options options = {
        .resource = r->options.resource,
        .namespace_ = str_of(or_empty(r->options.namespace_)),
        .label_selector = r->options.label_selector,
        .field_selector = field_selector(r),
        .resource_version = r->version_lost ? NULL : r->version,
        .send_initial_events = with_initial_events,
        .metadata_only = r->options.metadata_only,
        .timeout_s = WATCH_S + (int64_t)random_below(r->options.random, WATCH_JITTER_S),
    };
    struct kube_watch_handlers handlers = {.event = watch_event, .end = watch_end, .context = r};
    r->call = kube_watch(r->options.client, &options, &handlers);
}

static void stream(struct reflector *r)
{
    r->stats.lists++;
    if (r->synced)
        r->stats.relists++;
    watch(r, true);
}

static void go_on(struct reflector *r, enum state state)
{
    r->state = state;
    switch (state) {
    case LISTING:
        list(r);
        break;
    case STREAMING:
        stream(r);
        break;
    case WATCHING:
        watch(r, false);
        break;
    case IDLE:
    case PAUSED:
        break;
    }
}

/* Public */

int reflector_create(const struct reflector_options *options, struct reflector **ret,
                     struct err *err)
{
    if (!options->client || !options->loop || !options->random || !options->resource)
        return err_set(err, ERR_INVALID, "client, loop, random and resource are required");
    struct reflector *r = xcalloc(1, sizeof(*r));
    r->options = *options;
    if (!r->options.page_items)
        r->options.page_items = PAGE_ITEMS;
    r->use_watch_list = !options->no_watch_list;
    r->timer.fire = timer_fired;
    r->backoff = (struct backoff){
        .first_ms = 800,
        .max_ms = 30 * 1000,
        .factor = 2.0,
        .jitter = 1.0,
        .reset_after_ms = 2 * 60 * 1000,
    };
    store_init(&r->store);
    store_init(&r->fresh);
    *ret = r;
    return 0;
}

void reflector_destroy(struct reflector *r)
{
    if (!r)
        return;
    kube_cancel(r->options.client, r->call);
    loop_timer_disarm(r->options.loop, &r->timer);
    store_finish(&r->store);
    store_finish(&r->fresh);
    free(r->version);
    free(r->continue_token);
    free(r);
}

void reflector_start(struct reflector *r)
{
    if (r->state == IDLE)
        go_on(r, anew(r));
}

bool reflector_synced(const struct reflector *r)
{
    return r->synced;
}

struct kube_object *reflector_get(const struct reflector *r, struct str key)
{
    return map_get(r->store.objects, key);
}

size_t reflector_size(const struct reflector *r)
{
    return map_size(r->store.objects);
}

struct kube_object *reflector_next(const struct reflector *r, struct reflector_iter *it)
{
    struct map_iter inner = {.position = it->position};
    if (!map_next(r->store.objects, &inner))
        return NULL;
    it->position = inner.position;
    return inner.value;
}

void reflector_stats(const struct reflector *r, struct reflector_stats *ret)
{
    *ret = r->stats;
}
