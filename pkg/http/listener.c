#include "http/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

/* Our own socket and not the vhost's: its failures have an errno, it can be closed on its own, and
 * running out of descriptors does not make the loop spin. */

enum { BACKLOG = 128, ACCEPTS_AT_ONCE = 16 };

static int parse_address(const char *address, int port, struct sockaddr_storage *ret,
                         socklen_t *ret_len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *ret_len = sizeof(*v4);
        return 0;
    }
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *ret_len = sizeof(*v6);
        return 0;
    }
    return ERR_INVALID;
}

static int bound_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.v6 = {0}};
    socklen_t len = sizeof(address);
    if (getsockname(fd, &address.any, &len))
        return 0;
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

int listener_open(struct listener *l, const struct http_listener *options, struct err *err)
{
    struct sockaddr_storage address;
    socklen_t len;
    l->fd = -1;
    l->name = xstrdup(options->name);
    l->tls = options->tls;
    if (options->port < 0 || options->port > 65535 ||
        parse_address(options->address, options->port, &address, &len))
        return err_set(err, ERR_INVALID, "listener %s: %s port %d is no address", options->name,
                       options->address, options->port);

    l->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        bind(l->fd, (struct sockaddr *)&address, len) || listen(l->fd, BACKLOG))
        return err_set_errno(err, errno, "listener %s: listen on %s port %d", options->name,
                             options->address, options->port);
    l->port = bound_port(l->fd);
    return 0;
}

void listener_finish(struct listener *l)
{
    if (l->fd >= 0)
        close(l->fd);
    free(l->name);
}

/* Descriptors have run out, and poll() would report the same connection for ever: take it with the
 * spare one, so that the client at least is told. */
static void drop_one(struct listener *l, int fd)
{
    struct http_server *s = l->server;
    if (s->spare_fd < 0)
        return;
    atomic_fetch_add(&s->refused, 1);
    close(s->spare_fd);
    int dropped = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (dropped >= 0)
        close(dropped);
    s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void listener_accept(struct listener *l)
{
    struct http_server *s = l->server;
    int fd = lws_get_socket_fd(l->wsi);
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                drop_one(l, fd);
            return;
        }
        if (l->connections >= s->max_connections || s->draining) {
            atomic_fetch_add(&s->refused, 1);
            close(accepted);
            continue;
        }
        int on = 1;
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        lws_sock_file_fd_type descriptor = {.sockfd = accepted};
        lws_adopt_desc_t adopt = {
            .vh = l->vhost,
            .type = LWS_ADOPT_SOCKET | (l->tls ? LWS_ADOPT_ALLOW_SSL : 0),
            .fd = descriptor,
            .vh_prot_name = "connection",
            .opaque = l,
        };
        if (!lws_adopt_descriptor_vhost_via_info(&adopt))
            atomic_fetch_add(&s->refused, 1); /* libwebsockets has closed it */
    }
}
