/* A watch's bytes: however they are cut, the same documents come out; and a document that parses is
 * written so that it parses to the same again. */

#include "base/buf.h"
#include "fuzz.h"
#include "json/json.h"
#include "json/write.h"

struct seen {
    struct buf documents;
    size_t count;
};

static void tree_write(struct buf *out, const struct json *tree)
{
    struct json_writer w = JSON_WRITER(out);
    json_put_tree(&w, NULL, tree);
    FUZZ_CHECK(!out->failed);
}

static void round_trip_check(struct arena *arena, const struct json *tree)
{
    struct buf once = BUF_INIT(1 << 20), twice = BUF_INIT(1 << 20);
    const struct json *again = NULL;
    tree_write(&once, tree);
    FUZZ_CHECK(json_parse(arena, buf_str(&once), NULL, &again, NULL) == 0);
    tree_write(&twice, again);
    FUZZ_CHECK(str_eq(buf_str(&once), buf_str(&twice)));
    buf_finish(&once);
    buf_finish(&twice);
}

static int on_document(void *context, struct str text, struct err *err)
{
    struct seen *seen = context;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const struct json *tree = NULL;
    int code = json_parse(arena, text, NULL, &tree, err);
    if (code != 0)
        return code;
    FUZZ_CHECK(tree->type == JSON_OBJECT || tree->type == JSON_ARRAY);
    round_trip_check(arena, tree);
    seen->count++;
    buf_append_str(&seen->documents, text);
    buf_append_char(&seen->documents, '\n');
    return 0;
}

/* step: bytes at once; 0: all. */
static int stream_run(struct str text, size_t step, struct seen *seen)
{
    struct json_limits limits = {.max_bytes = 4096};
    _cleanup_(json_stream_destroyp) struct json_stream *s =
        json_stream_create(&limits, on_document, seen);
    int code = 0;
    for (size_t at = 0; code == 0 && at < text.len; at += step ? step : text.len)
        code = json_stream_feed(s, str_sub(text, at, step ? step : text.len), NULL);
    return code == 0 ? json_stream_end(s, NULL) : code;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const size_t steps[] = {1, 3, 64};
    struct str text = {(const char *)bytes, len};
    struct seen whole = {.documents = BUF_INIT(1 << 20)};
    int code = stream_run(text, 0, &whole);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct seen parts = {.documents = BUF_INIT(1 << 20)};
        FUZZ_CHECK(stream_run(text, steps[i], &parts) == code);
        FUZZ_CHECK(parts.count == whole.count);
        FUZZ_CHECK(str_eq(buf_str(&parts.documents), buf_str(&whole.documents)));
        buf_finish(&parts.documents);
    }
    buf_finish(&whole.documents);
    return 0;
}
