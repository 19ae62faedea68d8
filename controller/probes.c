#include "controller/probes.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "metrics/metrics.h"

#define METRICS_MAX (4u << 20)

struct probes {
    struct probes_options options;
};

/* A request carried to the control thread. */
struct visit {
    struct probes *probes;
    struct http_exchange *exchange;
    bool ready; /* readyz, not healthz */
};

static void visit(struct probes *p, struct http_exchange *exchange, bool ready,
                  void (*fn)(void *arg))
{
    struct visit *v = xcalloc(1, sizeof(*v));
    *v = (struct visit){p, exchange, ready};
    loop_post(p->options.loop, fn, v);
}

/* As the API server's own: "ok", or a line for each check where one fails or with ?verbose. */
static void answer_health(void *arg)
{
    struct visit *v = arg;
    const struct probes_options *o = &v->probes->options;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(4096);
    bool all = true;
    for (size_t i = 0; i < o->n_probes; i++) {
        const struct probe *probe = &o->probes[i];
        if (!(v->ready ? probe->ready : probe->live))
            continue;
        bool ok = probe->ok(o->context);
        buf_appendf(&text, "[%s]%s %s\n", ok ? "+" : "-", probe->name, ok ? "ok" : "failed");
        all = all && ok;
    }
    const char *name = v->ready ? "readyz" : "healthz";
    bool verbose = http_exchange_query(v->exchange, "verbose").ptr != NULL;
    buf_appendf(&text, "%s check %s\n", name, all ? "passed" : "failed");
    http_respond(v->exchange, all ? 200 : 503, "text/plain; charset=utf-8",
                 all && !verbose ? STR("ok") : buf_str(&text));
    free(v);
}

static void answer_metrics(void *arg)
{
    struct visit *v = arg;
    const struct probes_options *o = &v->probes->options;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(METRICS_MAX);
    o->write_metrics(o->context, &text);
    struct err err = ERR_INIT;
    if (buf_error(&text, "the metrics", &err) < 0)
        http_respond_error(v->exchange, 500, "InternalError", err.message);
    else
        http_respond(v->exchange, 200, METRICS_CONTENT_TYPE, buf_str(&text));
    free(v);
}

void probes_healthz(void *context, struct http_exchange *exchange)
{
    visit(context, exchange, false, answer_health);
}

void probes_readyz(void *context, struct http_exchange *exchange)
{
    visit(context, exchange, true, answer_health);
}

void probes_metrics(void *context, struct http_exchange *exchange)
{
    visit(context, exchange, false, answer_metrics);
}

struct probes *probes_create(const struct probes_options *options)
{
    struct probes *p = xcalloc(1, sizeof(*p));
    p->options = *options;
    return p;
}

void probes_destroy(struct probes *p)
{
    free(p);
}
