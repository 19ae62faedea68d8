/* Which asyncio task a thread runs. A task counts as running where the frame of its coroutine is in
 * the thread's stack: that holds with any loop, and shows at once that the offsets fit. What is
 * read of a task before the stack is read again after it, because a task that ends may leave its
 * place to the next one. So a task that began while this went on has no frame; if it was begun
 * eagerly, its time is that of the task that began it, in whose stack it runs. */
#include <errno.h>

#include "base/alloc.h"
#include "sample/sample_internal.h"

#define CANDIDATES_MAX 64
#define KNOWN          16
#define ENTRIES_MAX    1024  /* of the dictionary of running tasks */
#define MODULES_MAX    32768 /* of sys.modules */
#define NAME_BYTES     400   /* longer ones are cut */
#define NAME_RAW_MAX   512
#define BASES_MAX      8
#define TYPE_NAME_MAX  16
#define WAIT_MIN_MS    1000
#define WAIT_MAX_MS    30000

struct candidate {
    uint64_t address;
    uint64_t type, coro, name, name_type;
    uint64_t code; /* of the coroutine's frame */
    bool number;   /* the name is one */
    size_t raw_len;
    uint8_t raw[NAME_RAW_MAX]; /* the name's object */
};

/* What is known of one interpreter. */
struct module {
    uint64_t interpreter, tasks; /* the dictionary; 0: not found */
    uint64_t dict_type;
    int64_t next_ms, wait_ms; /* when to search next */
};

enum type { TYPE_TASK, TYPE_STR, TYPE_INT, TYPES };

struct async {
    struct memory_reader *reader;
    const struct python_offsets *offsets;
    struct async_offsets at;
    uint64_t types[TYPES]; /* seen last; 0: none */
    struct module modules[SAMPLE_INTERPRETERS_MAX];
    size_t n_modules;
    struct memory_batch batch;
    struct candidate candidates[CANDIDATES_MAX], again;
    struct candidate known[KNOWN]; /* of earlier looks, by address */
    size_t n;
    struct buf name;
};

static const char *const type_names[TYPES] = {"_asyncio.Task", "str", "int"};

