"""Real Python programs as they run in Pods: which process is taken, and what is counted of it."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import kit
import pytest
from kit import samples_in


def commands_of(profile):
    (target,) = profile["status"]["targets"]
    return {p["pid"]: p["samples"] for p in target["processes"]}


@kit.both_engines
def test_sleeping_threads_are_not_counted(space, engine):
    """51 of them beside one that runs, in a PID namespace of their own, with SYS_PTRACE alone."""
    pod = space.pod("busy_threads.py", 17)
    name = space.apply(pod, duration="3s")
    (job,) = space.jobs(space.running(name))
    capabilities = job.spec.template.spec.containers[0].security_context.capabilities
    assert capabilities.add == ["SYS_PTRACE"]
    (python,) = pod.python()
    assert len(python.states()) == 52 and python.pid != python.node
    profile = space.completed(name)
    assert profile["status"]["targets"][0]["accuracy"] == kit.ACCURACY[engine]
    stacks = space.stacks(profile)
    assert samples_in(stacks, "compute") > 150
    assert samples_in(stacks, "sleeper_") <= 0.01 * sum(stacks.values())


@kit.both_engines
def test_prefork_by_default_the_parent_and_its_children(space):
    pod = space.pod("prefork.py", 2)
    profile = space.profiled(pod)
    parent = min(p.pid for p in pod.python())
    # One sampler, at the parent, follows the children.
    assert list(commands_of(profile)) == [parent]
    stacks = space.stacks(profile)
    assert samples_in(stacks, "handle_request") > 0.9 * sum(stacks.values())
    children = {p.pid for p in pod.python()} - {parent}
    seen = {frame for stack in stacks for frame in stack if frame.startswith("process ")}
    assert {c for c in children if any(f"process {c}" in f for f in seen)} or seen


@kit.both_engines
def test_prefork_parent_alone_is_idle(space, engine):
    pod = space.pod("prefork.py", 2)
    name = space.apply(pod, sampling={"subprocesses": False})
    nothing = {"Native": "no thread was running in ", "PySpy": "the GIL was free in "}[engine]
    space.failed(name, "NoSamples", nothing, " looks: idle")


@kit.both_engines
def test_prefork_busiest(space):
    """The parent waits and one child works: the child is taken."""
    pod = space.pod("prefork.py", 1)
    parent, child = sorted(p.pid for p in pod.python())
    profile = space.profiled(
        pod, target={"process": {"select": "Busiest"}}, sampling={"subprocesses": False}
    )
    assert list(commands_of(profile)) == [child]
    assert samples_in(space.stacks(profile), "handle_request") > 50


@kit.both_engines
def test_prefork_all(space):
    pod = space.pod("prefork.py", 2)
    profile = space.profiled(pod, target={"process": {"select": "All"}})
    samples = commands_of(profile)
    assert set(samples) == {p.pid for p in pod.python()}
    parent = min(samples)
    assert samples[parent] == 0 and all(n > 0 for pid, n in samples.items() if pid != parent)
    assert sum(samples.values()) == profile["status"]["samples"]
    stacks = space.stacks(profile)
    by_process = {}
    for stack, n in stacks.items():
        by_process[stack[0]] = by_process.get(stack[0], 0) + n
    assert by_process == {f"process {pid}": n for pid, n in samples.items() if n}


def test_process_by_command_pid_and_host_pid(space):
    """Two programs beside one another, each chosen in every way there is."""
    script = "python3 /targets/prefork.py 1 & exec python3 /targets/busy_threads.py"
    pod = space.pod("/bin/sh", "-c", script)
    busy = next(p for p in pod.python() if "busy_threads" in p.command)
    forked = [p for p in pod.python() if "prefork" in p.command]
    assert busy.pid == 1 and len(forked) == 2
    choices = {
        "command": ({"command": "prefork[.]py 1$"}, min(f.pid for f in forked)),
        "pid": ({"pid": busy.pid}, busy.pid),
        "host-pid": ({"hostPID": busy.node}, busy.pid),
        "together": ({"command": "^python3 ", "pid": forked[0].pid}, forked[0].pid),
    }
    with ThreadPoolExecutor() as pool:
        profiles = pool.map(
            lambda choice: space.completed(
                space.apply(pod, name=choice[0], target={"process": choice[1][0]})
            ),
            choices.items(),
        )
    chosen = {p["metadata"]["name"]: list(commands_of(p)) for p in profiles}
    assert chosen == {name: [pid] for name, (_, pid) in choices.items()}


SIDECAR = kit.target_container("not_python.sh", name="sidecar")


def test_sidecar_first(space):
    """The container that holds a Python process is found behind one that does not."""
    pod = space.start(containers=[SIDECAR, kit.target_container("busy_threads.py")])
    profile = space.profiled(pod.wait_until_ready())
    assert profile["status"]["targets"][0]["container"] == "app"


def two_pythons(space, metadata=None):
    containers = [
        kit.target_container("prefork.py", 1, name="first"),
        kit.target_container("busy_threads.py", name="second"),
    ]
    pod = space.start(containers=containers, metadata=metadata)
    return pod.wait_until_ready("first").wait_until_ready("second")


def test_container_is_the_first_or_the_one_that_is_named(space):
    pod = two_pythons(space)
    with ThreadPoolExecutor() as pool:
        first, named = pool.map(
            lambda target: space.profiled(pod, target=target), [{}, {"container": "second"}]
        )
    assert first["status"]["targets"][0]["container"] == "first"
    assert samples_in(space.stacks(first), "handle_request") > 0
    assert named["status"]["targets"][0]["container"] == "second"
    assert samples_in(space.stacks(named), "compute") > 0


def test_default_container_annotation(space):
    pod = two_pythons(space, {"annotations": {"kubectl.kubernetes.io/default-container": "second"}})
    profile = space.profiled(pod)
    assert profile["status"]["targets"][0]["container"] == "second"


@kit.both_engines
def test_started_by_a_shell(space):
    pod = space.pod("shell_started.sh")
    profile = space.profiled(pod)
    assert list(commands_of(profile)) == [pod.python()[0].pid] != [1]
    assert samples_in(space.stacks(profile), "compute") > 0


@kit.both_engines
def test_exits_while_sampled(space):
    """What was sampled until then is kept, and said to be only that."""
    pod = space.pod("exiting.py", 8)
    profile = space.profiled(pod, duration="60s", formats=["raw", "flamegraph"])
    status = profile["status"]
    assert (
        status["reason"] == "ProcessExited" and f"{status['samples']} samples" in status["message"]
    )
    stacks = space.stacks(profile)
    assert sum(stacks.values()) == status["samples"] > 50
    # The rest is the interpreter's own end, which has no frames of Python.
    assert samples_in(stacks, "work_until") > 0.9 * status["samples"], stacks
    assert kit.conditions_of(profile)["Complete"]["reason"] == "ProcessExited"


def test_not_python(space):
    name = space.apply(space.pod("not_python.sh"))
    space.failed(name, "ProcessNotPython", "container app", "is CPython", "sh")


def test_process_that_is_not_python_by_pid(space):
    pod = space.pod("shell_started.sh")
    name = space.apply(pod, target={"process": {"pid": 1}})
    space.failed(name, "ProcessNotPython", "process 1 of container app is not CPython")


def test_no_process_fits(space):
    pod = space.pod("busy_threads.py")
    by_command = space.apply(pod, target={"process": {"command": "^gunicorn"}})
    by_pid = space.apply(pod, target={"process": {"pid": 4242}})
    space.failed(by_command, "ProcessNotFound", "process.command")
    space.failed(by_pid, "ProcessNotFound", "no process 4242")


@kit.both_engines
def test_idle(space, engine):
    name = space.apply(space.pod("idle.py"))
    profile = space.failed(name, "NoSamples", "looks: idle")
    none, looks = re.search(r" in (\d+) of (\d+) looks", profile["status"]["message"]).groups()
    # Two seconds at 100 Hz, spaced at random.
    assert none == looks and 130 <= int(looks) <= 260
    assert profile["status"]["targets"][0]["accuracy"] == kit.ACCURACY[engine]
    assert kit.engine_of(profile) == (engine, "Requested")


@kit.both_engines
def test_idle_counted(space):
    profile = space.profiled(space.pod("idle.py"), sampling={"idle": True})
    assert profile["status"]["targets"][0]["accuracy"] == "IdleCounted"
    assert samples_in(space.stacks(profile), "<module>") > 100


@kit.both_engines
def test_hostile_names(space):
    # Unlimited: one that is throttled stands still, in few of its functions.
    pod = space.pod(containers=[kit.target_container("hostile_names.py", resources={})])
    formats = ["flamegraph", "speedscope", "raw", "chrometrace"]
    profile = space.profiled(
        pod, formats=formats, duration="3s", sampling={"functions": True, "rate": 200}
    )
    svg = space.result(profile, "flamegraph")
    root = ElementTree.fromstring(svg)
    text = " ".join(root.itertext())
    # Told, and not done.
    assert "<script>alert(1)</script>" not in svg
    for name in ("<script>alert(1)</script>", "日本語_función_🔥", "$(reboot)`reboot`"):
        assert name in text, name
    speedscope = space.result(profile, "speedscope")
    frames = {f["name"] for f in json.loads(speedscope)["shared"]["frames"]}
    assert any("日本語_función_🔥" in f for f in frames)
    assert any("<script>alert(1)</script>" in f for f in frames)
    # A name with a semicolon or a line's end in it neither makes frames nor lines.
    stacks = space.stacks(profile)
    assert sum(stacks.values()) == profile["status"]["samples"]
    assert {len(stack) for stack in stacks} <= {2, 3}
    json.loads(space.result(profile, "chrometrace"))


def pythons(oldest, newest):
    """Those of this machine, from one minor version to another."""
    found = [
        (int(folder.name.split(".")[1]), folder)
        for folder in (Path.home() / ".pyenv/versions").glob("3.*.*")
    ]
    return [folder for minor, folder in sorted(found) if oldest <= minor <= newest]


PYTHONS, OLD_PYTHONS = pythons(8, 99), pythons(6, 7)
CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("PYSPY_CACHE") or CACHES / "pyspy-operator")
BUILDS = sorted(folder.parent.parent for folder in CACHE.glob("pythons/*/bin/python3"))
PYTHON_3_14 = kit.CACHE / "pythons/3.14.3"


def pod_with_python(space, version, *command):
    command = command or (os.path.realpath(version / "bin/python3"), "/targets/busy_threads.py")
    container = kit.target_container(
        *command,
        volumeMounts=[{"name": "python", "mountPath": str(version), "readOnly": True}],
    )
    volumes = [{"name": "python", "hostPath": {"path": str(version)}}]
    return space.pod(containers=[container], volumes=volumes)


@kit.both_engines
@pytest.mark.parametrize("version", PYTHONS, ids=lambda p: p.name)
def test_python_versions(space, engine, version):
    """Every interpreter of this machine, from 3.8 on; Debian's own is in all the other tests."""
    profile = space.profiled(pod_with_python(space, version))
    (target,) = profile["status"]["targets"]
    (process,) = target["processes"]
    assert target["accuracy"] == kit.ACCURACY[engine]
    assert process["pythonVersion"] == version.name and "engine" not in process
    stacks = space.stacks(profile)
    assert process["samples"] == sum(stacks.values()) == profile["status"]["samples"]
    assert samples_in(stacks, "compute") > 50
    assert samples_in(stacks, "sleeper_") <= 0.01 * sum(stacks.values())


