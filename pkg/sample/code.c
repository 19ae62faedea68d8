#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/random.h"
#include "sample/lines.h"
#include "sample/sample_internal.h"

#define TABLE_MAX (8u << 20) /* of one line table; a module of 100,000 lines has up to 1.5 MB */
#define HEAD_MAX  1024
#define CODE_MAX  (64u << 20) /* bytes of instructions */
#define LINES_MAX 4096        /* of one code object; looking for one takes time */
#define RECENT    8
#define SPARE     4                       /* code objects of earlier stacks that are read along */
#define PROOFS    16                      /* times that contents must be the same to be trusted */
#define RECHECK   16                      /* uses after which they are asked for even so */
#define PIECE     (512 + SAMPLE_TEXT_MAX) /* of its contents: a name, or the table, from its head */
#define PIECES    3
#define ASKED     8 /* code objects at once */

/* What tells one code object from another at the same address. */
struct identity {
    uint64_t type, size, file, name, lines;
    int32_t first_line;
};

/* One line of a function. */
struct line {
    struct line *next;
    struct sample_frame frame;
};

struct code {
    uint64_t address;
    struct identity identity;
    uint64_t checked; /* number of the resolution that did */
    uint64_t listed;  /* and of the one that put it into its set */
    char *function, *file;
    size_t function_size, file_size; /* bytes of the objects that are compared */
    uint8_t *table;
    size_t table_len;
    uint64_t told_len; /* of the table, which may have been too long */
    unsigned proven;   /* how often its contents were the same */
    unsigned unasked;  /* uses since then */
    uint64_t used;     /* number of the last resolution that did */
    struct line *lines;
    size_t n_lines;
    struct {
        int64_t instruction;
        struct line *line;
    } recent[RECENT];
};

struct codes {
    struct memory_reader *reader;
    const struct python_offsets *offsets;
    uint64_t code_type;
    struct code **slots; /* by address; open addressing */
    size_t cap, len, bytes, max;
    bool full; /* to be forgotten at the next resolution */
    bool distrust;
    uint64_t seed, round;
    struct memory_batch batch;
    uint8_t *heads, *contents;
    struct code **waiting;
};

struct codes *codes_create(struct memory_reader *reader, const struct python_offsets *offsets,
                           uint64_t code_type)
{
    struct codes *c = xcalloc(1, sizeof(*c));
    *c = (struct codes){.reader = reader, .offsets = offsets, .code_type = code_type};
    c->cap = 1024;
    c->slots = xcalloc(c->cap, sizeof(void *));
    c->seed = random_u64(&random_system);
    c->heads = xcalloc(MEMORY_PIECES_MAX, offsets->code_head);
    c->contents = xcalloc(ASKED * PIECES, PIECE);
    c->waiting = xcalloc(MEMORY_PIECES_MAX, sizeof(void *));
    return c;
}

static void forget(struct codes *c, struct code *k)
{
    c->bytes -= k->table_len;
    for (struct line *l = k->lines, *next; l; l = next) {
        next = l->next;
        c->bytes -= sizeof(*l);
        free(l);
    }
    if (k->function)
        c->bytes -= strlen(k->function) + strlen(k->file);
    free(k->function);
    free(k->file);
    free(k->table);
    *k = (struct code){.address = k->address};
}

static void forget_all(struct codes *c)
{
    for (size_t i = 0; i < c->cap; i++) {
        if (c->slots[i])
            forget(c, c->slots[i]);
        free(c->slots[i]);
        c->slots[i] = NULL;
    }
    c->len = c->bytes = 0;
    c->full = false;
}

void codes_destroy(struct codes *c)
{
    if (!c)
        return;
    forget_all(c);
    free(c->slots);
    free(c->heads);
    free(c->contents);
    free(c->waiting);
    free(c);
}

