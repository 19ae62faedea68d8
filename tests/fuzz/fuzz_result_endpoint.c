/* The body of an upload: what is let in fits its caps, can be rendered either way, and gives a
 * receipt that survives the way to the runner and back. */

#include "controller/store.h"
#include "fuzz.h"

static void render(const struct store_target *target, const struct upload *upload)
{
    int (*const renderers[])(struct buf *, const struct store_target *, const struct upload *,
                             struct err *) = {store_render_object, store_render_patch};
    for (size_t i = 0; i < ARRAY_SIZE(renderers); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        _cleanup_(buf_finish) struct buf out = BUF_INIT(4u << 20);
        const struct json *tree;
        FUZZ_CHECK(renderers[i](&out, target, upload, NULL) == 0);
        FUZZ_CHECK(json_parse(arena, buf_str(&out), NULL, &tree, NULL) == 0);
    }
}

static void carry(struct arena *arena, struct receipt *receipt)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(1u << 20), a = BUF_INIT(1u << 20);
    _cleanup_(buf_finish) struct buf b = BUF_INIT(1u << 20);
    struct json_writer w = JSON_WRITER(&text);
    const struct json *tree;
    struct receipt back;
    receipt->mac = STR("00");
    receipt_write(&w, NULL, receipt);
    FUZZ_CHECK(json_parse(arena, buf_str(&text), NULL, &tree, NULL) == 0);
    FUZZ_CHECK(receipt_decode(arena, tree, &back, NULL) == 0);
    receipt_mac_input(&a, STR("u"), receipt);
    receipt_mac_input(&b, STR("u"), &back);
    FUZZ_CHECK(!a.failed && str_eq(buf_str(&a), buf_str(&b)));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    for (int secret = 0; secret <= 1; secret++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        const struct store_target target = {.namespace_ = STR("shop"),
                                            .profile_name = STR("slow"),
                                            .profile_uid = STR("u"),
                                            .object_name = STR("slow-1"),
                                            .secret = secret,
                                            .formats = (1u << FORMAT_COUNT) - 1,
                                            .max_bytes = 1000};
        struct upload upload;
        struct receipt receipt;
        struct err err = ERR_INIT;
        if (store_check(arena, (struct str){(const char *)bytes, len}, &target, &upload, &receipt,
                        &err) < 0) {
            FUZZ_CHECK(err.code == ERR_INVALID || err.code == ERR_TOO_LARGE);
            FUZZ_CHECK(err.message[0]);
            continue;
        }
        int64_t total = 0;
        for (size_t i = 0; i < receipt.files.len; i++)
            total += ((struct upload_file *)receipt.files.items)[i].size_bytes;
        FUZZ_CHECK(total > 0 && total <= target.max_bytes);
        render(&target, &upload);
        carry(arena, &receipt);
    }
    return 0;
}
