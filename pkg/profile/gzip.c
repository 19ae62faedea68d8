#include "profile/profile_internal.h"

#define ZLIB_CONST /* next_in is not written through */
#include <zlib.h>

/* zlib writes a header with time 0 and no name, so equal input gives equal output. */
int profile_gzip(struct str in, struct buf *out, struct err *err)
{
    static const Bytef empty[1];
    z_stream z = {0};
    int r;

    if (in.len > UINT_MAX)
        return err_set(err, ERR_TOO_LARGE, "gzip: %zu bytes", in.len);
    if (deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort(); /* out of memory, or a zlib that does not fit its header */
    z.next_in = in.len ? (const Bytef *)in.ptr : empty;
    z.avail_in = (uInt)in.len;
    do {
        Bytef chunk[16384];

        z.next_out = chunk;
        z.avail_out = sizeof(chunk);
        r = deflate(&z, Z_FINISH);
        buf_append(out, chunk, sizeof(chunk) - z.avail_out);
    } while (r == Z_OK && !out->failed);
    deflateEnd(&z);
    return buf_error(out, "the compressed result", err);
}
