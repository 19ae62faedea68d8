/* What carries requests on a loop waits with it, in one place: libcurl's multi interface
 * (http_multi.c), once the loop has an HTTP transport. Private to pkg/loop; on the loop's thread.
 */
#pragma once

#include <poll.h>

#include "loop/loop.h"

struct loop_io {
    void (*begin)(struct loop_io *io); /* before each wait: start what is pending */
    /* poll(2) of these descriptors and its own; sets revents. 0 or an error. */
    int (*wait)(struct loop_io *io, struct pollfd *fds, size_t n, int ms, struct err *err);
    int (*run)(struct loop_io *io); /* what is due; call-backs made */
    void (*destroy)(struct loop_io *io);
};

struct loop_io *loop_io(const struct loop *l);        /* NULL: none yet */
void loop_set_io(struct loop *l, struct loop_io *io); /* now the loop's; once */
void loop_wake(struct loop *l);                       /* ends the wait; any thread */
