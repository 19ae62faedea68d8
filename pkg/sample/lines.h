/* The line of an instruction, from a code object's table: lnotab (3.8, 3.9), line table (3.10) and
 * location table (3.11 and later). Pure functions on bytes that may hold anything. Any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* instruction: bytes from the first one, -1 before it. Returns the line, or first_line where the
 * table does not tell. Sources: Objects/lnotab_notes.txt, Objects/locations.md of CPython. */
int64_t lines_find(unsigned minor, const uint8_t *table, size_t len, int64_t first_line,
                   int64_t instruction);
