#include "profile/flamegraph_assets.h"
#include "profile/profile_internal.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/clock.h"

/* Root on top ("icicle"): a page opens at its top, next to the header, and a stack of 500 frames is
 * read without scrolling to its foot first. Places and widths are per cent, so the drawing fits any
 * window without a script; every frame is a nested <svg>, which cuts what is too long for it. */

#define MAX_SVG      ((size_t)800 * 1000) /* leaves room in an object of 900 KiB */
#define ROW          18
#define TOP          106 /* of the frames; a line less where there is no note */
#define NOTE         17
#define FOOT         26
#define STATIC_WIDTH 1176 /* of the graph in a window of 1200, for cutting labels beforehand */
#define CHAR_WIDTH   7.0
#define MAX_LABEL    300 /* characters */
#define FIRST_LEAST  0.001

struct drawing {
    const struct profile *p;
    const struct tree *t;
    struct buf *out;
    double least; /* share of all samples that a frame must have to be drawn */
    int top;      /* where the frames begin */
    size_t drawn;
    int rows;
};

static void put_char(struct buf *out, uint32_t c)
{
    switch (c) {
    case '<':
        buf_append_cstr(out, "&lt;");
        break;
    case '>':
        buf_append_cstr(out, "&gt;");
        break;
    case '&':
        buf_append_cstr(out, "&amp;");
        break;
    case '"':
        buf_append_cstr(out, "&quot;");
        break;
    default:
        if (rune_is_bidi(c))
            buf_appendf(out, "\\u%04" PRIx32, c);
        else
            buf_append_rune(out, c);
    }
}

/* At most `max` characters of s, the last a "…" where it was cut. */
static void put_text(struct buf *out, struct str s, size_t max)
{
    size_t pos = 0, cut = 0, n = 0;

    while (pos < s.len) {
        if (n + 1 == max) /* what is before fits beside "…" */
            cut = out->len;
        if (n == max) {
            if (!out->failed)
                buf_truncate(out, cut);
            buf_append_cstr(out, "\xe2\x80\xa6");
            return;
        }
        put_char(out, clean_next(s, &pos));
        n++;
    }
}

/* 1234567 → "1,234,567" */
static void put_count(struct buf *out, int64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%" PRId64, n);

    for (int i = 0; i < len; i++) {
        buf_append_char(out, digits[i]);
        if (i + 1 < len && (len - i - 1) % 3 == 0)
            buf_append_char(out, ',');
    }
}

/* A share in per cent with up to `digits` behind the point, without idle zeros. */
static void put_percent(struct buf *out, int64_t part, int64_t whole, int digits)
{
    char text[40];
    int len = snprintf(text, sizeof(text), "%.*f", digits, 100.0 * (double)part / (double)whole);

    while (len > 1 && strchr(text, '.') && (text[len - 1] == '0' || text[len - 1] == '.')) {
        bool point = text[len - 1] == '.';
        text[--len] = '\0';
        if (point)
            break;
    }
    buf_append(out, text, (size_t)len);
}

static void put_samples(struct buf *out, int64_t n)
{
    put_count(out, n);
    buf_append_cstr(out, n == 1 ? " sample" : " samples");
}

static void put_frame(struct drawing *d, uint32_t n, int depth, int64_t x)
{
    const struct tree_node *node = &d->t->nodes[n];
    struct str label = n ? d->t->labels.items[node->key.b] : STR("all");
    int64_t all = d->t->nodes[0].total;
    double room = STATIC_WIDTH * (double)node->total / (double)all - 7;

    buf_append_cstr(d->out, "<svg x=\"");
    put_percent(d->out, x, all, 4);
    buf_appendf(d->out, "%%\" y=\"%d\" width=\"", depth * ROW);
    put_percent(d->out, node->total, all, 4);
    buf_appendf(d->out, "%%\" height=\"17\" class=\"c%d\"><title>",
                n ? d->t->hues[node->key.b] : 0);
    put_text(d->out, label, MAX_LABEL);
    buf_append_char(d->out, '\n');
    put_samples(d->out, node->total);
    buf_append_cstr(d->out, " \xc2\xb7 ");
    put_percent(d->out, node->total, all, 2);
    buf_append_cstr(d->out, " %</title><rect/>");
    if (room >= 3 * CHAR_WIDTH) {
        size_t fits = (size_t)(room / CHAR_WIDTH);
        buf_append_cstr(d->out, "<text x=\"4\" y=\"12.5\">");
        put_text(d->out, label, fits < MAX_LABEL ? fits : MAX_LABEL);
        buf_append_cstr(d->out, "</text>");
    }
    buf_append_cstr(d->out, "</svg>\n");
    d->drawn++;
    if (depth >= d->rows)
        d->rows = depth + 1;
}

/* All frames that are wide enough, parents first. */
static void put_frames(struct drawing *d)
{
    _cleanup_(freep) int64_t *left = NULL; /* where the open node of each depth begins */
    size_t cap = 0;
    int depth = 0;
    int64_t x = 0;

    for (uint32_t n = 0; !d->out->failed;) {
        const struct tree_node *node = &d->t->nodes[n];
        bool wide = (double)node->total >= d->least * (double)d->t->nodes[0].total;

        if (wide)
            put_frame(d, n, depth, x);
        if (wide && node->first) {
            left = grow(left, &cap, (size_t)depth + 1, sizeof(*left));
            left[depth++] = x;
            n = node->first;
            continue;
        }
        while (n && !d->t->nodes[n].next) {
            n = d->t->nodes[n].key.a;
            if (depth)
                x = left[--depth];
        }
        if (!n)
            break;
        x += d->t->nodes[n].total;
        n = d->t->nodes[n].next;
    }
}

