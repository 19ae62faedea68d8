/* The CRD and the decode tables are one contract: what is in one is in the other, with the same
 * type, bounds, values and defaults. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../controller/trees.h"
#include "api/pyspyprofile.h"
#include "base/buf.h"

#define CRD_PATH TEST_DATA "/../../crds/pyspyprofiles.yaml"

struct check {
    struct buf problems; /* a line each */
    bool spec;           /* bounds must be equal; of a status they are promises of ours */
};

static void problem(struct check *c, const char *path, const char *what)
{
    buf_appendf(&c->problems, "%s: %s\n", path, what);
}

static void check_enum(struct check *c, const char *path, const struct json *values,
                       const char *const *names)
{
    size_t n = 0;
    for (size_t i = 0; names[i]; i++) {
        bool found = false;
        for (size_t j = 0; j < json_len(values); j++)
            found = found || str_is(json_text(json_item(values, j)), names[i]);
        n += found;
        if (!found)
            problem(c, path, "a value is missing in the CRD");
    }
    if (n != json_len(values))
        problem(c, path, "a value is missing in the table");
}

static void check_table(struct check *c, const char *path, const struct json *schema,
                        const struct json_field *table);

static const char *type_of(const struct json_field *f)
{
    switch (f->kind) {
    case JSON_F_BOOL:
        return "boolean";
    case JSON_F_INT:
        return "integer";
    case JSON_F_OBJECT:
    case JSON_F_OBJECT_PTR:
        return "object";
    case JSON_F_ARRAY:
    case JSON_F_STR_ARRAY:
        return "array";
    default:
        return "string";
    }
}

static void check_bounds(struct check *c, const char *path, const struct json *schema,
                         const struct json_field *f)
{
    int64_t most = json_int(json_get(schema, "maxLength"), 0);
    int64_t items = json_int(json_get(schema, "maxItems"), 0);
    int64_t room = f->max_len ? (int64_t)f->max_len : 4096;
    if (f->kind == JSON_F_INT && c->spec &&
        (json_int(json_get(schema, "minimum"), INT64_MIN) != f->min ||
         json_int(json_get(schema, "maximum"), INT64_MAX) != f->max))
        problem(c, path, "minimum or maximum differ");
    if (f->kind == JSON_F_STR && !json_get(schema, "enum") && !most)
        problem(c, path, "no maxLength in the CRD");
    /* Characters there, bytes here: up to four for each where no pattern says ASCII. */
    if (f->kind == JSON_F_STR && most * (c->spec && !json_get(schema, "pattern") ? 4 : 1) > room)
        problem(c, path, "the table has less room than the CRD lets in");
    if (f->kind == JSON_F_STR_ARRAY && items != (int64_t)f->max_len)
        problem(c, path, "maxItems differs");
    if (f->kind == JSON_F_ARRAY && items > (f->max_len ? (int64_t)f->max_len : 1000))
        problem(c, path, "the table has less room than maxItems");
}

static void check_field(struct check *c, const char *path, const struct json *schema,
                        const struct json_field *f)
{
    const struct json *items = json_get(schema, "items");
    if (!str_is(json_text(json_get(schema, "type")), type_of(f)))
        problem(c, path, "another type");
    if (!json_get(schema, "description"))
        problem(c, path, "no description");
    if (f->kind == JSON_F_ENUM)
        check_enum(c, path, json_get(schema, "enum"), f->names);
    if (f->kind == JSON_F_TIME && !str_is(json_text(json_get(schema, "format")), "date-time"))
        problem(c, path, "no date-time");
    if (f->kind == JSON_F_STR_ARRAY)
        check_enum(c, path, json_get(items, "enum"), profile_format_names);
    if (f->kind == JSON_F_OBJECT || f->kind == JSON_F_OBJECT_PTR)
        check_table(c, path, schema, f->table);
    if (f->kind == JSON_F_ARRAY)
        check_table(c, path, items, f->table);
    check_bounds(c, path, schema, f);
}

static bool is_required(const struct json *schema, struct str name)
{
    const struct json *required = json_get(schema, "required");
    for (size_t i = 0; i < json_len(required); i++)
        if (str_eq(json_text(json_item(required, i)), name))
            return true;
    return false;
}

