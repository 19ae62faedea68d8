#include "client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEADLINE_MS = 20000 };

bool client_open(struct client *c, int port)
{
    *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    c->in = BUF_INIT((size_t)64 << 20);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval deadline = {.tv_sec = DEADLINE_MS / 1000};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof(deadline));
    if (!connect(c->fd, (struct sockaddr *)&address, sizeof(address)))
        return true;
    client_close(c);
    return false;
}

bool client_open_tls(struct client *c, int port, int max_version)
{
    if (!client_open(c, port))
        return false;
    c->ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(c->ctx, 0);
    SSL_CTX_set_min_proto_version(c->ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(c->ctx, max_version);
    static const unsigned char protocols[] = "\x02h2\x08http/1.1";
    SSL_CTX_set_alpn_protos(c->ctx, protocols, sizeof(protocols) - 1);
    c->ssl = SSL_new(c->ctx);
    SSL_set_fd(c->ssl, c->fd);
    if (SSL_connect(c->ssl) == 1)
        return true;
    client_close(c);
    return false;
}

void client_peer_name(struct client *c, char *out, size_t size)
{
    X509 *x = SSL_get1_peer_certificate(c->ssl);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, out, (int)size);
    X509_free(x);
}

bool client_send(struct client *c, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t n = c->ssl ? SSL_write(c->ssl, at, (int)len) : send(c->fd, at, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

bool client_send_text(struct client *c, const char *text)
{
    return client_send(c, text, strlen(text));
}

static bool read_more(struct client *c)
{
    char *to = buf_reserve(&c->in, 16384);
    ssize_t n = !to ? -1 : c->ssl ? SSL_read(c->ssl, to, 16384) : recv(c->fd, to, 16384, 0);
    if (n <= 0)
        return false;
    c->in.len += (size_t)n;
    c->in.ptr[c->in.len] = '\0';
    return true;
}

bool response_has(const struct response *r, const char *header_line)
{
    return strcasestr(buf_cstr(&r->head), header_line) != NULL;
}

bool client_receive(struct client *c, struct response *r, bool head_only)
{
    *r = (struct response){.head = BUF_INIT(65536), .body = BUF_INIT((size_t)64 << 20)};
    ssize_t end;
    while ((end = str_find(buf_str(&c->in), STR("\r\n\r\n"))) < 0)
        if (!read_more(c))
            return false;
    buf_append(&r->head, c->in.ptr, (size_t)end + 4);
    buf_consume(&c->in, (size_t)end + 4);
    int64_t status;
    if (str_to_i64(str_sub(buf_str(&r->head), 9, 3), 100, 999, &status))
        return false;
    r->status = (int)status;
    const char *length = strcasestr(buf_cstr(&r->head), "\r\nContent-Length: ");
    size_t n = length && !head_only ? strtoul(length + 18, NULL, 10) : 0;
    while (c->in.len < n)
        if (!read_more(c))
            return false;
    buf_append(&r->body, c->in.ptr, n);
    buf_consume(&c->in, n);
    return true;
}

bool client_sees_end(struct client *c, int ms)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    char bytes[4096];
    for (;;) {
        if (poll(&p, 1, ms) <= 0)
            return false;
        if (recv(c->fd, bytes, sizeof(bytes), 0) <= 0)
            return true;
    }
}

void client_close(struct client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    if (c->fd >= 0)
        close(c->fd);
    buf_finish(&c->in);
    *c = (struct client){.fd = -1};
}

void response_finish(struct response *r)
{
    buf_finish(&r->head);
    buf_finish(&r->body);
}

static void take_bio(BIO *bio, struct buf *out)
{
    char *text;
    long n = BIO_get_mem_data(bio, &text);
    buf_append(out, text, (size_t)n);
    BIO_free(bio);
}

void make_certificate(const char *common_name, struct buf *certificate, struct buf *key)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, pair);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_sign(x, pair, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, x);
    take_bio(bio, certificate);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL);
    take_bio(bio, key);
    X509_free(x);
    EVP_PKEY_free(pair);
}
