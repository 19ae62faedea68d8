"""Bad input and faults of the target: each ends with its reason, in time, and harms nothing."""

import signal
import time

import pytest
from kit import Space, both_engines, wait_for
from kubernetes import client


def test_unknown_pod(space):
    began = time.monotonic()
    name = space.apply("nobody", startDeadlineSeconds=4)
    waiting = space.wait(name, "reason", lambda s: s.get("reason") == "TargetNotFound")
    assert waiting["status"]["phase"] == "Pending"
    space.failed(name, "TargetNotFound", "Pod nobody does not exist", "(4 s)")
    # creationTimestamp has whole seconds.
    assert 2.9 <= time.monotonic() - began <= 10


def test_pod_that_comes_in_time(space):
    name = space.apply("late", startDeadlineSeconds=60, duration="1s")
    space.wait(name, "reason", lambda s: s.get("reason") == "TargetNotFound")
    space.pod("busy_threads.py", name="late")
    profile = space.completed(name)
    assert profile["status"]["reason"] == ""


def test_waiting_again_for_the_same_is_one_event(space):
    """Its target comes, cannot run, and goes: two waits for one reason are a series."""
    name = space.apply("comes-and-goes", startDeadlineSeconds=300)
    space.wait(name, "reason", lambda s: s["reason"] == "TargetNotFound")
    pod = space.start(
        "busy_threads.py", name="comes-and-goes", nodeSelector={"kubernetes.io/hostname": "nowhere"}
    )
    space.wait(name, "reason", lambda s: s["reason"] == "PodNotRunning")
    pod.delete()
    space.wait(name, "reason", lambda s: s["reason"] == "TargetNotFound")

    def series():
        return [e.series.count for e in space.events(name) if e.series]

    assert wait_for("series of Events", series) == [2]
    assert [e.reason for e in space.events(name)] == ["TargetNotFound", "PodNotRunning"]


@both_engines
def test_job_deleted_by_somebody(space, k8s):
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="10m")
    (job,) = space.jobs(space.running(name))
    client.BatchV1Api(k8s).delete_namespaced_job(
        job.metadata.name, job.metadata.namespace, propagation_policy="Background"
    )
    space.failed(name, "ProfilerFailed", timeout=30)
    (python,) = pod.python()
    wait_for("end of sampling", lambda: not space.samplers(space.profile(name)), 15)
    assert not python.is_stopped()


@both_engines
def test_runner_pod_removed_by_force(space):
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="10m")
    profile = space.running(name)
    (runner,) = space.runner_pods(profile)
    space.core.delete_namespaced_pod(
        runner.metadata.name, runner.metadata.namespace, grace_period_seconds=0
    )
    space.failed(name, "ProfilerFailed", timeout=40)
    assert len(space.jobs(profile)) <= 1 and not pod.python()[0].is_stopped()


def test_wrong_uid(space):
    pod = space.pod("busy_threads.py")
    other = "00000000-0000-0000-0000-000000000000"
    name = space.apply(pod, target={"podUID": other})
    space.failed(name, "PodUIDMismatch", pod.uid, other)
    space.profiled(pod, target={"podUID": pod.uid}, duration="1s")


def test_wrong_container(space):
    pod = space.pod("busy_threads.py")
    space.failed(
        space.apply(pod, target={"container": "nope"}), "ContainerNotFound", 'no container "nope"'
    )


def test_pod_on_another_node(space):
    pod = space.pod("busy_threads.py", node=1)
    name = space.apply(pod, target={"nodeName": "node2"})
    space.failed(name, "TargetNotFound", "runs on node node1", "node2")


def test_pod_that_does_not_run_yet(space):
    pod = space.start("busy_threads.py", nodeSelector={"kubernetes.io/hostname": "nowhere"})
    name = space.apply(pod, startDeadlineSeconds=4)
    space.failed(name, "PodNotRunning", "phase Pending", "(4 s)", timeout=15)


def test_pod_that_has_ended(space):
    pod = space.start("exiting.py", 0)
    wait_for("end of the Pod", lambda: pod.read().status.phase == "Succeeded")
    space.failed(space.apply(pod), "PodNotRunning", "has ended: phase Succeeded", timeout=10)


def test_foreign_host_pid(space):
    """A process of another Pod on the same node: not sampled, and nothing told of it."""
    pod, other = space.start("idle.py", node=1), space.start("busy_threads.py", node=1)
    pod.wait_until_ready(), other.wait_until_ready()
    (foreign,) = other.python()
    name = space.apply(pod, target={"process": {"hostPID": foreign.node}})
    profile = space.failed(name, "ProcessNotInTarget", f"process {foreign.node}", pod.name)
    assert "busy_threads" not in str(profile["status"])
    node_itself = space.apply(pod, target={"process": {"hostPID": 1}})
    space.failed(node_itself, "ProcessNotInTarget")


