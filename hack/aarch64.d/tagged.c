/* To be preloaded: pointers from malloc() carry a tag in their top byte, which aarch64 ignores when
 * it follows them, as allocators with memory tagging and HWASan hand them out. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>

#define TAG UINT64_C(0x2a00000000000000)
#define TOP UINT64_C(0xff00000000000000)

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

/* Before the kernel agrees it takes no such pointer. */
static void *tag(void *p)
{
    static int state;
    if (state == 0)
        state = prctl(PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE, 0, 0, 0) == 0 ? 1 : -1;
    if (state < 0)
        __builtin_trap();
    return p ? (void *)((uintptr_t)p | TAG) : NULL;
}

static void *plain(void *p)
{
    return (void *)((uintptr_t)p & ~TOP);
}

void *malloc(size_t size)
{
    return tag(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return tag(__libc_calloc(n, size));
}

void *realloc(void *p, size_t size)
{
    return tag(__libc_realloc(plain(p), size));
}

void *memalign(size_t alignment, size_t size)
{
    return tag(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    void *p = memalign(alignment, size);
    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}

void free(void *p)
{
    __libc_free(plain(p));
}