static void check_table(struct check *c, const char *path, const struct json *schema,
                        const struct json_field *table)
{
    const struct json *properties = json_get(schema, "properties");
    char inner[512];
    for (const struct json_field *f = table; f->name; f++) {
        const struct json *property = json_get(properties, f->name);
        snprintf(inner, sizeof(inner), "%s.%s", path, f->name);
        if (!property)
            problem(c, inner, "not in the CRD");
        else
            check_field(c, inner, property, f);
        if ((f->flags & JSON_REQUIRED) && !is_required(schema, str_of(f->name)))
            problem(c, inner, "not required by the CRD");
        if (c->spec && !(f->flags & JSON_REQUIRED) && is_required(schema, str_of(f->name)))
            problem(c, inner, "required by the CRD alone");
    }
    for (size_t i = 0; properties && i < properties->object.len; i++) {
        struct str name = properties->object.members[i].name;
        bool known = false;
        for (const struct json_field *f = table; f->name; f++)
            known = known || str_is(name, f->name);
        snprintf(inner, sizeof(inner), "%s.%.*s", path, STR_ARG(name));
        if (!known)
            problem(c, inner, "not in the table");
    }
}

static const struct json *crd_schema(struct arena *arena)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 20);
    assert_int_equal(buf_read_file(&text, CRD_PATH, NULL), 0);
    const struct json *crd = tree_of(arena, buf_cstr(&text));
    assert_true(str_is(json_text(json_at(crd, "spec", "group", NULL)), API_GROUP));
    assert_true(str_is(json_text(json_at(crd, "spec", "names", "kind", NULL)), API_KIND));
    assert_true(str_is(json_text(json_at(crd, "spec", "names", "plural", NULL)), API_PLURAL));
    const struct json *version = json_item(json_at(crd, "spec", "versions", NULL), 0);
    assert_true(str_is(json_text(json_get(version, "name")), API_VERSION));
    const struct json *schema = json_at(version, "schema", "openAPIV3Schema", "properties", NULL);
    assert_non_null(schema);
    return schema;
}

/* Lines of problems; the caller's to finish. */
static struct buf compare(const struct json *properties)
{
    struct check c = {.problems = BUF_INIT(1u << 16), .spec = true};
    check_table(&c, "spec", json_get(properties, "spec"), profile_spec_table);
    c.spec = false;
    check_table(&c, "status", json_get(properties, "status"), profile_status_table);
    return c.problems;
}

static void crd_and_tables_agree(void **state)
{
    _cleanup_(buf_finish) struct buf problems = compare(crd_schema(*state));
    assert_string_equal(buf_cstr(&problems), "");
}

/* A change of one side alone is found. */
static void differences_are_found(void **state)
{
    static const struct {
        const char *patch, *problem;
    } rows[] = {
        {"{spec: {properties: {rate: {type: integer, description: x}}}}",
         "spec.rate: not in the table"},
        {"{spec: {properties: {cancel: null}}}", "spec.cancel: not in the CRD"},
        {"{spec: {properties: {cancel: {type: string}}}}", "spec.cancel: another type"},
        {"{spec: {properties: {startDeadlineSeconds: {maximum: 86401}}}}",
         "spec.startDeadlineSeconds: minimum or maximum differ"},
        {"{spec: {properties: {formats: {items: {enum: [flamegraph, raw, speedscope]}}}}}",
         "spec.formats: a value is missing in the CRD"},
        {"{spec: {properties: {sampling: {properties: {engine: {enum: [Auto, Native, PySpy, "
         "Rust]}}}}}}",
         "spec.sampling.engine: a value is missing in the table"},
        {"{spec: {properties: {target: {required: []}}}}",
         "spec.target.podName: not required by the CRD"},
        {"{spec: {properties: {target: {properties: {process: {properties: {command: {maxLength: "
         "5000}}}}}}}}",
         "spec.target.process.command: the table has less room"},
        {"{status: {properties: {phase: {enum: [Pending]}}}}",
         "status.phase: a value is missing in the CRD"},
        {"{status: {properties: {conditions: {items: {properties: {since: {type: string}}}}}}}",
         "status.conditions.since: not in the table"},
        {"{status: {properties: {targets: {items: {properties: {cost: null}}}}}}",
         "status.targets.cost: not in the CRD"},
    };
    struct arena *arena = *state;
    const struct json *properties = crd_schema(arena);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(buf_finish) struct buf problems =
            compare(tree_merge(arena, properties, tree_of(arena, rows[i].patch)));
        if (str_find(buf_str(&problems), str_of(rows[i].problem)) < 0)
            fail_msg("not found: %s; found: %s", rows[i].problem, buf_cstr(&problems));
    }
}

