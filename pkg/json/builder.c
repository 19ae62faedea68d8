#include "json/json_internal.h"

#include "base/alloc.h"

/* Up to this many members, comparing each with each is cheaper than sorting. */
#define SMALL_OBJECT 24

struct json_limits json_limits_effective(const struct json_limits *limits)
{
    struct json_limits l = limits ? *limits : (struct json_limits){0};
    if (l.max_bytes == 0)
        l.max_bytes = JSON_DEFAULT_BYTES;
    if (l.max_depth <= 0)
        l.max_depth = JSON_DEFAULT_DEPTH;
    if (l.max_depth > JSON_MAX_DEPTH)
        l.max_depth = JSON_MAX_DEPTH;
    if (l.max_nodes == 0)
        l.max_nodes = JSON_DEFAULT_NODES;
    return l;
}

void json_builder_init(struct json_builder *b, struct arena *arena,
                       const struct json_limits *limits)
{
    *b = (struct json_builder){.arena = arena, .limits = json_limits_effective(limits)};
}

void json_builder_finish(struct json_builder *b)
{
    free(b->slots);
    free(b->open);
    b->slots = NULL;
    b->open = NULL;
}

static struct json_slot *slot_push(struct json_builder *b)
{
    if (b->slots_len == b->slots_cap) {
        b->slots_cap = b->slots_cap ? b->slots_cap * 2 : 64;
        b->slots = xrealloc(b->slots, b->slots_cap, sizeof(*b->slots));
    }
    struct json_slot *slot = &b->slots[b->slots_len++];
    *slot = (struct json_slot){0};
    return slot;
}

bool json_builder_in_object(const struct json_builder *b)
{
    return b->depth > 0 && b->open[b->depth - 1].node->type == JSON_OBJECT;
}

bool json_builder_wants_name(const struct json_builder *b)
{
    if (!json_builder_in_object(b))
        return false;
    size_t first = b->open[b->depth - 1].first_slot;
    return b->slots_len == first || b->slots[b->slots_len - 1].value != NULL;
}

/* A new node, put where the next value belongs; NULL with b->error when there are too many. */
static struct json *node_add(struct json_builder *b, enum json_type type, int line)
{
    if (b->nodes >= b->limits.max_nodes) {
        err_set(&b->error, ERR_TOO_LARGE, "line %d: more than %zu values", line,
                b->limits.max_nodes);
        return NULL;
    }
    b->nodes++;
    struct json *node = arena_alloc(b->arena, sizeof(*node));
    node->type = type;
    node->line = line;
    if (b->depth == 0) {
        b->root = node;
    } else if (json_builder_in_object(b)) {
        struct json_slot *slot = &b->slots[b->slots_len - 1];
        node->line = slot->line;
        slot->value = node;
    } else {
        slot_push(b)->value = node;
    }
    return node;
}

static int text_check(struct json_builder *b, struct str text, int line)
{
    if (text.len && memchr(text.ptr, 0, text.len))
        return err_set(&b->error, ERR_INVALID, "line %d: a NUL byte in a string", line);
    if (!str_is_utf8(text))
        return err_set(&b->error, ERR_INVALID, "line %d: a string that is not UTF-8", line);
    return 0;
}

int json_builder_text(struct json_builder *b, enum json_type type, struct str text, int line)
{
    if (type == JSON_STRING && text_check(b, text, line))
        return b->error.code;
    struct json *node = node_add(b, type, line);
    if (!node)
        return b->error.code;
    node->text = arena_str(b->arena, text);
    return 0;
}

int json_builder_bool(struct json_builder *b, bool value, int line)
{
    struct json *node = node_add(b, JSON_BOOL, line);
    if (!node)
        return b->error.code;
    node->boolean = value;
    return 0;
}

int json_builder_null(struct json_builder *b, int line)
{
    return node_add(b, JSON_NULL, line) ? 0 : b->error.code;
}

int json_builder_name(struct json_builder *b, struct str name, int line)
{
    if (text_check(b, name, line))
        return b->error.code;
    struct json_slot *slot = slot_push(b);
    slot->name = arena_str(b->arena, name);
    slot->line = line;
    return 0;
}

int json_builder_begin(struct json_builder *b, enum json_type type, int line)
{
    if (b->depth >= b->limits.max_depth)
        return err_set(&b->error, ERR_TOO_LARGE, "line %d: nested deeper than %d levels", line,
                       b->limits.max_depth);
    struct json *node = node_add(b, type, line);
    if (!node)
        return b->error.code;
    if (b->depth == b->open_cap) {
        b->open_cap = b->open_cap ? b->open_cap * 2 : 16;
        b->open = xrealloc(b->open, (size_t)b->open_cap, sizeof(*b->open));
    }
    b->open[b->depth++] = (struct json_open){.node = node, .first_slot = b->slots_len};
    return 0;
}

static int slot_compare(const void *a, const void *b)
{
    const struct json_slot *const *x = a, *const *y = b;
    int order = str_cmp((*x)->name, (*y)->name);
    if (order != 0)
        return order;
    return *x < *y ? -1 : *x > *y; /* by position: both point into one array */
}

/* Marks all but the last of a repeated name by value = NULL; returns the first repetition met. */
static const struct json_slot *repeated_drop(struct json_slot *slots, size_t len)
{
    const struct json_slot *found = NULL;
    if (len <= SMALL_OBJECT) {
        for (size_t i = 1; i < len; i++) {
            for (size_t j = 0; j < i; j++) {
                if (slots[j].value && str_eq(slots[i].name, slots[j].name)) {
                    slots[j].value = NULL;
                    found = found ? found : &slots[i];
                }
            }
        }
        return found;
    }
    struct json_slot **sorted = xcalloc(len, sizeof(struct json_slot *));
    for (size_t i = 0; i < len; i++)
        sorted[i] = &slots[i];
    qsort(sorted, len, sizeof(struct json_slot *), slot_compare);
    for (size_t i = 1; i < len; i++) {
        if (str_eq(sorted[i - 1]->name, sorted[i]->name)) {
            sorted[i - 1]->value = NULL;
            found = found && found < sorted[i] ? found : sorted[i];
        }
    }
    free(sorted);
    return found;
}

static int object_close(struct json_builder *b, struct json *node, struct json_slot *slots,
                        size_t len)
{
    const struct json_slot *repeated = repeated_drop(slots, len);
    if (repeated && b->refuse_repeated)
        return err_set(&b->error, ERR_INVALID, "line %d: the key \"%.*s\" is given twice",
                       repeated->line, STR_ARG(str_sub(repeated->name, 0, 80)));
    struct json_member *members = arena_array(b->arena, len, sizeof(*members));
    size_t kept = 0;
    for (size_t i = 0; i < len; i++) {
        if (slots[i].value)
            members[kept++] = (struct json_member){slots[i].name, slots[i].value};
    }
    node->object.members = members;
    node->object.len = kept;
    return 0;
}

int json_builder_end(struct json_builder *b)
{
    struct json_open *open = &b->open[--b->depth];
    size_t len = b->slots_len - open->first_slot;
    b->slots_len = open->first_slot;
    if (len == 0)
        return 0;
    struct json_slot *slots = b->slots + open->first_slot;
    if (open->node->type == JSON_OBJECT)
        return object_close(b, open->node, slots, len);
    const struct json **items = arena_array(b->arena, len, sizeof(const struct json *));
    for (size_t i = 0; i < len; i++)
        items[i] = slots[i].value;
    open->node->array.items = items;
    open->node->array.len = len;
    return 0;
}
