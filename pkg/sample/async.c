/* Which asyncio task a thread runs. A task counts as running where the frame of its coroutine is in
 * the thread's stack: that holds with any loop, and shows at once that the offsets fit. What is
 * read of a task before the stack is read again after it, because a task that ends may leave its
 * place to the next one. So a task that began while this went on has no frame; if it was begun
 * eagerly, its time is that of the task that began it, in whose stack it runs. */
#include <errno.h>

#include "base/alloc.h"
#include "sample/objects.h"

#define CANDIDATES_MAX 64
#define KNOWN          16
#define ENTRIES_MAX    1024 /* of the dictionary of running tasks */
#define NAME_BYTES     400  /* longer ones are cut */
#define NAME_RAW_MAX   512
#define BASES_MAX      8

struct candidate {
    uint64_t address;
    uint64_t type, coro, name, name_type;
    uint64_t code; /* of the coroutine's frame */
    bool number;   /* the name is one */
    size_t raw_len;
    uint8_t raw[NAME_RAW_MAX]; /* the name's object */
};

enum type { TYPE_TASK, TYPE_STR, TYPE_INT, TYPES };

struct async {
    struct objects *objects;
    struct memory_reader *reader; /* the objects', as are the next two */
    struct memory_batch *batch;
    const struct python_offsets *offsets;
    struct async_offsets at;
    uint64_t types[TYPES]; /* seen last; 0: none */
    struct dict_places places;
    struct candidate candidates[CANDIDATES_MAX], again;
    struct candidate known[KNOWN]; /* of earlier looks, by address */
    size_t n;
    struct buf name;
};

static const char *const type_names[TYPES] = {"_asyncio.Task", "str", "int"};

struct async *async_create(struct objects *objects)
{
    const struct async_offsets *o = NULL;
    for (size_t i = 0; i < async_table_len; i++)
        if (async_table[i].minor == objects->offsets->minor)
            o = &async_table[i];
    if (!o)
        return NULL;
    struct async *a = xcalloc(1, sizeof(*a));
    a->objects = objects;
    a->reader = objects->reader;
    a->batch = objects->batch;
    a->offsets = objects->offsets;
    a->at = *o;
    a->name = BUF_INIT(NAME_BYTES * 4);
    return a;
}

void async_destroy(struct async *a)
{
    if (!a)
        return;
    buf_finish(&a->name);
    free(a);
}