static void put_line(struct buf *out, int y, const char *class, struct str text)
{
    buf_appendf(out, "<text x=\"1%%\" y=\"%d\" class=\"%s\">", y, class);
    put_text(out, text, MAX_LABEL);
    buf_append_cstr(out, "</text>\n");
}

static void describe_run(const struct profile *p, struct buf *out)
{
    char when[TIME_RFC3339_MAX];

    if (p->start_ms) {
        time_format(p->start_ms, when);
        buf_appendf(out, "%.10s %.8s UTC \xc2\xb7 ", when, when + 11);
    }
    if (p->duration_ms) {
        duration_format(p->duration_ms, when);
        buf_append_cstr(out, when);
    }
    if (p->rate)
        buf_appendf(out, "%s%" PRId64 " Hz", p->duration_ms ? " at " : "", p->rate);
    if (p->duration_ms || p->rate)
        buf_append_cstr(out, " \xc2\xb7 ");
    put_samples(out, p->samples);
    buf_append_cstr(out, " \xc2\xb7 ");
    put_count(out, (int64_t)p->n_stacks);
    buf_append_cstr(out, p->n_stacks == 1 ? " stack" : " stacks");
}

static void put_header(const struct drawing *d, struct str title)
{
    _cleanup_(buf_finish) struct buf run = BUF_INIT(512);

    describe_run(d->p, &run);
    buf_appendf(d->out, "<g id=\"h\"><rect class=\"p\" width=\"100%%\" height=\"%d\"/>\n",
                d->top - 6);
    put_line(d->out, 28, "t", title);
    put_line(d->out, 48, "m", buf_str(&run));
    if (d->p->note[0])
        put_line(d->out, 48 + NOTE, "m", str_of(d->p->note));
    buf_appendf(d->out,
                "<text id=\"i\" x=\"1%%\" y=\"%d\" class=\"m\">%s</text>\n"
                "<rect class=\"l\" x=\"1%%\" y=\"%d\" width=\"98%%\" height=\"1\"/></g>\n",
                d->top - 19,
                d->p->samples ? "A frame is as wide as its share of the samples; callers are above "
                                "what they call. Point at one for its numbers."
                              : "No samples were taken: there is nothing to draw.",
                d->top - 7);
}

static void put_footer(const struct drawing *d, size_t hidden)
{
    _cleanup_(buf_finish) struct buf text = BUF_INIT(512);

    if (d->t->origins)
        buf_append_cstr(&text,
                        "Warm: the application\xe2\x80\x99s own files. Cool: libraries. Grey: "
                        "native code, processes, threads. ");
    if (hidden) {
        put_count(&text, (int64_t)hidden);
        buf_append_cstr(&text, hidden == 1 ? " frame" : " frames");
        buf_appendf(&text, " under %g %% %s not drawn.", 100 * d->least,
                    hidden == 1 ? "is" : "are");
    }
    if (d->p->samples)
        put_line(d->out, d->top + d->rows * ROW + 17, "m", buf_str(&text));
}

static void draw(struct drawing *d)
{
    _cleanup_(buf_finish) struct buf frames = BUF_INIT(MAX_SVG);
    struct str title = d->p->title[0] ? str_of(d->p->title) : STR("Python profile");
    struct buf *out = d->out;

    d->out = &frames;
    if (d->p->samples)
        put_frames(d);
    d->out = out;
    if (frames.failed)
        out->failed = true;
    buf_appendf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100%%\" height=\"%d\" "
                "role=\"graphics-document document\" aria-roledescription=\"flame graph\">\n"
                "<title>Flame graph: ",
                d->top + d->rows * ROW + FOOT);
    put_text(out, title, MAX_LABEL);
    buf_append_cstr(out, "</title>\n<style><![CDATA[\n");
    buf_append(out, flamegraph_css, flamegraph_css_len);
    buf_append_cstr(out, "]]></style>\n<rect class=\"p\" width=\"100%\" height=\"100%\"/>\n");
    buf_appendf(out, "<svg id=\"g\" x=\"1%%\" y=\"%d\" width=\"98%%\" height=\"%d\">\n", d->top,
                d->rows * ROW + 1);
    buf_append_str(out, buf_str(&frames));
    buf_append_cstr(out, "</svg>\n");
    put_footer(d, d->t->len - d->drawn);
    put_header(d, title);
    buf_append_cstr(out, "<script><![CDATA[\n");
    buf_append(out, flamegraph_js, flamegraph_js_len);
    buf_append_cstr(out, "]]></script>\n</svg>\n");
}

int profile_write_flamegraph(const struct profile *p, struct buf *out, struct err *err)
{
    _cleanup_(tree_finish) struct tree t;
    size_t room = out->max - out->len < MAX_SVG ? out->max - out->len : MAX_SVG;
    bool fits = false;

    tree_build(&t, p);
    /* Wider and wider frames only, until the drawing fits. */
    for (int doubled = 0; !fits; doubled++) {
        double least = FIRST_LEAST * (1 << doubled);
        _cleanup_(buf_finish) struct buf svg = BUF_INIT(room);
        struct drawing d = {.p = p, .t = &t, .out = &svg, .least = least};

        d.top = p->note[0] ? TOP : TOP - NOTE;
        draw(&d);
        fits = !svg.failed;
        if (fits)
            buf_append_str(out, buf_str(&svg));
        else if (least > 1)
            return err_set(err, ERR_TOO_LARGE, "the flame graph is larger than %zu bytes", room);
    }
    return buf_error(out, "the flame graph", err);
}