struct async *async_create(struct memory_reader *reader, const struct python_offsets *offsets)
{
    const struct async_offsets *o = NULL;
    for (size_t i = 0; i < async_table_len; i++)
        if (async_table[i].minor == offsets->minor)
            o = &async_table[i];
    /* Objects of free-threaded builds have another head. */
    if (!o || offsets->object_type != 8)
        return NULL;
    struct async *a = xcalloc(1, sizeof(*a));
    a->reader = reader;
    a->offsets = offsets;
    a->at = *o;
    if (offsets->interpreter_modules)
        a->at.interpreter_modules = offsets->interpreter_modules;
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
    return memory_read(a->reader, address, ret, sizeof(*ret));
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static bool type_is_named(struct async *a, uint64_t type, const char *name)
{
    uint64_t at;
    char text[TYPE_NAME_MAX] = "";
    size_t len = strlen(name) + 1;
    return read64(a, type + a->at.type_name, &at) == 0 &&
           memory_read(a->reader, at, text, len) == 0 && memcmp(text, name, len) == 0;
}

/* Tasks may be of a derived class. */
static bool type_is(struct async *a, uint64_t type, enum type wanted)
{
    if (type && type == a->types[wanted])
        return true;
    int bases = wanted == TYPE_TASK ? BASES_MAX : 1;
    for (uint64_t t = type; t && bases-- > 0;) {
        if (type_is_named(a, t, type_names[wanted])) {
            a->types[wanted] = t;
            return true;
        }
        if (read64(a, t + a->at.type_base, &t) < 0)
            return false;
    }
    return false;
}

/* Keys and values of a dictionary, which may change meanwhile. */
struct entries {
    uint8_t *bytes;
    size_t n, size; /* of one */
    size_t key;     /* where the key is in it; the value follows */
};

static int read_entries(struct async *a, uint64_t dict, size_t max, struct entries *ret)
{
    const struct async_offsets *o = &a->at;
    uint64_t keys;
    uint8_t head[64];
    if (o->keys_head > sizeof(head) || read64(a, dict + o->dict_keys, &keys) < 0 ||
        memory_read(a->reader, keys, head, o->keys_head) < 0)
        return -EFAULT;
    uint64_t n = get64(head + o->keys_entries);
    unsigned index = head[o->keys_index_bytes], kind = head[o->keys_kind];
    if (n > max || index > 30 || kind > 1)
        return -EFAULT;
    /* With text as keys only their hashes are left out. */
    struct entries e = {.n = n, .size = kind ? 16 : 24, .key = kind ? 0 : 8};
    e.bytes = xcalloc(n + 1, e.size);
    if (n && memory_read(a->reader, keys + o->keys_head + (UINT64_C(1) << index), e.bytes,
                         n * e.size) < 0) {
        free(e.bytes);
        return -EFAULT;
    }
    *ret = e;
    return 0;
}

/* Whether the objects at `keys` are the text "_asyncio"; the first that is, or -1. */
static ssize_t find_key(struct async *a, const uint64_t *keys, size_t n)
{
    static const char wanted[] = "_asyncio";
    const struct python_offsets *o = a->offsets;
    size_t len = o->text_ascii + sizeof(wanted);
    struct text_shape shape;
    _cleanup_(freep) uint8_t *heads = xcalloc(n, len);
    for (size_t i = 0; i < n; i++)
        memory_batch_add(&a->batch, keys[i], heads + i * len, len);
    bool all = memory_batch_read(a->reader, &a->batch) == 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *head = heads + i * len;
        if (!all && memory_read(a->reader, keys[i], heads + i * len, len) < 0)
            continue;
        if (text_shape(o, head, sizeof(wanted), &shape) == 0 && shape.kind == 1 &&
            shape.at == o->text_ascii && shape.bytes == sizeof(wanted) - 1 &&
            memcmp(head + shape.at, wanted, sizeof(wanted)) == 0)
            return (ssize_t)i;
    }
    return -1;
}

/* sys.modules["_asyncio"]; 0: not imported. */
static uint64_t find_module(struct async *a, uint64_t interpreter)
{
    uint64_t modules, keys[512] = {0}, values[512] = {0}, found = 0;
    struct entries e;
    if (read64(a, interpreter + a->at.interpreter_modules, &modules) < 0 ||
        read_entries(a, modules, MODULES_MAX, &e) < 0)
        return 0;
    for (size_t i = 0; i < e.n && !found;) {
        size_t n = 0;
        for (; i < e.n && n < ARRAY_SIZE(keys); i++) {
            keys[n] = get64(e.bytes + i * e.size + e.key);
            values[n] = get64(e.bytes + i * e.size + e.key + 8);
            n += keys[n] && values[n];
        }
        ssize_t at = n ? find_key(a, keys, n) : -1;
        if (at >= 0)
            found = values[at];
    }
    free(e.bytes);
    return found;
}

static void find_tasks(struct async *a, struct module *m)
{
    const struct async_offsets *o = &a->at;
    uint64_t module = find_module(a, m->interpreter), state, task_type, tasks, type;
    if (!module || read64(a, module + o->module_state, &state) < 0 || !state ||
        read64(a, state + o->state_task_type, &task_type) < 0 ||
        !type_is_named(a, task_type, type_names[TYPE_TASK]) ||
        read64(a, state + o->state_current, &tasks) < 0 || !tasks ||
        read64(a, tasks + a->offsets->object_type, &type) < 0 || !type_is_named(a, type, "dict"))
        return;
    m->tasks = tasks;
    m->dict_type = type;
}

