"""The cluster of KUBECONFIG, which hack/cluster made, and the operator in it.

Tests run four at a time, each in a namespace of its own. Modules marked `serial` break what the
others need, so each of them has the cluster for itself: it holds a lock that the others share."""

import fcntl
import hashlib
import os
import time
import uuid

import kit
import pytest
from kubernetes import client, config


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("serial"):
            item.add_marker(pytest.mark.xdist_group("serial"))
    items.sort(key=lambda item: item.get_closest_marker("serial") is not None)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder that all workers of this run see."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


def locked(path, how):
    file = path.open("a")
    fcntl.flock(file, how)
    return file


@pytest.fixture(scope="module", autouse=True)
def turn_of_module(request, shared):
    if request.node.get_closest_marker("serial"):
        with locked(shared / "turn", fcntl.LOCK_EX):
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def turn(request, shared, turn_of_module):
    if request.node.get_closest_marker("serial"):
        yield
    else:
        with locked(shared / "turn", fcntl.LOCK_SH):
            yield


@pytest.fixture(scope="session")
def k8s():
    if "KUBECONFIG" not in os.environ:
        pytest.exit("KUBECONFIG: the cluster to test on, of hack/cluster kubeconfig", 2)
    config.load_kube_config()
    return client.ApiClient()


def deploy(k8s):
    """From the beginning, so that the operator creates what it needs to create once."""
    for call, name in (
        (client.CoordinationV1Api(k8s).delete_namespaced_lease, "pyspy-controller"),
        (client.CoreV1Api(k8s).delete_namespaced_secret, "pyspy-results-tls"),
    ):
        kit.ignore_missing(call, name, kit.SYSTEM)
    kit.kubectl("apply", "-k", kit.ROOT / "manifests/overlays/test")
    # The tag stays the same when the image changes, and so does the name of the configuration.
    changed = f"{hashlib.sha256(os.urandom(8)).hexdigest()[:12]}"
    client.AppsV1Api(k8s).patch_namespaced_deployment(
        "pyspy-controller",
        kit.SYSTEM,
        {"spec": {"template": {"metadata": {"annotations": {"test/run": changed}}}}},
    )
    kit.kubectl("wait", "--for=condition=Established", "crd", f"{kit.PLURAL}.{kit.GROUP}")
    operator = kit.Operator(k8s)
    operator.scale(1)


@pytest.fixture(scope="session")
def suite_started(shared):
    """The time (seconds) at which the operator of this run was deployed."""
    return float((shared / "deployed").read_text())


@pytest.fixture(scope="session", autouse=True)
def operator(k8s, shared):
    with locked(shared / "deploying", fcntl.LOCK_EX):
        marker = shared / "deployed"
        if not marker.exists():
            started = time.time()
            deploy(k8s)
            marker.write_text(str(started))
    return kit.Operator(k8s)


@pytest.fixture
def namespace(k8s):
    core = client.CoreV1Api(k8s)
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    kit.ignore_missing(core.delete_namespace, name)


@pytest.fixture
def engine(request):
    """What samples. kit.both_engines runs a test with each; the others leave it to the operator."""
    return getattr(request, "param", "Auto")


@pytest.fixture
def space(k8s, namespace, engine):
    return kit.Space(k8s, namespace, engine)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    space = getattr(item, "funcargs", {}).get("space")
    if report.when == "call" and report.failed and space:
        report.sections.append((f"namespace {space.name}", story(space)))


def story(space):
    """What happened in a namespace, for people who read about a failure."""

    def ask(*arguments):
        return kit.kubectl(*arguments, check=False, timeout=20)

    parts = [
        ask("-n", space.name, "describe", kit.PLURAL),
        ask("-n", space.name, "get", "pods", "-o", "wide"),
        ask("-n", kit.SYSTEM, "get", "pods,jobs", "-o", "wide"),
        "--- the end of the controller's log",
        ask("-n", kit.SYSTEM, "logs", "deployment/pyspy-controller", "--tail=40"),
        "--- the runner's log",
        ask("-n", kit.SYSTEM, "logs", "-l", f"{kit.GROUP}/profile-namespace={space.name}"),
    ]
    return "\n".join(parts)
