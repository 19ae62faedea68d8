#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/alloc.h"
#include "crypto/digest.h"

struct crypto_sha256 {
    EVP_MD_CTX *context;
};

static void must(int ok)
{
    if (ok != 1)
        abort();
}

static void to_hex(const uint8_t digest[static CRYPTO_SHA256_BYTES],
                   char ret[static CRYPTO_SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < CRYPTO_SHA256_BYTES; i++) {
        ret[2 * i] = digits[digest[i] >> 4];
        ret[2 * i + 1] = digits[digest[i] & 15];
    }
    ret[CRYPTO_SHA256_HEX - 1] = '\0';
}

struct crypto_sha256 *crypto_sha256_create(void)
{
    struct crypto_sha256 *h = xcalloc(1, sizeof(*h));
    h->context = EVP_MD_CTX_new();
    must(h->context != NULL);
    must(EVP_DigestInit_ex2(h->context, EVP_sha256(), NULL));
    return h;
}

void crypto_sha256_destroy(struct crypto_sha256 *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->context);
    free(h);
}

void crypto_sha256_update(struct crypto_sha256 *h, struct str bytes)
{
    must(EVP_DigestUpdate(h->context, bytes.ptr, bytes.len));
}

void crypto_sha256_take(struct crypto_sha256 *h, uint8_t ret[static CRYPTO_SHA256_BYTES])
{
    must(EVP_DigestFinal_ex(h->context, ret, NULL));
    must(EVP_DigestInit_ex2(h->context, EVP_sha256(), NULL));
}

void crypto_sha256_take_hex(struct crypto_sha256 *h, char ret[static CRYPTO_SHA256_HEX])
{
    uint8_t digest[CRYPTO_SHA256_BYTES];
    crypto_sha256_take(h, digest);
    to_hex(digest, ret);
}

void crypto_sha256(struct str bytes, uint8_t ret[static CRYPTO_SHA256_BYTES])
{
    must(EVP_Digest(bytes.ptr, bytes.len, ret, NULL, EVP_sha256(), NULL));
}

void crypto_sha256_hex(struct str bytes, char ret[static CRYPTO_SHA256_HEX])
{
    uint8_t digest[CRYPTO_SHA256_BYTES];
    crypto_sha256(bytes, digest);
    to_hex(digest, ret);
}

void crypto_hmac_sha256(struct str key, struct str message, uint8_t ret[static CRYPTO_SHA256_BYTES])
{
    size_t len = 0;
    /* A NULL key would mean "the key set before". */
    must(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key.ptr ? key.ptr : "", key.len,
                   (const unsigned char *)(message.ptr ? message.ptr : ""), message.len, ret,
                   CRYPTO_SHA256_BYTES, &len) != NULL);
    must(len == CRYPTO_SHA256_BYTES);
}

void crypto_hmac_sha256_hex(struct str key, struct str message, char ret[static CRYPTO_SHA256_HEX])
{
    uint8_t mac[CRYPTO_SHA256_BYTES];
    crypto_hmac_sha256(key, message, mac);
    to_hex(mac, ret);
}

bool crypto_equal(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    return a.len == 0 || CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0;
}

void crypto_wipe(void *p, size_t len)
{
    OPENSSL_cleanse(p, len);
}

void crypto_wipe_buf(struct buf *b)
{
    if (!b)
        return;
    if (b->ptr)
        OPENSSL_cleanse(b->ptr, b->cap);
    buf_finish(b);
}
