#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "base/cleanup.h"
#include "crypto/digest.h"
#include "crypto/x509.h"

#define BACKDATE_S      300
#define SERIAL_BITS     159 /* at most 20 bytes and positive: RFC 5280, 4.1.2.2 */
#define COMMON_NAME_MAX 64
#define DNS_NAME_MAX    253

DEFINE_CLEANUP(X509 *, X509_free);
DEFINE_CLEANUP(EVP_PKEY *, EVP_PKEY_free);
DEFINE_CLEANUP(BIO *, BIO_free_all);
DEFINE_CLEANUP(BIGNUM *, BN_free);
DEFINE_CLEANUP(X509_EXTENSION *, X509_EXTENSION_free);
DEFINE_CLEANUP(GENERAL_NAMES *, GENERAL_NAMES_free);
DEFINE_CLEANUP(GENERAL_NAME *, GENERAL_NAME_free);

/* OpenSSL's own reason behind ours; its queue of errors is emptied. */
static int openssl_error(struct err *err, int code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    err_set(err, code, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
    ERR_clear_error();
    return code;
}

/* Without this OpenSSL would ask for a password on the terminal. */
static int no_password(char *out, int size, int writing, void *context)
{
    (void)out, (void)size, (void)writing, (void)context;
    return -1;
}

static BIO *bio_of(struct str pem)
{
    return BIO_new_mem_buf(pem.ptr ? pem.ptr : "", pem.len > INT_MAX ? 0 : (int)pem.len);
}

static int cert_read(struct str pem, X509 **ret, struct err *err)
{
    _cleanup_(BIO_free_allp) BIO *in = bio_of(pem);
    X509 *cert = in ? PEM_read_bio_X509(in, NULL, no_password, NULL) : NULL;
    if (!cert)
        return openssl_error(err, ERR_INVALID, "no certificate that can be read");
    *ret = cert;
    return 0;
}

static int key_read(struct str pem, EVP_PKEY **ret, struct err *err)
{
    _cleanup_(BIO_free_allp) BIO *in = bio_of(pem);
    EVP_PKEY *key = in ? PEM_read_bio_PrivateKey(in, NULL, no_password, NULL) : NULL;
    if (!key)
        return openssl_error(err, ERR_INVALID, "no private key that can be read");
    *ret = key;
    return 0;
}

/* Fills both buffers or neither. The memory BIOs of OpenSSL wipe what they free. */
static int pem_write(X509 *cert, EVP_PKEY *key, struct buf *ret_cert_pem, struct buf *ret_key_pem,
                     struct err *err)
{
    _cleanup_(BIO_free_allp) BIO *cert_out = BIO_new(BIO_s_mem());
    _cleanup_(BIO_free_allp) BIO *key_out = BIO_new(BIO_s_mem());
    if (!cert_out || !key_out || PEM_write_bio_X509(cert_out, cert) != 1 ||
        PEM_write_bio_PKCS8PrivateKey(key_out, key, NULL, NULL, 0, NULL, NULL) != 1)
        return openssl_error(err, ERR_IO, "write a certificate");
    char *cert_bytes, *key_bytes;
    long cert_len = BIO_get_mem_data(cert_out, &cert_bytes);
    long key_len = BIO_get_mem_data(key_out, &key_bytes);
    if (!buf_reserve(ret_cert_pem, (size_t)cert_len) || !buf_reserve(ret_key_pem, (size_t)key_len))
        return err_set(err, ERR_TOO_LARGE, "a certificate does not fit its buffer");
    buf_append(ret_cert_pem, cert_bytes, (size_t)cert_len);
    buf_append(ret_key_pem, key_bytes, (size_t)key_len);
    return 0;
}

static bool serial_set(X509 *cert)
{
    _cleanup_(BN_freep) BIGNUM *serial = BN_new();
    if (!serial)
        return false;
    do {
        if (BN_rand(serial, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) != 1)
            return false;
    } while (BN_is_zero(serial));
    return BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(cert)) != NULL;
}

static bool validity_set(X509 *cert, int64_t not_before_s, int64_t not_after_s)
{
    /* ASN1_TIME_set picks UTCTime up to 2049 and GeneralizedTime after, as RFC 5280 wants. */
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)not_before_s) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)not_after_s) != NULL;
}

static bool subject_set(X509 *cert, const char *common_name)
{
    return X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_commonName, MBSTRING_UTF8,
                                      (const unsigned char *)common_name, -1, -1, 0) == 1;
}

/* value: in OpenSSL's configuration language, so never from outside. */
static bool extension_add(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    _cleanup_(X509_EXTENSION_freep) X509_EXTENSION *extension =
        X509V3_EXT_conf_nid(NULL, &context, nid, value);
    return extension && X509_add_ext(cert, extension, -1) == 1;
}

