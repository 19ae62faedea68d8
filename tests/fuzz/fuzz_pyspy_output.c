/* What py-spy wrote, by its first byte: '{' speedscope, anything else raw. What is read can be
 * written in every format, holds the same number of samples when raw is read back, and shows no
 * command line when it was asked to be scrubbed. */

#include "fuzz.h"
#include "profile/profile.h"

static void check_writers(const struct profile *p)
{
    static int (*const writers[])(const struct profile *, struct buf *, struct err *) = {
        profile_write_speedscope, profile_write_chrometrace, profile_write_flamegraph};
    struct err err = ERR_INIT;

    for (size_t i = 0; i < sizeof(writers) / sizeof(writers[0]); i++) {
        struct buf out = BUF_INIT(4 << 20);
        int r = writers[i](p, &out, &err);
        FUZZ_CHECK(r == 0 || r == ERR_TOO_LARGE);
        FUZZ_CHECK(r != 0 || str_is_utf8(buf_str(&out)));
        buf_finish(&out);
    }
}

static void check_raw(const struct profile *p)
{
    struct profile *again = profile_create(NULL);
    struct buf raw = BUF_INIT(16 << 20);
    struct err err = ERR_INIT;

    if (profile_write_raw(p, &raw, &err) == 0 &&
        str_find(buf_str(&raw), STR("process ")) < 0) { /* command lines may say anything */
        FUZZ_CHECK(str_is_utf8(buf_str(&raw)));
        int r = profile_read_raw(again, buf_str(&raw), &err);
        FUZZ_CHECK(r == 0 || r == ERR_TOO_LARGE || profile_samples(p) > UINT32_MAX);
        FUZZ_CHECK(r != 0 || profile_samples(p) == profile_samples(again));
    }
    buf_finish(&raw);
    profile_destroy(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = {(const char *)bytes, len};
    struct profile *p = profile_create(&(struct profile_limits){
        .max_frames = 1000, .max_nodes = 10000, .max_depth = 100, .max_input = 1 << 20});
    struct err err = ERR_INIT;

    profile_set_about(p, &(struct profile_about){.title = STR("t"), .rate = 100});
    profile_scrub_process_frames(p);
    int r = len && bytes[0] == '{' ? profile_read_speedscope(p, text, &err)
                                   : profile_read_raw(p, text, &err);
    FUZZ_CHECK(r == 0 || (r == err.code && err.message[0] != '\0'));
    if (r == 0) {
        check_writers(p);
        check_raw(p);
    }
    profile_destroy(p);
    return 0;
}
