#include "profile/profile_internal.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/random.h"

#define MAX_THREADS 100000

void *grow(void *array, size_t *cap, size_t need, size_t size)
{
    if (array && need <= *cap)
        return array;
    size_t n = *cap ? *cap * 2 : 8;
    if (n < need)
        n = need;
    *cap = n;
    return xrealloc(array, n, size);
}

void pairs_init(struct pairs *t)
{
    *t = (struct pairs){.seed = random_u64(&random_system)};
}

void pairs_finish(struct pairs *t)
{
    free(t->slots);
    *t = (struct pairs){0};
}

/* splitmix64's finaliser; seeded, because the pairs follow from what a stranger's program does. */
static size_t pair_slot(const struct pairs *t, uint32_t a, uint32_t b)
{
    uint64_t x = (((uint64_t)a << 32) | b) ^ t->seed;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (size_t)(x ^ (x >> 31)) & (t->cap - 1);
}

static const struct pair_key *pair_at(const void *base, size_t stride, uint32_t index)
{
    return (const struct pair_key *)(const void *)((const char *)base + stride * index);
}

uint32_t pairs_find(const struct pairs *t, const void *base, size_t stride, uint32_t a, uint32_t b)
{
    if (!t->cap)
        return NODE_NONE;
    for (size_t i = pair_slot(t, a, b); t->slots[i]; i = (i + 1) & (t->cap - 1)) {
        const struct pair_key *k = pair_at(base, stride, t->slots[i] - 1);
        if (k->a == a && k->b == b)
            return t->slots[i] - 1;
    }
    return NODE_NONE;
}

static void pairs_put(struct pairs *t, const void *base, size_t stride, uint32_t index)
{
    const struct pair_key *k = pair_at(base, stride, index);
    size_t i = pair_slot(t, k->a, k->b);

    while (t->slots[i])
        i = (i + 1) & (t->cap - 1);
    t->slots[i] = index + 1;
}

void pairs_add(struct pairs *t, const void *base, size_t stride, uint32_t index)
{
    if ((t->len + 1) * 2 > t->cap) {
        uint32_t *old = t->slots;
        size_t old_cap = t->cap;

        t->cap = old_cap ? old_cap * 2 : 256;
        t->slots = xcalloc(t->cap, sizeof(*t->slots));
        for (size_t i = 0; i < old_cap; i++)
            if (old[i])
                pairs_put(t, base, stride, old[i] - 1);
        free(old);
    }
    pairs_put(t, base, stride, index);
    t->len++;
}

static size_t or_default(size_t value, size_t fallback)
{
    return value ? value : fallback;
}

struct profile *profile_create(const struct profile_limits *limits)
{
    static const struct profile_limits none;
    const struct profile_limits *l = limits ? limits : &none;
    struct profile *p = xcalloc(1, sizeof(*p));

    p->limits = (struct profile_limits){
        .max_frames = or_default(l->max_frames, 1000000),
        .max_text = or_default(l->max_text, (size_t)64 << 20),
        .max_stacks = or_default(l->max_stacks, 1000000),
        .max_depth = or_default(l->max_depth, 4096),
        .max_samples = or_default(l->max_samples, 4000000),
        .max_nodes = or_default(l->max_nodes, 2000000),
        .max_input = or_default(l->max_input, (size_t)64 << 20),
        .room = l->room,
    };
    texts_init(&p->texts);
    pairs_init(&p->place_index);
    pairs_init(&p->frame_index);
    p->thread_index = map_create();
    pairs_init(&p->node_index);
    pairs_init(&p->tally_index);
    p->nodes = grow(p->nodes, &p->nodes_cap, 1, sizeof(*p->nodes));
    p->nodes[0] = (struct node){.key = {NODE_NONE, NODE_NONE}};
    p->n_nodes = 1;
    p->title = xstrdup("");
    p->note = xstrdup("");
    return p;
}

static void give_back(const struct profile *p)
{
    struct profile_room *room = p->limits.room;

    if (!room)
        return;
    atomic_fetch_add(&room->frames, p->n_frames);
    atomic_fetch_add(&room->text, p->texts.bytes);
    atomic_fetch_add(&room->samples, p->n_runs);
    atomic_fetch_add(&room->nodes, p->n_nodes - 1);
}

void profile_destroy(struct profile *p)
{
    if (!p)
        return;
    give_back(p);
    for (size_t i = 0; i < p->n_threads; i++)
        free(p->threads[i].runs);
    free(p->threads);
    texts_finish(&p->texts);
    pairs_finish(&p->place_index);
    pairs_finish(&p->frame_index);
    free(p->places);
    free(p->frames);
    free(p->nodes);
    free(p->recent);
    pairs_finish(&p->node_index);
    pairs_finish(&p->tally_index);
    free(p->tallies);
    map_destroy(p->thread_index);
    free(p->title);
    free(p->note);
    free(p);
}