RECURSION = """
def down(n):
    return down(n - 1) + 1 if n else 0
print("ready", flush=True)
while True:
    down(150)
"""


@pytest.mark.parametrize("engine", ["Native"], indirect=True)
def test_who_waits_while_it_is_read(space):
    """Before 3.11 a thread that does not stand still, unless that is forbidden or too often."""
    versions = pythons(10, 10)
    if not versions:
        pytest.skip("no Python 3.10")
    python = os.path.realpath(versions[0] / "bin/python3")
    pod = pod_with_python(space, versions[0], python, "-c", RECURSION)
    held = []
    for sampling in ({"rate": 250}, {"rate": 251}, {"rate": 250, "nonblocking": True}):
        profile = space.profiled(pod, sampling=sampling)
        ((process,),) = (target["processes"] for target in profile["status"]["targets"])
        held.append(process.get("held", 0))
        assert held[-1] <= process["samples"] + process.get("errors", 0) and process["samples"] > 50
    assert held[0] > 0 and held[1:] == [0, 0], held


@pytest.mark.parametrize("version", [*pythons(12, 13), PYTHON_3_14], ids=lambda p: p.name)
def test_async_tasks(space, version):
    """The running task as a frame below its coroutine, by its name; unasked there is none."""
    if not version.exists():
        pytest.skip(f"no Python {version.name}: hack/pythons")
    pod = pod_with_python(
        space, version, os.path.realpath(version / "bin/python3"), "/targets/async_tasks.py"
    )
    name = space.apply(pod, duration="4s", sampling={"asyncTasks": True})
    plain = space.apply(pod)
    profile = space.completed(name)
    (target,) = profile["status"]["targets"]
    assert target["engine"] == "Native" and "engineMessage" not in target
    stacks = space.stacks(profile)
    shares = {}
    for stack, n in stacks.items():
        for task, coroutine in pairwise(stack):
            if task.startswith("task "):
                assert coroutine.startswith("serve "), stack
                shares[task] = shares.get(task, 0) + n
    assert len(shares) == 3, shares
    all_of_it = sum(shares.values())
    assert all_of_it > 0.95 * samples_in(stacks, "serve ") > 50
    by_share = sorted(shares, key=shares.get)
    assert [t.split()[1].rstrip(":;,") for t in by_share] == ["log", "bills", "orders"]
    assert "ünïcode 🔥" in by_share[1]
    # Who waits for a core keeps its stack: on a busy machine a few of them are much of the time.
    for task, share in zip(by_share, (0.1, 0.3, 0.6), strict=True):
        assert abs(shares[task] / all_of_it - share) < 0.2, shares
    assert samples_in(space.stacks(space.completed(plain)), "task ") == 0


