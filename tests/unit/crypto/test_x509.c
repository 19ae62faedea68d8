#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/digest.h"
#include "crypto/x509.h"

#define NOW_MS INT64_C(1769903999500) /* 2026-01-31T23:59:59.5Z */
#define NOW_S  (NOW_MS / 1000)
#define DAY_S  INT64_C(86400)

struct pair {
    struct buf cert, key;
};

#define PAIR_INIT                                                                                  \
    {                                                                                              \
        BUF_INIT(CRYPTO_PEM_MAX), BUF_INIT(CRYPTO_PEM_MAX)                                         \
    }

static void pair_finish(struct pair *p)
{
    buf_finish(&p->cert);
    crypto_wipe_buf(&p->key);
}

static void make_ca(struct pair *ca, int64_t lifetime_s)
{
    struct err err = ERR_INIT;
    if (crypto_make_ca("test authority", lifetime_s, NOW_MS, &ca->cert, &ca->key, &err) != 0)
        fail_msg("%s", err.message);
}

static int make_leaf(const struct pair *ca, const char *const *names, int64_t lifetime_s,
                     int64_t now_ms, struct pair *leaf, struct err *err)
{
    return crypto_make_leaf(buf_str(&ca->cert), buf_str(&ca->key), names, lifetime_s, now_ms,
                            &leaf->cert, &leaf->key, err);
}

static X509 *parse(const struct buf *pem)
{
    BIO *in = BIO_new_mem_buf(pem->ptr, (int)pem->len);
    X509 *cert = PEM_read_bio_X509(in, NULL, NULL, NULL);
    BIO_free(in);
    assert_non_null(cert);
    return cert;
}

/* What a TLS client does: chain, purpose, time and name. Gives OpenSSL's verdict. */
static int verify(const struct pair *ca, const struct pair *leaf, const char *host, int64_t now_s)
{
    X509 *root = parse(&ca->cert), *cert = parse(&leaf->cert);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_add_cert(store, root);
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    X509_STORE_CTX_init(context, store, cert, NULL);
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_SERVER);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE);
    X509_VERIFY_PARAM_set_time(param, (time_t)now_s);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, host) != 1)
        X509_VERIFY_PARAM_set1_host(param, host, 0);
    X509_verify_cert(context);
    int verdict = X509_STORE_CTX_get_error(context);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    X509_free(root);
    X509_free(cert);
    return verdict;
}

static const char *const names[] = {"results.pyspy-system.svc", "*.pyspy.example", "10.96.0.7",
                                    "fd00::1", NULL};

static const struct {
    const char *host;
    int64_t at_s; /* from now */
    int verdict;
} visits[] = {
    {"results.pyspy-system.svc", 0, X509_V_OK},
    {"RESULTS.pyspy-system.svc", 0, X509_V_OK},
    {"a.pyspy.example", 0, X509_V_OK},
    {"10.96.0.7", 0, X509_V_OK},
    {"fd00::1", 0, X509_V_OK},
    {"results.pyspy-system.svc", -299, X509_V_OK}, /* clocks differ */
    {"results.pyspy-system.svc", -301, X509_V_ERR_CERT_NOT_YET_VALID},
    {"results.pyspy-system.svc", DAY_S - 1, X509_V_OK},
    {"results.pyspy-system.svc", DAY_S + 1, X509_V_ERR_CERT_HAS_EXPIRED},
    {"other.pyspy-system.svc", 0, X509_V_ERR_HOSTNAME_MISMATCH},
    {"a.b.pyspy.example", 0, X509_V_ERR_HOSTNAME_MISMATCH},
    {"10.96.0.8", 0, X509_V_ERR_IP_ADDRESS_MISMATCH},
};