void profile_scrub_process_frames(struct profile *p)
{
    p->scrub = true;
}

/* `process 12:"command line"` without what is behind the PID; other names as they are. */
static struct str scrubbed(struct str function)
{
    static const struct str prefix = {"process ", 8};
    size_t i = prefix.len;

    if (!str_starts_with(function, prefix))
        return function;
    while (i < function.len && function.ptr[i] >= '0' && function.ptr[i] <= '9')
        i++;
    if (i == prefix.len || i == function.len || function.ptr[i] != ':')
        return function;
    return str_sub(function, 0, i);
}

#define ROOM(p, what) ((p)->limits.room ? &(p)->limits.room->what : NULL)

static bool take(atomic_size_t *room, size_t n)
{
    size_t left = room ? atomic_load(room) : 0;

    while (room && left >= n)
        if (atomic_compare_exchange_weak(room, &left, left - n))
            return true;
    return !room;
}

static int add_text(struct profile *p, struct str text, uint32_t *ret, struct err *err)
{
    *ret = texts_find(&p->texts, text);
    if (*ret != TEXT_NONE)
        return 0;
    if (text.len > p->limits.max_text - p->texts.bytes || !take(ROOM(p, text), text.len))
        return err_set(err, ERR_TOO_LARGE, "names and files of more than %zu bytes",
                       p->limits.max_text);
    *ret = texts_add(&p->texts, text);
    return 0;
}

static int add_place(struct profile *p, struct str function, struct str file, uint32_t *ret,
                     struct err *err)
{
    struct place new;
    int r = add_text(p, function, &new.key.a, err);

    if (!r)
        r = add_text(p, file, &new.key.b, err);
    if (r)
        return r;
    *ret = pairs_find(&p->place_index, p->places, sizeof(*p->places), new.key.a, new.key.b);
    if (*ret != NODE_NONE)
        return 0;
    p->places = grow(p->places, &p->places_cap, p->n_places + 1, sizeof(*p->places));
    p->places[p->n_places] = new;
    pairs_add(&p->place_index, p->places, sizeof(*p->places), (uint32_t)p->n_places);
    *ret = (uint32_t)p->n_places++;
    return 0;
}

int profile_add_frame(struct profile *p, const struct profile_frame *frame, uint32_t *ret,
                      struct err *err)
{
    struct str function = p->scrub ? scrubbed(frame->function) : frame->function;

    if (!function.len)
        return err_set(err, ERR_INVALID, "a frame without a name");
    if (frame->line < 0 || frame->line > UINT32_MAX)
        return err_set(err, ERR_INVALID, "line %" PRId64 " of a frame", frame->line);

    struct frame new = {.key.b = (uint32_t)frame->line};
    int r = add_place(p, function, frame->file, &new.key.a, err);
    if (r)
        return r;
    *ret = pairs_find(&p->frame_index, p->frames, sizeof(*p->frames), new.key.a, new.key.b);
    if (*ret != NODE_NONE)
        return 0;
    if (p->n_frames >= p->limits.max_frames || !take(ROOM(p, frames), 1))
        return err_set(err, ERR_TOO_LARGE, "more than %zu different frames", p->limits.max_frames);
    p->frames = grow(p->frames, &p->frames_cap, p->n_frames + 1, sizeof(*p->frames));
    p->frames[p->n_frames] = new;
    pairs_add(&p->frame_index, p->frames, sizeof(*p->frames), (uint32_t)p->n_frames);
    *ret = (uint32_t)p->n_frames++;
    return 0;
}

struct profile_frame profile_frame_at(const struct profile *p, size_t index)
{
    struct pair_key key = p->frames[index].key, place = p->places[key.a].key;

    return (struct profile_frame){p->texts.items[place.a], p->texts.items[place.b], key.b};
}

int profile_add_thread(struct profile *p, struct str label, uint32_t *ret, struct err *err)
{
    uintptr_t known = (uintptr_t)map_get(p->thread_index, label);

    if (known) {
        *ret = (uint32_t)(known - 1);
        return 0;
    }
    if (p->n_threads >= MAX_THREADS)
        return err_set(err, ERR_TOO_LARGE, "more than %d threads", MAX_THREADS);
    uint32_t text;
    int r = add_text(p, label, &text, err);
    if (r)
        return r;
    p->threads = grow(p->threads, &p->threads_cap, p->n_threads + 1, sizeof(*p->threads));
    p->threads[p->n_threads] = (struct thread){.label = p->texts.items[text]};
    map_set(p->thread_index, label, (void *)(uintptr_t)(p->n_threads + 1));
    *ret = (uint32_t)p->n_threads++;
    return 0;
}