@pytest.mark.parametrize("engine", ["Auto", "Native"], indirect=True)
def test_async_tasks_of_a_python_that_does_not_show_them(space):
    """Debian's 3.11: the profile is whole but for them, and says so."""
    profile = space.profiled(space.pod("async_tasks.py"), sampling={"asyncTasks": True})
    (target,) = profile["status"]["targets"]
    version = target["processes"][0]["pythonVersion"]
    assert target["engine"] == "Native"
    assert f"sampling.asyncTasks: Python {version} does not" in target["engineMessage"]
    stacks = space.stacks(profile)
    assert samples_in(stacks, "serve") > 20 and samples_in(stacks, "task ") == 0


def test_async_tasks_where_py_spy_takes_over(space):
    if not OLD_PYTHONS:
        pytest.skip("no Python older than 3.8 that py-spy reads")
    name = space.apply(pod_with_python(space, OLD_PYTHONS[-1]), sampling={"asyncTasks": True})
    profile = space.finished(name)
    assert profile["status"]["phase"] == "Completed"
    assert kit.engine_of(profile) == ("PySpy", "UnsupportedPython")
    message = profile["status"]["targets"][0]["engineMessage"]
    assert message.endswith("; sampling.asyncTasks: py-spy does not show the tasks of asyncio")