static void test_clients_accept_and_refuse(void **state)
{
    (void)state;
    struct pair ca = PAIR_INIT, other_ca = PAIR_INIT, leaf = PAIR_INIT;
    struct err err = ERR_INIT;
    make_ca(&ca, 30 * DAY_S);
    make_ca(&other_ca, 30 * DAY_S);
    if (make_leaf(&ca, names, DAY_S, NOW_MS, &leaf, &err) != 0)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < ARRAY_SIZE(visits); i++) {
        int verdict = verify(&ca, &leaf, visits[i].host, NOW_S + visits[i].at_s);
        if (verdict != visits[i].verdict)
            fail_msg("%s at %+lld: %s", visits[i].host, (long long)visits[i].at_s,
                     X509_verify_cert_error_string(verdict));
    }
    /* The same subject, but another key. */
    assert_int_not_equal(verify(&other_ca, &leaf, names[0], NOW_S), X509_V_OK);
    /* An authority is no server. */
    assert_int_not_equal(verify(&ca, &ca, names[0], NOW_S), X509_V_OK);
    pair_finish(&ca);
    pair_finish(&other_ca);
    pair_finish(&leaf);
}

static void check_common(X509 *cert)
{
    assert_int_equal(X509_get_version(cert), X509_VERSION_3);
    char group[32];
    size_t len;
    assert_int_equal(EVP_PKEY_get_group_name(X509_get0_pubkey(cert), group, sizeof(group), &len),
                     1);
    assert_string_equal(group, "prime256v1");
    assert_int_equal(X509_get_signature_nid(cert), NID_ecdsa_with_SHA256);
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    assert_true(ASN1_STRING_length((const ASN1_STRING *)serial) <= 20);
    assert_true(ASN1_STRING_length((const ASN1_STRING *)serial) >= 8);
    BIGNUM *number = ASN1_INTEGER_to_BN(serial, NULL);
    assert_false(BN_is_negative(number));
    BN_free(number);
    assert_non_null(X509_get0_subject_key_id(cert));
    assert_non_null(X509_get0_authority_key_id(cert));
}

static bool is_critical(X509 *cert, int nid)
{
    int at = X509_get_ext_by_NID(cert, nid, -1);
    assert_true(at >= 0);
    return X509_EXTENSION_get_critical(X509_get_ext(cert, at)) == 1;
}

static void test_fields(void **state)
{
    (void)state;
    struct pair ca_pair = PAIR_INIT, leaf_pair = PAIR_INIT;
    make_ca(&ca_pair, 30 * DAY_S);
    assert_int_equal(make_leaf(&ca_pair, names, DAY_S, NOW_MS, &leaf_pair, NULL), 0);
    X509 *ca = parse(&ca_pair.cert), *leaf = parse(&leaf_pair.cert);
    check_common(ca);
    check_common(leaf);
    uint32_t ca_flags = X509_get_extension_flags(ca), flags = X509_get_extension_flags(leaf);
    assert_true(ca_flags & EXFLAG_CA);
    assert_true(ca_flags & EXFLAG_SS);
    assert_false(flags & (EXFLAG_CA | EXFLAG_INVALID));
    assert_int_equal(X509_get_pathlen(ca), 0);
    assert_true(is_critical(ca, NID_basic_constraints));
    assert_true(is_critical(ca, NID_key_usage));
    assert_true(is_critical(leaf, NID_basic_constraints));
    assert_true(is_critical(leaf, NID_key_usage));
    assert_true(is_critical(leaf, NID_subject_alt_name)); /* the subject is empty */
    assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
    assert_int_equal(X509_get_key_usage(ca), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
    assert_int_equal(X509_get_key_usage(leaf), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_extended_key_usage(leaf), XKU_SSL_SERVER);
    assert_int_equal(
        ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(leaf), X509_get0_subject_key_id(ca)), 0);
    assert_int_equal(X509_NAME_cmp(X509_get_issuer_name(leaf), X509_get_subject_name(ca)), 0);
    assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(ca), X509_get0_serialNumber(leaf)),
                         0);
    X509_free(ca);
    X509_free(leaf);
    pair_finish(&ca_pair);
    pair_finish(&leaf_pair);
}

