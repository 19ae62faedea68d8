#include "base/alloc.h"
#include "sample/sample_internal.h"

#define LENGTH_MAX (64u << 20) /* what is longer is no name */

int text_shape(const struct python_offsets *o, const uint8_t *head, size_t max_bytes,
               struct text_shape *ret)
{
    uint64_t length;
    uint32_t state;
    memcpy(&length, head + o->text_length, sizeof(length));
    memcpy(&state, head + o->text_state, sizeof(state));
    /* Bits: interned 2, kind 3, compact 1, ascii 1. */
    unsigned kind = state >> 2 & 7;
    bool compact = state & 32, ascii = state & 64;
    if ((kind != 1 && kind != 2 && kind != 4) || (ascii && kind != 1) || length > LENGTH_MAX)
        return -1;
    size_t n = length > max_bytes / kind ? max_bytes / kind : (size_t)length;
    *ret = (struct text_shape){.at = compact && ascii ? o->text_ascii : o->text_compact,
                               .bytes = n * kind,
                               .kind = kind,
                               .apart = !compact};
    return 0;
}

void text_decode(const struct text_shape *shape, const uint8_t *bytes, struct buf *out)
{
    for (size_t i = 0; i < shape->bytes; i += shape->kind) {
        uint32_t code = bytes[i];
        if (shape->kind > 1)
            code |= (uint32_t)bytes[i + 1] << 8;
        if (shape->kind > 2)
            code |= (uint32_t)bytes[i + 2] << 16 | (uint32_t)bytes[i + 3] << 24;
        buf_append_rune(out, code ? code : 0xfffd);
    }
}

bool text_same(const struct python_offsets *o, const uint8_t *object, size_t size, const char *text)
{
    struct text_shape shape;
    if (text_shape(o, object, SAMPLE_TEXT_MAX, &shape) < 0)
        return false;
    if (shape.apart)
        return size == o->text_ascii;
    if (shape.at + shape.bytes != size)
        return false;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(SAMPLE_TEXT_MAX * 4);
    text_decode(&shape, object + shape.at, &out);
    return str_eq(buf_str(&out), str_of(text));
}

char *text_read(struct memory_reader *reader, const struct python_offsets *o, uint64_t address,
                size_t *ret_size)
{
    uint8_t head[256], bytes[SAMPLE_TEXT_MAX];
    struct text_shape shape;
    if (memory_read(reader, address, head, o->text_ascii) < 0 ||
        text_shape(o, head, sizeof(bytes), &shape) < 0)
        return NULL;
    uint64_t at = address + shape.at;
    *ret_size = shape.apart ? o->text_ascii : shape.at + shape.bytes;
    if (shape.apart && memory_read(reader, at, &at, sizeof(at)) < 0)
        return NULL;
    if (shape.bytes && memory_read(reader, at, bytes, shape.bytes) < 0)
        return NULL;
    _cleanup_(buf_finish) struct buf out = BUF_INIT(SAMPLE_TEXT_MAX * 4);
    text_decode(&shape, bytes, &out);
    return buf_take(&out);
}
