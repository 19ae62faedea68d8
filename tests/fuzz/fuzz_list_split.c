/* A list answer in pieces. However it is cut, the same comes out; and for a document that the JSON
 * parser takes, the items are those that it finds. */
#include "base/buf.h"
#include "fuzz.h"
#include "kube/kube_internal.h"

static int collect(void *context, struct str text, struct err *err)
{
    struct buf *items = context;
    (void)err;
    buf_append_str(items, text);
    buf_append_char(items, '\n');
    return 0;
}

static int split(struct str text, size_t piece, struct buf *out, size_t *ret_items)
{
    struct buf items = BUF_INIT(1 << 22);
    struct err err = ERR_INIT;
    int failed = 0;
    struct kube_list_split *s = kube_list_split_create(1 << 20, collect, &items);
    for (size_t i = 0; i < text.len && !failed; i += piece)
        failed = kube_list_split_feed(s, str_sub(text, i, piece), &err);
    buf_append_str(out, buf_str(&items));
    buf_append_char(out, '|');
    if (!failed)
        buf_append_str(out, kube_list_split_envelope(s));
    for (size_t i = 0; ret_items && i < items.len; i++)
        *ret_items += items.ptr[i] == '\n';
    kube_list_split_destroy(s);
    buf_finish(&items);
    return failed;
}

static bool has_only_objects(const struct json *items)
{
    for (size_t i = 0; i < json_len(items); i++) {
        enum json_type type = json_item(items, i)->type;
        if (type != JSON_OBJECT && type != JSON_ARRAY)
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = {(const char *)bytes, len};
    struct buf whole = BUF_INIT(1 << 22), pieces = BUF_INIT(1 << 22);
    size_t n = 0;
    int failed = split(text, len ? len : 1, &whole, NULL);
    FUZZ_CHECK(split(text, 1, &pieces, &n) == failed);
    FUZZ_CHECK(str_eq(buf_str(&whole), buf_str(&pieces)));

    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree = NULL;
    /* Line breaks would be counted as ends of items above; escaped names are not looked through. */
    bool plain = str_find_char(text, '\n') < 0 && str_find_char(text, '\\') < 0;
    if (plain && !json_parse(arena, text, NULL, &tree, NULL) && tree->type == JSON_OBJECT) {
        const struct json *items = json_get(tree, "items");
        size_t times = 0;
        for (size_t i = 0; i < tree->object.len; i++)
            times += str_is(tree->object.members[i].name, "items");
        if (times <= 1 && has_only_objects(items))
            FUZZ_CHECK(failed == 0 &&
                       n == (items && items->type == JSON_ARRAY ? json_len(items) : 0));
    }
    buf_finish(&whole);
    buf_finish(&pieces);
    return 0;
}
