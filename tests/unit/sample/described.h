/* _Py_DebugOffsets as 3.13 and 3.14 have them at the beginning of _PyRuntime, word by word. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DESCRIBED_WORDS 100

/* Fills DESCRIBED_WORDS words and returns how many of them are needed. */
size_t described_put(uint64_t *words, unsigned minor, bool free_threaded);
