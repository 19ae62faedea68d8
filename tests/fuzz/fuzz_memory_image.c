/* Memory of an interpreter that may hold anything: lists without an end, pointers to nowhere, texts
 * and tables of any length. Two looks, so that what the first one remembered is used. */
#include "../unit/sample/image.h"
#include "fuzz.h"
#include "sample/target.h"

static void check(void *context, const struct sample_thread *t)
{
    (void)context;
    FUZZ_CHECK(t->depth > 0 && t->depth <= 4096);
    for (size_t i = 0; i < t->depth; i++) {
        const struct sample_frame *f = t->frames[i];
        FUZZ_CHECK(f->function.len > 0 && f->function.len <= SAMPLE_TEXT_MAX * 4);
        FUZZ_CHECK(f->file.len <= SAMPLE_TEXT_MAX * 4);
        FUZZ_CHECK(f->line >= 0);
        FUZZ_CHECK(str_is_utf8(f->function) && str_is_utf8(f->file));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct image image;
    struct target *t = NULL;
    struct sample_options options = {.idle = true};
    if (image_load(&image, bytes, len) < 0 ||
        target_open_memory(&image.reader, image.runtime, image.minor, &options, &t, NULL) < 0)
        return 0;
    for (int i = 0; i < 3; i++)
        if (target_look(t, check, NULL, NULL) < 0)
            break;
    target_close(t);
    return 0;
}
