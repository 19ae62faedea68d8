#include "changing.h"

#include <errno.h>
#include <string.h>

#include "../unit/sample/described.h"
#include "base/cleanup.h"
#include "fuzz.h"
#include "sample/objects.h"

#define ARENA       (4u << 20)
#define BASE        UINT64_C(0x10000000)
#define FRAME       128
#define SPARE       16 /* frames that nobody has called yet; every other one an object */
#define NEXT_LOOK   24 /* a `when` from here on: that many looks later and 23 less */
#define SCRIPT_MAX  1024
#define TYPE_SHIFT  (1u << 2 | 32 | 64) /* an address that passes for the state of a text, too */
#define THREAD_SIZE 512

enum operation {
    RUN,       /* thread c: frame a is the innermost */
    CALLER,    /* frame a is called by frame b */
    PIECE,     /* what follows data-stack piece a is piece b; none from 65 on */
    SIZE,      /* of piece a: b and c */
    CODE,      /* frame a runs code b, at instruction c */
    LIST,      /* links of the lists, by the bits of c */
    NUMBER,    /* word b of object a is one of a few numbers */
    REFERENCE, /* word b of object a points to object c */
};

static const uint64_t numbers[] = {
    0,
    1,
    2,
    3,
    7,
    15,
    16,
    24,
    63,
    64,
    65,
    255,
    1024,
    1025,
    4096,
    65535,
    65536,
    1u << 20,
    1u << 26,
    INT32_MAX,
    1u << 31,
    UINT32_MAX,
    INT64_MAX,
    UINT64_MAX,
    UINT64_MAX - 7,
    BASE - 1,
    BASE + 4,
    1u << 2 | 32 | 64,
    4u << 2 | 32,
    2u << 2,
    UINT64_C(1) << 40,
    UINT64_C(1) << 63,
};

_Static_assert(ARRAY_SIZE(numbers) == 32, "chosen by five bits");

static void put(struct changing *m, uint64_t address, uint64_t value)
{
    if (address - BASE <= ARENA - 8)
        fake_put64(&m->fake, address, value);
}

static uint64_t get(const struct changing *m, uint64_t address)
{
    uint64_t value = 0;
    if (address - BASE <= ARENA - 8)
        memcpy(&value, m->fake.bytes + (address - BASE), sizeof(value));
    return value;
}

static void relink(struct changing *m, unsigned a, unsigned b, unsigned c)
{
    const struct python_offsets *o = &m->offsets;
    uint64_t one = m->threads[a % m->n_threads].address,
             other = m->threads[b % m->n_threads].address;
    if (c & 1)
        put(m, one + o->thread_next, c & 128 ? 0 : other);
    if (c & 2)
        put(m, m->fake.interpreter + o->interpreter_threads, c & 128 ? 0 : one);
    if (c & 4)
        put(m, m->fake.interpreter + o->interpreter_next, m->objects[b % m->n_objects]);
    if (c & 8)
        put(m, one + o->thread_chunk, m->chunks[b % m->n_chunks]);
    if (c & 16)
        put(m, one + o->thread_cframe, get(m, other + o->thread_cframe));
    if (c & 32) {
        m->hole = m->frames[a % m->n_frames];
        m->hole_len = b * 16;
    }
}

static void apply(struct changing *m, const uint8_t *step)
{
    const struct python_offsets *o = &m->offsets;
    unsigned a = step[1], b = step[2], c = step[3];
    uint64_t frame = m->frames[a % m->n_frames], chunk = m->chunks[a % m->n_chunks];
    uint64_t word = m->objects[a % m->n_objects] + (uint64_t)(b % 64) * 8;
    switch ((enum operation)(step[0] >> 5)) {
    case RUN:
        put(m, m->threads[c % m->n_threads].innermost, b & 1 ? 0 : frame);
        break;
    case CALLER:
        put(m, frame + o->frame_previous, c & 1 ? 0 : m->frames[b % m->n_frames]);
        break;
    case PIECE:
        put(m, chunk, b < CHANGING_CHUNKS_MAX ? m->chunks[b % m->n_chunks] : 0);
        break;
    case SIZE:
        put(m, chunk + 8, c & 1 ? numbers[b % 32] : (uint64_t)c << 8 | b);
        break;
    case CODE:
        put(m, frame + o->frame_code, m->codes[b % m->n_codes]);
        put(m, frame + o->frame_instruction, m->codes[b % m->n_codes] + o->code_bytes + c);
        break;
    case LIST:
        relink(m, a, b, c);
        break;
    case NUMBER:
        put(m, word, numbers[c % 32]);
        break;
    case REFERENCE:
        put(m, word, m->objects[c % m->n_objects]);
        break;
    }
}

