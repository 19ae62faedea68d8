"""The result endpoint against those who have no business there, while a profile runs and after."""

import base64
import contextlib
import hashlib
import json
import os
import ssl
import time

import kit
import pytest
from endpoint import Endpoint, path_of, token_for, upload
from kit import wait_for
from kubernetes import client


@pytest.fixture
def endpoint(k8s, operator):
    return Endpoint(k8s, operator.controller_pod().status.pod_ip)


@pytest.fixture
def running(space):
    """A profile that runs for as long as its test wants to."""
    name = space.apply(space.pod("busy_threads.py"), duration="10m")
    return space.running(name)


def runner_of(space, profile):
    (runner,) = space.runner_pods(profile)
    return runner


def test_who_may_not(space, k8s, endpoint, running):
    """Without the token of exactly this profile's Pod nothing is stored."""
    other = space.running(space.apply(space.pod("busy_threads.py"), duration="10m"))
    runner = runner_of(space, running)
    wait_for("account", space.has_account)
    cases = {
        "no token": (None, 401),
        "garbage": ("x.y.z", 401),
        "a very long one": ("a" * 9000, 401),
        "no header value": ("", 401),
        "another account": (token_for(k8s, None, "default", space.name), 401),
        "the controller's": (token_for(k8s, None, "pyspy-controller"), 401),
        "another audience": (token_for(k8s, runner, audience="other"), 401),
        "the API server's": (
            token_for(k8s, runner, audience="https://kubernetes.default.svc.cluster.local"),
            401,
        ),
        "of no Pod": (token_for(k8s), 403),
        "another profile's Pod": (token_for(k8s, runner_of(space, other)), 403),
    }
    answers = {
        name: endpoint.post(path_of(running), upload(), token) for name, (token, _) in cases.items()
    }
    assert {n: status for n, (status, _) in answers.items()} == {
        n: status for n, (_, status) in cases.items()
    }
    assert all(a["kind"] == "Status" and a["message"] for _, a in answers.values())
    maps = [m.metadata.name for m in space.core.list_namespaced_config_map(space.name).items]
    assert maps == ["kube-root-ca.crt"]
    assert space.profile(running["metadata"]["name"])["status"]["phase"] == "Running"


def test_where_there_is_nothing(space, k8s, endpoint, running):
    token = token_for(k8s, runner_of(space, running))
    meta = running["metadata"]
    unknown = f"/v1/results/{meta['namespace']}/{meta['name']}/{'0' * 36}"
    renamed = f"/v1/results/{meta['namespace']}/other/{meta['uid']}"
    assert endpoint.post(unknown, upload(), token)[0] == 404
    assert endpoint.post(renamed, upload(), token)[0] == 404
    for path in ("/", "/metrics", "/v1/results/a/b", "/v1/results/../../x", "/v1/results/a/b/c/d"):
        assert endpoint.post(path, upload(), token)[0] in (400, 404), path


GARBAGE = {
    "not json": (b"\x00\xff\xfe garbage", "Invalid"),
    "another document": (b"[]", "Invalid"),
    "deep": (b"[" * 100000, "ResultTooLarge"),
    "no files": (b'{"version": 1, "files": []}', "Invalid"),
    "0 bytes": (upload(b""), "Invalid"),
    "another size": (upload(sizeBytes=3), "Invalid"),
    "another hash": (upload(sha256="0" * 64), "Invalid"),
    "hostile key": (upload(key="../../etc/passwd"), "Invalid"),
    "not asked for": (upload(format="flamegraph", mediaType="image/svg+xml"), "Invalid"),
    "script": (upload(mediaType="text/html"), "Invalid"),
    "no base64": (upload(encoding="gzip"), "Invalid"),
    "1.5 MiB": (upload(b"x" * (3 << 19)), "ResultTooLarge"),
    "5 MiB": (upload(b"x" * (5 << 20)), None),
}


def test_what_is_not_a_result(space, k8s, endpoint, running):
    """Refused with a reason, each of them, although the token is right."""
    token = token_for(k8s, runner_of(space, running))
    wrong = {}
    for name, (body, reason) in GARBAGE.items():
        # Of a body that is too large in any case not all is read.
        may_cut = contextlib.suppress(OSError) if reason is None else contextlib.nullcontext()
        with may_cut:
            status, answer = endpoint.post(path_of(running), body, token)
            told = answer["reason"] if isinstance(answer, dict) else None
            expected = 422 if reason == "Invalid" else 413
            if (status, told) != (expected, reason) or not answer:
                wrong[name] = (status, answer)
    assert wrong == {}
    maps = [m.metadata.name for m in space.core.list_namespaced_config_map(space.name).items]
    assert maps == ["kube-root-ca.crt"]


