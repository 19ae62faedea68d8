/* Texts of /proc/PID/cgroup, one file a form, and what each of them names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "proc/proc.h"

#define A "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"
#define B "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"

static const struct {
    const char *name, *id;
} rows[] = {
    {"v2-containerd-systemd", A},
    {"v2-containerd-systemd-guaranteed", A},
    {"v2-containerd-cgroupfs", A},
    {"v2-containerd-systemd-path-cgroupfs", A},
    {"v2-crio-systemd", A},
    {"v2-crio-crun-subgroup", A},
    {"v2-crio-conmon", ""},
    {"v2-docker-systemd", A},
    {"v2-docker-cgroupfs", A},
    {"v2-cri-dockerd", A},
    {"v2-podman", A},
    {"v2-podman-conmon", ""},
    {"v2-foreign-namespace", A},
    {"v2-foreign-namespace-sibling", A},
    {"v2-foreign-namespace-cgroupfs", A},
    {"v2-own-namespace", ""},
    {"v2-kubelet-prefix", A},
    {"v2-node-in-a-container", A},
    {"v2-deleted", A},
    {"v2-below-the-container", A},
    {"v2-system-service", ""},
    {"v2-static-pod", A},
    {"v2-no-newline", A},
    {"v1-containerd-cgroupfs", A},
    {"v1-containerd-systemd", A},
    {"v1-crio-systemd", A},
    {"v1-docker-cgroupfs", A},
    {"v1-some-controllers-only", A},
    {"v1-named-hierarchies", A},
    {"v1-host", ""},
    {"bad-short-id", ""},
    {"bad-long-id", ""},
    {"bad-upper-case", ""},
    {"bad-no-separator", ""},
    {"bad-in-controllers", ""},
    {"empty", ""},
};

static void read_row(const char *name, struct buf *text)
{
    struct err err = ERR_INIT;
    _cleanup_(buf_finish) struct buf path = BUF_INIT(4096);
    buf_appendf(&path, TEST_DATA "/proc/cgroup/%s.txt", name);
    if (buf_read_file(text, buf_cstr(&path), &err) < 0)
        fail_msg("%s", err.message);
}

static void test_every_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
        read_row(rows[i].name, &text);
        struct str id = proc_cgroup_container(buf_str(&text));
        if (!str_is(id, rows[i].id))
            fail_msg("%s: \"%.*s\"", rows[i].name, STR_ARG(id));
        if (proc_cgroup_matches(buf_str(&text), STR(A)) != (rows[i].id[0] != '\0'))
            fail_msg("%s: matches wrongly", rows[i].name);
    }
}

static void test_matches_at_every_depth(void **state)
{
    (void)state;
    _cleanup_(buf_finish) struct buf text = BUF_INIT(65536);
    read_row("v2-node-in-a-container", &text);
    assert_true(proc_cgroup_matches(buf_str(&text), STR(A)));
    assert_true(proc_cgroup_matches(buf_str(&text), STR(B)));
}

static void test_only_whole_ids_match(void **state)
{
    (void)state;
    struct str text = STR("0::/docker/" A "\n");
    assert_true(proc_cgroup_matches(text, STR(A)));
    assert_false(proc_cgroup_matches(text, STR(B)));
    assert_false(proc_cgroup_matches(text, str_sub(STR(A), 0, 12)));
    assert_false(proc_cgroup_matches(text, STR("")));
    assert_false(proc_cgroup_matches(STR("0::/\n"), STR("")));
    assert_false(proc_cgroup_matches(STR("0::/docker/init\n"), STR("init")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form),
        cmocka_unit_test(test_matches_at_every_depth),
        cmocka_unit_test(test_only_whole_ids_match),
    };
    return cmocka_run_group_tests_name("proc/cgroup", tests, NULL, NULL);
}
