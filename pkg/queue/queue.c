#include "queue/queue.h"

#include "base/alloc.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"

/* client-go's dirty and processing sets as states of one item. */
enum item_state {
    ITEM_IDLE,             /* in neither: delayed, or only its failures are remembered */
    ITEM_READY,            /* dirty */
    ITEM_PROCESSING,       /* processing */
    ITEM_PROCESSING_DIRTY, /* both: ready again when done */
};

struct item {
    enum item_state state;
    enum queue_priority priority;         /* when dirty */
    enum queue_priority delayed_priority; /* when in the heap */
    uint32_t failures;
    int64_t since_ms;       /* ITEM_READY: ready since; processing: worked on since */
    struct list link;       /* in ready[] or processing, by state */
    struct heap_node delay; /* key: the time to add it */
    struct str key;
    char key_bytes[];
};

struct queue {
    const struct clock *clock;
    struct map *items; /* by key */
    struct list ready[QUEUE_PRIORITIES];
    struct list processing;
    struct heap delayed;
    size_t n_ready[QUEUE_PRIORITIES], n_processing;
    uint64_t adds, retries;
};

struct queue *queue_create(const struct clock *clock)
{
    struct queue *q = xcalloc(1, sizeof(*q));
    q->clock = clock;
    q->items = map_create();
    for (size_t i = 0; i < QUEUE_PRIORITIES; i++)
        list_init(&q->ready[i]);
    list_init(&q->processing);
    return q;
}

void queue_destroy(struct queue *q)
{
    if (!q)
        return;
    heap_finish(&q->delayed);
    struct map_iter it = {0};
    while (map_next(q->items, &it))
        free(it.value);
    map_destroy(q->items);
    free(q);
}

static struct item *get_item(struct queue *q, struct str key)
{
    struct item *item = map_get(q->items, key);
    if (item)
        return item;
    item = xcalloc(1, sizeof(*item) + key.len + 1);
    if (key.len)
        memcpy(item->key_bytes, key.ptr, key.len);
    item->key = (struct str){item->key_bytes, key.len};
    list_init(&item->link);
    map_set(q->items, key, item);
    return item;
}

/* An item about which there is nothing to remember goes. */
static void release(struct queue *q, struct item *item)
{
    if (item->state != ITEM_IDLE || item->delay.index || item->failures)
        return;
    map_remove(q->items, item->key);
    free(item);
}

static void make_ready(struct queue *q, struct item *item)
{
    item->state = ITEM_READY;
    item->since_ms = clock_monotonic_ms(q->clock);
    list_append(&q->ready[item->priority], &item->link);
    q->n_ready[item->priority]++;
}

static void move_up(struct queue *q, struct item *item, enum queue_priority priority)
{
    list_remove(&item->link);
    q->n_ready[item->priority]--;
    item->priority = priority;
    list_append(&q->ready[priority], &item->link);
    q->n_ready[priority]++;
}

static void add(struct queue *q, struct item *item, enum queue_priority priority)
{
    switch (item->state) {
    case ITEM_IDLE:
        q->adds++;
        item->priority = priority;
        make_ready(q, item);
        break;
    case ITEM_READY:
        if (priority > item->priority)
            move_up(q, item, priority);
        break;
    case ITEM_PROCESSING:
        q->adds++;
        item->priority = priority;
        item->state = ITEM_PROCESSING_DIRTY;
        break;
    case ITEM_PROCESSING_DIRTY:
        if (priority > item->priority)
            item->priority = priority;
        break;
    }
}

void queue_add(struct queue *q, struct str key, enum queue_priority priority)
{
    add(q, get_item(q, key), priority);
}

void queue_add_after(struct queue *q, struct str key, enum queue_priority priority,
                     int64_t delay_ms)
{
    if (delay_ms <= 0) {
        queue_add(q, key, priority);
        return;
    }
    int64_t at_ms;
    if (__builtin_add_overflow(clock_monotonic_ms(q->clock), delay_ms, &at_ms))
        at_ms = INT64_MAX;
    struct item *item = get_item(q, key);
    bool waiting = item->delay.index != 0;
    if (!waiting || priority > item->delayed_priority)
        item->delayed_priority = priority;
    if (!waiting || at_ms < item->delay.key)
        heap_insert(&q->delayed, &item->delay, at_ms);
}

