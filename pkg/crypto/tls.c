#include "crypto/tls.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>

#include "base/alloc.h"
#include "base/cleanup.h"

struct tls_identity {
    pthread_mutex_t lock; /* of what is below */
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};

/* What one pair of PEM texts holds, until it is moved into the identity. */
struct pair {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};

static void pair_finish(struct pair *p)
{
    X509_free(p->leaf);
    sk_X509_pop_free(p->chain, X509_free);
    EVP_PKEY_free(p->key);
}

/* Without it, PEM_read_bio would ask at the terminal for the password of an encrypted key. */
static int no_password(char *out, int size, int for_writing, void *context)
{
    (void)out;
    (void)size;
    (void)for_writing;
    (void)context;
    return -1;
}

static int invalid(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    char reason[128] = "";
    if (code)
        ERR_error_string_n(code, reason, sizeof(reason));
    ERR_clear_error();
    return err_set(err, ERR_INVALID, "%s%s%s", what, *reason ? ": " : "", reason);
}

static BIO *bio_of(struct str s)
{
    return BIO_new_mem_buf(s.len ? s.ptr : "", s.len > INT_MAX ? 0 : (int)s.len);
}

static int read_certificates(struct pair *p, struct str pem, struct err *err)
{
    BIO *bio = bio_of(pem);
    p->chain = sk_X509_new_null();
    p->leaf = bio ? PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL) : NULL;
    X509 *next;
    while (p->leaf && (next = PEM_read_bio_X509(bio, NULL, no_password, NULL)))
        if (!sk_X509_push(p->chain, next))
            X509_free(next);
    BIO_free(bio);
    if (!p->leaf)
        return invalid(err, "certificate is not PEM");
    ERR_clear_error(); /* "no start line": the end of the chain */
    return 0;
}

static int read_pair(struct pair *p, struct str certificate, struct str key, struct err *err)
{
    ERR_clear_error();
    int code = read_certificates(p, certificate, err);
    if (code)
        return code;
    BIO *bio = bio_of(key);
    p->key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    BIO_free(bio);
    if (!p->key)
        return invalid(err, "private key is not PEM");
    if (X509_check_private_key(p->leaf, p->key) != 1)
        return invalid(err, "private key is not that of the certificate");
    return 0;
}

int tls_identity_create(struct str certificate, struct str key, struct tls_identity **ret,
                        struct err *err)
{
    struct tls_identity *t = xcalloc(1, sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
    int code = tls_identity_replace(t, certificate, key, err);
    if (code) {
        tls_identity_destroy(t);
        return code;
    }
    *ret = t;
    return 0;
}

void tls_identity_destroy(struct tls_identity *t)
{
    if (!t)
        return;
    pair_finish(&(struct pair){t->leaf, t->chain, t->key});
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int tls_identity_replace(struct tls_identity *t, struct str certificate, struct str key,
                         struct err *err)
{
    struct pair p = {0};
    int code = read_pair(&p, certificate, key, err);
    if (!code) {
        pthread_mutex_lock(&t->lock);
        struct pair former = {t->leaf, t->chain, t->key};
        t->leaf = p.leaf;
        t->chain = p.chain;
        t->key = p.key;
        pthread_mutex_unlock(&t->lock);
        p = former;
    }
    pair_finish(&p);
    return code;
}

static int on_certificate_needed(SSL *ssl, void *context)
{
    struct tls_identity *t = context;
    pthread_mutex_lock(&t->lock);
    int done = SSL_use_cert_and_key(ssl, t->leaf, t->key, t->chain, 1);
    pthread_mutex_unlock(&t->lock);
    return done;
}

int tls_identity_install(struct tls_identity *t, void *ssl_context)
{
    SSL_CTX *ctx = ssl_context;
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) ||
        !SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20"))
        return ERR_IO;
    /* Clients connect once per profile: resumption would cost memory and gain nothing. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* There is one certificate; libwebsockets' choice by name has assertions to trip over. */
    SSL_CTX_set_tlsext_servername_callback(ctx, NULL);
    SSL_CTX_set_cert_cb(ctx, on_certificate_needed, t);
    return 0;
}

void tls_close_notify(void *ssl)
{
    if (!ssl || !SSL_is_init_finished(ssl))
        return;
    ERR_clear_error();
    SSL_shutdown(ssl);
    ERR_clear_error();
}