static void pass(struct changing *m)
{
    while (m->script_len >= 4) {
        unsigned when = m->script[0] & 31;
        if (when < NEXT_LOOK ? m->waited < when : m->look - m->since < when - NEXT_LOOK + 1)
            break;
        apply(m, m->script);
        m->script += 4;
        m->script_len -= 4;
        m->waited = 0;
        m->since = m->look;
    }
    m->waited++;
}

static ssize_t changing_read(struct memory_reader *self, const struct iovec *local,
                             const struct iovec *remote, size_t n)
{
    struct changing *m = (struct changing *)(void *)self;
    ssize_t got = 0;
    for (size_t i = 0; i < n; i++) {
        pass(m);
        uint64_t address = (uint64_t)(uintptr_t)remote[i].iov_base;
        bool missing = m->hole - address < remote[i].iov_len || address - m->hole < m->hole_len;
        ssize_t r = missing && m->hole_len
                        ? -EFAULT
                        : m->fake.reader.read(&m->fake.reader, &local[i], &remote[i], 1);
        if (r < 0)
            return got ? got : r;
        got += r;
    }
    return got;
}

/* A word that the sampler uses of _Py_DebugOffsets, counted as in 3.13. 3.14 has some more between
 * them. */
static size_t word_of(unsigned minor, unsigned choice)
{
    static const uint8_t used[32] = {2,  5,  8,  9,  14, 15, 17, 18, 21, 22, 23,
                                     24, 25, 26, 27, 29, 30, 31, 32, 33, 35, 36,
                                     37, 38, 39, 43, 45, 65, 66, 68, 69, 70};
    size_t at = used[choice % ARRAY_SIZE(used)];
    if (minor >= 14)
        at += (at > 9) + (at > 18) * 2u + (at > 33) * 2u + (at > 43) + (at > 46) * 4u;
    return at;
}

static void restate(uint64_t *words, unsigned minor, const uint8_t *bytes)
{
    uint64_t limit;
    switch (bytes[1] % 8) {
    case 0:
        limit = words[word_of(minor, bytes[1] >> 3)];
        break;
    case 1:
        limit = 8u << 20;
        break;
    case 2:
        limit = numbers[bytes[1] >> 3];
        break;
    case 3:
        limit = 4096;
        break;
    default:
        limit = UINT64_C(16) << (bytes[1] % 8);
        break;
    }
    words[word_of(minor, bytes[0])] = (limit - bytes[2] % 32) << bytes[3] % 4;
}

/* Whether structures with these offsets fit into what fake.c makes room for. */
static bool fits(const struct python_offsets *o)
{
    const uint32_t thread[] = {o->thread_next,   o->thread_interpreter, o->thread_frame,
                               o->thread_cframe, o->thread_pthread,     o->thread_native,
                               o->thread_status, o->thread_chunk};
    const uint32_t frame[] = {o->frame_previous, o->frame_code, o->frame_instruction};
    for (size_t i = 0; i < ARRAY_SIZE(thread); i++)
        if (thread[i] > THREAD_SIZE - 8)
            return false;
    for (size_t i = 0; i < ARRAY_SIZE(frame); i++)
        if (frame[i] > FRAME - 8)
            return false;
    return o->runtime_interpreters <= 8184 && o->interpreter_threads <= 8184 &&
           o->interpreter_gil <= 8184 && o->interpreter_next <= 8184 &&
           o->interpreter_modules <= 8184 && o->object_type <= o->code_head;
}

static void add_object(struct changing *m, uint64_t address)
{
    if (m->n_objects < CHANGING_OBJECTS)
        m->objects[m->n_objects++] = address;
}

static void make_codes(struct changing *m, bool distinct)
{
    const struct python_offsets *o = &m->offsets;
    for (int i = 0; i < 2; i++) {
        uint64_t code = fake_code(&m->fake, i ? "inner" : "outer", "fuzz.py", 10 + i);
        m->codes[m->n_codes++] = code;
        add_object(m, code);
        add_object(m, get(m, code + o->code_file));
        add_object(m, get(m, code + o->code_name));
        add_object(m, get(m, code + o->code_lines));
    }
    while (distinct && m->n_codes < m->n_frames) {
        m->codes[m->n_codes] = fake_clone(&m->fake, m->codes[m->n_codes % 2]);
        m->n_codes++;
    }
}

