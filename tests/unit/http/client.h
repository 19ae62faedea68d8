/* A client that sends exactly the bytes that a test wants, in plain or over TLS, and reads answers
 * with a deadline. Certificates for tests. One thread per client. */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct client {
    int fd;
    SSL *ssl; /* NULL: plain */
    SSL_CTX *ctx;
    struct buf in;
};

struct response {
    int status;
    struct buf head, body;
};

bool client_open(struct client *c, int port);
/* max_version: 0, or a TLS1_x_VERSION. */
bool client_open_tls(struct client *c, int port, int max_version);
/* The common name of the server's certificate. */
void client_peer_name(struct client *c, char *out, size_t size);
bool client_send(struct client *c, const void *bytes, size_t len); /* false: closed */
bool client_send_text(struct client *c, const char *text);
/* false: no whole response within 20 s, or the end. `head_only`: it answers a HEAD. */
bool client_receive(struct client *c, struct response *r, bool head_only);
/* Whether the server closes within `ms`, dropping what it sends. */
bool client_sees_end(struct client *c, int ms);
void client_close(struct client *c);
void response_finish(struct response *r);
bool response_has(const struct response *r, const char *header_line);

/* A self-signed certificate and its key, as PEM. */
void make_certificate(const char *common_name, struct buf *certificate, struct buf *key);
