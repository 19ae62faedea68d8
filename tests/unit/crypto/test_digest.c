#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/digest.h"

/* FIPS 180-4's examples, and the empty text. */
static const struct {
    const char *text, *hex;
} digests[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void test_sha256(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(digests); i++) {
        struct str text = str_of(digests[i].text);
        char hex[CRYPTO_SHA256_HEX];
        crypto_sha256_hex(text, hex);
        assert_string_equal(hex, digests[i].hex);
        for (size_t cut = 0; cut <= text.len; cut++) {
            _cleanup_(crypto_sha256_destroyp) struct crypto_sha256 *h = crypto_sha256_create();
            crypto_sha256_update(h, str_sub(text, 0, cut));
            crypto_sha256_update(h, STR_NULL);
            crypto_sha256_update(h, str_sub(text, cut, text.len));
            crypto_sha256_take_hex(h, hex);
            assert_string_equal(hex, digests[i].hex);
            crypto_sha256_take_hex(h, hex); /* anew */
            assert_string_equal(hex, digests[0].hex);
        }
    }
    crypto_sha256_destroy(NULL);
}

static void test_sha256_million(void **state)
{
    (void)state;
    _cleanup_(crypto_sha256_destroyp) struct crypto_sha256 *h = crypto_sha256_create();
    char piece[1000], hex[CRYPTO_SHA256_HEX];
    memset(piece, 'a', sizeof(piece));
    for (int i = 0; i < 1000; i++)
        crypto_sha256_update(h, (struct str){piece, sizeof(piece)});
    crypto_sha256_take_hex(h, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* RFC 4231; fill: that many bytes of that value. */
struct fill {
    const char *text;
    size_t count;
    unsigned char byte;
};

static const struct {
    struct fill key, message;
    const char *hex;
} macs[] = {
    {{NULL, 20, 0x0b},
     {"Hi There", 0, 0},
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {{"Jefe", 0, 0},
     {"what do ya want for nothing?", 0, 0},
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    {{NULL, 20, 0xaa},
     {NULL, 50, 0xdd},
     "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
    {{NULL, 131, 0xaa},
     {"Test Using Larger Than Block-Size Key - Hash Key First", 0, 0},
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
    {{NULL, 131, 0xaa},
     {"This is a test using a larger than block-size key and a larger than block-size data. The "
      "key needs to be hashed before being used by the HMAC algorithm.",
      0, 0},
     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
    {{"", 0, 0}, {"", 0, 0}, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"},
};

static struct str filled(struct fill f, char *room)
{
    if (f.text)
        return str_of(f.text);
    memset(room, f.byte, f.count);
    return (struct str){room, f.count};
}

static void test_hmac_sha256(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(macs); i++) {
        char key[256], message[256], hex[CRYPTO_SHA256_HEX];
        crypto_hmac_sha256_hex(filled(macs[i].key, key), filled(macs[i].message, message), hex);
        assert_string_equal(hex, macs[i].hex);
    }
    char hex[CRYPTO_SHA256_HEX];
    crypto_hmac_sha256_hex(STR_NULL, STR_NULL, hex);
    assert_string_equal(hex, macs[ARRAY_SIZE(macs) - 1].hex);
}

static void test_equal(void **state)
{
    (void)state;
    assert_true(crypto_equal(STR("abc"), STR("abc")));
    assert_true(crypto_equal(STR_NULL, STR("")));
    assert_false(crypto_equal(STR("abc"), STR("abd")));
    assert_false(crypto_equal(STR("xbc"), STR("abc")));
    assert_false(crypto_equal(STR("abc"), STR("abcd")));
    assert_false(crypto_equal(STR("a\0c"), STR("a\0d")));
}

/* RFC 4648, 10, and what tells the alphabets apart. */
static const struct {
    struct str bytes;
    const char *standard, *url;
} encodings[] = {
    {STR(""), "", ""},
    {STR("f"), "Zg==", "Zg"},
    {STR("fo"), "Zm8=", "Zm8"},
    {STR("foo"), "Zm9v", "Zm9v"},
    {STR("foob"), "Zm9vYg==", "Zm9vYg"},
    {STR("fooba"), "Zm9vYmE=", "Zm9vYmE"},
    {STR("foobar"), "Zm9vYmFy", "Zm9vYmFy"},
    {STR("\xFB\xFF\xBE"), "+/++", "-_--"},
    {STR("\0\0\0\0"), "AAAAAA==", "AAAAAA"},
};

static void check_encoding(struct str bytes, const char *text, enum crypto_base64 alphabet)
{
    struct buf out = BUF_INIT(64);
    crypto_base64_encode(&out, bytes, alphabet);
    assert_string_equal(buf_cstr(&out), text);
    buf_clear(&out);
    buf_append_cstr(&out, "before");
    assert_int_equal(crypto_base64_decode(str_of(text), alphabet, &out, NULL), 0);
    assert_true(str_starts_with(buf_str(&out), STR("before")));
    assert_true(str_eq(str_sub(buf_str(&out), 6, out.len), bytes));
    buf_finish(&out);
}

static void test_base64(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(encodings); i++) {
        check_encoding(encodings[i].bytes, encodings[i].standard, CRYPTO_BASE64_STANDARD);
        check_encoding(encodings[i].bytes, encodings[i].url, CRYPTO_BASE64_URL);
    }
}

static void test_base64_every_byte(void **state)
{
    (void)state;
    unsigned char bytes[256];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        for (int alphabet = 0; alphabet < 2; alphabet++) {
            struct buf text = BUF_INIT(1024), back = BUF_INIT(256);
            struct str in = {(const char *)bytes + sizeof(bytes) - n, n};
            crypto_base64_encode(&text, in, (enum crypto_base64)alphabet);
            assert_int_equal(buf_error(&text, "it", NULL), 0);
            assert_int_equal(
                crypto_base64_decode(buf_str(&text), (enum crypto_base64)alphabet, &back, NULL), 0);
            assert_true(str_eq(buf_str(&back), in));
            buf_finish(&text);
            buf_finish(&back);
        }
    }
}

static const struct {
    const char *text;
    enum crypto_base64 alphabet;
    const char *result; /* NULL: refused */
    const char *message;
} decodings[] = {
    {"Zm9v\r\nYmFy\n", CRYPTO_BASE64_STANDARD, "foobar", NULL}, /* line ends, as in PEM */
    {"Zg\n=\n=\n", CRYPTO_BASE64_STANDARD, "f", NULL},
    {"Zg==", CRYPTO_BASE64_URL, "f", NULL},
    {"Zg", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Zg=", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Zg=", CRYPTO_BASE64_URL, NULL, "base64: cut off or wrongly padded"},
    {"Zg===", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Zm9v=", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Zm9v====", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"=", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Z", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Z", CRYPTO_BASE64_URL, NULL, "base64: cut off or wrongly padded"},
    {"Z===", CRYPTO_BASE64_STANDARD, NULL, "base64: cut off or wrongly padded"},
    {"Zh==", CRYPTO_BASE64_STANDARD, NULL, "base64: bits are left over at the end"},
    {"Zm9=", CRYPTO_BASE64_STANDARD, NULL, "base64: bits are left over at the end"},
    {"Zg==Zg==", CRYPTO_BASE64_STANDARD, NULL, "base64: byte 0x5a at offset 4"},
    {"Zm 9v", CRYPTO_BASE64_STANDARD, NULL, "base64: byte 0x20 at offset 2"},
    {"-_--", CRYPTO_BASE64_STANDARD, NULL, "base64: byte 0x2d at offset 0"},
    {"+/++", CRYPTO_BASE64_URL, NULL, "base64: byte 0x2b at offset 0"},
    {"Zm9\xFF", CRYPTO_BASE64_STANDARD, NULL, "base64: byte 0xff at offset 3"},
};

static void test_base64_decode(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(decodings); i++) {
        struct buf out = BUF_INIT(64);
        struct err err = ERR_INIT;
        int code =
            crypto_base64_decode(str_of(decodings[i].text), decodings[i].alphabet, &out, &err);
        if (decodings[i].result) {
            assert_int_equal(code, 0);
            assert_string_equal(buf_cstr(&out), decodings[i].result);
        } else {
            assert_int_equal(code, ERR_INVALID);
            assert_string_equal(err.message, decodings[i].message);
            assert_int_equal(out.len, 0);
        }
        buf_finish(&out);
    }
}

static void test_base64_too_large(void **state)
{
    (void)state;
    for (size_t max = 1; max <= 8; max++) {
        struct buf text = BUF_INIT(max), bytes = BUF_INIT(max);
        crypto_base64_encode(&text, STR("fooba"), CRYPTO_BASE64_STANDARD);
        assert_int_equal(buf_error(&text, "it", NULL), max < 8 ? ERR_TOO_LARGE : 0);
        int code = crypto_base64_decode(STR("Zm9vYmE="), CRYPTO_BASE64_STANDARD, &bytes, NULL);
        assert_int_equal(code, max < 5 ? ERR_TOO_LARGE : 0);
        assert_int_equal(bytes.len, max < 5 ? 0 : 5);
        buf_finish(&text);
        buf_finish(&bytes);
    }
}

static void test_wipe(void **state)
{
    (void)state;
    char secret[] = "secret";
    crypto_wipe(secret, sizeof(secret));
    assert_memory_equal(secret, "\0\0\0\0\0\0\0", sizeof(secret));
    struct buf b = BUF_INIT(64);
    crypto_wipe_buf(&b); /* nothing allocated yet */
    buf_append_cstr(&b, "secret");
    crypto_wipe_buf(&b);
    assert_int_equal(b.len, 0);
    assert_null(b.ptr);
    buf_append_cstr(&b, "usable again");
    assert_string_equal(buf_cstr(&b), "usable again");
    buf_finish(&b);
    crypto_wipe_buf(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),        cmocka_unit_test(test_sha256_million),
        cmocka_unit_test(test_hmac_sha256),   cmocka_unit_test(test_equal),
        cmocka_unit_test(test_base64),        cmocka_unit_test(test_base64_every_byte),
        cmocka_unit_test(test_base64_decode), cmocka_unit_test(test_base64_too_large),
        cmocka_unit_test(test_wipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
