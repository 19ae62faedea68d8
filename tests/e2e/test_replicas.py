"""More than one controller, and the end of one."""

import contextlib
import socket
import time

import kit
import pytest
from endpoint import Endpoint, path_of, token_for, upload
from kit import wait_for
from kubernetes import client
from local import Local

pytestmark = pytest.mark.serial


def test_the_one_that_does_not_lead_takes_results(space, operator, k8s):
    operator.scale(2)
    try:
        leader = wait_for("leader", operator.leader)
        pods = {p.metadata.name: p for p in operator.pods()}
        (leading,) = [n for n in pods if leader.startswith(n)]
        (other,) = [p for n, p in pods.items() if n != leading]
        assert all(p.status.container_statuses[0].ready for p in pods.values())
        profile = space.running(space.apply(space.pod("busy_threads.py"), duration="10s"))
        (runner,) = space.runner_pods(profile)
        endpoint = Endpoint(k8s, other.status.pod_ip)

        def handed_in():
            status, answer = endpoint.post(path_of(profile), upload(), token_for(k8s, runner))
            return answer if status == 200 else None

        receipt = wait_for("answer of the one that does not lead", handed_in, 10)
        stored = space.core.read_namespaced_config_map(receipt["name"], space.name)
        assert stored.data == {"raw.txt": "main (app.py:1) 7\n"}
        assert operator.leader() == leader
        # Then the runner itself, to whichever of the two the Service chose.
        done = space.completed(profile["metadata"]["name"])
        assert "compute" in space.result(done)
        assert done["status"]["results"][0]["configMapKeyRef"]["name"] == receipt["name"]

        # The leader dies without a word; the other takes over and knows everything.
        name = space.apply(space.pod("busy_threads.py"), duration="6s")
        space.running(name)
        space.core.delete_namespaced_pod(leading, kit.SYSTEM, grace_period_seconds=0)
        wait_for("next leader", lambda: operator.leader() not in ("", leader), 30)
        space.completed(name)
    finally:
        operator.scale(1)


@pytest.fixture
def alone(operator):
    operator.scale(0)
    yield
    operator.scale(1)


QUICK = {"enabled": True, "leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"}


def test_sigterm(space, k8s, alone, tmp_path):
    """It ends within 10 s whatever is under way, and hands the lease over at once."""
    with Local(k8s, space, tmp_path, leaderElection=QUICK) as controller:
        controller.wait_for_log("leading")
        leases = client.CoordinationV1Api(k8s)
        lease = leases.read_namespaced_lease("pyspy-controller", controller.own)
        assert lease.spec.holder_identity.startswith("local-")
        name = space.apply(space.pod("busy_threads.py"), duration="4s")
        space.running(name)
        with contextlib.ExitStack() as slow:
            for _ in range(4):
                slow.enter_context(dawdling_client(controller))
            status, took = controller.terminate()
        assert status == 0 and took < 10, controller.log()[-2000:]
        lease = leases.read_namespaced_lease("pyspy-controller", controller.own)
        assert not lease.spec.holder_identity

        after = len(controller.log())
        began = time.monotonic()
        controller.start()
        controller.wait_for_log("leading", after=after)
        assert time.monotonic() - began < 3
        profile = space.completed(name)
        assert len(space.jobs(profile, controller.own)) == 1


def dawdling_client(controller):
    s = socket.create_connection(("127.0.0.1", controller.metrics_port))
    s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
    return s


def test_lease_lost(space, k8s, alone, tmp_path):
    """One that cannot renew its lease ends at once and non-zero: another may lead by now."""
    is_broken = []

    def before(request):
        if is_broken and request.resource == "leases":
            return 500, {"kind": "Status", "status": "Failure", "code": 500, "message": "broken"}
        return None

    election = {"enabled": True, "leaseDuration": "4s", "renewDeadline": "3s", "retryPeriod": "1s"}
    with Local(k8s, space, tmp_path, before=before, leaderElection=election) as controller:
        controller.wait_for_log("leading")
        is_broken.append(True)
        assert controller.process.wait(8) not in (0, None)
        assert "lost the lease" in controller.log()
