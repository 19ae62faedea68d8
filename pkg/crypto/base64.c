#include "crypto/digest.h"

static char digit_of(unsigned value, enum crypto_base64 alphabet)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    if (value < 62)
        return digits[value];
    if (alphabet == CRYPTO_BASE64_URL)
        return value == 62 ? '-' : '_';
    return value == 62 ? '+' : '/';
}

static int value_of(char c, enum crypto_base64 alphabet)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == digit_of(62, alphabet))
        return 62;
    return c == digit_of(63, alphabet) ? 63 : -1;
}

void crypto_base64_encode(struct buf *out, struct str bytes, enum crypto_base64 alphabet)
{
    const unsigned char *p = (const unsigned char *)bytes.ptr;
    if (bytes.len > SIZE_MAX / 4 || !buf_reserve(out, (bytes.len + 2) / 3 * 4)) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        unsigned group = (unsigned)p[i] << 16;
        if (n > 1)
            group |= (unsigned)p[i + 1] << 8;
        if (n > 2)
            group |= p[i + 2];
        char quad[4];
        for (size_t k = 0; k < 4; k++)
            quad[k] = k <= n ? digit_of(group >> (18 - 6 * k) & 63, alphabet) : '=';
        buf_append(out, quad, alphabet == CRYPTO_BASE64_URL ? n + 1 : 4);
    }
}

/* What the digits of a text come to; it is gone through once to check and once to write. */
struct digits {
    size_t count, padding;
    unsigned last; /* value of the last digit */
};

static int digits_check(struct str text, enum crypto_base64 alphabet, struct digits *ret,
                        struct err *err)
{
    struct digits d = {0};
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '\n' || c == '\r')
            continue;
        int value = value_of(c, alphabet);
        if (c == '=')
            d.padding++;
        else if (value < 0 || d.padding > 0)
            return err_set(err, ERR_INVALID, "base64: byte 0x%02x at offset %zu", (unsigned char)c,
                           i);
        else
            d.count++, d.last = (unsigned)value;
    }
    size_t over = d.count % 4;
    bool padded = over ? over + d.padding == 4 : d.padding == 0;
    bool may_be_bare = alphabet == CRYPTO_BASE64_URL && d.padding == 0;
    if (over == 1 || (!padded && !may_be_bare))
        return err_set(err, ERR_INVALID, "base64: cut off or wrongly padded");
    if ((over == 2 && d.last & 15) || (over == 3 && d.last & 3))
        return err_set(err, ERR_INVALID, "base64: bits are left over at the end");
    *ret = d;
    return 0;
}

int crypto_base64_decode(struct str text, enum crypto_base64 alphabet, struct buf *out,
                         struct err *err)
{
    struct digits d = {0};
    int code = digits_check(text, alphabet, &d, err);
    if (code != 0)
        return code;
    size_t len = d.count / 4 * 3 + (d.count % 4 ? d.count % 4 - 1 : 0);
    if (out->failed || len > out->max - out->len)
        return err_set(err, ERR_TOO_LARGE, "base64: %zu bytes are too many", len);
    if (len == 0)
        return 0;
    char *to = buf_reserve(out, len);
    if (!to)
        return err_set(err, ERR_TOO_LARGE, "base64: %zu bytes are too many", len);
    unsigned bits = 0, held = 0;
    for (size_t i = 0, written = 0; written < len; i++) {
        int value = value_of(text.ptr[i], alphabet);
        if (value < 0)
            continue;
        bits = bits << 6 | (unsigned)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            to[written++] = (char)(bits >> held & 0xFF);
        }
    }
    out->len += len;
    out->ptr[out->len] = '\0';
    return 0;
}