/* Spare frames first, then the first thread's from the innermost one on: newer pieces of the data
 * stack hold those further in, and in each of them callers lie below. */
static void place_frames(struct changing *m, size_t depth, size_t chunks, bool in_newest,
                         size_t each)
{
    const struct python_offsets *o = &m->offsets;
    size_t in_chunk = in_newest ? depth : (depth + chunks - 1) / chunks;
    uint64_t place[CHANGING_FRAMES_MAX];
    for (size_t i = chunks; i-- > 0;) {
        size_t size = 24 + ((i && in_newest ? 0 : in_chunk) + SPARE) * FRAME;
        m->chunks[i] = fake_alloc(&m->fake, size);
        put(m, m->chunks[i], i + 1 < chunks ? m->chunks[i + 1] : 0);
        put(m, m->chunks[i] + 8, size);
    }
    m->n_chunks = chunks;
    m->objects_from = m->fake.base + m->fake.used;
    for (size_t i = 0; i < depth; i++)
        place[i] = m->chunks[i / in_chunk] + 24 + (in_chunk - 1 - i % in_chunk) * FRAME;
    for (size_t i = 0; i < SPARE; i++)
        m->frames[i] =
            i % 2 ? m->chunks[0] + 24 + (in_chunk + i) * FRAME : fake_alloc(&m->fake, FRAME);
    for (size_t i = 0; i < depth; i++)
        m->frames[SPARE + i] = !o->thread_chunk || (each && i % each == each - 1)
                                   ? fake_alloc(&m->fake, FRAME)
                                   : place[i];
    m->n_frames = SPARE + depth;
}

static void link_frames(struct changing *m)
{
    const struct python_offsets *o = &m->offsets;
    for (size_t i = 0; i < m->n_frames; i++) {
        uint64_t code = m->codes[i % m->n_codes];
        size_t caller = i < SPARE ? SPARE : i + 1;
        put(m, m->frames[i] + o->frame_previous, caller < m->n_frames ? m->frames[caller] : 0);
        put(m, m->frames[i] + o->frame_code, code);
        /* An index before 3.11. */
        put(m, m->frames[i] + o->frame_instruction, o->code_bytes ? code + o->code_bytes + 4 : 2);
        uint8_t generator = 1;
        if (o->frame_owner && o->frame_owner < FRAME && m->frames[i] >= m->objects_from)
            fake_put(&m->fake, m->frames[i] + o->frame_owner, &generator, 1);
    }
}

static void make_threads(struct changing *m, size_t n)
{
    const struct python_offsets *o = &m->offsets;
    const struct fake_thread *list[CHANGING_THREADS];
    for (size_t i = 0; i < n; i++) {
        fake_thread(&m->fake, &m->threads[i], 100 + i, 4);
        fake_stack(&m->fake, &m->threads[i], m->codes, 2, 1);
        list[i] = &m->threads[i];
        add_object(m, m->threads[i].address);
        add_object(m, m->threads[i].innermost);
        if (o->thread_status)
            put(m, m->threads[i].address + o->thread_status, 1u << 4);
    }
    m->n_threads = n;
    fake_threads(&m->fake, list, n);
    if (o->thread_chunk)
        put(m, m->threads[0].address + o->thread_chunk, m->chunks[0]);
    if (m->n_frames > SPARE)
        put(m, m->threads[0].innermost, m->frames[SPARE]);
}

static const struct object_offsets *objects_of(const struct changing *m)
{
    for (size_t i = 0; i < objects_table_len; i++)
        if (objects_table[i].minor == m->minor)
            return &objects_table[i];
    return NULL;
}

static uint64_t make_type(struct changing *m, const struct object_offsets *o, const char *name,
                          size_t size)
{
    uint64_t text = fake_alloc(&m->fake, 16), type = fake_alloc(&m->fake, size);
    type = ((type + 255) & ~UINT64_C(255)) + TYPE_SHIFT;
    fake_put(&m->fake, text, name, strlen(name) + 1);
    put(m, type + o->type_name, text);
    return type;
}