static int read64(struct async *a, uint64_t address, uint64_t *ret)
{
    return object_read64(a->objects, address, ret);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Tasks may be of a derived class. */
static bool type_is(struct async *a, uint64_t type, enum type wanted)
{
    if (type && type == a->types[wanted])
        return true;
    int bases = wanted == TYPE_TASK ? BASES_MAX : 1;
    for (uint64_t t = type; t && bases-- > 0;) {
        if (type_is_named(a->objects, t, type_names[wanted])) {
            a->types[wanted] = t;
            return true;
        }
        if (read64(a, t + a->objects->at.type_base, &t) < 0)
            return false;
    }
    return false;
}

/* The dictionary of running tasks; 0: not imported. */
static uint64_t find_tasks(void *context, uint64_t interpreter)
{
    struct async *a = context;
    const struct async_offsets *at = &a->at;
    uint64_t module = module_find(a->objects, interpreter, "_asyncio"), state, task_type, tasks;
    return module && read64(a, module + a->objects->at.module_state, &state) == 0 && state &&
                   read64(a, state + at->state_task_type, &task_type) == 0 &&
                   type_is_named(a->objects, task_type, type_names[TYPE_TASK]) &&
                   read64(a, state + at->state_current, &tasks) == 0
               ? tasks
               : 0;
}

static void add_task(struct async *a, uint64_t address)
{
    if (address && a->n < CANDIDATES_MAX)
        a->candidates[a->n++] = (struct candidate){.address = address};
}

static void list_tasks(struct async *a, uint64_t interpreter)
{
    struct dict_entries e;
    uint64_t tasks = dict_of(a->objects, &a->places, interpreter, find_tasks, a);
    if (!tasks || dict_read(a->objects, tasks, ENTRIES_MAX, &e) < 0)
        return;
    for (size_t i = 0; i < e.n; i++)
        add_task(a, e.at[i].value);
    dict_entries_finish(&e);
}

static void add_head(struct async *a, struct candidate *c)
{
    memory_batch_add(a->batch, c->address + a->offsets->object_type, &c->type, sizeof(c->type));
    memory_batch_add(a->batch, c->address + a->at.task_coro, &c->coro, sizeof(c->coro));
    memory_batch_add(a->batch, c->address + a->at.task_name, &c->name, sizeof(c->name));
}

static uint64_t frame_of(const struct async *a, const struct candidate *c)
{
    return c->coro + a->at.coro_frame;
}

static void add_rest(struct async *a, struct candidate *c)
{
    memory_batch_add(a->batch, frame_of(a, c) + a->offsets->frame_code, &c->code, sizeof(c->code));
    memory_batch_add(a->batch, c->name + a->offsets->object_type, &c->name_type,
                     sizeof(c->name_type));
    if (c->raw_len)
        memory_batch_add(a->batch, c->name, c->raw, c->raw_len);
}

/* Whether the task is what it was. */
static bool unchanged(struct async *a, const struct candidate *c)
{
    struct candidate *now = &a->again;
    *now = *c;
    add_head(a, now);
    add_rest(a, now);
    /* Behind the type: counts of references come before it. */
    size_t from = a->offsets->object_type + 8;
    return memory_batch_read(a->reader, a->batch) == 0 && now->type == c->type &&
           now->coro == c->coro && now->name == c->name && now->name_type == c->name_type &&
           now->code == c->code && memcmp(now->raw + from, c->raw + from, c->raw_len - from) == 0;
}

/* All that there is to know of a task. */
static bool read_new_task(struct async *a, struct candidate *c)
{
    const struct python_offsets *o = a->offsets;
    struct text_shape shape;
    add_head(a, c);
    if (memory_batch_read(a->reader, a->batch) < 0 || !c->coro || !c->name ||
        !type_is(a, c->type, TYPE_TASK))
        return false;
    c->raw_len = 0;
    add_rest(a, c);
    if (memory_batch_read(a->reader, a->batch) < 0)
        return false;
    c->number = type_is(a, c->name_type, TYPE_INT);
    if (c->number) {
        /* What asyncio counts stays within two digits of 30 bits. */
        size_t digits;
        if (memory_read(a->reader, c->name, c->raw, a->objects->at.int_digits) < 0)
            return false;
        digits = get64(c->raw + a->objects->at.int_count) >> a->objects->at.int_shift;
        c->raw_len = a->objects->at.int_digits + digits * 4;
        return digits <= 2 && memory_read(a->reader, c->name, c->raw, c->raw_len) == 0;
    }
    if (!type_is(a, c->name_type, TYPE_STR) ||
        memory_read(a->reader, c->name, c->raw, o->text_ascii) < 0 ||
        text_shape(o, c->raw, NAME_BYTES, &shape) < 0 || shape.apart ||
        shape.at + shape.bytes > sizeof(c->raw))
        return false;
    c->raw_len = shape.at + shape.bytes;
    return memory_read(a->reader, c->name, c->raw, c->raw_len) == 0;
}

/* Mostly it is as it was at an earlier look, which one call tells. */
static bool read_task(struct async *a, struct candidate *c)
{
    struct candidate *known = &a->known[(c->address >> 6) % KNOWN];
    if (known->address == c->address && unchanged(a, known)) {
        *c = *known;
        return true;
    }
    if (!read_new_task(a, c))
        return false;
    *known = *c;
    return true;
}

void async_begin(struct async *a, uint64_t interpreter, uint64_t thread)
{
    uint64_t task;
    size_t left = 0;
    a->n = 0;
    if (!a->at.thread_task)
        list_tasks(a, interpreter);
    else if (read64(a, thread + a->at.thread_task, &task) == 0)
        add_task(a, task);
    for (size_t i = 0; i < a->n; i++)
        if (read_task(a, &a->candidates[i])) {
            if (i != left)
                a->candidates[left] = a->candidates[i];
            left++;
        }
    a->n = left;
}

static bool decode(struct async *a, const struct candidate *c)
{
    struct text_shape shape;
    buf_clear(&a->name);
    if (c->number) {
        uint64_t number = 0;
        for (size_t at = c->raw_len; at > a->objects->at.int_digits;) {
            uint32_t digit;
            at -= sizeof(digit);
            memcpy(&digit, c->raw + at, sizeof(digit));
            number = number << 30 | (digit & ((1u << 30) - 1));
        }
        buf_appendf(&a->name, "Task-%llu", (unsigned long long)number);
    } else if (text_shape(a->offsets, c->raw, NAME_BYTES, &shape) == 0 &&
               shape.at + shape.bytes == c->raw_len) {
        text_decode(&shape, c->raw + shape.at, &a->name);
    } else {
        return false;
    }
    return !a->name.failed;
}

/* The candidate that the frame belongs to; NULL: none. */
static const struct candidate *owner(const struct async *a, const struct raw_frame *frame)
{
    for (size_t i = 0; i < a->n; i++)
        if (frame->address == frame_of(a, &a->candidates[i]))
            return &a->candidates[i];
    return NULL;
}

bool async_end(struct async *a, const struct raw_frame *frames, size_t n, struct str *ret_name,
               size_t *ret_at)
{
    for (size_t i = 0; a->n && i < n; i++) {
        const struct candidate *c = owner(a, &frames[i]);
        if (!c)
            continue;
        if (frames[i].code != stack_reference(a->offsets, c->code) || !unchanged(a, c) ||
            !decode(a, c))
            return false;
        *ret_name = buf_str(&a->name);
        *ret_at = i;
        return true;
    }
    return false;
}

bool async_missed(struct async *a, uint64_t interpreter, uint64_t thread,
                  const struct raw_frame *frames, size_t n)
{
    bool found = false;
    async_begin(a, interpreter, thread);
    for (size_t i = 0; a->n && i < n && !found; i++)
        found = owner(a, &frames[i]) != NULL;
    return found;
}
