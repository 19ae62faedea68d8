/* The transport over libcurl: HTTP/1.1 with reused connections, TCP keep-alive and
 * TCP_USER_TIMEOUT, TLS material through BLOB options. Belongs to one loop and its thread. */
#pragma once

#include "loop/loop.h"
#include "loop/transport.h"

/* user_agent: copied. Blocks SIGPIPE in the calling thread, which must be the loop's. */
int http_transport_create(struct loop *l, const char *user_agent, struct transport **ret,
                          struct err *err);
/* Before its loop, and not inside a call-back of the transport. Cancels what is under way. */
void http_transport_destroy(struct transport *self);