@pytest.mark.parametrize("build", BUILDS, ids=lambda p: p.name)
def test_python_builds(space, build):
    """Those of hack/pythons: free-threaded, static with musl, stripped, the newest."""
    profile = space.profiled(pod_with_python(space, build))
    (target,) = profile["status"]["targets"]
    (process,) = target["processes"]
    assert target["engine"] == "Native" and target["accuracy"] == "Full"
    assert process["pythonVersion"] == re.match(r"[\d.]+", build.name)[0]
    stacks = space.stacks(profile)
    assert process["samples"] == sum(stacks.values()) == profile["status"]["samples"]
    assert samples_in(stacks, "compute") > 50
    assert samples_in(stacks, "sleeper_") <= 0.01 * sum(stacks.values())


def test_interpreter_that_our_own_sampler_cannot_read(space):
    """py-spy takes over, with what it can tell in a PID namespace that is not its own; but not
    where our own sampler is asked for."""
    if not OLD_PYTHONS:
        pytest.skip("no Python older than 3.8 that py-spy reads")
    pod = pod_with_python(space, OLD_PYTHONS[-1])
    auto, native = space.apply(pod), space.apply(pod, sampling={"engine": "Native"})
    profile = space.finished(auto)
    assert profile["status"]["phase"] == "Completed"
    assert kit.engine_of(profile) == ("PySpy", "UnsupportedPython")
    (target,) = profile["status"]["targets"]
    assert f"Python {OLD_PYTHONS[-1].name} is not supported" in target["engineMessage"]
    assert target["accuracy"] == "GILOnly"
    stacks = space.stacks(profile)
    assert samples_in(stacks, "compute") > 50 and samples_in(stacks, "sleeper_") == 0
    profile = space.failed(native, "UnsupportedPython", "engine Native", OLD_PYTHONS[-1].name)
    assert kit.engine_of(profile) == ("Native", "Requested")


