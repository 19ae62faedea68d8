"""Real Python programs as they run in Pods: which process is taken, and what is counted of it."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kit
import pytest
from kit import samples_in


def commands_of(profile):
    (target,) = profile["status"]["targets"]
    return {p["pid"]: p["samples"] for p in target["processes"]}


def test_sleeping_threads_are_not_counted(space):
    stacks = space.stacks(space.profiled(space.pod("busy_threads.py"), duration="3s"))
    assert samples_in(stacks, "compute") > 150
    assert samples_in(stacks, "sleeper_") == 0


def test_prefork_by_default_the_parent_and_its_children(space):
    pod = space.pod("prefork.py", 2)
    profile = space.profiled(pod)
    parent = min(p.pid for p in pod.python())
    # One py-spy, attached to the parent, follows the children.
    assert list(commands_of(profile)) == [parent]
    stacks = space.stacks(profile)
    assert samples_in(stacks, "handle_request") > 0.9 * sum(stacks.values())
    children = {p.pid for p in pod.python()} - {parent}
    seen = {frame for stack in stacks for frame in stack if frame.startswith("process ")}
    assert {c for c in children if any(f"process {c}" in f for f in seen)} or seen


def test_prefork_parent_alone_is_idle(space):
    pod = space.pod("prefork.py", 2)
    name = space.apply(pod, sampling={"subprocesses": False})
    space.failed(name, "NoSamples", "the GIL was free in ", " looks: idle")


def test_prefork_busiest(space):
    """The parent waits and one child works: the child is taken."""
    pod = space.pod("prefork.py", 1)
    parent, child = sorted(p.pid for p in pod.python())
    profile = space.profiled(
        pod, target={"process": {"select": "Busiest"}}, sampling={"subprocesses": False}
    )
    assert list(commands_of(profile)) == [child]
    assert samples_in(space.stacks(profile), "handle_request") > 50


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


def test_started_by_a_shell(space):
    pod = space.pod("shell_started.sh")
    profile = space.profiled(pod)
    assert list(commands_of(profile)) == [pod.python()[0].pid] != [1]
    assert samples_in(space.stacks(profile), "compute") > 0


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


def test_idle(space):
    name = space.apply(space.pod("idle.py"))
    profile = space.failed(name, "NoSamples", "looks: idle, or in native code")
    free, looks = re.search(r"free in (\d+) of (\d+)", profile["status"]["message"]).groups()
    assert free == looks and 150 <= int(looks) <= 200
    assert profile["status"]["targets"][0]["accuracy"] == "GILOnly"


def test_idle_counted(space):
    profile = space.profiled(space.pod("idle.py"), sampling={"idle": True})
    assert profile["status"]["targets"][0]["accuracy"] == "IdleCounted"
    assert samples_in(space.stacks(profile), "<module>") > 100


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


PYTHONS = [
    folder
    for folder in sorted((Path.home() / ".pyenv/versions").glob("3.*"))
    if tuple(int(n) for n in folder.name.split(".")[:2]) >= (3, 8)
]


def pod_with_python(space, version):
    container = kit.target_container(
        os.path.realpath(version / "bin/python3"),
        "/targets/busy_threads.py",
        volumeMounts=[{"name": "python", "mountPath": str(version), "readOnly": True}],
    )
    volumes = [{"name": "python", "hostPath": {"path": str(version)}}]
    return space.pod(containers=[container], volumes=volumes)


@pytest.mark.parametrize("version", PYTHONS, ids=lambda p: p.name)
def test_python_versions(space, version):
    """Every interpreter of this machine, from 3.8 on; Debian's own is in all the other tests."""
    profile = space.profiled(pod_with_python(space, version))
    (process,) = profile["status"]["targets"][0]["processes"]
    assert process["pythonVersion"] == version.name
    stacks = space.stacks(profile)
    assert samples_in(stacks, "compute") > 50 and samples_in(stacks, "sleeper_") == 0


def check_native(space, pod):
    profile = space.profiled(pod, sampling={"engine": "Native"})
    (target,) = profile["status"]["targets"]
    assert (target["engine"], target["accuracy"]) == ("Native", "Full")
    stacks = space.stacks(profile)
    assert samples_in(stacks, "compute") > 50
    assert samples_in(stacks, "sleeper_") <= 0.01 * sum(stacks.values())
    (process,) = target["processes"]
    assert process["samples"] == sum(stacks.values()) == profile["status"]["samples"]


def test_our_own_sampler(space):
    """Running threads from sleeping ones, with SYS_PTRACE alone."""
    check_native(space, space.pod("busy_threads.py"))


@pytest.mark.parametrize("version", PYTHONS, ids=lambda p: p.name)
def test_our_own_sampler_on(space, version):
    check_native(space, pod_with_python(space, version))


def test_our_own_sampler_follows_children(space):
    profile = space.profiled(space.pod("prefork.py", 2), sampling={"engine": "Native"})
    stacks = space.stacks(profile)
    assert samples_in(stacks, "handle_request") > 0.9 * sum(stacks.values())


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
