#include "sample/objects.h"

#include <errno.h>

#include "base/alloc.h"

#define MODULES_MAX     32768 /* of sys.modules */
#define ATTRIBUTES_MAX  4096  /* of a module or an instance */
#define SHARED_KEYS_MAX 64
#define KEYS_AT_ONCE    512
#define KEY_PRICE       64 /* entries that cost as much as a key that is read by itself */
#define INDEX_MAX       (UINT64_C(1) << 30) /* bytes */
#define INSTANCE_MAX    (1u << 20)          /* bytes */
#define TYPE_NAME_MAX   16
#define WAIT_MIN_MS     1000
#define WAIT_MAX_MS     30000

/* In tp_flags; hack/offsets.d/objects.c holds them against the headers. */
#define TYPE_INLINE  (1u << 2)
#define TYPE_MANAGED (1u << 4)
#define TYPE_HEAP    (1u << 9)
#define TYPE_TEXT    (1u << 28)

enum { KEYS_GENERAL, KEYS_TEXT, KEYS_SHARED };

struct objects *objects_create(struct memory_reader *reader, const struct python_offsets *offsets,
                               struct memory_batch *batch)
{
    const struct object_offsets *at = NULL;
    for (size_t i = 0; i < objects_table_len; i++)
        if (objects_table[i].minor == offsets->minor)
            at = &objects_table[i];
    if (!at || offsets->object_type != 8)
        return NULL;
    struct objects *o = xcalloc(1, sizeof(*o));
    o->reader = reader;
    o->offsets = offsets;
    o->at = *at;
    o->batch = batch;
    if (offsets->interpreter_modules)
        o->at.interpreter_modules = offsets->interpreter_modules;
    return o;
}

int object_read64(struct objects *o, uint64_t address, uint64_t *ret)
{
    return memory_read(o->reader, address, ret, sizeof(*ret));
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

bool type_is_named(struct objects *o, uint64_t type, const char *name)
{
    uint64_t at;
    char text[TYPE_NAME_MAX] = "";
    size_t len = strlen(name) + 1;
    return object_read64(o, type + o->at.type_name, &at) == 0 &&
           memory_read(o->reader, at, text, len) == 0 && memcmp(text, name, len) == 0;
}

bool object_is_text(struct objects *o, uint64_t address)
{
    uint64_t type, flags;
    return object_read64(o, address + o->offsets->object_type, &type) == 0 &&
           object_read64(o, type + o->at.type_flags, &flags) == 0 && flags & TYPE_TEXT;
}

/* Where the entries of a table of keys lie. */
struct keys {
    uint64_t first;
    size_t n, size; /* of one */
    unsigned kind;
};

static int read_keys(struct objects *o, uint64_t address, size_t max, struct keys *ret)
{
    const struct object_offsets *at = &o->at;
    uint8_t head[64];
    if (at->keys_head > sizeof(head) || memory_read(o->reader, address, head, at->keys_head) < 0)
        return -EFAULT;
    uint64_t n = get64(head + at->keys_entries), index;
    unsigned kind = KEYS_GENERAL;
    if (at->keys_size) {
        uint64_t size = get64(head + at->keys_size);
        index = size > INDEX_MAX ? size : size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : 4);
    } else {
        unsigned shift = head[at->keys_index_bytes];
        index = shift < 64 ? UINT64_C(1) << shift : UINT64_MAX;
        kind = head[at->keys_kind];
    }
    if (n > max || index > INDEX_MAX || kind > KEYS_SHARED)
        return -EFAULT;
    /* With text as keys only their hashes are left out. */
    *ret = (struct keys){.first = address + at->keys_head + index,
                         .n = n,
                         .size = kind == KEYS_GENERAL ? 24 : 16,
                         .kind = kind};
    return 0;
}

