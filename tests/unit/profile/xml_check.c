#include "xml_check.h"

#include <string.h>

#include "base/cleanup.h"

#define MAX_DEPTH 16

struct cursor {
    struct str s;
    size_t pos;
};

static bool ahead(struct cursor *c, const char *text)
{
    size_t len = strlen(text);

    if (c->s.len - c->pos < len || memcmp(c->s.ptr + c->pos, text, len))
        return false;
    c->pos += len;
    return true;
}

static bool is_name(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
           ch == '-' || ch == ':';
}

static struct str name(struct cursor *c)
{
    size_t start = c->pos;

    while (c->pos < c->s.len && is_name(c->s.ptr[c->pos]))
        c->pos++;
    return str_sub(c->s, start, c->pos - start);
}

static bool entity(struct cursor *c)
{
    return ahead(c, "&lt;") || ahead(c, "&gt;") || ahead(c, "&amp;") || ahead(c, "&quot;") ||
           ahead(c, "&apos;");
}

/* Attributes and the end of a start tag; *closed where it is "/>". */
static const char *attributes(struct cursor *c, bool *closed)
{
    struct str seen[16];
    size_t n = 0;

    while (ahead(c, " ")) {
        struct str attribute = name(c);

        if (!attribute.len || !ahead(c, "=\""))
            return "an attribute that is none";
        for (size_t i = 0; i < n; i++)
            if (str_eq(seen[i], attribute))
                return "an attribute twice";
        if (n == ARRAY_SIZE(seen))
            return "many attributes";
        seen[n++] = attribute;
        while (c->pos < c->s.len && c->s.ptr[c->pos] != '"') {
            if (entity(c))
                continue;
            if (c->s.ptr[c->pos] == '<' || c->s.ptr[c->pos] == '&')
                return "< or & in an attribute";
            c->pos++;
        }
        if (!ahead(c, "\""))
            return "an attribute without an end";
    }
    *closed = ahead(c, "/>");
    return *closed || ahead(c, ">") ? NULL : "a tag without an end";
}

static const char *characters(struct str s, size_t *ret_at)
{
    for (size_t i = 0; i < s.len;) {
        uint32_t ch;
        size_t len = str_utf8_next(str_sub(s, i, s.len), &ch);

        *ret_at = i;
        if (!len)
            return "no UTF-8";
        if ((ch < 0x20 && ch != '\n' && ch != '\t') || ch == 0xfffe || ch == 0xffff)
            return "a character that XML does not have";
        i += len;
    }
    return NULL;
}

static const char *tag(struct cursor *c, struct str *open, size_t *depth)
{
    bool closed = false;

    if (ahead(c, "</")) {
        struct str n = name(c);
        if (!*depth || !str_eq(open[--*depth], n) || !ahead(c, ">"))
            return "another end tag";
        return NULL;
    }
    c->pos++;
    struct str n = name(c);
    if (!n.len)
        return "a lone <";
    const char *wrong = attributes(c, &closed);
    if (wrong || closed)
        return wrong;
    if (*depth == MAX_DEPTH)
        return "deep nesting";
    open[(*depth)++] = n;
    return NULL;
}

const char *xml_check(struct str s, size_t *ret_at)
{
    struct cursor c = {.s = s};
    struct str open[MAX_DEPTH];
    size_t depth = 0, roots = 0;
    const char *wrong = characters(s, ret_at);

    while (!wrong && c.pos < s.len) {
        *ret_at = c.pos;
        if (ahead(&c, "<![CDATA[")) {
            ssize_t end = str_find(str_sub(s, c.pos, s.len), STR("]]>"));
            if (end < 0)
                return "CDATA without an end";
            c.pos += (size_t)end + 3;
        } else if (s.ptr[c.pos] == '<') {
            roots += depth == 0;
            wrong = tag(&c, open, &depth);
        } else if (s.ptr[c.pos] == '&') {
            wrong = entity(&c) ? NULL : "an entity that is none";
        } else {
            if (!depth && s.ptr[c.pos] != '\n')
                return "text outside";
            if (str_starts_with(str_sub(s, c.pos, 3), STR("]]>")))
                return "]]> outside of CDATA";
            c.pos++;
        }
    }
    return wrong ? wrong : depth ? "an element without an end" : roots != 1 ? "no root" : NULL;
}
