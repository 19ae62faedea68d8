/* Digests, MACs, base64, and the careful handling of secrets. Outputs go to the caller's memory;
 * nothing is kept. Any thread, but one thread at a time for one struct crypto_sha256. What OpenSSL
 * can fail at here is memory or a broken installation: both abort. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/str.h"

#define CRYPTO_SHA256_BYTES 32
#define CRYPTO_SHA256_HEX   65 /* with the NUL */

/* SHA-256 (FIPS 180-4) of a stream. */
struct crypto_sha256;
struct crypto_sha256 *crypto_sha256_create(void);
void crypto_sha256_destroy(struct crypto_sha256 *h); /* NULL is fine */
DEFINE_CLEANUP(struct crypto_sha256 *, crypto_sha256_destroy);
void crypto_sha256_update(struct crypto_sha256 *h, struct str bytes);
/* The digest of what came so far; then begins anew. */
void crypto_sha256_take(struct crypto_sha256 *h, uint8_t ret[static CRYPTO_SHA256_BYTES]);
void crypto_sha256_take_hex(struct crypto_sha256 *h, char ret[static CRYPTO_SHA256_HEX]);

void crypto_sha256(struct str bytes, uint8_t ret[static CRYPTO_SHA256_BYTES]);
void crypto_sha256_hex(struct str bytes, char ret[static CRYPTO_SHA256_HEX]); /* lower case */

/* HMAC-SHA256 (RFC 2104); keys of any length. */
void crypto_hmac_sha256(struct str key, struct str message,
                        uint8_t ret[static CRYPTO_SHA256_BYTES]);
void crypto_hmac_sha256_hex(struct str key, struct str message, char ret[static CRYPTO_SHA256_HEX]);

/* In a time that depends on the lengths only. For MACs and tokens. */
bool crypto_equal(struct str a, struct str b);

/* Base64 (RFC 4648). STANDARD writes and demands padding, URL writes none and takes either. */
enum crypto_base64 { CRYPTO_BASE64_STANDARD, CRYPTO_BASE64_URL };
void crypto_base64_encode(struct buf *out, struct str bytes, enum crypto_base64 alphabet);
/* Appends to out, in one piece, so that a secret leaves no copies in freed memory. Line ends are
 * skipped, as Go does; anything else outside the alphabet, wrong padding and bits that are left
 * over are ERR_INVALID. ERR_TOO_LARGE when out cannot hold it; out is unchanged on failure. */
int crypto_base64_decode(struct str text, enum crypto_base64 alphabet, struct buf *out,
                         struct err *err);

/* Overwrites in a way that no compiler removes. */
void crypto_wipe(void *p, size_t len);
/* buf_finish() for what held a secret. A buffer that grew has left copies behind: give it its size
 * at once with buf_reserve() where that matters. NULL is fine. */
void crypto_wipe_buf(struct buf *b);
