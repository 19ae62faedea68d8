#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "loop/http_internal.h"

enum {
    CONNECT_TIMEOUT_MS = 10000,
    TIMEOUT_MS = 30000,
    KEEPALIVE_S = 15,
    USER_TIMEOUT_MS = 30000,
    CONNECTION_MAX_IDLE_S = 60,
    MAX_TIMEOUT_MS = 24 * 3600 * 1000,
};

static const size_t max_response_default = 16 * 1024 * 1024;

/* A peer that vanished without a word is noticed while data of ours is unacknowledged (a request)
 * and, with keep-alive, while we only listen (a watch). */
static int set_socket_options(void *context, curl_socket_t fd, curlsocktype purpose)
{
    (void)context;
    (void)purpose;
    unsigned ms = USER_TIMEOUT_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms,
               sizeof(ms)); /* fails on a Unix socket only */
    return CURL_SOCKOPT_OK;
}

/* A line break in a value would let it add headers of its own. */
static bool is_header_safe(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '\r' || s.ptr[i] == '\n' || s.ptr[i] == '\0')
            return false;
    return true;
}

static void add_header(struct http_call *call, const char *line)
{
    struct curl_slist *more = curl_slist_append(call->headers, line);
    if (!more)
        abort(); /* out of memory, as everywhere */
    call->headers = more;
}

static int set_headers(struct http_call *call, const struct http_request *request, struct err *err)
{
    bool has_content_type = false;
    for (size_t i = 0; i < request->n_headers; i++) {
        const struct http_header *h = &request->headers[i];
        if (!h->name.len || str_find_char(h->name, ':') >= 0 || !is_header_safe(h->name) ||
            !is_header_safe(h->value))
            return err_set(err, ERR_INVALID, "header %.*s: not a header line", STR_ARG(h->name));
        /* curl takes "Name:" as "remove it" and "Name;" as "send it empty". */
        _cleanup_(freep) char *line =
            h->value.len ? xasprintf("%.*s: %.*s", STR_ARG(h->name), STR_ARG(h->value))
                         : xasprintf("%.*s;", STR_ARG(h->name));
        add_header(call, line);
        if (h->name.len == 12 && strncasecmp(h->name.ptr, "content-type", 12) == 0)
            has_content_type = true;
    }
    add_header(call, "Expect:"); /* no round trip before a large body */
    if (!has_content_type)
        add_header(call, "Content-Type:");
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
    return 0;
}

/* Checks the certificate for `server_name` and sends it as SNI while connecting to, and naming in
 * Host, what the URL says: libcurl takes all three from the URL, so the URL gets the name. */
static int set_server_name(struct http_call *call, const char *url, const char *server_name,
                           struct err *err)
{
    CURLU *parsed = curl_url();
    char *host = NULL, *port = NULL, *renamed = NULL;
    int code = ERR_INVALID;
    if (parsed && !curl_url_set(parsed, CURLUPART_URL, url, 0) &&
        !curl_url_get(parsed, CURLUPART_HOST, &host, 0) &&
        !curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) &&
        !curl_url_set(parsed, CURLUPART_HOST, server_name, 0) &&
        !curl_url_get(parsed, CURLUPART_URL, &renamed, 0)) {
        _cleanup_(freep) char *route = xasprintf("%s:%s:%s:%s", server_name, port, host, port);
        _cleanup_(freep) char *header = xasprintf("Host: %s:%s", host, port);
        call->connect_to = curl_slist_append(NULL, route);
        add_header(call, header);
        curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
        curl_easy_setopt(call->easy, CURLOPT_CONNECT_TO, call->connect_to);
        curl_easy_setopt(call->easy, CURLOPT_URL, renamed);
        code = 0;
    } else {
        err_set(err, code, "server name %s does not fit the URL", server_name);
    }
    curl_free(host);
    curl_free(port);
    curl_free(renamed);
    curl_url_cleanup(parsed);
    return code;
}

static void set_blob(CURL *easy, CURLoption option, struct str pem)
{
    struct curl_blob blob = {.data = (void *)pem.ptr, .len = pem.len, .flags = CURL_BLOB_COPY};
    curl_easy_setopt(easy, option, &blob);
}

static void set_tls(CURL *easy, const struct tls_config *tls)
{
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!tls)
        return;
    if (tls->ca.len || tls->insecure) {
        /* Else the system's authorities would be trusted, too, and their bundle be loaded. */
        curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (tls->ca.len)
        set_blob(easy, CURLOPT_CAINFO_BLOB, tls->ca);
    if (tls->insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (tls->client_cert.len) {
        set_blob(easy, CURLOPT_SSLCERT_BLOB, tls->client_cert);
        set_blob(easy, CURLOPT_SSLKEY_BLOB, tls->client_key);
    }
    if (tls->proxy_url)
        curl_easy_setopt(easy, CURLOPT_PROXY, tls->proxy_url);
}

static void set_method(struct http_call *call, const struct http_request *request)
{
    CURL *easy = call->easy;
    bool has_body = request->body.len || strcmp(request->method, "POST") == 0 ||
                    strcmp(request->method, "PUT") == 0;
    if (has_body) {
        call->request_body = BUF_INIT(request->body.len + 1);
        buf_append_str(&call->request_body, request->body);
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, buf_cstr(&call->request_body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
    } else if (strcmp(request->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static long or_default(int64_t ms, long fallback)
{
    if (ms <= 0)
        return fallback;
    return ms > MAX_TIMEOUT_MS ? MAX_TIMEOUT_MS : (long)ms;
}

int http_setup(struct http_call *call, const struct http_request *request, struct err *err)
{
    CURL *easy = call->easy;
    call->max_response = request->max_response ? request->max_response : max_response_default;

    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_SHARE, call->owner->share);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_message);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, http_on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, call->owner->user_agent);
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    /* The HTTP/2 code of libcurl 7.88 does not notice a dead peer. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 0L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_S);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, set_socket_options);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)CONNECTION_MAX_IDLE_S);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request->fresh_connection ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     or_default(request->connect_timeout_ms, CONNECT_TIMEOUT_MS));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, or_default(request->timeout_ms, TIMEOUT_MS));

    set_method(call, request);
    set_tls(easy, request->tls);
    int failed = set_headers(call, request, err);
    if (!failed && request->tls && request->tls->server_name)
        failed = set_server_name(call, request->url, request->tls->server_name, err);
    return failed;
}
