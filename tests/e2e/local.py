"""A controller as a process of this machine, in a namespace of its own. The cluster's operator is
off meanwhile: two that watch the same profiles would both work on them."""

import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import kit
import yaml
from kubernetes import client
from proxy import Proxy

PROGRAM = kit.ROOT / "build/release/controller/pyspy-controller"


def free_port():
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


class Local:
    """own: the namespace of the controller and its Jobs, made here; space: of the profiles."""

    def __init__(self, k8s, space, folder, own=None, before=None, after=None, **config):
        self.k8s, self.space, self.folder = k8s, space, Path(folder)
        self.core = client.CoreV1Api(k8s)
        self.rbac = client.RbacAuthorizationV1Api(k8s)
        self.is_guest = own is not None
        self.own = own or f"e2e-operator-{uuid.uuid4().hex[:8]}"
        self.process = None
        if not self.is_guest:
            self.make_namespace()
        self.proxy = Proxy(before, after)
        self.metrics_port = free_port()
        self.write_config(config)
        self.write_kubeconfig()

    # --- what an operator needs

    def make_namespace(self):
        labels = {"pod-security.kubernetes.io/enforce": "privileged"}
        self.core.create_namespace({"metadata": {"name": self.own, "labels": labels}})
        for account in ("pyspy-controller", "pyspy-runner"):
            self.core.create_namespaced_service_account(self.own, {"metadata": {"name": account}})
        role = self.rbac.read_namespaced_role("pyspy-controller", kit.SYSTEM)
        self.rbac.create_namespaced_role(
            self.own, {"metadata": {"name": "pyspy-controller"}, "rules": role.rules}
        )
        self.bind(self.rbac.create_namespaced_role_binding, "Role", "pyspy-controller", self.own)
        for name in ("pyspy-controller", "pyspy-controller-secret-results"):
            self.bind(self.rbac.create_cluster_role_binding, "ClusterRole", name)

    def bind(self, create, kind, name, *namespace):
        subject = {"kind": "ServiceAccount", "name": "pyspy-controller", "namespace": self.own}
        create(
            *namespace,
            {
                "metadata": {"name": f"{name}-{self.own}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": [subject],
            },
        )

    def write_config(self, more):
        port = free_port()
        config = yaml.safe_load((kit.ROOT / "manifests/overlays/test/config.yaml").read_text())
        config["results"] = {
            "listen": f"{kit.host_address()}:{port}",
            "url": f"https://{kit.host_address()}:{port}",
        }
        config["metrics"] = {"listen": f"127.0.0.1:{self.metrics_port}"}
        config["watchNamespaces"] = [self.space.name]
        config["leaderElection"] = {"enabled": False}
        for key, value in more.items():
            config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))

    def write_kubeconfig(self):
        token = self.core.create_namespaced_service_account_token(
            "pyspy-controller", self.own, {"spec": {"expirationSeconds": 3600}}
        ).status.token
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.proxy.port}"}}
            ],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(document))

    # --- its life

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.kill()
        self.proxy.close()
        if self.is_guest:
            return
        for name in ("pyspy-controller", "pyspy-controller-secret-results"):
            kit.ignore_missing(self.rbac.delete_cluster_role_binding, f"{name}-{self.own}")
        self.core.delete_namespace(self.own)

    @property
    def log_file(self):
        return self.folder / "controller.log"

    def log(self):
        return self.log_file.read_text() if self.log_file.exists() else ""

    def start(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("POD_", "KUBE"))}
        self.process = subprocess.Popen(
            [
                PROGRAM,
                f"--config={self.folder}/config.yaml",
                f"--kubeconfig={self.folder}/kubeconfig",
                f"--namespace={self.own}",
            ],
            env=environment | {"POD_NAME": f"local-{uuid.uuid4().hex[:6]}"},
            stderr=self.log_file.open("a"),
        )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """SIGTERM; (exit status, seconds it took)."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        return status, time.monotonic() - began

    def wait_for_log(self, text, timeout=20, after=0):
        kit.wait_for(f"{text!r} in the log", lambda: text in self.log()[after:], timeout, 0.05)
