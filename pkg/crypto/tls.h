/* The certificate of TLS listeners. OpenSSL asks for it at every handshake, so that a new one
 * serves new connections at once and does not touch those under way. Thread-safe. */
#pragma once

#include "base/err.h"
#include "base/str.h"

struct tls_identity;

int tls_identity_create(struct str certificate, struct str key, struct tls_identity **ret,
                        struct err *err);
void tls_identity_destroy(struct tls_identity *t);
/* ERR_INVALID: not PEM, or the key is not the certificate's; the former pair then stays. */
int tls_identity_replace(struct tls_identity *t, struct str certificate, struct str key,
                         struct err *err);
/* ssl_context: an SSL_CTX without a certificate; `t` must outlive it. 0 or ERR_IO. */
int tls_identity_install(struct tls_identity *t, void *ssl_context);
/* Tells the peer that nothing more comes; ssl: an SSL, NULL is fine. */
void tls_close_notify(void *ssl);
