#include "profile/profile_internal.h"

#include "base/alloc.h"
#include "base/random.h"

void texts_init(struct texts *t)
{
    *t = (struct texts){.arena = arena_create(0)};
    random_fill(&random_system, t->key, sizeof(t->key));
}

void texts_finish(struct texts *t)
{
    arena_destroy(t->arena);
    free(t->items);
    free(t->slots);
    *t = (struct texts){0};
}

static size_t slot_of(const struct texts *t, struct str text)
{
    return (size_t)map_siphash13(t->key, text) & (t->slots_cap - 1);
}

uint32_t texts_find(const struct texts *t, struct str text)
{
    if (!t->slots_cap)
        return TEXT_NONE;
    for (size_t i = slot_of(t, text); t->slots[i]; i = (i + 1) & (t->slots_cap - 1))
        if (str_eq(t->items[t->slots[i] - 1], text))
            return t->slots[i] - 1;
    return TEXT_NONE;
}

static void put(struct texts *t, uint32_t index)
{
    size_t i = slot_of(t, t->items[index]);

    while (t->slots[i])
        i = (i + 1) & (t->slots_cap - 1);
    t->slots[i] = index + 1;
}

uint32_t texts_add(struct texts *t, struct str text)
{
    uint32_t known = texts_find(t, text);

    if (known != TEXT_NONE)
        return known;
    t->items = grow(t->items, &t->cap, t->len + 1, sizeof(*t->items));
    t->items[t->len] = arena_str(t->arena, text);
    t->bytes += text.len;
    if ((t->len + 1) * 2 > t->slots_cap) {
        t->slots_cap = t->slots_cap ? t->slots_cap * 2 : 256;
        free(t->slots);
        t->slots = xcalloc(t->slots_cap, sizeof(*t->slots));
        for (uint32_t i = 0; i < t->len; i++)
            put(t, i);
    }
    put(t, (uint32_t)t->len);
    return (uint32_t)t->len++;
}