def test_gzip_result(space, k8s, endpoint, running):
    """What the runner does with large results: bytes arrive as they were sent."""
    content = os.urandom(600_000)
    body = json.loads(upload())
    body["files"][0] |= {
        "key": "raw.txt.gz",
        "encoding": "gzip",
        "sizeBytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content": base64.b64encode(content).decode(),
    }
    token = token_for(k8s, runner_of(space, running))
    status, receipt = endpoint.post(path_of(running), json.dumps(body).encode(), token)
    assert status == 200, receipt
    stored = space.core.read_namespaced_config_map(receipt["name"], space.name)
    assert base64.b64decode(stored.binary_data["raw.txt.gz"]) == content
    assert stored.metadata.owner_references[0].uid == running["metadata"]["uid"]
    # Handed in again, as after a lost answer: the same object, no second one.
    status, again = endpoint.post(path_of(running), json.dumps(body).encode(), token)
    assert (status, again["name"], again["mac"]) == (200, receipt["name"], receipt["mac"])


def test_a_receipt_is_of_what_was_stored(space, k8s, endpoint, running):
    token = token_for(k8s, runner_of(space, running))
    receipts = [
        endpoint.post(path_of(running), upload(text), token)[1] for text in ("a 1\n", "b 2\n")
    ]
    assert all(len(r["mac"]) == 64 and r["kind"] == "ConfigMap" for r in receipts)
    assert receipts[0]["mac"] != receipts[1]["mac"]
    assert "content" not in receipts[0]["files"][0]


def test_slow_and_oversized_clients_disturb_nobody(space, k8s, endpoint, running):
    """Fifty connections that dawdle, some promising gigabytes: a profile completes beside them."""
    path = path_of(running)
    heads = [
        b"",
        b"POST ",
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Slow: ".encode(),
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000000\r\n\r\n".encode(),
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
        f"Content-Length: 1000000\r\n\r\n{{".encode(),
        b"\x16\x03\x01" + os.urandom(200),
    ]
    sockets = []
    try:
        for i in range(48):
            s = endpoint.connect()
            s.sendall(heads[i % len(heads)])
            sockets.append(s)
        space.profiled(space.pod("busy_threads.py"), duration="1s")
        # Those are not kept for ever.
        sockets[0].settimeout(60)
        with contextlib.suppress(OSError):
            assert sockets[0].recv(100) == b""
    finally:
        for s in sockets:
            s.close()
    assert space.profile(running["metadata"]["name"])["status"]["phase"] == "Running"


def test_requests_that_are_no_http(space, k8s, endpoint, operator):
    before = operator.controller_pod().status.container_statuses[0].restart_count
    hostile = [
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"A" * 100_000,
        b"POST /v1/results/a/b/c HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/results/a/b/c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        b"\x00" * 4096,
    ]
    for text in hostile:
        s = endpoint.connect(15)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            s.sendall(text)
            answer = s.recv(1000)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
        s.close()
    pod = operator.controller_pod()
    assert pod.status.container_statuses[0].restart_count == before
    status, _ = endpoint.post("/v1/results/a/b/c", upload())
    assert status == 401


def test_metrics_and_probes(k8s, operator):
    """What is served without a token shows nothing of a user's, and answers at once."""
    core = client.CoreV1Api(k8s)
    name = operator.controller_pod().metadata.name

    def get(path):
        return core.connect_get_namespaced_pod_proxy_with_path(
            f"{name}:8080", kit.SYSTEM, path, _preload_content=False
        ).data.decode()

    began = time.monotonic()
    assert "ok" in get("healthz") and "ok" in get("readyz")
    metrics = get("metrics")
    assert time.monotonic() - began < 5
    for metric in (
        'leader_election_master_status{name="pyspy-controller"} 1',
        "controller_runtime_reconcile_total{",
        "workqueue_depth{",
        "rest_client_requests_total{",
        "pyspy_api_requests_total{",
        "process_resident_memory_bytes ",
    ):
        assert metric in metrics, metric