def test_both_engines_in_one_container(space):
    """Each process says what sampled it; the narrower accuracy is that of the whole."""
    if not OLD_PYTHONS:
        pytest.skip("no Python older than 3.8 that py-spy reads")
    old = OLD_PYTHONS[-1]
    busy = "/targets/busy_threads.py"
    script = f"{old}/bin/python3 {busy} & exec python3 {busy}"
    pod = pod_with_python(space, old, "/bin/sh", "-c", script)
    kit.wait_for("both processes", lambda: len(pod.python()) == 2)
    name = space.apply(pod, target={"process": {"select": "All"}})
    (target,) = space.finished(name)["status"]["targets"]
    assert (target["phase"], target["engine"], target["accuracy"]) == (
        "Completed",
        "PySpy",
        "GILOnly",
    )
    by_version = {p["pythonVersion"]: p for p in target["processes"]}
    process = by_version.pop(old.name)
    assert process["engine"] == "PySpy" and process["samples"] > 30
    assert f"process {process['pid']}: Python {old.name}" in target["engineMessage"]
    (process,) = by_version.values()
    assert process["engine"] == "Native" and process["samples"] > 30


def test_interpreter_that_only_its_owner_may_read(space):
    """Of mode 0700, as in somebody's home: root without DAC_READ_SEARCH cannot read it."""
    home = {"name": "home", "mountPath": "/home/me"}
    mine = {"securityContext": {"runAsUser": 4711, "runAsGroup": 4711}, "volumeMounts": [home]}
    prepare = "cd /home/me && mkdir -m 700 bin && cp /usr/bin/python3.11 bin/ && chmod 700 bin/*"
    pod = space.pod(
        containers=[
            kit.target_container("/home/me/bin/python3.11", "/targets/busy_threads.py", **mine)
        ],
        initContainers=[kit.target_container("/bin/sh", "-c", prepare, name="prepare", **mine)],
        volumes=[{"name": "home", "emptyDir": {}}],
        securityContext={"fsGroup": 4711},
    )
    space.failed(space.apply(pod), "PermissionDenied", "DAC_READ_SEARCH", "runner.capabilities")
    assert not pod.python()[0].is_stopped()
