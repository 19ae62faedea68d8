#include "base/alloc.h"

#include <stdarg.h>

#include "base/poison.h"

static _Noreturn void out_of_memory(void)
{
    static const char text[] = "out of memory\n";
    fwrite(text, 1, sizeof(text) - 1, stderr);
    abort();
}

void *xcalloc(size_t n, size_t size)
{
    if (n == 0 || size == 0)
        n = size = 1;
    void *p = calloc(n, size);
    if (!p)
        out_of_memory();
    return p;
}

void *xrealloc(void *p, size_t n, size_t size)
{
    if (n == 0 || size == 0)
        n = size = 1;
    void *grown = reallocarray(p, n, size);
    if (!grown)
        out_of_memory();
    return grown;
}

char *xstrdup(const char *s)
{
    size_t size = strlen(s) + 1;
    return memcpy(xcalloc(1, size), s, size);
}

char *xasprintf(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        out_of_memory();
    return text;
}
