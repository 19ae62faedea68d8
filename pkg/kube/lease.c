#include "kube/lease.h"

#include "base/alloc.h"
#include "json/write.h"

/* client-go spreads the tries of candidates by this much. */
static const double acquire_jitter = 1.2;

enum { MAX_LEASE = 256 * 1024, RELEASE_TRIES = 3 };

enum role {
    IDLE,
    CANDIDATE,
    LEADER,
    RELEASING, /* we led; the empty holder is being written */
    OVER,      /* lost or given up */
};

struct lease {
    struct lease_options options;
    char *namespace_, *name, *identity;
    enum role role;
    struct kube_call *call;
    int64_t call_started_ms;
    struct loop_timer retry, deadline;
    /* The record as last seen, and when, by our own clock, it last changed. */
    struct kube_object *object; /* NULL: none yet */
    char *record;               /* its spec as text */
    int64_t record_changed_ms;
    char *leader;       /* told by on_leader */
    int64_t renewed_ms; /* when the write that last confirmed us was begun */
    int release_tries;
    struct err last; /* why the last try failed; code 0: it did not */
    void (*released)(void *context);
    void *released_context;
};

static const struct kube_resource leases = {"coordination.k8s.io", "v1", "leases"};

static int64_t now_ms(const struct lease *l)
{
    return clock_monotonic_ms(loop_clock(l->options.loop));
}

static const struct json *spec_of(const struct lease *l)
{
    return l->object ? json_get(l->object->tree, "spec") : NULL;
}

static struct str holder(const struct lease *l)
{
    return json_text(json_get(spec_of(l), "holderIdentity"));
}

static bool is_ours(const struct lease *l)
{
    return str_is(holder(l), l->identity);
}

/* By the duration in the record: its holder may be configured otherwise than we are. */
static bool is_valid(const struct lease *l)
{
    int64_t seconds = json_int(json_get(spec_of(l), "leaseDurationSeconds"), 0);
    return now_ms(l) < l->record_changed_ms + seconds * 1000;
}

static void see(struct lease *l, struct kube_object *object)
{
    kube_object_unref(l->object);
    l->object = kube_object_ref(object);

    _cleanup_(buf_finish) struct buf text = BUF_INIT(MAX_LEASE);
    struct json_writer w = JSON_WRITER(&text);
    json_put_tree(&w, NULL, spec_of(l));
    if (!l->record || !str_is(buf_str(&text), l->record)) {
        free(l->record);
        l->record = buf_take(&text);
        l->record_changed_ms = now_ms(l);
    }
}

static void tell_leader(struct lease *l)
{
    struct str who = holder(l);
    if (!who.len || (l->leader && str_is(who, l->leader)))
        return;
    free(l->leader);
    l->leader = str_dup(who);
    if (l->options.on_leader)
        l->options.on_leader(l->options.context, str_of(l->leader));
}

/* The body of a create or an update. held: by us, or by nobody. */
static void write_record(const struct lease *l, bool held, struct buf *out)
{
    char now[TIME_RFC3339_MAX];
    time_format_micro(clock_wall_ms(loop_clock(l->options.loop)), now);
    const struct json *spec = spec_of(l);
    struct str acquired = json_text(json_get(spec, "acquireTime"));
    int64_t transitions = json_int(json_get(spec, "leaseTransitions"), 0);
    bool goes_on = held && is_ours(l);

    struct json_writer w = JSON_WRITER(out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "coordination.k8s.io/v1");
    json_put_cstr(&w, "kind", "Lease");
    if (l->object) { /* with what others put there; its resourceVersion guards the update */
        json_put_tree(&w, "metadata", json_get(l->object->tree, "metadata"));
    } else {
        json_begin_object(&w, "metadata");
        json_put_cstr(&w, "name", l->name);
        json_put_cstr(&w, "namespace", l->namespace_);
        json_end_object(&w);
    }
    json_begin_object(&w, "spec");
    json_put_cstr(&w, "holderIdentity", held ? l->identity : "");
    json_put_int(&w, "leaseDurationSeconds", held ? l->options.duration_ms / 1000 : 1);
    json_put_str(&w, "acquireTime", goes_on && acquired.len ? acquired : str_of(now));
    json_put_cstr(&w, "renewTime", now);
    json_put_int(&w, "leaseTransitions", transitions + (l->object && held && !goes_on));
    json_end_object(&w);
    json_end_object(&w);
}

static void send(struct lease *l, enum kube_verb verb, bool held, kube_reply done)
{
    _cleanup_(buf_finish) struct buf body = BUF_INIT(MAX_LEASE);
    if (verb != KUBE_GET)
        write_record(l, held, &body);
    struct kube_request request = {
        .verb = verb,
        .resource = &leases,
        .namespace_ = str_of(l->namespace_),
        .name = verb == KUBE_CREATE ? STR_NULL : str_of(l->name),
        .body = buf_str(&body),
        .timeout_ms = l->options.renew_deadline_ms / 2, /* room for a second try */
        .max_response = MAX_LEASE,
        .urgent = true,
    };
    l->call_started_ms = now_ms(l);
    l->call = kube_send(l->options.client, &request, done, l);
}

static void try_again_later(struct lease *l)
{
    int64_t wait = l->options.retry_ms;
    if (l->role == CANDIDATE)
        wait = random_jitter(l->options.random, wait, acquire_jitter);
    loop_timer_arm(l->options.loop, &l->retry, wait);
}

/* Leading */

static void confirmed(struct lease *l)
{
    l->renewed_ms = l->call_started_ms;
    int64_t spent = now_ms(l) - l->call_started_ms;
    loop_timer_arm(l->options.loop, &l->deadline, l->options.renew_deadline_ms - spent);
    bool is_new = l->role == CANDIDATE;
    l->role = LEADER;
    try_again_later(l);
    tell_leader(l);
    if (is_new && l->options.on_started)
        l->options.on_started(l->options.context);
}

