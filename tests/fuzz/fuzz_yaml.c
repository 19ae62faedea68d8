/* YAML as in a kubeconfig or our own configuration: what is accepted can be written as JSON, and
 * that parses to the same tree. */

#include "base/buf.h"
#include "fuzz.h"
#include "json/json.h"
#include "json/write.h"

static void tree_write(struct buf *out, const struct json *tree)
{
    struct json_writer w = JSON_WRITER(out);
    json_put_tree(&w, NULL, tree);
    FUZZ_CHECK(!out->failed);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct err err = ERR_INIT;
    const struct json *tree = NULL, *again = NULL;
    if (json_parse_yaml(arena, (struct str){(const char *)bytes, len}, NULL, &tree, &err) != 0) {
        FUZZ_CHECK(tree == NULL && err.code != 0 && err.message[0] != '\0');
        return 0;
    }
    struct buf once = BUF_INIT(1 << 22), twice = BUF_INIT(1 << 22);
    tree_write(&once, tree);
    FUZZ_CHECK(json_parse(arena, buf_str(&once), NULL, &again, NULL) == 0);
    tree_write(&twice, again);
    FUZZ_CHECK(str_eq(buf_str(&once), buf_str(&twice)));
    buf_finish(&once);
    buf_finish(&twice);
    return 0;
}
