"""The way of one profile, as its user sees it."""

import hashlib
import json
import re
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import kit
from kit import GROUP, PLURAL, VERSION, both_engines, conditions_of, kubectl, samples_in, wait_for
from kubernetes import client, watch


@both_engines
def test_apply_to_flame_graph(space, engine):
    pod = space.pod("busy_threads.py", node=1)
    empty = space.custom.list_namespaced_custom_object(GROUP, VERSION, space.name, PLURAL)
    name = space.apply(pod, name="checkout-slow", duration="3s", formats=["flamegraph"])
    # Each state that the API server ever had, from the first on.
    phases = []
    for event in watch.Watch().stream(
        space.custom.list_namespaced_custom_object,
        GROUP,
        VERSION,
        space.name,
        PLURAL,
        resource_version=empty["metadata"]["resourceVersion"],
        timeout_seconds=60,
    ):
        phases.append(event["object"]["status"]["phase"])
        if phases[-1] in kit.FINAL:
            break
    assert phases == ["Pending", "Running", "Completed"]

    profile = space.profile(name)
    status = profile["status"]
    assert status["observedGeneration"] == profile["metadata"]["generation"]
    assert (status["reason"], status["message"], status["summary"]) == ("", "", "1/1")
    # Three seconds at 100 Hz of one busy thread, spaced at random; a loaded machine loses some.
    assert 150 <= status["samples"] <= 380
    (target,) = status["targets"]
    assert target["podName"] == pod.name and target["podUID"] == pod.uid
    assert (target["nodeName"], target["container"]) == ("node1", "app")
    assert target["phase"] == "Completed"
    assert (target["engine"], target["engineReason"]) == (engine, "Requested")
    assert target["accuracy"] == kit.ACCURACY[engine] and "engineMessage" not in target
    assert float(target["cost"]["cpuSeconds"]) > 0
    # What samples, without the container's runtime before it and what hands the results in.
    most = {"Native": 12 << 20, "PySpy": 128 << 20}[engine]
    assert 1 << 20 < target["cost"]["maxMemoryBytes"] < most
    (process,) = target["processes"]
    (python,) = pod.python()
    assert (process["hostPID"], process["pid"]) == (python.node, python.pid)
    assert process["command"].endswith("/targets/busy_threads.py")
    assert re.fullmatch(r"3\.11\.\d+", process["pythonVersion"])
    assert process["samples"] == status["samples"]
    start, end = (parse_time(status[k]) for k in ("startTime", "completionTime"))
    assert 2 <= end - start <= 15

    conditions = conditions_of(profile)
    assert {t: c["status"] for t, c in conditions.items()} == {
        "TargetResolved": "True",
        "Running": "False",
        "ResultsStored": "True",
        "Complete": "True",
        "Failed": "False",
        "Ready": "True",
    }
    assert all(c["observedGeneration"] == 1 for c in conditions.values())

    (result,) = status["results"]
    assert (result["target"], result["format"]) == (pod.name, "flamegraph")
    assert (result["mediaType"], result["encoding"]) == ("image/svg+xml", "")
    config_map = space.core.read_namespaced_config_map(
        result["configMapKeyRef"]["name"], space.name
    )
    (owner,) = config_map.metadata.owner_references
    assert (owner.kind, owner.name, owner.uid) == ("PySpyProfile", name, profile["metadata"]["uid"])
    svg = space.result(profile, "flamegraph")
    assert hashlib.sha256(svg.encode()).hexdigest() == result["sha256"]
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = " ".join(root.itertext())
    assert "compute" in text and "busy_threads.py" in text and pod.name in text
    assert "sleeper" not in text

    # What is privileged is gone, and nothing of it was ever in the user's namespace.
    assert space.core.list_namespaced_pod(space.name).items[0].metadata.name == pod.name
    assert len(space.jobs(profile)) == 1
    wait_for("end of the Job", lambda: space.jobs(profile)[0].status.succeeded == 1)
    assert not pod.python()[0].is_stopped()


def parse_time(text):
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


@both_engines
def test_events_tell_the_story(space):
    profile = space.profiled(space.pod("busy_threads.py"))
    name = profile["metadata"]["name"]

    def events():
        found = space.events(name)
        return found if len(found) >= 3 else None

    events = wait_for("events", events)
    assert [(e.type, e.reason) for e in events] == [
        ("Normal", "JobCreated"),
        ("Normal", "Running"),
        ("Normal", "Completed"),
    ]
    assert all(e.regarding.uid == profile["metadata"]["uid"] for e in events)
    assert all(e.reporting_controller == f"{GROUP}/pyspy-controller" for e in events)
    assert "Sampling for 2 s at 100 Hz" in events[1].note
    assert f"{profile['status']['samples']} samples" in events[2].note
    described = kubectl("-n", space.name, "describe", "pyspy", name)
    for word in ("JobCreated", "Completed", "Accuracy:", "Engine Reason:", "Config Map Key Ref:"):
        assert word in described


