"""runner.joinNamespaces: true: py-spy enters the PID namespace of its target."""

import kit
import pytest
import yaml
from kit import samples_in

pytestmark = pytest.mark.serial
of_py_spy = pytest.mark.parametrize("engine", ["PySpy"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def joined(operator):
    config = yaml.safe_load((kit.ROOT / "manifests/overlays/test/config.yaml").read_text())
    config["runner"]["joinNamespaces"] = True
    operator.configure(yaml.safe_dump(config))
    yield
    operator.configure(None)


@kit.both_engines
def test_full_accuracy(space, engine):
    """Every running thread is counted, and of the sleeping ones at most a few looks."""
    pod = space.pod("busy_threads.py")
    profile = space.profiled(pod, duration="3s")
    (target,) = profile["status"]["targets"]
    assert target["accuracy"] == "Full"
    stacks = space.stacks(profile)
    asleep, all_of_them = samples_in(stacks, "sleeper_"), sum(stacks.values())
    assert samples_in(stacks, "compute") > 100
    most = {"Native": 0.01, "PySpy": 0.05}[engine]
    assert asleep <= most * all_of_them, f"{asleep} of {all_of_them}"
    assert not pod.python()[0].is_stopped()
    (job,) = space.jobs(profile)
    capabilities = job.spec.template.spec.containers[0].security_context.capabilities
    # Our own sampler has no use for the others.
    more = {"Native": [], "PySpy": ["SYS_ADMIN", "KILL"]}[engine]
    assert capabilities.add == ["SYS_PTRACE", *more] and capabilities.drop == ["ALL"]


def test_native(space):
    """Stacks of C below those of Python; the target, paused for each look, runs on after it. Auto
    leaves it to py-spy, and says so."""
    pod = space.pod("busy_threads.py")
    profile = space.profiled(pod, duration="3s", sampling={"native": True})
    assert kit.engine_of(profile) == ("PySpy", "NativeStacks")
    (target,) = profile["status"]["targets"]
    assert target["accuracy"] == "Full" and "py-spy" in target["engineMessage"]
    stacks = space.stacks(profile)
    assert samples_in(stacks, "compute") > 30
    native = [f for stack in stacks for f in stack if ".c:" in f or "lib" in f or "_Py" in f]
    assert native, list(stacks)[:3]
    assert not pod.python()[0].is_stopped()


@kit.both_engines
def test_gil_only_when_asked_for(space):
    profile = space.profiled(space.pod("busy_threads.py"), sampling={"gil": True})
    assert profile["status"]["targets"][0]["accuracy"] == "GILOnly"
    assert samples_in(space.stacks(profile), "sleeper_") == 0


@of_py_spy
def test_prefork_and_processes(space):
    pod = space.pod("prefork.py", 2)
    profile = space.profiled(pod, target={"process": {"select": "All"}})
    samples = {p["pid"]: p["samples"] for p in profile["status"]["targets"][0]["processes"]}
    assert set(samples) == {p.pid for p in pod.python()}
    assert samples_in(space.stacks(profile), "handle_request") > 50


@of_py_spy
def test_cancel(space):
    pod = space.pod("busy_threads.py")
    name = space.apply(pod, duration="10m")
    profile = space.running(name)
    kit.wait_for("sampler", lambda: space.samplers(profile))
    space.patch(name, {"cancel": True})
    kit.wait_for("end of sampling", lambda: not space.samplers(profile), 5)
    (python,) = pod.python()
    before = python.ticks()
    kit.wait_for("work of the target", lambda: python.ticks() > before + 2)
    assert not python.is_stopped()


@of_py_spy
def test_frozen_target_stays_frozen(space):
    pod = space.pod("busy_threads.py")
    (python,) = pod.python()
    python.signal(19)
    space.failed(space.apply(pod, duration="20s"), "ProfilerFailed", "stopped", timeout=25)
    assert set(python.states()) == {"T"}
    python.signal(18)