static void test_validity(void **state)
{
    (void)state;
    struct pair ca = PAIR_INIT, leaf = PAIR_INIT, late = PAIR_INIT;
    int64_t before, after;
    make_ca(&ca, 30 * DAY_S);
    assert_int_equal(crypto_cert_validity(buf_str(&ca.cert), &before, &after, NULL), 0);
    assert_int_equal(before, (NOW_S - 300) * 1000);
    assert_int_equal(after, (NOW_S + 30 * DAY_S) * 1000);
    assert_int_equal(make_leaf(&ca, names, DAY_S, NOW_MS, &leaf, NULL), 0);
    assert_int_equal(crypto_cert_validity(buf_str(&leaf.cert), &before, &after, NULL), 0);
    assert_int_equal(after, (NOW_S + DAY_S) * 1000);
    /* It ends with its authority. */
    int64_t later_ms = NOW_MS + 29 * DAY_S * 1000;
    assert_int_equal(make_leaf(&ca, names, 90 * DAY_S, later_ms, &late, NULL), 0);
    assert_int_equal(crypto_cert_validity(buf_str(&late.cert), &before, &after, NULL), 0);
    assert_int_equal(after, (NOW_S + 30 * DAY_S) * 1000);
    pair_finish(&ca);
    pair_finish(&leaf);
    pair_finish(&late);
}

/* From 2050 on, certificates write their times in another form. */
static void test_validity_past_2050(void **state)
{
    (void)state;
    struct pair ca = PAIR_INIT;
    int64_t before, after;
    make_ca(&ca, 36500 * DAY_S);
    assert_int_equal(crypto_cert_validity(buf_str(&ca.cert), &before, &after, NULL), 0);
    assert_int_equal(after, (NOW_S + 36500 * DAY_S) * 1000);
    pair_finish(&ca);
}

static void test_key_and_issuer(void **state)
{
    (void)state;
    struct pair ca = PAIR_INIT, other = PAIR_INIT, leaf = PAIR_INIT;
    struct err err = ERR_INIT;
    make_ca(&ca, DAY_S);
    make_ca(&other, DAY_S);
    assert_int_equal(make_leaf(&ca, names, DAY_S, NOW_MS, &leaf, NULL), 0);
    assert_int_equal(crypto_cert_matches_key(buf_str(&leaf.cert), buf_str(&leaf.key), &err), 0);
    assert_int_equal(crypto_cert_matches_key(buf_str(&leaf.cert), buf_str(&ca.key), &err),
                     ERR_INVALID);
    assert_non_null(strstr(err.message, "the private key is not the certificate's"));
    assert_int_equal(crypto_cert_issued_by(buf_str(&leaf.cert), buf_str(&ca.cert), &err), 0);
    assert_int_equal(crypto_cert_issued_by(buf_str(&leaf.cert), buf_str(&other.cert), &err),
                     ERR_INVALID);
    assert_int_equal(crypto_cert_issued_by(buf_str(&ca.cert), buf_str(&ca.cert), &err), 0);
    assert_int_equal(crypto_cert_covers(buf_str(&leaf.cert), "x.pyspy.example", &err), 0);
    assert_int_equal(crypto_cert_covers(buf_str(&leaf.cert), "10.96.0.7", &err), 0);
    assert_int_equal(crypto_cert_covers(buf_str(&leaf.cert), "10.96.0.9", &err), ERR_INVALID);
    assert_int_equal(crypto_cert_covers(buf_str(&leaf.cert), "pyspy.example", &err), ERR_INVALID);
    pair_finish(&ca);
    pair_finish(&other);
    pair_finish(&leaf);
}