/* values: those of one instance, whose keys are shared with others; 0: they are with the keys. */
static int read_entries(struct objects *o, const struct keys *keys, uint64_t values,
                        struct dict_entries *ret)
{
    _cleanup_(freep) struct dict_entry *e = xcalloc(keys->n + 1, sizeof(*e));
    _cleanup_(freep) uint64_t *own = xcalloc(values ? keys->n + 1 : 1, sizeof(*own));
    uint8_t *from = (uint8_t *)e + keys->n * (sizeof(*e) - keys->size);
    o->entries += (int64_t)keys->n;
    if (keys->n && (memory_read(o->reader, keys->first, from, keys->n * keys->size) < 0 ||
                    (values && memory_read(o->reader, values + o->at.values_first, own,
                                           keys->n * sizeof(*own)) < 0)))
        return -EFAULT;
    /* Those without a hash become longer from the first one on. */
    for (size_t i = 0; i < keys->n; i++) {
        uint64_t words[3] = {0};
        memcpy((uint8_t *)words + sizeof(words) - keys->size, from + i * keys->size, keys->size);
        e[i] = (struct dict_entry){words[0], words[1], values ? own[i] : words[2]};
    }
    *ret = (struct dict_entries){TAKE(e), keys->n, keys->first};
    return 0;
}

int dict_read(struct objects *o, uint64_t dict, size_t max, struct dict_entries *ret)
{
    uint64_t address, values = 0;
    struct keys keys;
    if (object_read64(o, dict + o->at.dict_keys, &address) < 0 ||
        read_keys(o, address, max, &keys) < 0)
        return -EFAULT;
    /* Before 3.11 only the values tell whether the keys are shared. */
    if ((keys.kind == KEYS_SHARED || o->at.keys_size) &&
        object_read64(o, dict + o->at.dict_values, &values) < 0)
        return -EFAULT;
    if (keys.kind == KEYS_SHARED && !values)
        return -EFAULT;
    return read_entries(o, &keys, values, ret);
}

void dict_entries_finish(struct dict_entries *e)
{
    free(e->at);
    *e = (struct dict_entries){0};
}

/* Which of the objects at `keys` is the text `wanted`; -1: none. */
static ssize_t find_text(struct objects *o, const uint64_t *keys, size_t n, struct str wanted)
{
    const struct python_offsets *offsets = o->offsets;
    size_t len = offsets->text_ascii + wanted.len + 1;
    struct text_shape shape;
    _cleanup_(freep) uint8_t *heads = xcalloc(n, len);
    for (size_t i = 0; i < n; i++)
        memory_batch_add(o->batch, keys[i], heads + i * len, len);
    bool all = memory_batch_read(o->reader, o->batch) == 0;
    o->entries += all ? 0 : (int64_t)n * KEY_PRICE;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *head = heads + i * len;
        if (!all && memory_read(o->reader, keys[i], heads + i * len, len) < 0)
            continue;
        if (text_shape(offsets, head, wanted.len + 1, &shape) == 0 && shape.kind == 1 &&
            shape.at == offsets->text_ascii && shape.bytes == wanted.len &&
            memcmp(head + shape.at, wanted.ptr, wanted.len + 1) == 0)
            return (ssize_t)i;
    }
    return -1;
}

uint64_t dict_find(struct objects *o, const struct dict_entries *e, const char *key)
{
    uint64_t keys[KEYS_AT_ONCE] = {0}, values[KEYS_AT_ONCE] = {0};
    for (size_t i = 0; i < e->n;) {
        size_t n = 0;
        for (; i < e->n && n < KEYS_AT_ONCE; i++) {
            keys[n] = e->at[i].key;
            values[n] = e->at[i].value;
            n += keys[n] && values[n];
        }
        ssize_t at = n ? find_text(o, keys, n, str_of(key)) : -1;
        if (at >= 0)
            return values[at];
    }
    return 0;
}

static uint64_t dict_get(struct objects *o, uint64_t dict, size_t max, const char *key)
{
    struct dict_entries e;
    if (dict_read(o, dict, max, &e) < 0)
        return 0;
    uint64_t value = dict_find(o, &e, key);
    dict_entries_finish(&e);
    return value;
}

uint64_t module_find(struct objects *o, uint64_t interpreter, const char *name)
{
    uint64_t modules;
    return object_read64(o, interpreter + o->at.interpreter_modules, &modules) == 0
               ? dict_get(o, modules, MODULES_MAX, name)
               : 0;
}

uint64_t module_get(struct objects *o, uint64_t module, const char *name)
{
    uint64_t dict;
    return object_read64(o, module + o->at.module_dict, &dict) == 0
               ? dict_get(o, dict, ATTRIBUTES_MAX, name)
               : 0;
}

/* The first values of an instance lie in it, or apart, under keys that its type holds, until
 * somebody asks for the dictionary, or they become too many. */
