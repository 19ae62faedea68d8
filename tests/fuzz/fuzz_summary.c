/* A termination message and a task, which any text may claim to be: what can be read can be written
 * again, within its cap, and read once more. */

#include "api/task.h"
#include "fuzz.h"

static void try_summary(struct str text)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    _cleanup_(buf_finish) struct buf once = BUF_INIT(1u << 16), twice = BUF_INIT(1u << 16);
    struct summary summary, again;
    if (summary_decode(arena, text, &summary, NULL) < 0)
        return;
    summary_write(&once, &summary);
    if (once.failed) /* a receipt alone may be too much */
        return;
    FUZZ_CHECK(once.len <= SUMMARY_MAX);
    FUZZ_CHECK(summary_decode(arena, buf_str(&once), &again, NULL) == 0);
    FUZZ_CHECK(again.reason == summary.reason && again.samples == summary.samples);
    summary_write(&twice, &again);
    FUZZ_CHECK(!twice.failed);
}

static void try_task(struct str text)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    _cleanup_(buf_finish) struct buf once = BUF_INIT(1u << 20), twice = BUF_INIT(1u << 20);
    struct task task, again;
    if (task_decode(arena, text, &task, NULL) < 0)
        return;
    task_write(&once, &task);
    if (once.len > TASK_MAX)
        return;
    FUZZ_CHECK(task_decode(arena, buf_str(&once), &again, NULL) == 0);
    task_write(&twice, &again);
    FUZZ_CHECK(str_eq(buf_str(&once), buf_str(&twice)));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = {(const char *)bytes, len};
    try_summary(text);
    try_task(text);
    return 0;
}
