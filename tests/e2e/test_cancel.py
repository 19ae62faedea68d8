"""Cancelling and deleting: sampling ends within 5 s and the target runs on."""

import time

import pytest
from kit import both_engines, conditions_of, wait_for

SECONDS_TO_STOP = 5


@pytest.fixture
def sampled(space):
    """A target of several threads and a long profile of it that is at work."""
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="10m")
    profile = space.running(name)
    wait_for("sampler", lambda: space.samplers(profile))
    time.sleep(1)
    return pod, name, profile


def expect_end_of_sampling(space, pod, profile, began):
    wait_for("end of sampling", lambda: not space.samplers(profile), 15, every=0.05)
    took = time.monotonic() - began
    assert took < SECONDS_TO_STOP, f"sampling went on for {took:.1f} s"
    expect_unharmed(pod)
    wait_for("removal of the Job", lambda: not space.jobs(profile), 15)
    wait_for("removal of its Pod", lambda: not space.runner_pods(profile), 20)
    expect_unharmed(pod)


def expect_unharmed(pod):
    (python,) = pod.python()
    assert not python.is_stopped(), python.states()
    before = python.ticks()
    wait_for("work of the target", lambda: python.ticks() > before + 2)
    assert pod.status().restart_count == 0


@both_engines
def test_cancel_while_running(space, sampled):
    pod, name, profile = sampled
    began = time.monotonic()
    space.patch(name, {"cancel": True})
    expect_end_of_sampling(space, pod, profile, began)
    status = space.finished(name)["status"]
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    assert "results" not in status or status["results"] == []
    conditions = conditions_of(space.profile(name))
    assert conditions["Running"]["status"] == conditions["Complete"]["status"] == "False"


@both_engines
def test_delete_while_running(space, sampled):
    pod, name, profile = sampled
    began = time.monotonic()
    space.delete(name)
    expect_end_of_sampling(space, pod, profile, began)


@both_engines
def test_delete_of_the_namespace_while_running(space, sampled):
    pod, name, profile = sampled
    space.core.delete_namespace(space.name)
    wait_for("end of sampling", lambda: not space.samplers(profile), 15)
    # Its target went as well, so it may have ended by itself: then its TTL removes it.
    wait_for("end of the Job", lambda: not any(j.status.active for j in space.jobs(profile)), 15)


def test_cancel_while_pending(space):
    name = space.apply("nobody")
    space.wait(name, "reason", lambda s: s.get("reason") == "TargetNotFound")
    began = time.monotonic()
    space.patch(name, {"cancel": True})
    status = space.finished(name)["status"]
    assert time.monotonic() - began < 5
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    assert "before sampling began" in status["message"]


def test_cancel_of_a_finished_one_changes_nothing(space):
    profile = space.profiled(space.pod("busy_threads.py"), duration="1s")
    space.patch(profile["metadata"]["name"], {"cancel": True})
    time.sleep(1)
    after = space.profile(profile["metadata"]["name"])
    assert after["status"] == profile["status"]
    assert space.stacks(after)


def test_created_cancelled(space):
    name = space.apply(space.pod("busy_threads.py"), cancel=True)
    profile = space.finished(name)
    assert profile["status"]["phase"] == "Cancelled"
    assert space.jobs(profile) == []
