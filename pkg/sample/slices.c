/* Linux from 6.12 on lets a thread that asks for short slices of time go before those that run on a
 * busy machine, for as long as it keeps to them: so looks come in time, and not when somebody else
 * has done. Earlier ones ignore it. */
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sample/record_internal.h"

#define SLICE_NS 100000 /* the shortest that there is; a look takes less */

struct slices slices_shorten(void)
{
    struct sched_attr attr = {0};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0u) < 0 ||
        attr.sched_policy != SCHED_NORMAL)
        return (struct slices){.known = false};
    struct slices before = {.known = true, .ns = attr.sched_runtime};
    attr.sched_runtime = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attr, 0u);
    return before;
}

void slices_restore(const struct slices *before)
{
    struct sched_attr attr = {0};
    if (!before->known || syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0u) < 0)
        return;
    attr.sched_runtime = before->ns;
    syscall(SYS_sched_setattr, 0, &attr, 0u);
}
