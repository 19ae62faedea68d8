/* Which route serves a request: by listener, path and method. The router owns copies of the routes
 * and their texts; it does not change after its creation, so any thread may read it. */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "http/request.h"
#include "http/server.h"

struct router;

/* ERR_INVALID: a pattern does not begin with '/' or has too many segments, a handler is missing. */
int router_create(const struct http_route *routes, size_t n, struct router **ret, struct err *err);
void router_destroy(struct router *r);

struct router_match {
    const struct http_route *route;
    struct request_pair params[REQUEST_SEGMENTS_MAX]; /* names live as long as the router */
    size_t n_params;
};

/* 0, 404, or 405 with the methods that exist appended to `allow` ("GET, HEAD, POST"). */
int router_match(const struct router *r, const char *listener, const struct request *request,
                 struct router_match *ret, struct buf *allow);
