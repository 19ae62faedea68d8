#include "image.h"

#include <errno.h>
#include <string.h>

static bool copy(const struct image *image, uint64_t address, uint8_t *to, size_t len)
{
    while (len) {
        size_t i = 0;
        while (i < image->n && address - image->pieces[i].address >= image->pieces[i].len)
            i++;
        if (i == image->n)
            return false;
        size_t at = (size_t)(address - image->pieces[i].address);
        size_t part = image->pieces[i].len - at < len ? image->pieces[i].len - at : len;
        memcpy(to, image->pieces[i].bytes + at, part);
        to += part;
        address += part;
        len -= part;
    }
    return true;
}

static ssize_t image_read(struct memory_reader *self, const struct iovec *local,
                          const struct iovec *remote, size_t n)
{
    struct image *image = (struct image *)(void *)self;
    ssize_t got = 0;
    if (image->reads_left == 0)
        return -EFAULT;
    image->reads_left -= image->reads_left > 0;
    for (size_t i = 0; i < n; i++) {
        if (!copy(image, (uint64_t)(uintptr_t)remote[i].iov_base, local[i].iov_base,
                  local[i].iov_len))
            return got ? got : -EFAULT;
        got += (ssize_t)local[i].iov_len;
    }
    return got;
}

int image_load(struct image *image, const uint8_t *bytes, size_t len)
{
    memset(image, 0, sizeof(*image));
    image->reader.read = image_read;
    image->reads_left = -1;
    if (len < 12)
        return -1;
    image->minor = bytes[0];
    memcpy(&image->runtime, bytes + 4, 8);
    for (size_t at = 12; len - at > 12 && image->n < IMAGE_PIECES_MAX; image->n++) {
        uint32_t size;
        memcpy(&image->pieces[image->n].address, bytes + at, 8);
        memcpy(&size, bytes + at + 8, 4);
        at += 12;
        if (size > len - at)
            size = (uint32_t)(len - at);
        image->pieces[image->n].bytes = bytes + at;
        image->pieces[image->n].len = size;
        at += size;
    }
    return 0;
}
