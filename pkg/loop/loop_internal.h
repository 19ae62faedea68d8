/* What the loop and its HTTP transports share: one curl multi handle, so that there is one place to
 * wait in. Private to pkg/loop; on the loop's thread. */
#pragma once

#include <curl/curl.h>

#include "base/list.h"
#include "loop/loop.h"

/* A transport on the loop: told before each wait, and of each transfer that has ended. */
struct loop_transport {
    struct list node;
    void (*begin)(struct loop_transport *t); /* start what is pending */
    void (*ended)(struct loop_transport *t, CURL *easy, CURLcode result);
    int (*reap)(struct loop_transport *t); /* after curl ran; returns call-backs made */
};

CURLM *loop_multi(struct loop *l);
bool loop_inside_curl(
    const struct loop *l); /* curl is on the stack: its multi may not be touched */
void loop_transport_add(struct loop *l, struct loop_transport *t);
void loop_transport_remove(struct loop *l, struct loop_transport *t);
/* CURLOPT_PRIVATE of an easy handle begins with this. */
struct loop_transfer {
    struct loop_transport *transport;
};
