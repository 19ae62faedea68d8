#include "described.h"

#include <string.h>

size_t described_put(uint64_t *words, unsigned minor, bool free_threaded)
{
    memset(words, 0, DESCRIBED_WORDS * sizeof(*words));
    memcpy(words, "xdebugpy", 8);
    words[1] = 0x03000000u | minor << 16;
    words[2] = free_threaded;
    size_t at = 3, newer = minor >= 14;
    words[at + 2] = 1040; /* interpreters.head */
    at += 3;
    words[at + 2] = 7264; /* next */
    words[at + 3] = 7344; /* threads.head */
    at += 8 + newer;      /* threads_main */
    words[at] = 7400;     /* ceval.gil */
    words[at + 1] = 9000; /* _gil */
    words[at + 3] = 9016;
    words[at + 4] = 9008;
    at += 5 + 2 * newer; /* code_object_generation, tlbc_generation */
    const uint64_t thread[] = {304, 0, 8, 16, 72, 152, 160, 232, 36};
    memcpy(words + at, thread, sizeof(thread));
    at += 9;
    const uint64_t frame[] = {88, 8, 0, 56, 72, 70};
    memcpy(words + at, frame, sizeof(frame));
    at += 6 + 2 * newer; /* stackpointer, tlbc_index */
    const uint64_t code[] = {216, 112, 120, 128, 136, 68, 52, 96, 104, 208};
    memcpy(words + at, code, sizeof(code));
    at += 10 + newer;  /* co_tlbc */
    words[at + 1] = 8; /* ob_type */
    at += 2 + 4 + 3 + 3 + 4 * newer + 3 + 2 + 3;
    words[at + 1] = 16; /* bytes */
    words[at + 2] = 32;
    at += 3;
    const uint64_t text[] = {64, 32, 16, 40};
    memcpy(words + at, text, sizeof(text));
    return at + 4;
}
