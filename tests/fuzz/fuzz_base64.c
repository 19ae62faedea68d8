/* What is accepted as base64 is the one way to write its bytes: encoding gives the same text again,
 * line ends and optional padding aside. */

#include "crypto/digest.h"
#include "fuzz.h"

static void without_line_ends(struct str text, struct buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '\n' && text.ptr[i] != '\r')
            buf_append_char(out, text.ptr[i]);
    }
}

static void check(struct str text, enum crypto_base64 alphabet)
{
    struct buf bytes = BUF_INIT(text.len + 1), again = BUF_INIT(text.len + 4),
               plain = BUF_INIT(text.len + 1);
    int code = crypto_base64_decode(text, alphabet, &bytes, NULL);
    FUZZ_CHECK(code == 0 || (code == ERR_INVALID && bytes.len == 0));
    if (code == 0) {
        crypto_base64_encode(&again, buf_str(&bytes), alphabet);
        without_line_ends(text, &plain);
        while (alphabet == CRYPTO_BASE64_URL && plain.len && plain.ptr[plain.len - 1] == '=')
            buf_truncate(&plain, plain.len - 1);
        FUZZ_CHECK(str_eq(buf_str(&plain), buf_str(&again)));
    }
    buf_finish(&bytes);
    buf_finish(&again);
    buf_finish(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct str text = {(const char *)bytes, len};
    check(text, CRYPTO_BASE64_STANDARD);
    check(text, CRYPTO_BASE64_URL);
    return 0;
}