static struct code **slot_of(const struct codes *c, uint64_t address)
{
    uint64_t x = (address ^ c->seed) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(x >> 20) & (c->cap - 1);
    while (c->slots[i] && c->slots[i]->address != address)
        i = (i + 1) & (c->cap - 1);
    return &c->slots[i];
}

static struct code *entry(struct codes *c, uint64_t address)
{
    struct code **slot = slot_of(c, address);
    if (*slot)
        return *slot;
    if ((c->len + 1) * 2 > c->cap) {
        struct code **old = c->slots;
        size_t n = c->cap;
        c->cap *= 2;
        c->slots = xcalloc(c->cap, sizeof(void *));
        for (size_t i = 0; i < n; i++)
            if (old[i])
                *slot_of(c, old[i]->address) = old[i];
        free(old);
        slot = slot_of(c, address);
    }
    *slot = xcalloc(1, sizeof(**slot));
    (*slot)->address = address;
    c->bytes += sizeof(**slot);
    c->len++;
    return *slot;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static struct identity identity_of(const struct codes *c, const uint8_t *head)
{
    const struct python_offsets *o = c->offsets;
    struct identity id = {
        .type = get64(head + o->object_type),
        .size = o->code_bytes ? get64(head + o->object_type + 8) : 0,
        .file = get64(head + o->code_file),
        .name = get64(head + (o->code_qualname ? o->code_qualname : o->code_name)),
        .lines = get64(head + o->code_lines),
    };
    memcpy(&id.first_line, head + o->code_first_line, sizeof(id.first_line));
    return id;
}

static bool same(const struct identity *a, const struct identity *b)
{
    return a->type == b->type && a->size == b->size && a->file == b->file && a->name == b->name &&
           a->lines == b->lines && a->first_line == b->first_line;
}

/* One that is too large, or for which others have left no room, is not read: the function's first
 * line will do. The first one of a resolution finds room. */
static int read_table(struct codes *c, uint64_t address, uint8_t **ret, size_t *ret_len,
                      uint64_t *ret_told)
{
    const struct python_offsets *o = c->offsets;
    uint8_t head[256];
    if (memory_read(c->reader, address, head, o->bytes_bytes) < 0)
        return -EFAULT;
    uint64_t len = *ret_told = get64(head + o->bytes_length);
    if (len > TABLE_MAX || c->bytes + len > c->max + TABLE_MAX)
        len = 0;
    _cleanup_(freep) uint8_t *bytes = xcalloc(len + 1, 1);
    if (len && memory_read(c->reader, address + o->bytes_bytes, bytes, len) < 0)
        return -EFAULT;
    *ret = TAKE(bytes);
    *ret_len = len;
    return 0;
}

/* 0, or -1: this is no code object. */
static int load(struct codes *c, struct code *k, const uint8_t *head)
{
    struct identity id = identity_of(c, head);
    forget(c, k);
    k->used = c->round;
    if ((c->code_type && id.type != c->code_type) || id.first_line < 0 || id.size > CODE_MAX)
        return -1;
    size_t function_size = 0, file_size = 0, len = 0;
    uint64_t told_len = 0;
    _cleanup_(freep) char *function = text_read(c->reader, c->offsets, id.name, &function_size);
    _cleanup_(freep) char *file =
        function ? text_read(c->reader, c->offsets, id.file, &file_size) : NULL;
    _cleanup_(freep) uint8_t *table = NULL;
    if (!file || read_table(c, id.lines, &table, &len, &told_len) < 0)
        return -1;
    size_t bytes = strlen(function) + strlen(file) + len;
    if (c->bytes + bytes > 2 * c->max + TABLE_MAX)
        return -1;
    c->bytes += bytes;
    k->identity = id;
    k->function = TAKE(function);
    k->file = TAKE(file);
    k->table = TAKE(table);
    k->table_len = len;
    k->function_size = function_size;
    k->file_size = file_size;
    k->told_len = told_len;
    return 0;
}

static int check(struct codes *c, struct code *k, const uint8_t *head)
{
    struct identity id = identity_of(c, head);
    return k->function && same(&id, &k->identity) ? 0 : load(c, k, head);
}

static int check_waiting(struct codes *c, size_t n)
{
    size_t size = c->offsets->code_head;
    if (memory_batch_read(c->reader, &c->batch) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (check(c, c->waiting[i], c->heads + i * size) < 0)
            return -1;
    return 0;
}

static size_t table_piece(const struct code *k)
{
    return k->table_len < SAMPLE_TEXT_MAX ? k->table_len : SAMPLE_TEXT_MAX;
}

static bool same_contents(const struct codes *c, const struct code *k, const uint8_t *pieces)
{
    const struct python_offsets *o = c->offsets;
    const uint8_t *file = pieces + PIECE, *table = file + PIECE;
    return text_same(o, pieces, k->function_size, k->function) &&
           text_same(o, file, k->file_size, k->file) &&
           get64(table + o->bytes_length) == k->told_len &&
           memcmp(table + o->bytes_bytes, k->table, table_piece(k)) == 0;
}

/* One that says something else now is read anew, as is each where one of them cannot be read. */
static int compare_waiting(struct codes *c, size_t n)
{
    int e = memory_batch_read(c->reader, &c->batch);
    if (e == -ETIME)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct code *k = c->waiting[i];
        if (e == 0 && same_contents(c, k, c->contents + i * PIECES * PIECE)) {
            k->proven++;
            k->unasked = 0;
            continue;
        }
        c->distrust = c->distrust || (e == 0 && k->proven >= PROOFS);
        if (memory_read(c->reader, k->address, c->heads, c->offsets->code_head) < 0 ||
            load(c, k, c->heads) < 0)
            return -1;
    }
    return 0;
}

static bool to_be_asked(const struct codes *c, struct code *k)
{
    if (k->used == c->round)
        return false;
    k->used = c->round;
    return ++k->unasked >= RECHECK || k->proven < PROOFS || c->distrust;
}

/* Of those that were not read right now. */
static int compare_contents(struct codes *c, const struct raw_frame *raw, size_t n)
{
    const struct python_offsets *o = c->offsets;
    size_t waiting = 0;
    for (size_t i = 0; i < n; i++) {
        struct code *k = *slot_of(c, raw[i].code);
        if (!k->function)
            return -1;
        if (!to_be_asked(c, k))
            continue;
        uint8_t *to = c->contents + waiting * PIECES * PIECE;
        memory_batch_add(&c->batch, k->identity.name, to, k->function_size);
        memory_batch_add(&c->batch, k->identity.file, to + PIECE, k->file_size);
        memory_batch_add(&c->batch, k->identity.lines, to + 2 * PIECE,
                         o->bytes_bytes + table_piece(k));
        c->waiting[waiting++] = k;
        if (waiting == ASKED) {
            if (compare_waiting(c, waiting) < 0)
                return -1;
            waiting = 0;
        }
    }
    return waiting ? compare_waiting(c, waiting) : 0;
}

/* Bytes from the first instruction; false: it lies outside of the code. */
static bool instruction_of(const struct codes *c, const struct code *k, const struct raw_frame *f,
                           int64_t *ret)
{
    const struct python_offsets *o = c->offsets;
    if (o->code_bytes) {
        *ret = (int64_t)(f->instruction - (f->code + o->code_bytes));
        /* Before it begins, a frame stands one instruction ahead of the first. */
        return *ret >= -2 && *ret < (int64_t)k->identity.size * 2;
    }
    *ret = (int64_t)f->instruction;
    if (o->minor >= 10)
        *ret *= 2;
    return *ret >= -2 && *ret < CODE_MAX;
}

/* NULL: no time is left, or no room. */
static struct line *line_at(struct codes *c, struct code *k, int64_t instruction)
{
    size_t r = (size_t)(instruction >> 1) % RECENT;
    if (k->recent[r].line && k->recent[r].instruction == instruction)
        return k->recent[r].line;
    if (memory_late(c->reader))
        return NULL;
    int64_t number =
        lines_find(c->offsets->minor, k->table, k->table_len, k->identity.first_line, instruction);
    struct line *l = k->lines;
    while (l && l->frame.line != number)
        l = l->next;
    if (!l) {
        if (k->n_lines == LINES_MAX) {
            c->full = true;
            return NULL;
        }
        k->n_lines++;
        l = xcalloc(1, sizeof(*l));
        l->next = k->lines;
        l->frame = (struct sample_frame){
            .function = k->function[0] ? str_of(k->function) : STR("?"),
            .file = str_of(k->file),
            .line = number,
            .first_line = k->identity.first_line,
            .id = SAMPLE_NO_ID,
            .id_of_function = SAMPLE_NO_ID,
        };
        k->lines = l;
        c->bytes += sizeof(*l);
    }
    k->recent[r].instruction = instruction;
    k->recent[r].line = l;
    return l;
}

static void check_heads(struct codes *c, const struct code_set *set, const uint8_t *heads, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct code *k = *slot_of(c, set->addresses[i]);
        if (!k || !k->function)
            continue;
        struct identity id = identity_of(c, heads + i * c->offsets->code_head);
        if (same(&id, &k->identity))
            k->checked = c->round;
    }
}

