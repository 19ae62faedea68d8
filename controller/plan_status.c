/* Building a profile's status. */
#include "controller/plan_internal.h"

#include "base/clock.h"

#define MAX_CONDITIONS 16 /* as the CRD's maxItems */

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

static const char *const engines[] = {"PySpy", "Native", NULL};

/* The runner lives beside the target and reports what it read there: what the CRD would refuse must
 * not make the status unwritable. Its lengths are in characters; bytes are never fewer. */
static int64_t count(int64_t n)
{
    return n > 0 ? n : 0;
}

static int64_t pid(int64_t n)
{
    return n > 0 && n <= INT32_MAX ? n : 0;
}

static struct str one_of(struct str s, const char *const *names)
{
    return api_enum_find(names, s) >= 0 ? s : STR_NULL;
}

static struct str decimal(struct str s)
{
    ssize_t point = str_find_char(s, '.');
    struct str whole = point < 0 ? s : str_sub(s, 0, (size_t)point);
    struct str fraction = point < 0 ? STR("0") : str_sub(s, (size_t)point + 1, s.len);
    uint64_t n;
    bool good = s.len <= 32 && str_to_u64(whole, UINT64_MAX, &n) == 0 &&
                str_to_u64(fraction, UINT64_MAX, &n) == 0;
    return good ? s : STR_NULL;
}

static struct json_array process_list(struct planning *g, const struct json_array *from)
{
    struct process_status *list = arena_array(g->arena, from->len, sizeof(*list));
    if (from->len)
        memcpy(list, from->items, from->len * sizeof(*list));
    for (size_t i = 0; i < from->len; i++) {
        struct process_status *p = &list[i];
        p->host_pid = pid(p->host_pid);
        p->pid = pid(p->pid);
        p->command = str_sub(p->command, 0, 1024);
        p->python_version = str_sub(p->python_version, 0, 64);
        p->engine = one_of(p->engine, engines);
        p->samples = count(p->samples);
        p->errors = count(p->errors);
        p->late = count(p->late);
        p->held = count(p->held);
    }
    return (struct json_array){list, from->len};
}

void plan_status_summary(struct planning *g, struct profile_status *s, const struct summary *sum)
{
    static const char *const accuracies[] = {"Full", "GILOnly", "IdleCounted", NULL};
    struct target_status *t = s->targets.items;
    s->samples = count(sum->samples);
    if (sum->start_ms)
        s->start_ms = sum->start_ms;
    t->container = str_sub(sum->container, 0, 63);
    t->engine = one_of(sum->engine, engines);
    t->engine_reason = one_of(sum->engine_reason, engine_reason_names);
    t->engine_message = str_sub(sum->engine_message, 0, 1024);
    t->accuracy = one_of(sum->accuracy, accuracies);
    t->processes = process_list(g, &sum->processes);
    t->cost_cpu_seconds = decimal(sum->cpu_seconds);
    t->cost_max_memory_bytes = count(sum->max_memory_bytes);
}

struct str plan_receipt_place(struct planning *g, const struct receipt *receipt)
{
    return plan_printf(g, "%zu result%s in %.*s %.*s", receipt->files.len,
                       receipt->files.len == 1 ? "" : "s", STR_ARG(receipt->kind),
                       STR_ARG(receipt->name));
}

void plan_status_results(struct planning *g, struct profile_status *s,
                         const struct receipt *receipt)
{
    const struct upload_file *files = receipt->files.items;
    struct result_status *results =
        arena_array(g->arena, receipt->files.len, sizeof(struct result_status));
    bool secret = str_is(receipt->kind, "Secret");
    const struct target_status *targets = s->targets.items;
    for (size_t i = 0; i < receipt->files.len; i++)
        results[i] = (struct result_status){
            .target = targets[0].pod_name,
            .format = files[i].format,
            .media_type = files[i].media_type,
            .encoding = files[i].encoding,
            .size_bytes = files[i].size_bytes,
            .sha256 = files[i].sha256,
            .config_map_name = secret ? STR_NULL : receipt->name,
            .config_map_key = secret ? STR_NULL : files[i].key,
            .secret_name = secret ? receipt->name : STR_NULL,
            .secret_key = secret ? files[i].key : STR_NULL,
        };
    s->results = (struct json_array){results, receipt->files.len};
}
