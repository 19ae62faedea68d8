"""The cluster breaks while profiles run; the operator's controller is the one in the cluster."""

import time

import kit
import pytest
from kit import wait_for

pytestmark = pytest.mark.serial


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


@pytest.fixture
def operator_on_node1(operator):
    kit.kubectl("cordon", "node2")
    operator.scale(0)
    operator.scale(1)
    kit.kubectl("uncordon", "node2")
    assert operator.controller_pod().spec.node_name == "node1"


def test_node_lost(space, operator_on_node1):
    """A power cut: what ran there ends as NodeLost, what wants to start there as NodeNotReady."""
    pod = space.pod("busy_threads.py", node=2)
    running = space.apply(pod, duration="5s")
    space.running(running)
    kit.cluster("stop-node", "2")
    try:
        began = time.monotonic()
        waiting = space.apply(pod, startDeadlineSeconds=25)
        space.failed(waiting, "NodeNotReady", "node node2", timeout=45)
        profile = space.failed(running, "NodeLost", "node node2", timeout=60)
        assert time.monotonic() - began < 60
        assert profile["status"]["targets"][0]["nodeName"] == "node2"
    finally:
        kit.cluster("start-node", "2")
    wait_for("removal of the Jobs", lambda: not space.jobs(profile), 60)
    again = space.start("busy_threads.py", node=2).wait_until_ready()
    space.profiled(again, duration="1s")