/* A certificate with everything but what is particular to authority or leaf. */
static X509 *cert_begin(EVP_PKEY *key, int64_t not_before_s, int64_t not_after_s)
{
    _cleanup_(X509_freep) X509 *cert = X509_new();
    if (!cert || X509_set_version(cert, X509_VERSION_3) != 1 || !serial_set(cert) ||
        !validity_set(cert, not_before_s, not_after_s) || X509_set_pubkey(cert, key) != 1)
        return NULL;
    return TAKE(cert);
}

static int lifetime_check(int64_t lifetime_s, struct err *err)
{
    if (lifetime_s <= 0 || lifetime_s > INT64_C(100) * 366 * 86400)
        return err_set(err, ERR_INVALID, "a certificate's lifetime must be 1 s to 100 years");
    return 0;
}

int crypto_make_ca(const char *common_name, int64_t lifetime_s, int64_t now_ms,
                   struct buf *ret_cert_pem, struct buf *ret_key_pem, struct err *err)
{
    if (lifetime_check(lifetime_s, err) != 0)
        return ERR_INVALID;
    struct str name = str_of(common_name);
    if (name.len == 0 || name.len > COMMON_NAME_MAX || !str_is_utf8(name))
        return err_set(err, ERR_INVALID, "a common name must have 1 to %d bytes", COMMON_NAME_MAX);
    int64_t now_s = now_ms / 1000;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        return openssl_error(err, ERR_IO, "make a key");
    _cleanup_(X509_freep) X509 *cert = cert_begin(key, now_s - BACKDATE_S, now_s + lifetime_s);
    if (!cert || !subject_set(cert, common_name) ||
        X509_set_issuer_name(cert, X509_get_subject_name(cert)) != 1 ||
        !extension_add(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !extension_add(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !extension_add(cert, cert, NID_subject_key_identifier, "hash") ||
        !extension_add(cert, cert, NID_authority_key_identifier, "keyid:always") ||
        X509_sign(cert, key, EVP_sha256()) == 0)
        return openssl_error(err, ERR_IO, "make an authority");
    return pem_write(cert, key, ret_cert_pem, ret_key_pem, err);
}

/* Letters, digits, '-' and '.' in labels that are not empty; the first label may be "*". */
static bool is_dns_name(struct str name)
{
    if (name.len == 0 || name.len > DNS_NAME_MAX)
        return false;
    if (str_starts_with(name, STR("*.")))
        name = str_sub(name, 2, name.len);
    struct str rest = name;
    do {
        struct str label = str_cut(&rest, '.');
        if (label.len == 0 || label.len > 63 || label.ptr[0] == '-' ||
            label.ptr[label.len - 1] == '-')
            return false;
        for (size_t i = 0; i < label.len; i++) {
            char c = label.ptr[i];
            if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-'))
                return false;
        }
    } while (rest.ptr);
    return true;
}

static GENERAL_NAME *general_name(const char *name)
{
    _cleanup_(GENERAL_NAME_freep) GENERAL_NAME *general = GENERAL_NAME_new();
    if (!general)
        return NULL;
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
    if (address) {
        GENERAL_NAME_set0_value(general, GEN_IPADD, address);
        return TAKE(general);
    }
    ERR_clear_error();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    if (!text || ASN1_STRING_set(text, name, -1) != 1) {
        ASN1_IA5STRING_free(text);
        return NULL;
    }
    GENERAL_NAME_set0_value(general, GEN_DNS, text);
    return TAKE(general);
}

static bool is_ip_address(const char *name)
{
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
    ERR_clear_error();
    ASN1_OCTET_STRING_free(address);
    return address != NULL;
}

static int names_check(const char *const *names, struct err *err)
{
    if (!names || !names[0])
        return err_set(err, ERR_INVALID, "a certificate needs at least one name");
    for (size_t i = 0; names[i]; i++) {
        if (!is_dns_name(str_of(names[i])) && !is_ip_address(names[i]))
            return err_set(err, ERR_INVALID, "\"%.80s\" is neither a DNS name nor an IP address",
                           names[i]);
    }
    return 0;
}

/* names: checked. Built from structures, not from text, so that no name can add another. */
static bool names_add(X509 *cert, const char *const *names)
{
    _cleanup_(GENERAL_NAMES_freep) GENERAL_NAMES *all = GENERAL_NAMES_new();
    if (!all)
        return false;
    for (size_t i = 0; names[i]; i++) {
        GENERAL_NAME *one = general_name(names[i]);
        if (!one || sk_GENERAL_NAME_push(all, one) == 0) {
            GENERAL_NAME_free(one);
            return false;
        }
    }
    /* Critical, as the subject is empty: RFC 5280, 4.2.1.6. */
    return X509_add1_ext_i2d(cert, NID_subject_alt_name, all, 1, X509V3_ADD_DEFAULT) == 1;
}

static int validity_of(const X509 *cert, int64_t *ret_not_before_s, int64_t *ret_not_after_s,
                       struct err *err)
{
    struct tm before = {0}, after = {0};
    if (ASN1_TIME_to_tm(X509_get0_notBefore(cert), &before) != 1 ||
        ASN1_TIME_to_tm(X509_get0_notAfter(cert), &after) != 1)
        return openssl_error(err, ERR_INVALID, "a certificate without a readable validity");
    *ret_not_before_s = timegm(&before);
    *ret_not_after_s = timegm(&after);
    return 0;
}

static int key_check(X509 *cert, EVP_PKEY *key, struct err *err)
{
    if (X509_check_private_key(cert, key) == 1)
        return 0;
    return openssl_error(err, ERR_INVALID, "the private key is not the certificate's");
}

int crypto_make_leaf(struct str ca_cert_pem, struct str ca_key_pem, const char *const *dns_names,
                     int64_t lifetime_s, int64_t now_ms, struct buf *ret_cert_pem,
                     struct buf *ret_key_pem, struct err *err)
{
    if (lifetime_check(lifetime_s, err) != 0 || names_check(dns_names, err) != 0)
        return ERR_INVALID;
    _cleanup_(X509_freep) X509 *ca = NULL;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *ca_key = NULL;
    int64_t now_s = now_ms / 1000, ca_before, ca_after;
    if (cert_read(ca_cert_pem, &ca, err) != 0 || key_read(ca_key_pem, &ca_key, err) != 0 ||
        key_check(ca, ca_key, err) != 0 || validity_of(ca, &ca_before, &ca_after, err) != 0)
        return ERR_INVALID;
    if (now_s < ca_before || now_s >= ca_after)
        return err_set(err, ERR_INVALID, "the authority is not valid at this time");
    int64_t before = now_s - BACKDATE_S, after = now_s + lifetime_s;
    before = before < ca_before ? ca_before : before;
    after = after > ca_after ? ca_after : after;

    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        return openssl_error(err, ERR_IO, "make a key");
    _cleanup_(X509_freep) X509 *cert = cert_begin(key, before, after);
    if (!cert || X509_set_issuer_name(cert, X509_get_subject_name(ca)) != 1 ||
        !extension_add(cert, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !extension_add(cert, ca, NID_key_usage, "critical,digitalSignature") ||
        !extension_add(cert, ca, NID_ext_key_usage, "serverAuth") ||
        !extension_add(cert, ca, NID_subject_key_identifier, "hash") ||
        !extension_add(cert, ca, NID_authority_key_identifier, "keyid:always") ||
        !names_add(cert, dns_names) || X509_sign(cert, ca_key, EVP_sha256()) == 0)
        return openssl_error(err, ERR_IO, "make a certificate");
    return pem_write(cert, key, ret_cert_pem, ret_key_pem, err);
}

int crypto_cert_validity(struct str cert_pem, int64_t *ret_not_before_ms, int64_t *ret_not_after_ms,
                         struct err *err)
{
    _cleanup_(X509_freep) X509 *cert = NULL;
    int64_t before, after;
    if (cert_read(cert_pem, &cert, err) != 0 || validity_of(cert, &before, &after, err) != 0)
        return ERR_INVALID;
    *ret_not_before_ms = before * 1000;
    *ret_not_after_ms = after * 1000;
    return 0;
}

int crypto_cert_matches_key(struct str cert_pem, struct str key_pem, struct err *err)
{
    _cleanup_(X509_freep) X509 *cert = NULL;
    _cleanup_(EVP_PKEY_freep) EVP_PKEY *key = NULL;
    if (cert_read(cert_pem, &cert, err) != 0 || key_read(key_pem, &key, err) != 0)
        return ERR_INVALID;
    return key_check(cert, key, err);
}

int crypto_cert_issued_by(struct str cert_pem, struct str ca_cert_pem, struct err *err)
{
    _cleanup_(X509_freep) X509 *cert = NULL;
    _cleanup_(X509_freep) X509 *ca = NULL;
    if (cert_read(cert_pem, &cert, err) != 0 || cert_read(ca_cert_pem, &ca, err) != 0)
        return ERR_INVALID;
    if (X509_check_issued(ca, cert) != X509_V_OK || X509_verify(cert, X509_get0_pubkey(ca)) != 1)
        return openssl_error(err, ERR_INVALID, "the certificate is not signed by this authority");
    return 0;
}

int crypto_cert_covers(struct str cert_pem, const char *name, struct err *err)
{
    _cleanup_(X509_freep) X509 *cert = NULL;
    if (cert_read(cert_pem, &cert, err) != 0)
        return ERR_INVALID;
    if (X509_check_ip_asc(cert, name, 0) == 1 || X509_check_host(cert, name, 0, 0, NULL) == 1)
        return 0;
    return openssl_error(err, ERR_INVALID, "the certificate is not good for this name");
}
