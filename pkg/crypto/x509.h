/* X.509 for the result endpoint: a certificate authority of our own and leaves signed by it, all
 * P-256 and SHA-256, in PEM (keys as PKCS #8 without a password). When to make new ones is the
 * caller's policy. Outputs are appended to the caller's buffers and left untouched on failure; key
 * buffers end with crypto_wipe_buf(). Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#define CRYPTO_PEM_MAX 16384 /* enough for each of the buffers here */

/* A self-signed authority that may sign leaves only (pathlen 0), with a subject of common_name
 * (1 … 64 bytes). It is valid from 5 minutes before now (clocks differ) until now + lifetime;
 * lifetime_s > 0. now_ms: wall time. */
int crypto_make_ca(const char *common_name, int64_t lifetime_s, int64_t now_ms,
                   struct buf *ret_cert_pem, struct buf *ret_key_pem, struct err *err);

/* A server's certificate. dns_names: NULL-ended, at least one; a name that is an IP address becomes
 * one. It never outlives the authority. ERR_INVALID for bad names, for an authority that does not
 * fit its key, and for one that is not valid at now. */
int crypto_make_leaf(struct str ca_cert_pem, struct str ca_key_pem, const char *const *dns_names,
                     int64_t lifetime_s, int64_t now_ms, struct buf *ret_cert_pem,
                     struct buf *ret_key_pem, struct err *err);

/* All of the following look at the first certificate of the PEM text. ERR_INVALID when it has none
 * that can be read. */
int crypto_cert_validity(struct str cert_pem, int64_t *ret_not_before_ms, int64_t *ret_not_after_ms,
                         struct err *err);
/* 0, or ERR_INVALID when the key is not the certificate's. */
int crypto_cert_matches_key(struct str cert_pem, struct str key_pem, struct err *err);
/* 0, or ERR_INVALID when it was not signed by that authority. Does not look at the time. */
int crypto_cert_issued_by(struct str cert_pem, struct str ca_cert_pem, struct err *err);
/* 0, or ERR_INVALID when it is not good for that DNS name or IP address. */
int crypto_cert_covers(struct str cert_pem, const char *name, struct err *err);
