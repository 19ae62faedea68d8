"""A controller that is killed at every write of a run, and connections that break at any time."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import kit
import pytest
from kubernetes import client
from local import Local

pytestmark = pytest.mark.serial


@pytest.fixture(scope="module", autouse=True)
def alone(operator):
    operator.scale(0)
    yield
    operator.scale(1)


class KilledAt:
    """Kills its controller at the n-th write, before or after the API server has heard of it."""

    def __init__(self, number, when):
        self.number, self.when = number, when
        self.writes, self.controller, self.counts = [], None, False
        self.lock, self.killed = threading.Lock(), threading.Event()

    def before(self, request):
        if not request.is_write or not self.counts:
            return None
        with self.lock:
            self.writes.append(str(request))
            request.number = len(self.writes)
        if self.when == "before" and request.number == self.number:
            self.kill()
            raise ConnectionResetError
        return None

    def after(self, request, status):
        if self.when == "after" and getattr(request, "number", None) == self.number:
            self.kill()

    def kill(self):
        self.controller.process.kill()
        self.killed.set()


def one_run(k8s, space, pod, folder, point):
    """A profile's whole run under a controller that is killed at that point and started again."""
    folder.mkdir()
    with Local(k8s, space, folder, before=point.before, after=point.after) as controller:
        point.controller = controller
        controller.wait_for_log("leading")
        # Its own certificate is no part of the run.
        controller.wait_for_log("made a new certificate")
        point.counts = True
        name = space.apply(pod, duration="2s")
        if point.number:
            assert point.killed.wait(60), f"no write number {point.number}: {point.writes}"
            controller.process.wait()
            controller.start()
        profile = space.completed(name)
        meta, status = profile["metadata"], profile["status"]
        jobs = space.jobs(profile, controller.own)
        assert len(jobs) == 1, [j.metadata.name for j in jobs]
        assert len(space.runner_pods(profile, controller.own)) == 1
        (result,) = status["results"]
        assert kit.samples_in(space.stacks(profile), "compute") == status["samples"] > 50
        owned = [
            m.metadata.name
            for m in space.core.list_namespaced_config_map(space.name).items
            if any(o.uid == meta["uid"] for o in m.metadata.owner_references or [])
        ]
        assert owned == [result["configMapKeyRef"]["name"]]
        # With the profile goes all that it had.
        space.delete(name)
        batch = client.BatchV1Api(k8s)

        def ended():
            left = batch.list_namespaced_job(controller.own).items
            return all(j.status.succeeded == 1 and not j.status.active for j in left)

        kit.wait_for("end of the Job", ended, 15)
        return point.writes


@pytest.fixture
def spaces(k8s):
    """A maker of namespaces for runs side by side."""
    made = []

    def make():
        name = f"e2e-{uuid.uuid4().hex[:8]}"
        client.CoreV1Api(k8s).create_namespace({"metadata": {"name": name}})
        made.append(name)
        return kit.Space(k8s, name)

    yield make
    for name in made:
        client.CoreV1Api(k8s).delete_namespace(name)


@pytest.mark.timeout(400)
def test_killed_at_every_write(k8s, spaces, tmp_path):
    def run(point):
        space = spaces()
        pod = space.pod("busy_threads.py")
        label = f"{point.when}-{point.number}"
        try:
            return one_run(k8s, space, pod, tmp_path / label, point)
        except (AssertionError, client.ApiException) as error:
            log = (tmp_path / label / "controller.log").read_text()[-3000:]
            return AssertionError(f"killed {point.when} write {point.number}: {error}\n{log}")

    writes = run(KilledAt(0, "never"))
    if isinstance(writes, Exception):
        pytest.fail(str(writes))
    kinds = set(writes)
    assert {"POST jobs", "PUT pyspyprofiles/status", "POST configmaps", "POST events"} <= kinds
    assert len(writes) >= 7
    points = [KilledAt(n, when) for n in range(1, len(writes) + 1) for when in ("before", "after")]
    with ThreadPoolExecutor(6) as pool:
        failures = [r for r in pool.map(run, points) if isinstance(r, Exception)]
    if failures:
        pytest.fail(f"{len(failures)} of {len(points)}:\n" + "\n\n".join(map(str, failures)))


def test_connections_cut(k8s, space, tmp_path):
    """All of them, again and again, while a profile runs."""
    pod = space.pod("busy_threads.py")
    with Local(k8s, space, tmp_path) as controller:
        controller.wait_for_log("leading")
        name = space.apply(pod, duration="3s")
        for _ in range(12):
            controller.proxy.cut()
            time.sleep(0.4)
        profile = space.completed(name)
        assert len(space.jobs(profile, controller.own)) == 1
        assert controller.process.poll() is None


GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "Expired",
        "code": 410,
        "message": "too old resource version",
    },
}


def test_watch_expired(k8s, space, tmp_path):
    """Watches that the API server has forgotten: everything is listed again, nothing is missed."""
    pod = space.pod("busy_threads.py")
    expired, seen = threading.Event(), []

    def before(request):
        if request.is_watch and expired.is_set() and len(seen) < 6:
            seen.append(str(request))
            return 200, GONE
        return None

    with Local(k8s, space, tmp_path, before=before) as controller:
        controller.wait_for_log("leading")
        name = space.apply(pod, duration="2s")
        space.running(name)
        expired.set()
        controller.proxy.cut()
        space.completed(name)
        assert len(seen) == 6
        expired.clear()
        space.profiled(pod, duration="1s")


def test_api_server_without_watch_lists(k8s, space, tmp_path):
    """As before Kubernetes 1.32, and with the operator's own account: it lists, then watches."""
    pod = space.pod("busy_threads.py")

    def before(request):
        if "sendInitialEvents" in request.query:
            message = "sendInitialEvents is forbidden for watch unless the WatchList feature gate"
            return 422, {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "Invalid",
                "code": 422,
                "message": message,
            }
        return None

    with Local(k8s, space, tmp_path, own=kit.SYSTEM, before=before) as controller:
        controller.wait_for_log("leading")
        space.profiled(pod, duration="1s")


def test_throttled_and_failing_api_server(k8s, space, tmp_path):
    """Every third request is refused in one of the ways of an overloaded API server."""
    pod = space.pod("busy_threads.py")
    lock, count = threading.Lock(), [0]

    def before(request):
        with lock:
            count[0] += 1
            number = count[0]
        if number % 3 or request.is_watch:
            return None
        if number % 2:
            raise ConnectionResetError
        code = 500 if number % 4 else 503
        return code, {"kind": "Status", "status": "Failure", "code": code, "message": "overloaded"}

    with Local(k8s, space, tmp_path, before=before) as controller:
        controller.wait_for_log("leading")
        profile = space.profiled(pod, duration="2s")
        assert len(space.jobs(profile, controller.own)) == 1
        assert count[0] > 10


def test_orphaned_jobs_are_stopped_at_the_start(k8s, space, tmp_path):
    """The profile is deleted while no controller lives: the next one stops its Job."""
    pod = space.pod("busy_threads.py")
    with Local(k8s, space, tmp_path) as controller:
        controller.wait_for_log("leading")
        name = space.apply(pod, duration="10m")
        profile = space.running(name)
        kit.wait_for("sampler", lambda: space.samplers(profile, controller.own))
        controller.kill()
        space.delete(name)
        assert space.samplers(profile, controller.own)
        controller.start()
        kit.wait_for("end", lambda: not space.samplers(profile, controller.own), 10)
        kit.wait_for("removal of the Job", lambda: not space.jobs(profile, controller.own), 15)
        assert not pod.python()[0].is_stopped()
