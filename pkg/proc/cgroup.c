#include "proc/proc.h"

#define ID_LEN 64

static bool is_hex(struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return true;
}

/* The ID in one path segment. The forms:
 *   <id>                                        cgroupfs driver; Docker
 *   cri-containerd-<id>.scope, docker-<id>.scope, crio-<id>.scope, libpod-<id>.scope   systemd
 *   kubepods-…-pod<uid>.slice:cri-containerd:<id>   a systemd path given to the cgroupfs driver
 * CRI-O's and Podman's monitor (crio-conmon-<id>.scope) stands beside the container, not in it. */
static struct str segment_id(struct str segment)
{
    if (str_ends_with(segment, STR(" (deleted)")))
        segment.len -= STR(" (deleted)").len;
    if (str_ends_with(segment, STR(".scope")))
        segment.len -= STR(".scope").len;
    if (segment.len < ID_LEN)
        return STR_NULL;

    struct str id = str_sub(segment, segment.len - ID_LEN, ID_LEN);
    struct str before = str_sub(segment, 0, segment.len - ID_LEN);
    if (!is_hex(id))
        return STR_NULL;
    if (before.len > 0 && !str_ends_with(before, STR("-")) && !str_ends_with(before, STR(":")))
        return STR_NULL;
    if (str_ends_with(before, STR("conmon-")))
        return STR_NULL;
    return id;
}

/* The path of a line "hierarchy:controllers:path"; controllers and path may hold colons ("name="
 * hierarchies cannot, paths can). */
static struct str line_path(struct str line)
{
    str_cut(&line, ':');
    if (line.ptr)
        str_cut(&line, ':');
    return line.ptr ? line : STR_NULL;
}

struct str proc_cgroup_container(struct str text)
{
    for (struct str rest = text; rest.ptr;) {
        struct str path = line_path(str_cut(&rest, '\n'));
        struct str found = STR_NULL;
        while (path.ptr) {
            struct str id = segment_id(str_cut(&path, '/'));
            if (id.len > 0)
                found = id;
        }
        if (found.len > 0)
            return found;
    }
    return STR_NULL;
}

bool proc_cgroup_matches(struct str text, struct str container_id)
{
    if (container_id.len != ID_LEN || !is_hex(container_id))
        return false;
    for (struct str rest = text; rest.ptr;) {
        struct str path = line_path(str_cut(&rest, '\n'));
        while (path.ptr) {
            if (str_eq(segment_id(str_cut(&path, '/')), container_id))
                return true;
        }
    }
    return false;
}
