/* What an upload must be to be stored, and what is stored then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "controller/store.h"
#include "trees.h"

#define SHA_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static const struct store_target base = {
    .namespace_ = STR_NULL, .formats = 1u << FORMAT_RAW | 1u << FORMAT_FLAMEGRAPH, .max_bytes = 10};

static struct store_target target(bool secret)
{
    struct store_target t = base;
    t.namespace_ = STR("shop");
    t.profile_name = STR("slow");
    t.profile_uid = STR("u-1");
    t.object_name = STR("slow-1");
    t.secret = secret;
    return t;
}

#define RAW                                                                                        \
    "{format: raw, key: raw.txt, mediaType: 'text/plain; charset=utf-8', sizeBytes: 3, "           \
    "sha256: " SHA_ABC ", content: abc"
#define SVG                                                                                        \
    "{format: flamegraph, key: f.svg.gz, mediaType: image/svg+xml, encoding: gzip, sizeBytes: 3, " \
    "sha256: " SHA_ABC ", content: YWJj"

static const struct {
    const char *name, *upload; /* NULL: one file, RAW with `file` merged into it */
    const char *file;
    int code;
    const char *message;
} rows[] = {
    {"good", "{version: 1, files: [" RAW "}]}", NULL, 0, NULL},
    {"both", "{version: 1, files: [" RAW "}, " SVG "}]}", NULL, 0, NULL},
    {"no files", "{version: 1, files: []}", NULL, ERR_INVALID, "files: at least one"},
    {"not asked for", NULL, "{format: speedscope}", ERR_INVALID, "did not ask for it"},
    {"unknown format", NULL, "{format: pprof}", ERR_INVALID, "format \"pprof\""},
    {"format twice",
     "{version: 1, files: [" RAW "}, {format: raw, key: b, mediaType: "
     "'text/plain; charset=utf-8', sizeBytes: 3, sha256: " SHA_ABC ", content: abc}]}",
     NULL, ERR_INVALID, "format \"raw\": given twice"},
    {"key twice",
     "{version: 1, files: [" RAW "}, {format: flamegraph, key: raw.txt, mediaType: "
     "image/svg+xml, sizeBytes: 3, sha256: " SHA_ABC ", content: abc}]}",
     NULL, ERR_INVALID, "key \"raw.txt\": given twice"},
    {"a path", NULL, "{key: ../x}", ERR_INVALID, "key \"../x\""},
    {"dots", NULL, "{key: '..'}", ERR_INVALID, "key \"..\""},
    {"a dot", NULL, "{key: '.'}", ERR_INVALID, "key \".\""},
    {"no key", NULL, "{key: ''}", ERR_INVALID, "key \"\""},
    {"a slash", NULL, "{key: a/b}", ERR_INVALID, "key \"a/b\""},
    {"a space", NULL, "{key: a b}", ERR_INVALID, "key \"a b\""},
    {"a key of 254", NULL,
     "{key: "
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}",
     ERR_INVALID, "key"},
    {"encoding", NULL, "{encoding: br}", ERR_INVALID, "encoding \"br\""},
    {"media type", NULL, "{mediaType: text/html}", ERR_INVALID, "mediaType \"text/html\""},
    {"digest", NULL, "{sha256: ab}", ERR_INVALID, "is not what its sizeBytes and sha256 say"},
    {"digest in capitals", NULL,
     "{sha256: BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD}", ERR_INVALID,
     "sha256"},
    {"size", NULL, "{sizeBytes: 4}", ERR_INVALID, "is not what its sizeBytes and sha256 say"},
    {"negative size", NULL, "{sizeBytes: -3}", ERR_TOO_LARGE, "larger than 10 bytes"},
    {"too large", NULL, "{sizeBytes: 11}", ERR_TOO_LARGE, "larger than 10 bytes"},
    {"larger than it says", NULL, "{content: abcabcabcabc}", ERR_INVALID, "sizeBytes"},
    {"empty", NULL, "{sizeBytes: 0, content: ''}", ERR_INVALID, "is empty"},
    {"no content", NULL, "{content: null}", ERR_INVALID, "is empty"},
    {"not base64", NULL, "{encoding: gzip, content: '!'}", ERR_INVALID, "content of raw.txt"},
    {"base64 of too much", NULL, "{encoding: gzip, content: YWJjYWJjYWJjYWJj}", ERR_TOO_LARGE,
     "content of raw.txt"},
    {"unknown member", NULL, "{colour: red}", ERR_INVALID, "colour"},
    {"version", "{version: 2, files: []}", NULL, ERR_INVALID, "version"},
};

static struct str body_of(struct arena *arena, size_t i)
{
    if (rows[i].upload)
        return tree_text(arena, tree_of(arena, rows[i].upload));
    const struct json *file = tree_merged(arena, RAW "}", rows[i].file);
    struct str text = tree_text(arena, file);
    return str_of(arena_printf(arena, "{\"version\":1,\"files\":[%.*s]}", STR_ARG(text)));
}