static void lose(struct lease *l, const char *why)
{
    kube_cancel(l->options.client, l->call);
    l->call = NULL;
    loop_timer_disarm(l->options.loop, &l->retry);
    loop_timer_disarm(l->options.loop, &l->deadline);
    l->role = OVER;
    if (l->options.on_stopped)
        l->options.on_stopped(l->options.context, why);
}

static void deadline_passed(struct loop_timer *timer)
{
    struct lease *l = CONTAINER_OF(timer, struct lease, deadline);
    struct err why = l->last;
    if (!why.code)
        err_set(&why, ERR_TIMEOUT, "the API server has not answered");
    err_wrap(&why, "the lease could not be renewed in time");
    lose(l, why.message);
}

/* A try: get, then create or update; as the leader the get is left out while the record is known.
 */

static void release_step(struct lease *l);

static void written(void *context, struct kube_object *object, struct err *err)
{
    struct lease *l = context;
    l->call = NULL;
    l->last = *err;
    if (object)
        see(l, object);
    if (l->role == RELEASING) {
        release_step(l);
    } else if (object) {
        confirmed(l);
    } else {
        if (err->code == ERR_CONFLICT || err->code == ERR_NOT_FOUND) {
            kube_object_unref(l->object); /* what we know is out of date: get it first */
            l->object = NULL;
        }
        try_again_later(l);
    }
}

static void got(void *context, struct kube_object *object, struct err *err)
{
    struct lease *l = context;
    l->call = NULL;
    l->last = *err;
    if (object)
        see(l, object);
    if (l->role == RELEASING) {
        release_step(l);
        return;
    }
    if (!object) {
        if (err->code == ERR_NOT_FOUND)
            send(l, KUBE_CREATE, true, written);
        else
            try_again_later(l);
        return;
    }
    bool taken = holder(l).len && !is_ours(l) && is_valid(l);
    if (taken && l->role == LEADER) {
        lose(l, "another one holds the lease");
        return;
    }
    if (taken) {
        try_again_later(l);
        tell_leader(l);
        return;
    }
    send(l, KUBE_UPDATE, true, written);
}

static void attempt(struct lease *l)
{
    if (l->role == LEADER && l->object && is_ours(l))
        send(l, KUBE_UPDATE, true, written);
    else
        send(l, KUBE_GET, false, got);
}

static void retry_due(struct loop_timer *timer)
{
    struct lease *l = CONTAINER_OF(timer, struct lease, retry);
    if (l->role == RELEASING)
        release_step(l);
    else
        attempt(l);
}

/* Giving up */

static void release_step(struct lease *l)
{
    bool held = l->object && is_ours(l);
    if (held && l->release_tries++ < RELEASE_TRIES) {
        /* After a failed write its version may be old. */
        if (l->release_tries % 2)
            send(l, KUBE_UPDATE, false, written);
        else
            send(l, KUBE_GET, false, got);
        return;
    }
    l->role = OVER;
    l->released(l->released_context);
}

void lease_release(struct lease *l, void (*done)(void *context), void *context)
{
    l->released = done;
    l->released_context = context;
    loop_timer_disarm(l->options.loop, &l->deadline);
    loop_timer_disarm(l->options.loop, &l->retry);
    bool may_be_held = l->role == LEADER;
    if (!may_be_held) {
        kube_cancel(l->options.client, l->call);
        l->call = NULL;
        kube_object_unref(l->object);
        l->object = NULL;
    }
    l->role = RELEASING;
    if (!l->call) /* else when the renewal under way has ended */
        loop_timer_arm(l->options.loop, &l->retry, 0);
}

/* Public */

int lease_create(const struct lease_options *options, struct lease **ret, struct err *err)
{
    if (!options->identity || !options->identity[0])
        return err_set(err, ERR_INVALID, "a lease needs an identity");
    if (options->duration_ms <= options->renew_deadline_ms)
        return err_set(err, ERR_INVALID,
                       "the lease's duration must be greater than its renew deadline");
    if ((double)options->renew_deadline_ms <= acquire_jitter * (double)options->retry_ms)
        return err_set(err, ERR_INVALID,
                       "the renew deadline must be greater than 1.2 times the retry period");
    if (options->duration_ms < 1000 || options->retry_ms < 1)
        return err_set(err, ERR_INVALID, "the lease's times are too short");
    struct lease *l = xcalloc(1, sizeof(*l));
    l->options = *options;
    l->namespace_ = xstrdup(options->namespace_);
    l->name = xstrdup(options->name);
    l->identity = xstrdup(options->identity);
    l->retry.fire = retry_due;
    l->deadline.fire = deadline_passed;
    *ret = l;
    return 0;
}

void lease_destroy(struct lease *l)
{
    if (!l)
        return;
    kube_cancel(l->options.client, l->call);
    loop_timer_disarm(l->options.loop, &l->retry);
    loop_timer_disarm(l->options.loop, &l->deadline);
    kube_object_unref(l->object);
    free(l->record);
    free(l->leader);
    free(l->namespace_);
    free(l->name);
    free(l->identity);
    free(l);
}

void lease_start(struct lease *l)
{
    if (l->role != IDLE)
        return;
    l->role = CANDIDATE;
    attempt(l);
}

bool lease_is_leader(const struct lease *l)
{
    return l->role == LEADER;
}

bool lease_is_healthy(const struct lease *l)
{
    return l->role != LEADER || now_ms(l) - l->renewed_ms < l->options.duration_ms;
}