/* What the API server would fill in: JSON written from the schema's defaults. */
static void put_defaults(struct json_writer *w, const char *name, const struct json *schema,
                         const struct json *given)
{
    const struct json *properties = json_get(schema, "properties");
    if (!given)
        given = json_get(schema, "default");
    if (!properties) {
        json_put_tree(w, name, given);
        return;
    }
    json_begin_object(w, name);
    for (size_t i = 0; i < properties->object.len; i++) {
        const struct json_member *m = &properties->object.members[i];
        const struct json *value = json_get_str(given, m->name);
        if (value || json_get(m->value, "default"))
            put_defaults(w, m->name.ptr, m->value, value);
    }
    json_end_object(w);
}

static void compare_values(const struct json_field *table, const char *a, const char *b)
{
    for (const struct json_field *f = table; f->name; f++) {
        const void *x = a + f->offset, *y = b + f->offset;
        bool equal = true;
        if (f->kind == JSON_F_BOOL)
            equal = *(const bool *)x == *(const bool *)y;
        else if (f->kind == JSON_F_INT || f->kind == JSON_F_DURATION || f->kind == JSON_F_TIME)
            equal = *(const int64_t *)x == *(const int64_t *)y;
        else if (f->kind == JSON_F_ENUM)
            equal = *(const int *)x == *(const int *)y;
        else if (f->kind == JSON_F_STR)
            equal = str_eq(*(const struct str *)x, *(const struct str *)y);
        else if (f->kind == JSON_F_OBJECT)
            compare_values(f->table, x, y);
        if (!equal)
            fail_msg("%s: the defaults differ", f->name);
    }
}

static void defaults_agree(void **state)
{
    struct arena *arena = *state;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 16);
    struct json_writer w = JSON_WRITER(&text);
    const struct json *properties = crd_schema(arena);
    const struct json *bare = tree_of(arena, "{metadata: {name: p}, spec: {target: {podName: x}}}");
    json_begin_object(&w, NULL);
    json_put_tree(&w, "metadata", json_get(bare, "metadata"));
    put_defaults(&w, "spec", json_get(properties, "spec"), json_get(bare, "spec"));
    put_defaults(&w, "status", json_get(properties, "status"), NULL);
    json_end_object(&w);
    const struct json *filled;
    struct pyspyprofile ours, theirs;
    assert_int_equal(json_parse(arena, buf_str(&text), NULL, &filled, NULL), 0);
    assert_non_null(
        json_at(filled, "spec", "sampling", "duration", NULL)); /* it filled something */
    assert_int_equal(pyspyprofile_decode(arena, bare, &ours, NULL), 0);
    assert_int_equal(pyspyprofile_decode(arena, filled, &theirs, NULL), 0);
    compare_values(profile_spec_table, (const char *)&ours.spec, (const char *)&theirs.spec);
    assert_int_equal(ours.spec.formats, theirs.spec.formats);
    assert_null(ours.spec.output.secret);
    assert_null(theirs.spec.output.secret);
    assert_int_equal(ours.status.phase, theirs.status.phase);
    assert_int_equal(ours.spec.ttl_s, 604800);
}

/* The reasons that are documented are those that there are. */
static void reasons_are_documented(void **state)
{
    const struct json *reason =
        json_at(crd_schema(*state), "status", "properties", "reason", "description", NULL);
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++)
        if (i != REASON_INVALID && str_find(json_text(reason), str_of(profile_reason_names[i])) < 0)
            fail_msg("%s is not in the description of status.reason", profile_reason_names[i]);
}

static int set_up(void **state)
{
    *state = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    arena_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(crd_and_tables_agree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(differences_are_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(defaults_agree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reasons_are_documented, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