int64_t queue_add_rate_limited(struct queue *q, struct str key, enum queue_priority priority)
{
    struct item *item = get_item(q, key);
    int64_t delay_ms = QUEUE_BACKOFF_FIRST_MS;
    for (uint32_t i = 0; i < item->failures && delay_ms < QUEUE_BACKOFF_MAX_MS; i++)
        delay_ms *= 2;
    if (delay_ms > QUEUE_BACKOFF_MAX_MS)
        delay_ms = QUEUE_BACKOFF_MAX_MS;
    if (item->failures < UINT32_MAX)
        item->failures++;
    q->retries++;
    queue_add_after(q, key, priority, delay_ms);
    return delay_ms;
}

void queue_forget(struct queue *q, struct str key)
{
    struct item *item = map_get(q->items, key);
    if (!item)
        return;
    item->failures = 0;
    release(q, item);
}

uint32_t queue_failures(const struct queue *q, struct str key)
{
    const struct item *item = map_get(q->items, key);
    return item ? item->failures : 0;
}

/* Adds the delayed keys whose time has come, earliest first. */
static void add_due(struct queue *q)
{
    int64_t now_ms = clock_monotonic_ms(q->clock);
    for (struct heap_node *node; (node = heap_first(&q->delayed)) && node->key <= now_ms;) {
        struct item *item = CONTAINER_OF(node, struct item, delay);
        heap_remove(&q->delayed, node);
        add(q, item, item->delayed_priority);
    }
}

bool queue_get(struct queue *q, struct str *ret_key, int64_t *ret_waited_ms)
{
    add_due(q);
    for (size_t p = QUEUE_PRIORITIES; p-- > 0;) {
        struct list *link = list_pop(&q->ready[p]);
        if (!link)
            continue;
        struct item *item = CONTAINER_OF(link, struct item, link);
        q->n_ready[p]--;
        int64_t now_ms = clock_monotonic_ms(q->clock);
        if (ret_waited_ms)
            *ret_waited_ms = now_ms - item->since_ms;
        item->state = ITEM_PROCESSING;
        item->since_ms = now_ms;
        list_append(&q->processing, &item->link);
        q->n_processing++;
        *ret_key = item->key;
        return true;
    }
    return false;
}

int64_t queue_done(struct queue *q, struct str key)
{
    struct item *item = map_get(q->items, key);
    if (!item || (item->state != ITEM_PROCESSING && item->state != ITEM_PROCESSING_DIRTY))
        return 0;
    int64_t worked_ms = clock_monotonic_ms(q->clock) - item->since_ms;
    list_remove(&item->link);
    q->n_processing--;
    if (item->state == ITEM_PROCESSING_DIRTY) {
        make_ready(q, item);
    } else {
        item->state = ITEM_IDLE;
        release(q, item);
    }
    return worked_ms;
}

size_t queue_len(struct queue *q)
{
    add_due(q);
    size_t len = 0;
    for (size_t p = 0; p < QUEUE_PRIORITIES; p++)
        len += q->n_ready[p];
    return len;
}

int64_t queue_next_ms(const struct queue *q)
{
    const struct heap_node *first = heap_first(&q->delayed);
    if (!first)
        return -1;
    int64_t now_ms = clock_monotonic_ms(q->clock);
    return first->key > now_ms ? first->key - now_ms : 0;
}

void queue_stats(struct queue *q, struct queue_stats *ret)
{
    add_due(q);
    *ret = (struct queue_stats){
        .delayed = q->delayed.len,
        .processing = q->n_processing,
        .keys = map_size(q->items),
        .adds = q->adds,
        .retries = q->retries,
    };
    memcpy(ret->depth, q->n_ready, sizeof(ret->depth));
    int64_t now_ms = clock_monotonic_ms(q->clock);
    LIST_FOREACH(&q->processing, link)
    {
        int64_t running_ms = now_ms - CONTAINER_OF(link, struct item, link)->since_ms;
        ret->unfinished_work_ms += running_ms;
        if (running_ms > ret->longest_running_ms)
            ret->longest_running_ms = running_ms;
    }
}
