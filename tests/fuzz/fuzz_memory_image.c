/* Memory of an interpreter that may hold anything: lists without an end, pointers to nowhere, texts
 * and tables of any length, layouts that describe themselves falsely; and that changes while it is
 * read. From 128 on, the first byte means memory made up (changing.h), before it a recorded image.
 * Several looks, so that what the first one remembered is used. */
#include "../unit/sample/image.h"
#include "changing.h"
#include "fuzz.h"
#include "sample/target.h"

#define MADE_UP 128

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
    FUZZ_CHECK(str_is_utf8(t->name) && t->name.len <= SAMPLE_NAME_MAX);
    FUZZ_CHECK(str_is_utf8(t->task) && (!t->task.len || t->task_at < t->depth));
}

static void recorded(const uint8_t *bytes, size_t len)
{
    static struct image image;
    struct target *t = NULL;
    struct sample_options options = {.idle = true, .names = true, .tasks = true};
    if (image_load(&image, bytes, len) < 0 ||
        target_open_memory(&image.reader, image.runtime, image.minor, &options, &t, NULL) < 0)
        return;
    for (int i = 0; i < 3; i++)
        if (target_look(t, check, NULL, NULL) < 0)
            break;
    target_close(t);
}

static void made_up(const uint8_t *bytes, size_t len)
{
    static struct changing memory;
    struct target *t = NULL;
    if (changing_init(&memory, bytes, len) < 0)
        return;
    struct sample_options options = {
        .idle = true, .gil = memory.gil, .names = memory.names, .tasks = memory.tasks};
    if (target_open_memory(&memory.reader, memory.fake.runtime, memory.minor, &options, &t, NULL) <
        0)
        return;
    for (int i = 0; i < 4; i++) {
        target_look(t, check, NULL, NULL);
        changing_next_look(&memory);
    }
    target_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len && bytes[0] >= MADE_UP)
        made_up(bytes, len);
    else
        recorded(bytes, len);
    return 0;
}