int profile_child(struct profile *p, uint32_t parent, uint32_t frame, uint32_t *ret,
                  struct err *err)
{
    uint32_t found = pairs_find(&p->node_index, p->nodes, sizeof(*p->nodes), parent, frame);

    if (found != NODE_NONE) {
        *ret = found;
        return 0;
    }
    if (p->n_nodes >= p->limits.max_nodes || !take(ROOM(p, nodes), 1))
        return err_set(err, ERR_TOO_LARGE, "a call tree of more than %zu nodes",
                       p->limits.max_nodes);
    p->nodes = grow(p->nodes, &p->nodes_cap, p->n_nodes + 1, sizeof(*p->nodes));
    p->nodes[p->n_nodes] = (struct node){.key = {parent, frame}};
    pairs_add(&p->node_index, p->nodes, sizeof(*p->nodes), (uint32_t)p->n_nodes);
    *ret = (uint32_t)p->n_nodes++;
    return 0;
}

/* The run that a stack was counted in last; NULL: none yet, or order matters. */
static struct run *tally_find(const struct profile *p, uint32_t thread, uint32_t node)
{
    uint32_t i = pairs_find(&p->tally_index, p->tallies, sizeof(*p->tallies), thread, node);

    return i == NODE_NONE ? NULL : &p->threads[thread].runs[p->tallies[i].run];
}

static void tally_set(struct profile *p, uint32_t thread, uint32_t node, uint32_t run)
{
    uint32_t i = pairs_find(&p->tally_index, p->tallies, sizeof(*p->tallies), thread, node);

    if (i != NODE_NONE) {
        p->tallies[i].run = run;
        return;
    }
    p->tallies = grow(p->tallies, &p->tallies_cap, p->n_tallies + 1, sizeof(*p->tallies));
    p->tallies[p->n_tallies] = (struct tally){{thread, node}, run};
    pairs_add(&p->tally_index, p->tallies, sizeof(*p->tallies), (uint32_t)p->n_tallies++);
}

void profile_drop_order(struct profile *p)
{
    if (p->unordered)
        return;
    p->unordered = true;
    for (uint32_t k = 0; k < p->n_threads; k++) {
        struct thread *t = &p->threads[k];
        struct run *runs = t->runs;
        size_t left = 0;

        for (size_t i = 0; i < t->len; i++) {
            struct run *known = tally_find(p, k, runs[i].node);

            if (known && known->weight <= UINT32_MAX - runs[i].weight) {
                known->weight += runs[i].weight;
                continue;
            }
            runs[left] = runs[i];
            tally_set(p, k, runs[left].node, (uint32_t)left);
            left++;
        }
        p->n_runs -= t->len - left;
        if (p->limits.room)
            atomic_fetch_add(&p->limits.room->samples, t->len - left);
        t->len = left;
    }
}

/* The run that a sample is to be counted in; NULL: a new one. */
static struct run *last_run(const struct profile *p, uint32_t thread, uint32_t node, int64_t weight)
{
    const struct thread *t = &p->threads[thread];
    struct run *last = p->unordered ? tally_find(p, thread, node)
                       : t->len     ? &t->runs[t->len - 1]
                                    : NULL;

    return last && last->node == node && last->weight <= UINT32_MAX - weight ? last : NULL;
}

static bool take_run(const struct profile *p)
{
    return p->n_runs < p->limits.max_samples && take(ROOM(p, samples), 1);
}

int profile_add_run(struct profile *p, uint32_t thread, uint32_t node, int64_t weight,
                    struct err *err)
{
    if (weight <= 0)
        return err_set(err, ERR_INVALID, "a sample that counts %" PRId64, weight);
    if (weight > UINT32_MAX)
        return err_set(err, ERR_TOO_LARGE, "a sample that counts %" PRId64, weight);

    struct thread *t = &p->threads[thread];
    struct run *last = last_run(p, thread, node, weight);

