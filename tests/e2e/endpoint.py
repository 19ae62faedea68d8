"""A client of the result endpoint, such as the runner is one and such as an attacker would be."""

import base64
import hashlib
import http.client
import json
import socket
import ssl

import kit
from kubernetes import client

AUDIENCE = "pyspy-results"
HOST = f"pyspy-controller.{kit.SYSTEM}.svc"


class Endpoint:
    """Of one controller Pod; reached from the host by its address, checked by its name."""

    def __init__(self, k8s, address):
        self.address = address
        secret = client.CoreV1Api(k8s).read_namespaced_secret("pyspy-results-tls", kit.SYSTEM)
        self.tls = ssl.create_default_context(
            cadata=base64.b64decode(secret.data["ca.crt"]).decode()
        )

    def connect(self, timeout=10):
        plain = socket.create_connection((self.address, 8443), timeout)
        return self.tls.wrap_socket(plain, server_hostname=HOST)

    def post(self, path, body, token=None, headers=None):
        """(status, answer); what the HTTP server refuses by itself has a text as its answer."""
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.connect(30)
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("POST", path, body, bearer | (headers or {}))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.headers["Content-Type"] != "application/json":
            return answer.status, text.decode()
        return answer.status, json.loads(text)


def path_of(profile):
    meta = profile["metadata"]
    return f"/v1/results/{meta['namespace']}/{meta['name']}/{meta['uid']}"


def token_for(k8s, pod=None, account="pyspy-runner", namespace=kit.SYSTEM, audience=AUDIENCE):
    spec = {"audiences": [audience], "expirationSeconds": 600}
    if pod:
        spec["boundObjectRef"] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        }
    answer = client.CoreV1Api(k8s).create_namespaced_service_account_token(
        account, namespace, {"spec": spec}
    )
    return answer.status.token


def upload(content=b"main (app.py:1) 7\n", **changes):
    """A body as the runner sends it."""
    if isinstance(content, str):
        content = content.encode()
    file = {
        "format": "raw",
        "key": "raw.txt",
        "mediaType": "text/plain; charset=utf-8",
        "encoding": "",
        "sizeBytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content": content.decode(),
    }
    return json.dumps({"version": 1, "files": [file | changes]}).encode()
