"""A node loses its power. Late, since the node has much to clear up when it is back."""

import time

import kit
import pytest
from kit import wait_for

pytestmark = pytest.mark.serial


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