/* Those of the stack first, then some of before: functions that are called again and again. */
static void renew_set(struct codes *c, const struct raw_frame *raw, size_t n, struct code_set *set)
{
    struct code_set old = *set;
    set->n = 0;
    for (size_t i = 0; i < n && set->n < CODE_SET_MAX; i++) {
        struct code *k = *slot_of(c, raw[i].code);
        if (k->listed != c->round)
            set->addresses[set->n++] = k->address;
        k->listed = c->round;
    }
    size_t spare = 0;
    for (size_t i = 0; i < old.n && set->n < CODE_SET_MAX && spare < SPARE; i++) {
        const struct code *k = *slot_of(c, old.addresses[i]);
        if (k && k->listed == c->round)
            continue;
        set->addresses[set->n++] = old.addresses[i];
        spare++;
    }
}

int codes_resolve(struct codes *c, const struct raw_frame *raw, size_t n, size_t max,
                  struct code_set *set, const uint8_t *heads, size_t n_heads,
                  struct sample_frame **ret)
{
    if (c->full || c->bytes > max)
        forget_all(c);
    c->max = max;
    c->round++;
    check_heads(c, set, heads, n_heads);
    size_t waiting = 0, size = c->offsets->code_head;
    for (size_t i = 0; i < n; i++) {
        struct code *k = entry(c, raw[i].code);
        if (k->checked == c->round)
            continue;
        k->checked = c->round;
        if (!memory_batch_add(&c->batch, raw[i].code, c->heads + waiting * size, size)) {
            if (check_waiting(c, waiting) < 0)
                return -1;
            waiting = 0;
            memory_batch_add(&c->batch, raw[i].code, c->heads, size);
        }
        c->waiting[waiting++] = k;
    }
    if (check_waiting(c, waiting) < 0 || compare_contents(c, raw, n) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct code *k = *slot_of(c, raw[i].code);
        int64_t instruction;
        if (!k->function || !instruction_of(c, k, &raw[i], &instruction))
            return -1;
        struct line *line = line_at(c, k, instruction);
        if (!line)
            return -1;
        /* What 3.13 and 3.14 put below __init__() when they call a class: no code of the program's,
         * and its file is called as it is. */
        bool shim = c->offsets->minor >= 13 && k->identity.file == k->identity.name &&
                    str_is(str_of(k->file), "__init__");
        ret[i] = shim ? NULL : &line->frame;
    }
    renew_set(c, raw, n, set);
    return 0;
}
