/* Building a profile's status. */
#include "controller/plan_internal.h"

#include "base/clock.h"

#define MAX_CONDITIONS 8

/* A new status that keeps what the old one said of times, targets and conditions. */
void plan_status_begin(struct planning *g, struct profile_status *s)
{
    const struct profile_status *old = &g->p->status;
    *s = *old;
    s->observed_generation = g->p->meta.generation;
    s->reason = STR_NULL;
    s->message = STR_NULL;
    struct condition *conditions = arena_array(g->arena, MAX_CONDITIONS, sizeof(*conditions));
    size_t keep = old->conditions.len < MAX_CONDITIONS ? old->conditions.len : MAX_CONDITIONS;
    if (keep)
        memcpy(conditions, old->conditions.items, keep * sizeof(*conditions));
    s->conditions = (struct json_array){conditions, keep};
    struct target_status *targets = arena_array(g->arena, 1, sizeof(*targets));
    if (old->targets.len)
        targets[0] = ((const struct target_status *)old->targets.items)[0];
    s->targets = (struct json_array){targets, old->targets.len ? 1 : 0};
}

/* The status of the one target, filled with what is known of it. */
struct target_status *plan_status_target(struct planning *g, struct profile_status *s)
{
    struct target_status *t = s->targets.items;
    s->targets.len = 1;
    if (!t->pod_name.len)
        t->pod_name = g->p->spec.target.pod_name;
    if (g->in->target && !t->pod_uid.len)
        t->pod_uid = g->in->target->meta.uid;
    if (g->in->job) {
        t->job_name = g->in->job->meta.name;
        t->node_name = g->in->job->node_name;
        struct str uid =
            json_str_map_get(&g->in->job->meta.annotations, STR(ANNOTATION_TARGET_UID));
        if (uid.len)
            t->pod_uid = uid;
    }
    t->reason = STR_NULL;
    t->message = STR_NULL;
    return t;
}

void plan_status_condition(struct planning *g, struct profile_status *s, const char *type,
                           bool is_true, const char *reason, struct str message)
{
    struct condition *items = s->conditions.items;
    size_t i = 0;
    while (i < s->conditions.len && !str_is(items[i].type, type))
        i++;
    if (i == MAX_CONDITIONS)
        return;
    struct str status = is_true ? STR("True") : STR("False");
    bool changed = i == s->conditions.len || !str_eq(items[i].status, status);
    items[i] = (struct condition){
        .type = str_of(type),
        .status = status,
        .reason = str_of(reason),
        .message = message,
        .last_transition_ms = changed ? g->in->now_ms : items[i].last_transition_ms,
        .observed_generation = s->observed_generation,
    };
    if (i == s->conditions.len)
        s->conditions.len++;
}

static bool conditions_equal(const struct json_array *a, const struct json_array *b)
{
    const struct condition *x = a->items, *y = b->items;
    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++)
        if (!str_eq(x[i].type, y[i].type) || !str_eq(x[i].status, y[i].status) ||
            !str_eq(x[i].reason, y[i].reason) || !str_eq(x[i].message, y[i].message) ||
            x[i].observed_generation != y[i].observed_generation)
            return false;
    return true;
}

void plan_status_commit(struct planning *g, const struct profile_status *s)
{
    const struct profile_status *old = &g->p->status;
    if (old->phase == s->phase && str_eq(old->reason, s->reason) &&
        str_eq(old->message, s->message) && old->observed_generation == s->observed_generation &&
        conditions_equal(&old->conditions, &s->conditions))
        return;
    g->plan->write_status = true;
    g->plan->status = *s;
}

bool plan_summary(struct planning *g, struct summary *ret)
{
    if (!g->in->runner)
        return false;
    const struct container_status *c = pod_container(g->in->runner, STR("runner"));
    if (!c || c->state != CONTAINER_TERMINATED || !c->message.len)
        return false;
    return summary_decode(g->arena, c->message, ret, NULL) == 0;
}

void plan_status_summary(struct planning *g, struct profile_status *s, const struct summary *sum)
{
    (void)g;
    struct target_status *t = s->targets.items;
    s->samples = sum->samples;
    if (sum->start_ms)
        s->start_ms = sum->start_ms;
    t->container = sum->container;
    t->engine = sum->engine;
    t->accuracy = sum->accuracy;
    t->processes = sum->processes;
    t->cost_cpu_seconds = sum->cpu_seconds;
    t->cost_max_memory_bytes = sum->max_memory_bytes;
}