def test_kubectl_get_and_wait(space):
    pod = space.pod("busy_threads.py", node=2)
    name = space.apply(pod, duration="2s")
    wait = ("-n", space.name, "wait", "--for=condition=Complete", f"pyspyprofile/{name}")
    assert "condition met" in kubectl(*wait, "--timeout=60s")
    kubectl("-n", space.name, "wait", "--for=jsonpath={.status.phase}=Completed", f"pyspy/{name}")
    header, row = (
        re.split(r" {2,}", line.strip())
        for line in kubectl("-n", space.name, "get", "pyspyprofiles").splitlines()
    )
    assert header == "NAME TARGET NODE PHASE PODS SAMPLES DURATION AGE".split()
    assert row[:5] == [name, pod.name, "node2", "Completed", "1/1"]
    assert int(row[5]) > 0 and row[6] == "2s"
    wide = kubectl("-n", space.name, "get", "pyspy", "-o", "wide")
    assert wide.split("\n")[0].split()[-4:] == ["FORMATS", "RESULT", "REASON", "MESSAGE"]
    assert '["raw"]' in wide and f"{name}-" in wide
    assert name in kubectl("-n", space.name, "get", "all")
    found = kubectl(
        "-n", space.name, "get", "pyspy", "--field-selector=status.phase=Completed", "-o", "name"
    )
    assert found.strip() == f"pyspyprofile.{GROUP}/{name}"


def test_delete_removes_everything(space, operator):
    profile = space.profiled(space.pod("busy_threads.py"), output={"configMap": {"name": "mine"}})
    (result,) = profile["status"]["results"]
    assert result["configMapKeyRef"] == {"name": "mine", "key": "raw.txt"}
    space.delete(profile["metadata"]["name"])

    def is_gone():
        listed = space.core.list_namespaced_config_map(space.name).items
        return "mine" not in [c.metadata.name for c in listed]

    wait_for("removal of the ConfigMap", is_gone)
    # The Job has ended; it goes by its own TTL, which is in the configuration of the tests.
    assert all(j.spec.ttl_seconds_after_finished == 60 for j in space.jobs(profile))


def test_result_in_a_secret(space):
    output = {"secret": {"name": "confidential"}}
    profile = space.profiled(
        space.pod("busy_threads.py"), formats=["raw", "flamegraph"], output=output
    )
    keys = {r["format"]: r["secretKeyRef"] for r in profile["status"]["results"]}
    assert keys == {
        "flamegraph": {"name": "confidential", "key": "flamegraph.svg"},
        "raw": {"name": "confidential", "key": "raw.txt"},
    }
    assert samples_in(space.stacks(profile), "compute") > 0
    ElementTree.fromstring(space.result(profile, "flamegraph"))
    secret = space.core.read_namespaced_secret("confidential", space.name)
    assert secret.metadata.owner_references[0].uid == profile["metadata"]["uid"]
    maps = space.core.list_namespaced_config_map(space.name).items
    assert [m.metadata.name for m in maps if m.metadata.name != "kube-root-ca.crt"] == []


