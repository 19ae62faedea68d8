/* Decoding by a table with every kind of field, strict and lenient: what strict decoding accepts,
 * lenient does too; a refusal says why in one line of text. */

#include "base/buf.h"
#include "fuzz.h"
#include "json/decode.h"

struct item {
    struct str name;
    int64_t count;
    struct item *inner;
};

struct record {
    int64_t rate, duration_ms, time_ms;
    bool on, has_on;
    double ratio;
    int engine;
    struct str name;
    struct item item;
    struct item *optional;
    struct json_array items;
    struct json_str_array formats;
    struct json_str_map labels;
    const struct json *raw;
};

static const char *const engines[] = {"Auto", "Native", "PySpy", NULL};
static const char *const formats[] = {"flamegraph", "raw", "speedscope", NULL};

/* Contains itself, as a schema for trees would. */
static const struct json_field item_table[] = {
    {"name", JSON_F_STR, offsetof(struct item, name), .flags = JSON_REQUIRED, .max_len = 63},
    {"count", JSON_F_INT, offsetof(struct item, count), .min = -5, .max = 5},
    {"inner", JSON_F_OBJECT_PTR, offsetof(struct item, inner), .table = item_table,
     .size = sizeof(struct item)},
    {.name = NULL},
};

#define AT(member) offsetof(struct record, member)
static const struct json_field record_table[] = {
    {"rate", JSON_F_INT, AT(rate), .min = 1, .max = 1000},
    {"duration", JSON_F_DURATION, AT(duration_ms), .min = 1000, .max = 3600000},
    {"time", JSON_F_TIME, AT(time_ms)},
    {"on", JSON_F_BOOL, AT(on), .present = AT(has_on)},
    {"ratio", JSON_F_DOUBLE, AT(ratio)},
    {"engine", JSON_F_ENUM, AT(engine), .names = engines},
    {"name", JSON_F_STR, AT(name)},
    {"item", JSON_F_OBJECT, AT(item), .table = item_table},
    {"optional", JSON_F_OBJECT_PTR, AT(optional), .table = item_table, .size = sizeof(struct item)},
    {"items", JSON_F_ARRAY, AT(items), .table = item_table, .size = sizeof(struct item)},
    {"formats", JSON_F_STR_ARRAY, AT(formats), .names = formats, .max_len = 4},
    {"labels", JSON_F_STR_MAP, AT(labels)},
    {"raw", JSON_F_RAW, AT(raw)},
    {.name = NULL},
};

static void record_check(const struct record *r)
{
    FUZZ_CHECK(r->rate >= 1 && r->rate <= 1000);
    FUZZ_CHECK(r->duration_ms >= 1000 && r->duration_ms <= 3600000);
    FUZZ_CHECK(r->engine >= 0 && r->engine <= 2);
    FUZZ_CHECK(r->formats.len <= 4);
    const struct item *items = r->items.items;
    for (size_t i = 0; i < r->items.len; i++)
        FUZZ_CHECK(items[i].name.ptr && items[i].name.len <= 63);
    for (size_t i = 0; i < r->labels.len; i++)
        FUZZ_CHECK(json_str_map_get(&r->labels, r->labels.items[i].name).ptr ==
                   r->labels.items[i].value.ptr);
}

static int decode(struct arena *arena, const struct json *tree, enum json_unknown unknown)
{
    struct record r = {.rate = 100, .duration_ms = 30000};
    struct err err = ERR_INIT;
    int code = json_decode(arena, tree, record_table, "spec", unknown, &r, &err);
    if (code == 0) {
        record_check(&r);
        return 0;
    }
    FUZZ_CHECK(code == ERR_INVALID && err.code == code);
    for (const char *c = err.message; *c; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7F);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree = NULL;
    if (json_parse(arena, (struct str){(const char *)bytes, len}, NULL, &tree, NULL) != 0)
        return 0;
    int lenient = decode(arena, tree, JSON_UNKNOWN_IGNORE);
    int strict = decode(arena, tree, JSON_UNKNOWN_REFUSE);
    FUZZ_CHECK(strict != 0 || lenient == 0);
    return 0;
}