static uint64_t get_managed(struct objects *o, uint64_t object, uint64_t type, uint64_t flags,
                            uint64_t size, const char *name)
{
    const struct object_offsets *at = &o->at;
    uint64_t dict, values = 0, address;
    struct keys keys;
    struct dict_entries e;
    if (object_read64(o, object - at->instance_dict, &dict) < 0 ||
        (at->instance_values && object_read64(o, object - at->instance_values, &values) < 0))
        return 0;
    if (at->values_valid && !dict && flags & TYPE_INLINE && size <= INSTANCE_MAX) {
        uint8_t valid;
        values = object + size;
        if (memory_read(o->reader, values + at->values_valid, &valid, 1) < 0 || valid != 1)
            return 0;
    } else if (!at->values_valid && !at->instance_values && dict & 1) {
        values = dict + 1;
    }
    if (!values)
        return dict ? dict_get(o, dict, ATTRIBUTES_MAX, name) : 0;
    if (!(flags & TYPE_HEAP) || object_read64(o, type + at->type_keys, &address) < 0 ||
        read_keys(o, address, SHARED_KEYS_MAX, &keys) < 0 || keys.kind != KEYS_SHARED ||
        read_entries(o, &keys, values, &e) < 0)
        return 0;
    uint64_t value = dict_find(o, &e, name);
    dict_entries_finish(&e);
    return value;
}

uint64_t object_get(struct objects *o, uint64_t object, const char *name)
{
    const struct object_offsets *at = &o->at;
    uint64_t type, flags, size, where, dict;
    if (object_read64(o, object + o->offsets->object_type, &type) < 0)
        return 0;
    memory_batch_add(o->batch, type + at->type_flags, &flags, sizeof(flags));
    memory_batch_add(o->batch, type + at->type_size, &size, sizeof(size));
    memory_batch_add(o->batch, type + at->type_dict, &where, sizeof(where));
    if (memory_batch_read(o->reader, o->batch) < 0)
        return 0;
    if (at->instance_dict && flags & TYPE_MANAGED)
        return get_managed(o, object, type, flags, size, name);
    if (where == 0 || where > INSTANCE_MAX || object_read64(o, object + where, &dict) < 0)
        return 0;
    return dict ? dict_get(o, dict, ATTRIBUTES_MAX, name) : 0;
}

bool int_is(struct objects *o, uint64_t address, uint64_t number)
{
    uint64_t count, wanted = number >> 30 ? 2 : 1;
    uint32_t digits[2];
    if (number == 0 || number >> 60)
        return false;
    memory_batch_add(o->batch, address + o->at.int_count, &count, sizeof(count));
    memory_batch_add(o->batch, address + o->at.int_digits, digits, sizeof(digits));
    return memory_batch_read(o->reader, o->batch) == 0 && count == wanted << o->at.int_shift &&
           digits[0] == (number & ((1u << 30) - 1)) && (wanted == 1 || digits[1] == number >> 30);
}

static struct dict_place *place_of(struct dict_places *places, uint64_t interpreter)
{
    struct dict_place *p = places->at;
    while (p < places->at + places->n && p->interpreter != interpreter)
        p++;
    if (p == places->at + SAMPLE_INTERPRETERS_MAX) {
        places->n = 0; /* they came and went */
        p = places->at;
    }
    if (p == places->at + places->n) {
        places->n++;
        *p = (struct dict_place){.interpreter = interpreter};
    }
    return p;
}

uint64_t dict_of(struct objects *o, struct dict_places *places, uint64_t interpreter,
                 dict_search_fn *search, void *context)
{
    struct dict_place *p = place_of(places, interpreter);
    uint64_t type;
    if (!p->dict) {
        /* It may be imported at any time; searching takes a moment. */
        int64_t now = memory_now_ms();
        if (now < p->next_ms)
            return 0;
        uint64_t dict = search(context, interpreter);
        if (dict && object_read64(o, dict + o->offsets->object_type, &type) == 0 &&
            type_is_named(o, type, "dict")) {
            p->dict = dict;
            p->type = type;
        }
        p->wait_ms = p->wait_ms ? p->wait_ms * 2 : WAIT_MIN_MS;
        p->wait_ms = p->wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS : p->wait_ms;
        p->next_ms = now + p->wait_ms;
    }
    if (p->dict &&
        (object_read64(o, p->dict + o->offsets->object_type, &type) < 0 || type != p->type))
        p->dict = 0;
    return p->dict;
}