@both_engines
def test_every_format_is_of_the_same_sampling(space):
    formats = ["flamegraph", "speedscope", "raw", "chrometrace"]
    pod = space.pod("prefork.py", 2)
    profile = space.profiled(pod, formats=formats, duration="2s", sampling={"rate": 50})
    assert sorted(r["format"] for r in profile["status"]["results"]) == sorted(formats)
    assert len({r["configMapKeyRef"]["name"] for r in profile["status"]["results"]}) == 1
    samples = profile["status"]["samples"]
    stacks = space.stacks(profile)
    assert sum(stacks.values()) == samples
    assert samples_in(stacks, "handle_request") > 0.9 * samples

    speedscope = json.loads(space.result(profile, "speedscope"))
    assert speedscope["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    names = [f["name"] for f in speedscope["shared"]["frames"]]
    assert "handle_request" in " ".join(names)
    seconds = sum(sum(p["weights"]) for p in speedscope["profiles"])
    assert round(seconds * 50) == samples
    for p in speedscope["profiles"]:
        assert len(p["samples"]) == len(p["weights"])
        assert all(0 <= i < len(names) for stack in p["samples"] for i in stack)

    trace = json.loads(space.result(profile, "chrometrace"))
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    assert any("handle_request" in e.get("name", "") for e in events)
    # Every begin has its end, in order, in each thread.
    open_frames = {}
    for e in events:
        stack = open_frames.setdefault((e.get("pid"), e.get("tid")), [])
        if e["ph"] == "B":
            stack.append(e["name"])
        elif e["ph"] == "E":
            began = stack.pop()
            assert e.get("name", began) == began
    assert not any(open_frames.values())

    title = " ".join(ElementTree.fromstring(space.result(profile, "flamegraph")).itertext())
    assert f"{samples:,}" in title or str(samples) in title


@both_engines
def test_same_counts_in_functions_and_lines(space):
    pod = space.pod("busy_threads.py")
    with ThreadPoolExecutor() as pool:
        lines, functions = pool.map(
            lambda by_function: space.profiled(pod, sampling={"functions": by_function}),
            [False, True],
        )
    by_line, by_function = space.stacks(lines), space.stacks(functions)
    # One loop: several lines, but one function, shown where it begins.
    script = (kit.ROOT / "tests/targets/busy_threads.py").read_text().splitlines()
    begins = 1 + script.index("def compute():")

    def lines_of(stacks):
        return {int(re.search(r"^compute \(\S+:(\d+)\)$", stack[-1])[1]) for stack in stacks}

    assert lines_of(by_function) == {begins}
    assert len(lines_of(by_line)) > 1 and begins not in lines_of(by_line)


@both_engines
def test_threads_apart(space):
    """The one that runs, under the name that Python gives it."""
    pod = space.pod("busy_threads.py")
    stacks = space.stacks(space.profiled(pod, sampling={"threads": True}))
    assert all("thread" in stack[1] and "MainThread" in stack[1] for stack in stacks), stacks
    assert samples_in(stacks, "compute") == sum(stacks.values()) > 0


@both_engines
def test_command_lines_only_when_asked_for(space):
    secret = "--password=hunter2"
    container = kit.target_container("prefork.py", "2", secret)
    pod = space.pod(containers=[container])
    with ThreadPoolExecutor() as pool:
        without, asked = pool.map(
            lambda lines: space.profiled(pod, sampling={"commandLines": lines}), [False, True]
        )
    assert "hunter2" not in space.result(without)
    assert "hunter2" in space.result(asked)
    assert samples_in(space.stacks(without), "handle_request") > 0


def test_ttl_removes_profile_and_result(space):
    pod = space.pod("busy_threads.py")
    name = space.apply(
        pod, duration="1s", ttlSecondsAfterFinished=2, output={"configMap": {"name": "short"}}
    )
    kept = space.apply(pod, duration="1s", output={"configMap": {"name": "long"}})
    space.completed(kept)

    def names():
        listed = space.custom.list_namespaced_custom_object(GROUP, VERSION, space.name, PLURAL)
        return [i["metadata"]["name"] for i in listed["items"]]

    wait_for("removal of the profile", lambda: name not in names(), timeout=30)

    def is_gone():
        listed = space.core.list_namespaced_config_map(space.name).items
        return "short" not in [c.metadata.name for c in listed]

    wait_for("removal of its result", is_gone)
    assert kept in names()
    assert space.core.read_namespaced_config_map("long", space.name)


@both_engines
def test_job_is_confined(space):
    """What the Job may do is what api.md promises, and its Pod holds no rights."""
    name = space.apply(space.pod("busy_threads.py", node=1), duration="3s")
    profile = space.running(name)
    (job,) = space.jobs(profile)
    spec = job.spec.template.spec
    (container,) = spec.containers
    security = container.security_context
    assert (security.run_as_user, security.privileged) == (0, False)
    assert security.allow_privilege_escalation is False and security.read_only_root_filesystem
    assert security.capabilities.drop == ["ALL"] and security.capabilities.add == ["SYS_PTRACE"]
    assert security.seccomp_profile.type == "RuntimeDefault"
    assert spec.host_pid and not spec.host_network and not spec.host_ipc
    assert spec.automount_service_account_token is False
    assert [v for v in spec.volumes if v.host_path] == []
    assert (job.spec.backoff_limit, spec.restart_policy) == (0, "Never")
    assert job.spec.active_deadline_seconds > 3
    assert spec.node_name == "node1"
    requests, limits = container.resources.requests, container.resources.limits
    assert requests == {"cpu": "20m", "memory": "48Mi"}
    assert limits == {"cpu": "500m", "memory": "256Mi"}
    (runner,) = space.runner_pods(profile)
    review = client.AuthorizationV1Api(space.k8s).create_subject_access_review(
        {
            "spec": {
                "user": f"system:serviceaccount:{runner.metadata.namespace}:pyspy-runner",
                "resourceAttributes": {"verb": "*", "resource": "*", "namespace": space.name},
            }
        }
    )
    assert not review.status.allowed
    space.completed(name)


def test_profiles_on_a_cordoned_node(space, k8s):
    pod = space.pod("busy_threads.py", node=2)
    kubectl("cordon", "node2")
    try:
        space.profiled(pod, duration="1s")
    finally:
        kubectl("uncordon", "node2")


def test_explain_reads_like_documentation(k8s):
    text = kubectl("explain", "pyspyprofile.spec.target")
    for word in ("podName", "podUID", "container", "process", "UID that the Pod must have"):
        assert word in text
