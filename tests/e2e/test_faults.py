"""The cluster breaks while profiles run; the operator's controller is the one in the cluster."""

import kit
import pytest
from kit import wait_for

pytestmark = pytest.mark.serial


def test_controller_killed_while_sampling(space, operator):
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="5s")
    space.running(name)
    before = operator.controller_pod().status.container_statuses[0].restart_count
    operator.kill_controller()
    profile = space.completed(name, timeout=90)
    after = operator.controller_pod().status.container_statuses[0].restart_count
    assert after == before + 1
    assert len(space.jobs(profile)) == 1 and len(profile["status"]["results"]) == 1
    maps = [m.metadata.name for m in space.core.list_namespaced_config_map(space.name).items]
    assert len([m for m in maps if m != "kube-root-ca.crt"]) == 1


def test_certificate_that_became_useless(space, operator, k8s):
    """A Secret that somebody damaged is made anew, and Jobs trust the new one."""
    operator.core.patch_namespaced_secret(
        "pyspy-results-tls", kit.SYSTEM, {"data": {"tls.crt": "bm9uZQ=="}}
    )
    operator.scale(0)
    operator.scale(1)
    space.profiled(space.pod("busy_threads.py"), duration="1s")


def test_api_server_restarted(space, operator):
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="12s")
    space.running(name)
    kit.cluster("restart-apiserver")
    profile = space.completed(name, timeout=90)
    assert profile["status"]["reason"] == ""
    assert len(space.jobs(profile)) == 1 and len(profile["status"]["results"]) == 1
    # It leads again, or still.
    wait_for("leader", operator.leader, 30)
    space.profiled(pod, duration="1s")
