/* What the runner and pyspy-upload hand each other, which any bytes may claim to be: contents lie
 * within what was handed over, and what can be read can be written again and read once more. */

#include <unistd.h>

#include "fuzz.h"
#include "runner/upload/handover.h"

static void try_handover(struct str bytes)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct handover h;
    if (handover_read(arena, bytes, &h, NULL) < 0)
        return;
    const struct upload_file *files = h.upload.files.items;
    FUZZ_CHECK(h.upload.files.len <= UPLOAD_FILES_MAX);
    for (size_t i = 0; i < h.upload.files.len; i++) {
        struct str c = files[i].content;
        FUZZ_CHECK((int64_t)c.len == files[i].size_bytes);
        FUZZ_CHECK(c.len == 0 || (c.ptr >= bytes.ptr && c.ptr + c.len <= bytes.ptr + bytes.len));
    }
    int fd;
    if (handover_create(&h, &fd, NULL) == 0)
        close(fd);
}

static void try_answer(struct str text)
{
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct answer a, again;
    struct str written;
    int fd;
    if (answer_parse(arena, text, &a, NULL) < 0)
        return;
    FUZZ_CHECK((a.reason == REASON_NONE) == (a.receipt != NULL));
    FUZZ_CHECK(answer_create(&fd, NULL) == 0);
    if (answer_write(fd, &a, NULL) == 0) {
        FUZZ_CHECK(answer_text(fd, arena, &written, NULL) == 0);
        FUZZ_CHECK(answer_parse(arena, written, &again, NULL) == 0);
        FUZZ_CHECK(again.reason == a.reason && !again.receipt == !a.receipt);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = {(const char *)bytes, len};
    try_handover(text);
    try_answer(text);
    return 0;
}