/* kind: 0 any keys, 1 text, 2 shared ones. */
static uint64_t make_keys(struct changing *m, const struct object_offsets *o, uint8_t kind,
                          uint64_t hash, uint64_t key, uint64_t value)
{
    uint64_t keys = fake_alloc(&m->fake, o->keys_head + 128), at = keys + o->keys_head + 8;
    uint8_t index = 3;
    put(m, keys + o->keys_entries, 1);
    if (o->keys_size) {
        put(m, keys + o->keys_size, 8);
    } else {
        fake_put(&m->fake, keys + o->keys_index_bytes, &index, 1);
        fake_put(&m->fake, keys + o->keys_kind, &kind, 1);
    }
    if (o->keys_size || kind == 0) {
        put(m, at, hash);
        at += 8;
    }
    put(m, at, key);
    put(m, at + 8, value);
    return keys;
}

static uint64_t make_dict(struct changing *m, const struct object_offsets *o, uint64_t type,
                          uint64_t keys)
{
    uint64_t dict = fake_alloc(&m->fake, 64);
    put(m, dict + m->offsets.object_type, type);
    put(m, dict + o->dict_keys, keys);
    add_object(m, dict);
    add_object(m, keys);
    return dict;
}

static uint64_t make_text_dict(struct changing *m, const struct object_offsets *o, uint64_t type,
                               const char *name, uint64_t value)
{
    uint64_t key = fake_text(&m->fake, name);
    uint64_t dict = make_dict(m, o, type, make_keys(m, o, 1, 0, key, value));
    add_object(m, key);
    return dict;
}

static void put_modules(struct changing *m, const struct object_offsets *o, uint64_t dict)
{
    uint32_t at = m->offsets.interpreter_modules;
    put(m, m->fake.interpreter + (at ? at : o->interpreter_modules), dict);
}

/* A task of asyncio that runs in the outermost frame. */
static void make_task(struct changing *m)
{
    const struct object_offsets *objects = objects_of(m);
    const struct async_offsets *o = NULL;
    for (size_t i = 0; i < async_table_len; i++)
        if (async_table[i].minor == m->minor)
            o = &async_table[i];
    if (!o || m->n_frames == SPARE)
        return;
    uint64_t text = make_type(m, objects, "str", 768), dict = make_type(m, objects, "dict", 768);
    uint64_t task_type = make_type(m, objects, "_asyncio.Task", 768);
    uint64_t task = fake_alloc(&m->fake, 256), name = fake_text(&m->fake, "t");
    put(m, name + m->offsets.object_type, text);
    put(m, task + m->offsets.object_type, task_type);
    put(m, task + o->task_coro, m->frames[m->n_frames - 1] - o->coro_frame);
    put(m, task + o->task_name, name);
    add_object(m, name);
    add_object(m, task);
    add_object(m, task_type);
    add_object(m, text);
    if (o->thread_task) {
        put(m, m->threads[0].address + o->thread_task, task);
        return;
    }
    uint64_t state = fake_alloc(&m->fake, 128), module = fake_alloc(&m->fake, 64);
    uint64_t keys = make_keys(m, objects, 1, 0, m->fake.runtime, task);
    put(m, state + o->state_task_type, task_type);
    put(m, state + o->state_current, make_dict(m, objects, dict, keys));
    put(m, module + objects->module_state, state);
    put_modules(m, objects, make_text_dict(m, objects, dict, "_asyncio", module));
    add_object(m, state);
    add_object(m, module);
}

/* An object whose one attribute is kept as this version keeps it. */
static uint64_t make_instance(struct changing *m, const struct object_offsets *o, uint64_t dict,
                              uint64_t key, uint64_t value)
{
    uint64_t type = make_type(m, o, "Thread", 1536), object = fake_alloc(&m->fake, 128) + 64;
    uint64_t values = o->values_valid ? object + 16 : fake_alloc(&m->fake, 64);
    uint64_t keys = make_keys(m, o, 2, 1, key, 0);
    uint8_t valid = 1;
    put(m, object + m->offsets.object_type, type);
    put(m, type + o->type_flags, 1u << 9 | (o->instance_dict ? 1u << 4 : 0) | 1u << 2);
    put(m, type + o->type_size, 16);
    put(m, type + o->type_keys, keys);
    put(m, values + o->values_first, value);
    if (o->values_valid) {
        fake_put(&m->fake, values + o->values_valid, &valid, 1);
    } else if (o->instance_dict) {
        put(m, object - (o->instance_values ? o->instance_values : o->instance_dict),
            o->instance_values ? values : values - 1);
    } else {
        uint64_t own = make_dict(m, o, dict, keys);
        put(m, own + o->dict_values, values);
        put(m, type + o->type_dict, 24);
        put(m, object + 24, own);
    }
    add_object(m, object - 32);
    add_object(m, object);
    add_object(m, keys);
    add_object(m, type);
    return object;
}

