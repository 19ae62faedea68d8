"""What the tests share: a namespace of targets and profiles, the operator, waiting, and results."""

import base64
import gzip
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import node
import pytest
import yaml
from kubernetes import client
from kubernetes.stream import stream

ROOT = Path(__file__).resolve().parents[2]
# As hack/lib.sh has it.
CACHE = Path(
    os.environ.get("PYSPY_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyspy-operator"
)
GROUP, VERSION, PLURAL = "profiling.pyspy.dev", "v1alpha1", "pyspyprofiles"
SYSTEM = "pyspy-system"
TARGETS = "localhost/pyspy-targets:dev"
FINAL = ("Completed", "Failed", "Cancelled")
both_engines = pytest.mark.parametrize("engine", ["Native", "PySpy"], indirect=True)
# Which threads each of them counts in the tests' cluster, whose Jobs hold SYS_PTRACE alone.
ACCURACY = {"Native": "Full", "PySpy": "GILOnly"}
# 2 cores and a dozen Pods at work: what takes a second alone may take ten.
PATIENCE = 60


def wait_for(what, probe, timeout=PATIENCE, every=0.15):
    """What probe() returns once it is true; AssertionError with `what` and the last answer."""
    end = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {timeout} s; last: {answer!r}")
        time.sleep(every)


def run(*command, check=True, timeout=150, **options):
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=timeout, **options
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*arguments, **options):
    return run("kubectl", *arguments, **options)


def cluster(*arguments):
    """hack/cluster, on the cluster of KUBECONFIG."""
    name = Path(os.environ["KUBECONFIG"]).parent.name
    return run(ROOT / "hack/cluster", *arguments, env=os.environ | {"PYSPY_CLUSTER_NAME": name})


def cluster_folder():
    return Path(os.environ["KUBECONFIG"]).parent


