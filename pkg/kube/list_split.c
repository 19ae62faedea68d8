#include "base/alloc.h"
#include "kube/kube_internal.h"

/* Looks at brackets, quotes and the names at depth 1 only. Each item and the envelope are parsed
 * by whoever gets them, so malformed JSON is refused there; see json/stream.c, which frames the
 * same way. */

enum { MAX_ENVELOPE = 256 * 1024, KEEP_BYTES = 64 * 1024 };

struct kube_list_split {
    kube_list_item on_item;
    void *context;
    struct buf envelope, item;
    struct buf name; /* the last string at depth 1 */
    int depth;
    bool in_string, escaped;
    bool items_next; /* the name "items" and its colon have passed */
    bool in_items;
};

struct kube_list_split *kube_list_split_create(size_t max_item, kube_list_item on_item,
                                               void *context)
{
    struct kube_list_split *s = xcalloc(1, sizeof(*s));
    s->on_item = on_item;
    s->context = context;
    s->envelope = BUF_INIT(MAX_ENVELOPE);
    s->item = BUF_INIT(max_item);
    s->name = BUF_INIT(MAX_ENVELOPE);
    return s;
}

void kube_list_split_destroy(struct kube_list_split *s)
{
    if (!s)
        return;
    buf_finish(&s->envelope);
    buf_finish(&s->item);
    buf_finish(&s->name);
    free(s);
}

struct str kube_list_split_envelope(const struct kube_list_split *s)
{
    return buf_str(&s->envelope);
}

static int emit_item(struct kube_list_split *s, struct err *err)
{
    int failed = buf_error(&s->item, "an item", err);
    if (!failed)
        failed = s->on_item(s->context, buf_str(&s->item), err);
    if (s->item.cap > KEEP_BYTES)
        buf_finish(&s->item);
    else
        buf_clear(&s->item);
    return failed;
}

/* Inside a string, up to its closing quote; returns how many bytes that were. */
static size_t skip_string(struct kube_list_split *s, struct str bytes)
{
    size_t i = 0;
    while (i < bytes.len && s->in_string) {
        char c = bytes.ptr[i++];
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
    }
    return i;
}

static void open_bracket(struct kube_list_split *s, char c)
{
    s->depth++;
    if (s->depth == 2 && c == '[' && s->items_next)
        s->in_items = true;
    s->items_next = false;
}

/* A byte outside strings. Returns non-zero when an item was refused. */
static int structure(struct kube_list_split *s, char c, struct err *err)
{
    if (c == '{' || c == '[') {
        open_bracket(s, c);
        buf_append_char(s->in_items && s->depth > 2 ? &s->item : &s->envelope, c);
        return 0;
    }
    if (c == '}' || c == ']') {
        s->depth--;
        bool inside = s->in_items && s->depth >= 2;
        if (s->in_items && s->depth < 2)
            s->in_items = false;
        buf_append_char(inside ? &s->item : &s->envelope, c);
        return inside && s->depth == 2 ? emit_item(s, err) : 0;
    }
    if (s->in_items && s->depth == 2) /* between items */
        return c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t'
                   ? 0
                   : err_set(err, ERR_PROTOCOL, "an item of the list is no object");
    if (s->depth == 1 && c == ':')
        s->items_next = str_is(buf_str(&s->name), "\"items\"");
    else if (s->depth == 1 && c == ',')
        s->items_next = false;
    buf_append_char(s->in_items ? &s->item : &s->envelope, c);
    return 0;
}

static void add_string(struct kube_list_split *s, struct str piece)
{
    if (s->depth == 1)
        buf_append_str(&s->name, piece);
    buf_append_str(s->in_items ? &s->item : &s->envelope, piece);
}

int kube_list_split_feed(struct kube_list_split *s, struct str bytes, struct err *err)
{
    for (size_t i = 0; i < bytes.len;) {
        if (s->in_string) {
            struct str rest = str_sub(bytes, i, bytes.len);
            size_t n = skip_string(s, rest);
            add_string(s, str_sub(rest, 0, n));
            i += n;
        } else if (bytes.ptr[i] == '"') {
            if (s->in_items && s->depth == 2)
                return err_set(err, ERR_PROTOCOL, "an item of the list is no object");
            s->in_string = true;
            if (s->depth == 1)
                buf_clear(&s->name);
            add_string(s, str_sub(bytes, i++, 1));
        } else {
            int failed = structure(s, bytes.ptr[i++], err);
            if (failed)
                return failed;
        }
    }
    int failed = buf_error(&s->envelope, "the list without its items", err);
    return failed ? failed : buf_error(&s->item, "an item", err);
}