/* The first thread's name in threading._active. */
static void make_name(struct changing *m)
{
    const struct object_offsets *o = objects_of(m);
    uint64_t number = BASE + 0x100000000, key = fake_alloc(&m->fake, 64);
    uint64_t module = fake_alloc(&m->fake, 64), dict = make_type(m, o, "dict", 768);
    uint64_t text = make_type(m, o, "str", 768), name = fake_text(&m->fake, "worker");
    put(m, m->threads[0].address + m->offsets.thread_pthread, number);
    put(m, key + o->int_count, UINT64_C(2) << o->int_shift);
    put(m, key + o->int_digits, (number & 0x3fffffff) | number >> 30 << 32);
    put(m, text + o->type_flags, 1u << 28);
    put(m, name + m->offsets.object_type, text);
    uint64_t thread = make_instance(m, o, dict, fake_text(&m->fake, "_name"), name);
    uint64_t active = make_dict(m, o, dict, make_keys(m, o, 0, number, key, thread));
    put(m, module + o->module_dict, make_text_dict(m, o, dict, "_active", active));
    put_modules(m, o, make_text_dict(m, o, dict, "threading", module));
    add_object(m, key);
    add_object(m, module);
    add_object(m, name);
    add_object(m, text);
    add_object(m, dict);
}

int changing_init(struct changing *m, const uint8_t *bytes, size_t len)
{
    static uint8_t arena[ARENA];
    uint64_t words[DESCRIBED_WORDS];
    memset(m, 0, sizeof(*m));
    if (len < CHANGING_HEADER)
        return -1;
    m->reader.read = changing_read;
    m->minor = 8 + bytes[0] % 7;
    m->gil = bytes[1] & 4;
    m->tasks = bytes[1] & 16;
    m->names = bytes[1] & 32;
    size_t depth = bytes[3] < 248 ? bytes[3] % 64 : (bytes[3] - 247u) * 128;
    size_t at = CHANGING_HEADER;
    const struct python_offsets *built = offsets_find(m->minor);
    if (!built) {
        described_put(words, m->minor, bytes[1] & 1);
        if (offsets_from_runtime((uint8_t *)words, sizeof(words), &m->offsets, NULL) < 0)
            return -1;
        for (size_t i = 0; i < bytes[6] % 8u && len - at >= 4; i++, at += 4)
            restate(words, m->minor, bytes + at);
        struct python_offsets stated;
        if (offsets_from_runtime((uint8_t *)words, sizeof(words), &stated, NULL) < 0)
            return -1;
        if (fits(&stated))
            m->offsets = stated;
    } else {
        m->offsets = *built;
    }
    fake_init_as(&m->fake, &m->offsets, arena, sizeof(arena), BASE);
    if (!built)
        fake_put(&m->fake, m->fake.runtime, words, sizeof(words));
    add_object(m, m->fake.runtime);
    add_object(m, m->fake.interpreter);
    place_frames(m, depth, bytes[4] < 240 ? 1 + bytes[4] % 6 : 64, bytes[1] & 8, bytes[5]);
    make_codes(m, bytes[1] & 2);
    link_frames(m);
    make_threads(m, 1 + bytes[2] % CHANGING_THREADS);
    uint64_t gil = m->offsets.interpreter_gil
                       ? get(m, m->fake.interpreter + m->offsets.interpreter_gil)
                       : m->fake.runtime + m->offsets.runtime_gil;
    put(m, gil + m->offsets.gil_holder, m->threads[0].address);
    put(m, gil + m->offsets.gil_locked, 1);
    add_object(m, gil);
    if (m->tasks)
        make_task(m);
    else if (m->names)
        make_name(m);
    for (size_t i = 0; i < m->n_chunks && i < 4; i++)
        add_object(m, m->chunks[i]);
    for (size_t i = 0; i < m->n_frames && i < 64; i++)
        add_object(m, m->frames[i]);
    m->script = bytes + at;
    m->script_len = len - at < SCRIPT_MAX ? len - at : SCRIPT_MAX;
    return 0;
}

void changing_next_look(struct changing *m)
{
    m->look++;
}