static void uploads_are_checked(void **state)
{
    struct arena *arena = *state;
    struct store_target t = target(false);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct upload upload;
        struct receipt receipt;
        struct err err = ERR_INIT;
        int r = store_check(arena, body_of(arena, i), &t, &upload, &receipt, &err);
        if (r != rows[i].code || (r && !strstr(err.message, rows[i].message)))
            fail_msg("%s: %d %s", rows[i].name, r, err.message);
    }
    struct err err = ERR_INIT;
    assert_int_equal(store_check(arena, STR("garbage"), &t, &(struct upload){0},
                                 &(struct receipt){.mac = STR_NULL}, &err),
                     ERR_INVALID);
}

/* Sizes that are each small enough, and not together. */
static void sizes_count_together(void **state)
{
    struct arena *arena = *state;
    struct store_target t = target(false);
    t.max_bytes = 5;
    struct upload upload;
    struct receipt receipt;
    assert_int_equal(store_check(arena, body_of(arena, 1), &t, &upload, &receipt, NULL),
                     ERR_TOO_LARGE);
    t.max_bytes = 6;
    assert_int_equal(store_check(arena, body_of(arena, 1), &t, &upload, &receipt, NULL), 0);
}

static const struct json *rendered(struct arena *arena, bool secret, bool patch,
                                   struct receipt *receipt)
{
    struct store_target t = target(secret);
    struct upload upload;
    const struct json *tree = NULL;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(1u << 16);
    assert_int_equal(store_check(arena, body_of(arena, 1), &t, &upload, receipt, NULL), 0);
    int r = patch ? store_render_patch(&out, &t, &upload, NULL)
                  : store_render_object(&out, &t, &upload, NULL);
    assert_int_equal(r, 0);
    assert_int_equal(json_parse(arena, buf_str(&out), NULL, &tree, NULL), 0);
    return tree;
}

static bool says(const struct json *tree, const char *a, const char *b, const char *text)
{
    return str_is(json_text(json_at(tree, a, b, NULL)), text);
}

static void objects_are_rendered(void **state)
{
    struct arena *arena = *state;
    struct receipt receipt;
    const struct json *map = rendered(arena, false, false, &receipt);
    assert_true(str_is(receipt.kind, "ConfigMap") && str_is(receipt.name, "slow-1"));
    assert_int_equal(receipt.files.len, 2);
    assert_true(str_is(json_text(json_get(map, "kind")), "ConfigMap"));
    assert_true(says(map, "data", "raw.txt", "abc"));
    assert_null(json_at(map, "data", "f.svg.gz", NULL));
    assert_true(says(map, "binaryData", "f.svg.gz", "YWJj"));
    assert_true(says(map, "metadata", "name", "slow-1"));
    assert_true(says(map, "metadata", "namespace", "shop"));
    assert_true(says(json_get(map, "metadata"), "labels", LABEL_PROFILE_UID, "u-1"));
    const struct json *owner = json_item(json_at(map, "metadata", "ownerReferences", NULL), 0);
    assert_true(str_is(json_text(json_get(owner, "uid")), "u-1"));
    assert_true(str_is(json_text(json_get(owner, "name")), "slow"));
    assert_true(str_is(json_text(json_get(owner, "kind")), API_KIND));

    const struct json *secret = rendered(arena, true, false, &receipt);
    assert_true(str_is(receipt.kind, "Secret"));
    assert_true(str_is(json_text(json_get(secret, "kind")), "Secret"));
    assert_true(says(secret, "data", "raw.txt", "YWJj"));
    assert_true(says(secret, "data", "f.svg.gz", "YWJj"));
    assert_null(json_get(secret, "binaryData"));
}

static void patches_test_whose_it_is(void **state)
{
    struct arena *arena = *state;
    struct receipt receipt;
    for (int secret = 0; secret <= 1; secret++) {
        const struct json *patch = rendered(arena, secret, true, &receipt);
        const struct json *test = json_item(patch, 0), *data = json_item(patch, 1);
        assert_int_equal(json_len(patch), secret ? 2 : 3);
        assert_true(str_is(json_text(json_get(test, "op")), "test"));
        assert_true(str_is(json_text(json_get(test, "path")),
                           "/metadata/labels/profiling.pyspy.dev~1profile-uid"));
        assert_true(str_is(json_text(json_get(test, "value")), "u-1"));
        assert_true(str_is(json_text(json_get(data, "path")), "/data"));
        assert_true(says(data, "value", "raw.txt", secret ? "YWJj" : "abc"));
    }
}

/* What does not fit is told, not cut. */
static void rendering_has_a_cap(void **state)
{
    struct arena *arena = *state;
    struct store_target t = target(false);
    struct upload upload;
    struct receipt receipt;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(100);
    assert_int_equal(store_check(arena, body_of(arena, 1), &t, &upload, &receipt, NULL), 0);
    assert_int_equal(store_render_object(&out, &t, &upload, NULL), ERR_TOO_LARGE);
    buf_clear(&out);
    assert_int_equal(store_render_patch(&out, &t, &upload, NULL), ERR_TOO_LARGE);
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

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(uploads_are_checked),      TEST(sizes_count_together), TEST(objects_are_rendered),
        TEST(patches_test_whose_it_is), TEST(rendering_has_a_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