static struct module *module_of(struct async *a, uint64_t interpreter)
{
    struct module *m = a->modules;
    while (m < a->modules + a->n_modules && m->interpreter != interpreter)
        m++;
    if (m == a->modules + SAMPLE_INTERPRETERS_MAX) {
        a->n_modules = 0; /* they came and went */
        m = a->modules;
    }
    if (m == a->modules + a->n_modules) {
        a->n_modules++;
        *m = (struct module){.interpreter = interpreter};
    }
    if (m->tasks)
        return m;
    /* It may be imported at any time; searching takes a moment. */
    int64_t now = memory_now_ms();
    if (now < m->next_ms)
        return NULL;
    find_tasks(a, m);
    m->wait_ms = m->wait_ms ? m->wait_ms * 2 : WAIT_MIN_MS;
    m->wait_ms = m->wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS : m->wait_ms;
    m->next_ms = now + m->wait_ms;
    return m->tasks ? m : NULL;
}

static void add_task(struct async *a, uint64_t address)
{
    if (address && a->n < CANDIDATES_MAX)
        a->candidates[a->n++] = (struct candidate){.address = address};
}

static void list_tasks(struct async *a, uint64_t interpreter)
{
    uint64_t type;
    struct entries e;
    struct module *m = module_of(a, interpreter);
    if (!m)
        return;
    if (read64(a, m->tasks + a->offsets->object_type, &type) < 0 || type != m->dict_type) {
        m->tasks = 0;
        return;
    }
    if (read_entries(a, m->tasks, ENTRIES_MAX, &e) < 0)
        return;
    for (size_t i = 0; i < e.n; i++)
        add_task(a, get64(e.bytes + i * e.size + e.key + 8));
    free(e.bytes);
}

static void add_head(struct async *a, struct candidate *c)
{
    memory_batch_add(&a->batch, c->address + a->offsets->object_type, &c->type, sizeof(c->type));
    memory_batch_add(&a->batch, c->address + a->at.task_coro, &c->coro, sizeof(c->coro));
    memory_batch_add(&a->batch, c->address + a->at.task_name, &c->name, sizeof(c->name));
}

static uint64_t frame_of(const struct async *a, const struct candidate *c)
{
    return c->coro + a->at.coro_frame;
}

static void add_rest(struct async *a, struct candidate *c)
{
    memory_batch_add(&a->batch, frame_of(a, c) + a->offsets->frame_code, &c->code, sizeof(c->code));
    memory_batch_add(&a->batch, c->name + a->offsets->object_type, &c->name_type,
                     sizeof(c->name_type));
    if (c->raw_len)
        memory_batch_add(&a->batch, c->name, c->raw, c->raw_len);
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
    return memory_batch_read(a->reader, &a->batch) == 0 && now->type == c->type &&
           now->coro == c->coro && now->name == c->name && now->name_type == c->name_type &&
           now->code == c->code && memcmp(now->raw + from, c->raw + from, c->raw_len - from) == 0;
}

/* All that there is to know of a task. */
static bool read_new_task(struct async *a, struct candidate *c)
{
    const struct python_offsets *o = a->offsets;
    struct text_shape shape;
    add_head(a, c);
    if (memory_batch_read(a->reader, &a->batch) < 0 || !c->coro || !c->name ||
        !type_is(a, c->type, TYPE_TASK))
        return false;
    c->raw_len = 0;
    add_rest(a, c);
    if (memory_batch_read(a->reader, &a->batch) < 0)
        return false;
    c->number = type_is(a, c->name_type, TYPE_INT);
    if (c->number) {
        /* What asyncio counts stays within two digits of 30 bits. */
        size_t digits;
        if (memory_read(a->reader, c->name, c->raw, a->at.int_digits) < 0)
            return false;
        digits = get64(c->raw + a->at.int_tag) >> 3;
        c->raw_len = a->at.int_digits + digits * 4;
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
        for (size_t at = c->raw_len; at > a->at.int_digits;) {
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