static void test_bad_input(void **state)
{
    (void)state;
    struct pair ca = PAIR_INIT, other = PAIR_INIT, leaf = PAIR_INIT;
    struct err err = ERR_INIT;
    make_ca(&ca, DAY_S);
    make_ca(&other, DAY_S);
    static const char *const bad_names[] = {
        "",
        "-a.example",
        "a-.example",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a,DNS:evil.example",
        "evil.example\n",
        "a/b",
        "x.*.example",
        "*",
        "0123456789012345678901234567890123456789012345678901234567890123.example",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++) {
        const char *list[] = {"good.example", bad_names[i], NULL};
        if (make_leaf(&ca, list, DAY_S, NOW_MS, &leaf, &err) != ERR_INVALID)
            fail_msg("\"%s\" was let in", bad_names[i]);
    }
    const char *none[] = {NULL};
    assert_int_equal(make_leaf(&ca, none, DAY_S, NOW_MS, &leaf, &err), ERR_INVALID);
    assert_int_equal(make_leaf(&ca, names, 0, NOW_MS, &leaf, &err), ERR_INVALID);
    assert_int_equal(make_leaf(&ca, names, -1, NOW_MS, &leaf, &err), ERR_INVALID);
    assert_int_equal(make_leaf(&ca, names, DAY_S, NOW_MS + DAY_S * 1000, &leaf, &err), ERR_INVALID);
    assert_string_equal(err.message, "the authority is not valid at this time");
    assert_int_equal(make_leaf(&ca, names, DAY_S, NOW_MS - DAY_S * 1000, &leaf, &err), ERR_INVALID);
    struct pair mixed = {ca.cert, other.key};
    assert_int_equal(make_leaf(&mixed, names, DAY_S, NOW_MS, &leaf, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "the private key is not the certificate's"));
    assert_int_equal(crypto_make_ca("", DAY_S, NOW_MS, &leaf.cert, &leaf.key, &err), ERR_INVALID);
    assert_int_equal(crypto_make_ca("ca", 0, NOW_MS, &leaf.cert, &leaf.key, &err), ERR_INVALID);
    assert_int_equal(leaf.cert.len, 0);
    assert_int_equal(leaf.key.len, 0);
    pair_finish(&ca);
    pair_finish(&other);
    pair_finish(&leaf);
}

static void test_unreadable_pem(void **state)
{
    (void)state;
    struct pair ca = PAIR_INIT, leaf = PAIR_INIT;
    struct err err = ERR_INIT;
    int64_t before = 1, after = 2;
    make_ca(&ca, DAY_S);
    /* A key that asks for a password is refused, without asking anybody. */
    struct str encrypted = STR("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
                               "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
                               "AAAAAAAAAAAAAAAAAAAAAA==\n-----END RSA PRIVATE KEY-----\n");
    struct str keys[] = {STR_NULL, STR("x"), encrypted, buf_str(&ca.cert)};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        assert_int_equal(crypto_cert_matches_key(buf_str(&ca.cert), keys[i], &err), ERR_INVALID);
        assert_true(str_starts_with(str_of(err.message), STR("no private key that can be read")));
    }
    for (size_t n = 0; n + 2 < ca.cert.len; n += 7) {
        struct str cut = str_sub(buf_str(&ca.cert), 0, n);
        assert_int_equal(crypto_cert_validity(cut, &before, &after, &err), ERR_INVALID);
        assert_true(str_starts_with(str_of(err.message), STR("no certificate that can be read")));
    }
    assert_int_equal(before, 1);
    assert_int_equal(after, 2);
    pair_finish(&ca);
    pair_finish(&leaf);
}

static void test_buffers_too_small(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct pair small_cert = {BUF_INIT(64), BUF_INIT(CRYPTO_PEM_MAX)};
    struct pair small_key = {BUF_INIT(CRYPTO_PEM_MAX), BUF_INIT(64)};
    struct pair *pairs[] = {&small_cert, &small_key};
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        assert_int_equal(crypto_make_ca("ca", DAY_S, NOW_MS, &pairs[i]->cert, &pairs[i]->key, &err),
                         ERR_TOO_LARGE);
        assert_int_equal(pairs[i]->cert.len, 0);
        assert_int_equal(pairs[i]->key.len, 0);
        pair_finish(pairs[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients_accept_and_refuse),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_validity),
        cmocka_unit_test(test_validity_past_2050),
        cmocka_unit_test(test_key_and_issuer),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_unreadable_pem),
        cmocka_unit_test(test_buffers_too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
