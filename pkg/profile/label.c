#include "profile/profile_internal.h"

#include <inttypes.h>

/* ';' separates frames and a line end separates stacks in the raw format; XML 1.0 has no control
 * characters at all. */
uint32_t clean_next(struct str s, size_t *pos)
{
    uint32_t c;
    size_t len = str_utf8_next(str_sub(s, *pos, s.len), &c);

    *pos += len ? len : 1;
    if (!len || c == 0xfffe || c == 0xffff)
        return 0xfffd;
    if (rune_is_control(c))
        return ' ';
    return c;
}

static struct str after_last(struct str s, struct str needle)
{
    struct str found = STR_NULL;

    for (ssize_t i; (i = str_find(s, needle)) >= 0;)
        found = s = str_sub(s, (size_t)i + needle.len, s.len);
    return found;
}

/* What is behind ".../lib/python3.12/", or ptr NULL. */
static struct str after_stdlib(struct str file)
{
    struct str rest = after_last(file, STR("/python3."));
    size_t i = 0;

    while (i < rest.len && rest.ptr[i] >= '0' && rest.ptr[i] <= '9')
        i++;
    if (!i || i == rest.len || rest.ptr[i] != '/')
        return STR_NULL;
    return str_sub(rest, i + 1, rest.len);
}

static struct str library_file(struct str file)
{
    static const struct str packages[] = {{"/site-packages/", 15}, {"/dist-packages/", 15}};

    for (size_t i = 0; i < ARRAY_SIZE(packages); i++) {
        struct str rest = after_last(file, packages[i]);
        if (rest.len)
            return rest;
    }
    return after_stdlib(file);
}

/* NATIVE also stands for what has no file: processes and threads. UNKNOWN: raw's short names. */
enum label_origin label_origin(struct str file)
{
    if (!file.len || str_find(file, STR(".so")) >= 0 || str_is(file, "?") ||
        str_is(file, "[vdso]") || str_is(file, "__init__"))
        return LABEL_NATIVE;
    if (str_starts_with(file, STR("<frozen ")) || library_file(file).len)
        return LABEL_LIBRARY;
    if (!str_starts_with(file, STR("/")))
        return LABEL_UNKNOWN;
    return str_ends_with(file, STR(".py")) ? LABEL_APPLICATION : LABEL_NATIVE;
}

/* py-spy shortens by looking for __init__.py on the target's disk, which is not ours to read:
 * whatever directories all of the application's files have in common are left out instead. */
void labels_init(struct labels *l, const struct profile *p)
{
    bool any = false;

    *l = (struct labels){0};
    for (size_t i = 0; i < p->n_frames; i++) {
        struct str file = profile_frame_at(p, i).file;

        if (label_origin(file) != LABEL_APPLICATION)
            continue;
        struct str dir = str_sub(file, 0, (size_t)str_rfind_char(file, '/') + 1);
        if (!any)
            l->common = dir;
        any = true;
        while (!str_starts_with(dir, l->common)) {
            struct str up = str_sub(l->common, 0, l->common.len - 1);
            l->common = str_sub(up, 0, (size_t)str_rfind_char(up, '/') + 1);
        }
    }
    if (l->common.len == 1)
        l->common = STR_NULL;
}

struct str label_short_file(const struct labels *l, struct str file)
{
    if (!str_starts_with(file, STR("/")))
        return file;
    struct str library = library_file(file);
    if (library.len)
        return library;
    if (!str_ends_with(file, STR(".py"))) /* a native library, Cython, … */
        return str_sub(file, (size_t)str_rfind_char(file, '/') + 1, file.len);
    return str_starts_with(file, l->common) ? str_sub(file, l->common.len, file.len) : file;
}

static void append_clean(struct str s, struct buf *out)
{
    for (size_t pos = 0; pos < s.len;) {
        uint32_t c = clean_next(s, &pos);
        if (rune_is_bidi(c))
            buf_appendf(out, "\\u%04" PRIx32, c);
        else
            buf_append_rune(out, c == ';' ? ',' : c);
    }
}

void label_append(const struct labels *l, const struct profile_frame *f, struct buf *out)
{
    struct str file = label_short_file(l, f->file);

    append_clean(f->function, out);
    if (!file.len)
        return;
    buf_append_cstr(out, " (");
    append_clean(file, out);
    if (f->line)
        buf_appendf(out, ":%" PRId64, f->line);
    buf_append_char(out, ')');
}
