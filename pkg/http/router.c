#include "http/router.h"

#include <string.h>

#include "base/alloc.h"

struct entry {
    struct http_route route;
    struct str segments[REQUEST_SEGMENTS_MAX]; /* views into route.pattern */
    size_t n_segments;
};

struct router {
    struct entry *entries;
    size_t n;
};

static bool is_param(struct str segment)
{
    return segment.len > 2 && segment.ptr[0] == '{' && segment.ptr[segment.len - 1] == '}';
}

static int entry_init(struct entry *e, const struct http_route *route, struct err *err)
{
    if (!route->method || !route->handler || !route->pattern || route->pattern[0] != '/')
        return err_set(err, ERR_INVALID, "route needs a method, a handler and a pattern from '/'");
    e->route = *route;
    e->route.method = xstrdup(route->method);
    e->route.pattern = xstrdup(route->pattern);
    e->route.listener = route->listener ? xstrdup(route->listener) : NULL;
    struct str rest = str_of(e->route.pattern + 1);
    do {
        if (e->n_segments == REQUEST_SEGMENTS_MAX)
            return err_set(err, ERR_INVALID, "route %s has too many segments", route->pattern);
        e->segments[e->n_segments++] = str_cut(&rest, '/');
    } while (rest.ptr);
    return 0;
}

int router_create(const struct http_route *routes, size_t n, struct router **ret, struct err *err)
{
    struct router *r = xcalloc(1, sizeof(*r));
    r->entries = xcalloc(n ? n : 1, sizeof(*r->entries));
    for (; r->n < n; r->n++) {
        int code = entry_init(&r->entries[r->n], &routes[r->n], err);
        if (code) {
            r->n++;
            router_destroy(r);
            return code;
        }
    }
    *ret = r;
    return 0;
}

void router_destroy(struct router *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++) {
        free((char *)r->entries[i].route.method);
        free((char *)r->entries[i].route.pattern);
        free((char *)r->entries[i].route.listener);
    }
    free(r->entries);
    free(r);
}

static bool path_matches(const struct entry *e, const struct request *request,
                         struct router_match *ret)
{
    if (e->n_segments != request->n_segments)
        return false;
    ret->n_params = 0;
    for (size_t i = 0; i < e->n_segments; i++) {
        struct str pattern = e->segments[i], segment = request->segments[i];
        if (!is_param(pattern)) {
            if (!str_eq(pattern, segment))
                return false;
            continue;
        }
        if (!segment.len)
            return false;
        ret->params[ret->n_params++] =
            (struct request_pair){str_sub(pattern, 1, pattern.len - 2), segment};
    }
    return true;
}

static void add_allowed(struct buf *allow, const char *method)
{
    if (buf_str(allow).len && str_find(buf_str(allow), str_of(method)) >= 0)
        return;
    buf_appendf(allow, "%s%s", allow->len ? ", " : "", method);
    if (!strcmp(method, "GET"))
        buf_append_cstr(allow, ", HEAD");
}

int router_match(const struct router *r, const char *listener, const struct request *request,
                 struct router_match *ret, struct buf *allow)
{
    struct str method = str_is(request->method, "HEAD") ? STR("GET") : request->method;
    struct router_match match = {0};
    bool path_known = false;
    for (size_t i = 0; i < r->n; i++) {
        const struct entry *e = &r->entries[i];
        if (e->route.listener && strcmp(e->route.listener, listener) != 0)
            continue;
        if (!path_matches(e, request, &match))
            continue;
        if (str_is(method, e->route.method)) {
            match.route = &e->route;
            *ret = match;
            return 0;
        }
        path_known = true;
        add_allowed(allow, e->route.method);
    }
    return path_known ? 405 : 404;
}