def test_host_pid_of_nobody(space):
    pod = space.pod("idle.py")
    name = space.apply(pod, target={"process": {"hostPID": 4194304}})
    space.failed(name, "ProcessNotFound", "no process 4194304")


@both_engines
def test_pod_deleted_while_sampled(space):
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="60s")
    wait_for("sampler", lambda: space.samplers(space.running(name)))
    time.sleep(1)
    began = time.monotonic()
    pod.delete()
    profile = space.completed(name, timeout=20)
    assert time.monotonic() - began < 15
    assert profile["status"]["reason"] == "ProcessExited"
    assert profile["status"]["samples"] > 0


@both_engines
def test_frozen_before_sampling(space):
    pod = space.pod("busy_threads.py")
    (python,) = pod.python()
    python.signal(signal.SIGSTOP)
    space.failed(space.apply(pod, duration="30s"), "ProfilerFailed", "stopped", timeout=25)
    expect_frozen_then_thaw(python)


@both_engines
def test_frozen_while_sampled(space):
    pod = space.pod("busy_threads.py")
    (python,) = pod.python()
    name = space.apply(pod, duration="60s")
    wait_for("sampler", lambda: space.samplers(space.running(name)))
    time.sleep(1)
    python.signal(signal.SIGSTOP)
    profile = space.finished(name, timeout=20)
    assert "stopped" in profile["status"]["message"]
    assert profile["status"]["reason"] == "ProfilerFailed"
    expect_frozen_then_thaw(python)


def expect_frozen_then_thaw(python):
    """Who stopped it wants it stopped: it was not continued, and continues unharmed."""
    assert set(python.states()) == {"T"}
    python.signal(signal.SIGCONT)
    before = python.ticks()
    wait_for("work of the target", lambda: python.ticks() > before + 2)
    assert not python.is_stopped()


@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_denied_by_the_pod(space, kind):
    pod = space.start("busy_threads.py", metadata={kind: {"profiling.pyspy.dev/deny": "true"}})
    pod.wait_until_ready()
    profile = space.failed(
        space.apply(pod), "ProfilingDenied", pod.name, "profiling.pyspy.dev/deny"
    )
    assert space.jobs(profile) == []


def test_denied_by_the_namespace(space):
    pod = space.pod("busy_threads.py")
    space.core.patch_namespace(
        space.name, {"metadata": {"labels": {"profiling.pyspy.dev/deny": "true"}}}
    )
    # The controller sees the label through its watch.
    time.sleep(1)
    profile = space.failed(space.apply(pod), "ProfilingDenied", f"namespace {space.name}")
    assert space.jobs(profile) == []
    space.core.patch_namespace(
        space.name, {"metadata": {"labels": {"profiling.pyspy.dev/deny": None}}}
    )
    time.sleep(1)
    space.profiled(pod, duration="1s")


def test_pods_of_other_namespaces_are_out_of_reach(space, k8s):
    pod = space.pod("busy_threads.py")
    other = Space(k8s, f"{space.name}-other")
    space.core.create_namespace({"metadata": {"name": other.name}})
    try:
        name = other.apply(pod.name, startDeadlineSeconds=2)
        other.failed(name, "TargetNotFound", f"namespace {other.name}", timeout=15)
    finally:
        space.core.delete_namespace(other.name)


def test_native_needs_the_namespaces_of_its_target(space):
    name = space.apply(space.pod("busy_threads.py"), sampling={"native": True})
    space.failed(name, "ProfilingDenied", "runner.joinNamespaces: true", "SYS_ADMIN")


@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_object_of_somebody_else(space, kind):
    """An object that the user has already is never overwritten."""
    core = space.core
    metadata = {"name": "precious", "labels": {"app": "shop"}}
    if kind == "configMap":
        core.create_namespaced_config_map(space.name, {"metadata": metadata, "data": {"a": "b"}})
        read = core.read_namespaced_config_map
    else:
        core.create_namespaced_secret(space.name, {"metadata": metadata, "data": {"a": "Yg=="}})
        read = core.read_namespaced_secret
    before = read("precious", space.name)
    name = space.apply(
        space.pod("busy_threads.py"), duration="1s", output={kind: {"name": "precious"}}
    )
    profile = space.failed(name, "StorageForbidden", "precious", "not this profile's")
    stored = {c["type"]: c for c in profile["status"]["conditions"]}["ResultsStored"]
    assert (stored["status"], stored["reason"]) == ("False", "StorageForbidden")
    after = read("precious", space.name)
    assert after.data == before.data
    assert after.metadata.resource_version == before.metadata.resource_version


def test_refused_at_apply(space):
    with pytest.raises(client.ApiException) as caught:
        space.apply("web-0", duration="2h")
    assert caught.value.status == 422 and "spec.sampling.duration" in caught.value.body