def host_address():
    """Where this machine is reached from Pods: beside the API server."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    return config["clusters"][0]["cluster"]["server"].split("//")[1].rpartition(":")[0]


def ignore_missing(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except client.ApiException as error:
        if error.status != 404:
            raise
        return None


class Pod:
    """A target: a Pod whose containers print `ready` when they do what they are for."""

    def __init__(self, k8s, created):
        self.k8s = k8s
        self.core = client.CoreV1Api(k8s)
        self.name, self.namespace = created.metadata.name, created.metadata.namespace
        self.uid = created.metadata.uid

    def read(self):
        return self.core.read_namespaced_pod(self.name, self.namespace)

    def status(self, container="app"):
        statuses = self.read().status.container_statuses or []
        return next((s for s in statuses if s.name == container), None)

    def wait_until_ready(self, container="app"):
        def is_ready():
            status = self.status(container)
            if not status or not status.started:
                return status and status.state
            return "ready" in self.core.read_namespaced_pod_log(
                self.name, self.namespace, container=container
            )

        wait_for(f"`ready` of {self.name}", lambda: is_ready() is True)
        return self

    def processes(self, container="app"):
        return node.processes(self.status(container).container_id.partition("://")[2])

    def python(self, container="app"):
        return [p for p in self.processes(container) if p.name.startswith("python")]

    def exec(self, *command, container="app"):
        return stream(
            self.core.connect_get_namespaced_pod_exec,
            self.name,
            self.namespace,
            container=container,
            command=list(command),
            stdout=True,
            stderr=True,
        )

    def delete(self):
        self.core.delete_namespaced_pod(self.name, self.namespace, grace_period_seconds=0)


def target_container(*command, name="app", **more):
    """command: a script of tests/targets with its arguments, or a program by its absolute path."""
    command = [str(c) for c in command]
    if not command[0].startswith("/"):
        interpreter = "sh" if command[0].endswith(".sh") else "python3"
        command = [interpreter, f"/targets/{command[0]}", *command[1:]]
    return {
        "name": name,
        "image": TARGETS,
        "imagePullPolicy": "Never",
        "command": command,
        # A busy target must not take the machine from the other tests.
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "250m"}},
    } | more


class Space:
    """A namespace with targets and profiles in it, which `engine` samples."""

    def __init__(self, k8s, name, engine="Auto"):
        self.k8s, self.name, self.engine = k8s, name, engine
        self.core = client.CoreV1Api(k8s)
        self.custom = client.CustomObjectsApi(k8s)

    # --- targets

    def start(self, *command, name=None, node=None, containers=None, metadata=None, **spec):
        """A target Pod that may not run yet; node: 1, 2 or None for any."""
        name = name or f"target-{uuid.uuid4().hex[:6]}"
        containers = containers or [target_container(*command)]
        body = {
            "metadata": {"name": name} | (metadata or {}),
            "spec": {
                "containers": containers,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "restartPolicy": "Never",
            }
            | ({"nodeName": f"node{node}"} if node else {})
            | spec,
        }
        # The account's controller may still be on its way in a namespace made a moment ago.
        wait_for("default account of the namespace", self.has_account)
        return Pod(self.k8s, self.core.create_namespaced_pod(self.name, body))

    def has_account(self):
        return ignore_missing(self.core.read_namespaced_service_account, "default", self.name)

    def pod(self, *command, **options):
        return self.start(*command, **options).wait_until_ready()

    # --- profiles

    def apply(self, pod, name=None, duration="2s", target=None, sampling=None, **spec):
        """Creates a PySpyProfile of a Pod (or of a Pod's name) and returns its name."""
        name = name or f"profile-{uuid.uuid4().hex[:6]}"
        pod_name = pod if isinstance(pod, str) else pod.name
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "PySpyProfile",
            "metadata": {"name": name},
            "spec": {
                "target": {"podName": pod_name} | (target or {}),
                "sampling": {"duration": duration, "engine": self.engine} | (sampling or {}),
                "formats": ["raw"],
            }
            | spec,
        }
        self.custom.create_namespaced_custom_object(
            GROUP, VERSION, self.name, PLURAL, body, field_validation="Strict"
        )
        return name

    def profile(self, name):
        found = self.custom.get_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name)
        # Empty texts are left out.
        found["status"] = {"reason": "", "message": ""} | found["status"]
        for result in found["status"].get("results", []):
            result.setdefault("encoding", "")
        return found

    def patch(self, name, spec):
        return self.custom.patch_namespaced_custom_object(
            GROUP, VERSION, self.name, PLURAL, name, {"spec": spec}
        )

    def delete(self, name):
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name)

    def wait(self, name, what, probe, timeout=PATIENCE):
        """The profile once probe(status) is true."""
        last = {}

        def look():
            last.update(profile=self.profile(name))
            return probe(last["profile"]["status"])

        try:
            wait_for(f"{what} of {name}", look, timeout)
        except AssertionError as error:
            status = json.dumps(last["profile"]["status"], indent=1)
            raise AssertionError(f"{error}\n{status}") from None
        return last["profile"]

    def running(self, name, timeout=PATIENCE):
        return self.wait(name, "Running", lambda s: s.get("phase") == "Running", timeout)

    def finished(self, name, timeout=PATIENCE):
        return self.wait(name, "end", lambda s: s.get("phase") in FINAL, timeout)

    def completed(self, name, timeout=PATIENCE):
        profile = self.finished(name, timeout)
        assert profile["status"]["phase"] == "Completed", json.dumps(profile["status"], indent=1)
        assert engine_of(profile) == expected_engine(profile)
        return profile

    def failed(self, name, reason, *texts, timeout=PATIENCE):
        """Ends as Failed with that reason, and each text in the message for people."""
        profile = self.finished(name, timeout)
        status = profile["status"]
        assert (status["phase"], status["reason"]) == ("Failed", reason), json.dumps(
            status, indent=1
        )
        assert not [t for t in texts if t not in status["message"]], status["message"]
        conditions = conditions_of(profile)
        assert conditions["Failed"]["status"] == "True"
        assert conditions["Failed"]["reason"] == reason
        assert conditions["Complete"]["status"] == conditions["Ready"]["status"] == "False"
        return profile

    def profiled(self, pod, **options):
        """Applies and waits for Completed."""
        return self.completed(self.apply(pod, **options))

    # --- what a profile left

    def result(self, profile, format="raw"):
        """The content of a result, as text."""
        reference = next(r for r in profile["status"]["results"] if r["format"] == format)
        if "secretKeyRef" in reference:
            reference_to = reference["secretKeyRef"]
            data = self.core.read_namespaced_secret(reference_to["name"], self.name).data
            content = base64.b64decode(data[reference_to["key"]])
        else:
            reference_to = reference["configMapKeyRef"]
            stored = self.core.read_namespaced_config_map(reference_to["name"], self.name)
            if reference["encoding"]:
                content = base64.b64decode(stored.binary_data[reference_to["key"]])
            else:
                content = stored.data[reference_to["key"]].encode()
        assert len(content) == reference["sizeBytes"]
        if reference["encoding"] == "gzip":
            content = gzip.decompress(content)
        return content.decode()

    def stacks(self, profile):
        return folded(self.result(profile, "raw"))

    def events(self, name):
        listed = client.EventsV1Api(self.k8s).list_namespaced_event(
            self.name, field_selector=f"regarding.name={name}"
        )
        return sorted(listed.items, key=lambda e: e.event_time)

    def jobs(self, profile, namespace=SYSTEM):
        uid = profile["metadata"]["uid"]
        selector = f"{GROUP}/profile-uid={uid}"
        return (
            client.BatchV1Api(self.k8s)
            .list_namespaced_job(namespace, label_selector=selector)
            .items
        )

    def runner_pods(self, profile, namespace=SYSTEM):
        uid = profile["metadata"]["uid"]
        selector = f"{GROUP}/profile-uid={uid}"
        return self.core.list_namespaced_pod(namespace, label_selector=selector).items

    def samplers(self, profile, namespace=SYSTEM):
        """The processes that sample for it, on any node: py-spy, or the runner with its sampler."""
        pods = self.runner_pods(profile, namespace)
        found = [p for pod in pods for p in node.processes(pod.metadata.uid)]
        return [p for p in found if p.name == "py-spy" or "sampler" in p.threads()]


