/* What Python calls its threads: in threading._active, from the number that a thread goes by to an
 * object with the name, as an attribute. */
#include "base/alloc.h"
#include "sample/objects.h"

#define ACTIVE_MAX    16384 /* entries */
#define TRIES         2     /* of a dictionary that is just changing */
#define ENTRIES_PRICE 256   /* entries read that cost as much as a name */
#define BUDGET_MAX    8192  /* names: for a first look at many threads */
#define BUDGET_LOOK   8     /* and then at each */

struct names {
    struct objects *objects;
    struct dict_places places;
    struct dict_entries active; /* as read at this look */
    uint64_t active_dict;       /* whose they are; 0: none */
    int64_t budget;
    struct buf name;
};

struct names *names_create(struct objects *objects)
{
    struct names *n = xcalloc(1, sizeof(*n));
    n->objects = objects;
    n->budget = BUDGET_MAX;
    n->name = BUF_INIT(SAMPLE_NAME_MAX);
    return n;
}

static void forget_active(struct names *n)
{
    dict_entries_finish(&n->active);
    n->active_dict = 0;
}

void names_destroy(struct names *n)
{
    if (!n)
        return;
    forget_active(n);
    buf_finish(&n->name);
    free(n);
}

void names_begin(struct names *n)
{
    forget_active(n);
    n->budget += n->budget < BUDGET_MAX ? BUDGET_LOOK : 0;
}

static uint64_t find_active(void *context, uint64_t interpreter)
{
    struct names *n = context;
    uint64_t module = module_find(n->objects, interpreter, "threading");
    return module ? module_get(n->objects, module, "_active") : 0;
}

/* Small numbers are their own hash. NULL: none. */
static const struct dict_entry *entry_of(const struct names *n, uint64_t number)
{
    for (size_t i = 0; i < n->active.n; i++)
        if (n->active.at[i].hash == number && n->active.at[i].key && n->active.at[i].value)
            return &n->active.at[i];
    return NULL;
}

/* An object that is there afterwards was there all the time. */
static bool is_there(struct names *n, const struct dict_entry *entry)
{
    struct objects *o = n->objects;
    struct dict_entry now;
    uint64_t at = n->active.first + (uint64_t)(entry - n->active.at) * sizeof(now);
    return memory_read(o->reader, at, &now, sizeof(now)) == 0 && now.hash == entry->hash &&
           now.key == entry->key && now.value == entry->value;
}

static bool read_name(struct names *n, const struct dict_entry *entry)
{
    struct objects *o = n->objects;
    size_t size, len;
    uint64_t text = int_is(o, entry->key, entry->hash) ? object_get(o, entry->value, "_name") : 0;
    if (!text || !object_is_text(o, text))
        return false;
    _cleanup_(freep) char *name = text_read(o->reader, o->offsets, text, &size);
    if (!name || !is_there(n, entry))
        return false;
    for (struct str rest = str_of(name); (len = str_utf8_next(rest, NULL)) > 0;) {
        if (n->name.len + len > SAMPLE_NAME_MAX)
            break;
        buf_append_str(&n->name, str_sub(rest, 0, len));
        rest = str_sub(rest, len, rest.len);
    }
    return true;
}

static bool find_name(struct names *n, uint64_t interpreter, uint64_t number)
{
    uint64_t dict = dict_of(n->objects, &n->places, interpreter, find_active, n);
    for (int i = 0; dict && i < TRIES; i++) {
        if (dict != n->active_dict || i) {
            forget_active(n);
            if (dict_read(n->objects, dict, ACTIVE_MAX, &n->active) < 0)
                continue;
            n->active_dict = dict;
        }
        const struct dict_entry *entry = entry_of(n, number);
        if (!entry)
            return false;
        if (read_name(n, entry))
            return true;
    }
    return false;
}

bool names_read(struct names *n, uint64_t main, uint64_t own, uint64_t pthread,
                struct str *ret_name)
{
    if (n->budget <= 0 || memory_late(n->objects->reader))
        return false;
    buf_clear(&n->name);
    int64_t entries = n->objects->entries;
    if (!find_name(n, main, pthread) && own != main)
        find_name(n, own, pthread);
    n->budget -= 1 + (n->objects->entries - entries) / ENTRIES_PRICE;
    *ret_name = buf_str(&n->name);
    return true;
}
