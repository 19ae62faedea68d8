/* Memory of a process as a file: what a look read of it. A byte for the minor version, three of
 * padding, eight for the address of _PyRuntime, then pieces: address (8), length (4), bytes. Little
 * endian, as the machines are. The caller owns the bytes; one thread. */
#pragma once

#include "sample/memory.h"

#define IMAGE_PIECES_MAX 4096

struct image {
    struct memory_reader reader;
    unsigned minor;
    uint64_t runtime;
    size_t n;
    struct {
        uint64_t address;
        const uint8_t *bytes;
        size_t len;
    } pieces[IMAGE_PIECES_MAX];
    int64_t reads_left; /* fails from then on; -1: never */
};

/* 0, or -1 when it has not even a header. What is behind a cut-off piece is left out. */
int image_load(struct image *image, const uint8_t *bytes, size_t len);
