/* libcurl's multi interface as the place where a loop waits. */
#include <pthread.h>

#include "base/alloc.h"
#include "loop/http_internal.h"

#define MAX_CONNECTIONS 1024L

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static struct http_multi *multi_of(struct loop_io *io)
{
    return CONTAINER_OF(io, struct http_multi, io);
}

static void multi_begin(struct loop_io *io)
{
    LIST_FOREACH(&multi_of(io)->transports, node)
    http_begin_pending(CONTAINER_OF(node, struct http_transport, node));
}

static int multi_wait(struct loop_io *io, struct pollfd *fds, size_t n, int ms, struct err *err)
{
    struct http_multi *m = multi_of(io);
    if (m->waitfds_cap < n) {
        m->waitfds = xrealloc(m->waitfds, n, sizeof(*m->waitfds));
        m->waitfds_cap = n;
    }
    for (size_t i = 0; i < n; i++)
        m->waitfds[i] = (struct curl_waitfd){.fd = fds[i].fd, .events = CURL_WAIT_POLLIN};
    CURLMcode failed = curl_multi_poll(m->curl, m->waitfds, (unsigned)n, ms, NULL);
    if (failed)
        return err_set(err, ERR_IO, "wait: %s", curl_multi_strerror(failed));
    for (size_t i = 0; i < n; i++)
        fds[i].revents = m->waitfds[i].revents;
    return 0;
}

static int multi_run(struct loop_io *io)
{
    struct http_multi *m = multi_of(io);
    int running;
    m->inside = true;
    curl_multi_perform(m->curl, &running);
    m->inside = false;

    int ran = 0, left;
    for (CURLMsg *message; (message = curl_multi_info_read(m->curl, &left));) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURL *easy = message->easy_handle;
        CURLcode result = message->data.result; /* the message goes with the handle */
        http_ended(easy, result);
        ran++;
    }
    LIST_FOREACH(&m->transports, node)
    ran += http_reap_finished(CONTAINER_OF(node, struct http_transport, node));
    return ran;
}

static void multi_destroy(struct loop_io *io)
{
    struct http_multi *m = multi_of(io);
    curl_multi_cleanup(m->curl);
    free(m->waitfds);
    free(m);
}

int http_multi_get(struct loop *l, struct http_multi **ret, struct err *err)
{
    if (loop_io(l)) {
        *ret = multi_of(loop_io(l));
        return 0;
    }
    pthread_once(&curl_once, curl_init);
    CURLM *curl = curl_multi_init();
    if (!curl)
        return err_set(err, ERR_IO, "cannot set up libcurl");
    /* What runs at a time bounds them. This bound counts connections in use as well, and libcurl
     * closes an idle one for each that exceeds it: a handshake a request. */
    curl_multi_setopt(curl, CURLMOPT_MAXCONNECTS, MAX_CONNECTIONS);

    struct http_multi *m = xcalloc(1, sizeof(*m));
    m->io = (struct loop_io){multi_begin, multi_wait, multi_run, multi_destroy};
    m->curl = curl;
    list_init(&m->transports);
    loop_set_io(l, &m->io);
    *ret = m;
    return 0;
}