def folded(text):
    """{(outermost frame, …, innermost): samples} of folded stacks."""
    stacks = {}
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        stack = tuple(frames.split(";"))
        stacks[stack] = stacks.get(stack, 0) + int(count)
    return stacks


def samples_in(stacks, function):
    """How many samples have a frame of that function."""
    return sum(n for stack, n in stacks.items() if any(function in frame for frame in stack))


def engine_of(profile):
    (target,) = profile["status"]["targets"]
    return target["engine"], target["engineReason"]


def expected_engine(profile):
    """Of a target that both engines can sample."""
    sampling = profile["spec"]["sampling"]
    if sampling["engine"] != "Auto":
        return sampling["engine"], "Requested"
    return ("PySpy", "NativeStacks") if sampling["native"] else ("Native", "Preferred")


def conditions_of(profile):
    return {c["type"]: c for c in profile["status"]["conditions"]}


class Operator:
    """The controller that runs in the cluster."""

    def __init__(self, k8s):
        self.core, self.apps = client.CoreV1Api(k8s), client.AppsV1Api(k8s)

    def pods(self):
        listed = self.core.list_namespaced_pod(
            SYSTEM,
            label_selector="app.kubernetes.io/name=pyspy,app.kubernetes.io/component=controller",
        )
        return [p for p in listed.items if not p.metadata.deletion_timestamp]

    def controller_pod(self):
        (pod,) = self.pods()
        return pod

    def scale(self, replicas):
        self.apps.patch_namespaced_deployment_scale(
            "pyspy-controller", SYSTEM, {"spec": {"replicas": replicas}}
        )
        if replicas:
            kubectl(
                "-n", SYSTEM, "rollout", "status", "deployment/pyspy-controller", "--timeout=60s"
            )

        def settled():
            listed = self.core.list_namespaced_pod(
                SYSTEM, label_selector="app.kubernetes.io/component=controller"
            )
            return len(listed.items) == replicas

        wait_for(f"{replicas} controllers", settled)

    def configure(self, text):
        """Replaces its configuration (None: that of the overlay) and starts it anew."""
        if text is None:
            text = (ROOT / "manifests/overlays/test/config.yaml").read_text()
        deployment = self.apps.read_namespaced_deployment("pyspy-controller", SYSTEM)
        volume = next(v for v in deployment.spec.template.spec.volumes if v.name == "config")
        self.core.patch_namespaced_config_map(
            volume.config_map.name, SYSTEM, {"data": {"config.yaml": text}}
        )
        self.scale(0)
        self.scale(1)

    def kill_controller(self):
        """The power-cut way: its process gets SIGKILL, the kubelet starts it again."""
        pod = self.controller_pod()
        (process,) = [
            p for p in node.processes(pod.metadata.uid) if p.name.startswith("pyspy-contr")
        ]
        process.signal(9)

    def leader(self):
        lease = client.CoordinationV1Api(self.core.api_client).read_namespaced_lease(
            "pyspy-controller", SYSTEM
        )
        return lease.spec.holder_identity or ""
