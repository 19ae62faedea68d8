#include "base/map.h"

#include <endian.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/random.h"

struct entry {
    void *value;
    size_t len;
    char key[]; /* len bytes, and NUL */
};

struct slot {
    uint64_t hash;
    struct entry *entry; /* NULL: free, &removed: a tombstone */
};

struct map {
    struct slot *slots;
    size_t cap;  /* slots; a power of two or 0 */
    size_t size; /* entries */
    size_t used; /* entries and tombstones */
    uint64_t key[2];
};

static struct entry removed;

/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF"), as Rust's and Python's
 * tables use it. */
static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = (v[1] << 13 | v[1] >> 51) ^ v[0];
    v[0] = v[0] << 32 | v[0] >> 32;
    v[2] += v[3];
    v[3] = (v[3] << 16 | v[3] >> 48) ^ v[2];
    v[0] += v[3];
    v[3] = (v[3] << 21 | v[3] >> 43) ^ v[0];
    v[2] += v[1];
    v[1] = (v[1] << 17 | v[1] >> 47) ^ v[2];
    v[2] = v[2] << 32 | v[2] >> 32;
}

uint64_t map_siphash13(const uint64_t key[2], struct str s)
{
    uint64_t v[4] = {
        key[0] ^ 0x736f6d6570736575u,
        key[1] ^ 0x646f72616e646f6du,
        key[0] ^ 0x6c7967656e657261u,
        key[1] ^ 0x7465646279746573u,
    };
    uint64_t word;
    size_t i = 0;
    for (; s.len - i >= 8; i += 8) {
        memcpy(&word, s.ptr + i, 8);
        word = le64toh(word);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)s.len << 56;
    for (size_t j = 0; i + j < s.len; j++)
        word |= (uint64_t)(unsigned char)s.ptr[i + j] << (8 * j);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int r = 0; r < 3; r++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct map *map_create(void)
{
    struct map *m = xcalloc(1, sizeof(*m));
    random_fill(&random_system, m->key, sizeof(m->key));
    return m;
}

void map_destroy(struct map *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->cap; i++) {
        if (m->slots[i].entry != &removed)
            free(m->slots[i].entry);
    }
    free(m->slots);
    free(m);
}

size_t map_size(const struct map *m)
{
    return m->size;
}

static struct slot *find(const struct map *m, struct str key, uint64_t hash)
{
    for (size_t i = hash; m->cap; i++) {
        struct slot *s = &m->slots[i & (m->cap - 1)];
        if (!s->entry)
            return NULL;
        if (s->hash == hash && s->entry != &removed &&
            str_eq((struct str){s->entry->key, s->entry->len}, key))
            return s;
    }
    return NULL;
}

static void insert(struct map *m, uint64_t hash, struct entry *entry)
{
    size_t i = hash & (m->cap - 1);
    while (m->slots[i].entry)
        i = (i + 1) & (m->cap - 1);
    m->slots[i] = (struct slot){hash, entry};
    m->used++;
}

/* Also sweeps out the tombstones, so that a table that only turns over keeps its size. */
static void rehash(struct map *m)
{
    struct slot *old = m->slots;
    size_t old_cap = m->cap;
    m->cap = 8;
    while (m->cap < m->size * 2 + 2)
        m->cap *= 2;
    m->slots = xcalloc(m->cap, sizeof(*m->slots));
    m->used = 0;
    for (size_t i = 0; i < old_cap; i++) {
        if (old[i].entry && old[i].entry != &removed)
            insert(m, old[i].hash, old[i].entry);
    }
    free(old);
}

void *map_get(const struct map *m, struct str key)
{
    if (m->size == 0)
        return NULL;
    struct slot *s = find(m, key, map_siphash13(m->key, key));
    return s ? s->entry->value : NULL;
}

void *map_set(struct map *m, struct str key, void *value)
{
    uint64_t hash = map_siphash13(m->key, key);
    struct slot *s = find(m, key, hash);
    if (s) {
        void *old = s->entry->value;
        s->entry->value = value;
        return old;
    }
    if ((m->used + 1) * 4 > m->cap * 3)
        rehash(m);
    struct entry *entry = xcalloc(1, sizeof(*entry) + key.len + 1);
    entry->value = value;
    entry->len = key.len;
    if (key.len)
        memcpy(entry->key, key.ptr, key.len);
    insert(m, hash, entry);
    m->size++;
    return NULL;
}

void *map_remove(struct map *m, struct str key)
{
    struct slot *s = m->size ? find(m, key, map_siphash13(m->key, key)) : NULL;
    if (!s)
        return NULL;
    void *value = s->entry->value;
    free(s->entry);
    s->entry = &removed;
    m->size--;
    /* Tombstones that no probe has to pass any more go at once. */
    size_t mask = m->cap - 1, i = (size_t)(s - m->slots);
    if (!m->slots[(i + 1) & mask].entry) {
        for (; m->slots[i].entry == &removed; i = (i - 1) & mask) {
            m->slots[i].entry = NULL;
            m->used--;
        }
    }
    return value;
}

bool map_next(const struct map *m, struct map_iter *it)
{
    while (it->position < m->cap) {
        struct entry *entry = m->slots[it->position++].entry;
        if (entry && entry != &removed) {
            it->key = (struct str){entry->key, entry->len};
            it->value = entry->value;
            return true;
        }
    }
    return false;
}