    if (!p->nodes[node].self && p->n_stacks >= p->limits.max_stacks)
        return err_set(err, ERR_TOO_LARGE, "more than %zu different stacks", p->limits.max_stacks);
    bool fits = last || take_run(p);
    if (!fits && !p->unordered) {
        profile_drop_order(p);
        last = last_run(p, thread, node, weight);
        fits = last || take_run(p);
    }
    if (!fits)
        return err_set(err, ERR_TOO_LARGE, "more than %zu different stacks of threads",
                       p->limits.max_samples);
    if (last) {
        last->weight += (uint32_t)weight;
    } else {
        t->runs = grow(t->runs, &t->cap, t->len + 1, sizeof(*t->runs));
        t->runs[t->len++] = (struct run){node, (uint32_t)weight};
        p->n_runs++;
        if (p->unordered)
            tally_set(p, thread, node, (uint32_t)(t->len - 1));
    }
    p->n_stacks += p->nodes[node].self == 0;
    p->nodes[node].self += weight;
    t->samples += weight;
    p->samples += weight;
    return 0;
}

int profile_add_sample(struct profile *p, uint32_t thread, const uint32_t *frames, size_t depth,
                       int64_t weight, struct err *err)
{
    uint32_t node = 0;

    if (thread >= p->n_threads)
        return err_set(err, ERR_INVALID, "no thread %" PRIu32, thread);
    if (!depth)
        return err_set(err, ERR_INVALID, "a sample without frames");
    if (depth > p->limits.max_depth) {
        frames += depth - p->limits.max_depth;
        depth = p->limits.max_depth;
    }
    /* Stacks in a row mostly begin alike: what they share needs no look-up. */
    size_t i = 0;
    while (i < depth && i < p->n_recent && p->recent[i].frame == frames[i])
        node = p->recent[i++].node;
    p->recent = grow(p->recent, &p->recent_cap, depth, sizeof(*p->recent));
    p->n_recent = i;
    for (; i < depth; i++) {
        if (frames[i] >= p->n_frames)
            return err_set(err, ERR_INVALID, "no frame %" PRIu32, frames[i]);
        int r = profile_child(p, node, frames[i], &node, err);
        if (r)
            return r;
        p->recent[p->n_recent++] = (struct step){frames[i], node};
    }
    return profile_add_run(p, thread, node, weight, err);
}

int64_t profile_samples(const struct profile *p)
{
    return p->samples;
}

size_t profile_stacks(const struct profile *p)
{
    return p->n_stacks;
}

void profile_set_about(struct profile *p, const struct profile_about *about)
{
    free(p->title);
    free(p->note);
    p->title = str_dup(about->title);
    p->note = str_dup(about->note);
    p->start_ms = about->start_ms;
    p->duration_ms = about->duration_ms;
    p->rate = about->rate;
}

size_t profile_path(const struct profile *p, uint32_t node, uint32_t **path, size_t *cap)
{
    size_t depth = 0;

    for (uint32_t n = node; n; n = p->nodes[n].key.a)
        depth++;
    *path = grow(*path, cap, depth, sizeof(**path));
    for (size_t i = depth; i > 0; i--, node = p->nodes[node].key.a)
        (*path)[i - 1] = p->nodes[node].key.b;
    return depth;
}

static int merge_thread(struct profile *p, const struct thread *from, const uint32_t *nodes,
                        struct str prefix, struct err *err)
{
    uint32_t thread = 0;
    _cleanup_(freep) char *label =
        prefix.len && from->label.len
            ? xasprintf("%.*s: %.*s", STR_ARG(prefix), STR_ARG(from->label))
            : str_dup(from->label);
    int r = profile_add_thread(p, str_of(label), &thread, err);

    for (size_t i = 0; !r && i < from->len; i++)
        r = profile_add_run(p, thread, nodes[from->runs[i].node], from->runs[i].weight, err);
    return r;
}

int profile_merge(struct profile *p, const struct profile *other, struct str prefix,
                  struct err *err)
{
    _cleanup_(freep) uint32_t *frames = xcalloc(other->n_frames + 1, sizeof(*frames));
    _cleanup_(freep) uint32_t *nodes = xcalloc(other->n_nodes, sizeof(*nodes));
    int r = 0;

    if (prefix.len && other->samples) {
        uint32_t frame = 0;
        r = profile_add_frame(p, &(struct profile_frame){.function = prefix}, &frame, err);
        if (!r)
            r = profile_child(p, 0, frame, &nodes[0], err);
    }
    for (size_t i = 0; !r && i < other->n_frames; i++) {
        struct profile_frame frame = profile_frame_at(other, i);
        r = profile_add_frame(p, &frame, &frames[i], err);
    }
    for (size_t i = 1; !r && i < other->n_nodes; i++) {
        const struct node *n = &other->nodes[i];
        r = profile_child(p, nodes[n->key.a], frames[n->key.b], &nodes[i], err);
    }
    for (size_t i = 0; !r && i < other->n_threads; i++)
        r = merge_thread(p, &other->threads[i], nodes, prefix, err);
    return r;
}
