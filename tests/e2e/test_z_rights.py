"""Last of all: the rights that the controller has are those that it used in the tests before.

The audit log of the API server (hack/cluster.d/audit-policy.yaml) is the witness."""

import json
from datetime import datetime

import kit
import pytest
import yaml

pytestmark = pytest.mark.serial

USER = f"system:serviceaccount:{kit.SYSTEM}:pyspy-controller"


@pytest.fixture(scope="module")
def asked(suite_started):
    """Every request of the operator since the suite began."""
    requests = []
    for file in sorted((kit.cluster_folder() / "logs").glob("audit*.log")):
        for line in file.read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] == USER and event.get("objectRef"):
                seen = datetime.fromisoformat(event["requestReceivedTimestamp"])
                if seen.timestamp() >= suite_started:
                    requests.append(event)
    assert len(requests) > 50, "the tests before this one have not run"
    return requests


def granted():
    """(group, resource, verb, namespace or None, names or None) of manifests/base/rbac.yaml."""
    documents = yaml.safe_load_all((kit.ROOT / "manifests/base/rbac.yaml").read_text())
    for document in documents:
        for rule in document.get("rules", []) if document else []:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        namespace = kit.SYSTEM if document["kind"] == "Role" else None
                        yield group, resource, verb, namespace, rule.get("resourceNames")


def is_use_of(event, right):
    group, resource, verb, namespace, names = right
    reference = event["objectRef"]
    asked_for = reference["resource"]
    if "subresource" in reference:
        asked_for += f"/{reference['subresource']}"
    return (
        reference.get("apiGroup", "") == group
        and asked_for == resource
        and event["verb"] == verb
        and (namespace is None or reference.get("namespace") == namespace)
        and (names is None or reference.get("name") in names)
    )


def only_by_role(right):
    """A right that a Role gives beside a ClusterRole counts as used in the Role's namespace."""
    return right[3] is None


def test_every_right_is_used(asked):
    roles = [right for right in granted() if not only_by_role(right)]
    unused = []
    for right in granted():
        uses = [event for event in asked if is_use_of(event, right)]
        if only_by_role(right):
            # What a Role would have allowed does not need the cluster-wide right.
            uses = [e for e in uses if not any(is_use_of(e, role) for role in roles)]
        if not uses:
            unused.append(right)
    assert not unused, f"never used: {unused}"


def test_nothing_was_forbidden(asked):
    forbidden = {
        (e["verb"], e["objectRef"]["resource"], e["objectRef"].get("namespace"))
        for e in asked
        if e["responseStatus"]["code"] == 403
        # A namespace that is being removed takes nothing new, whoever asks.
        and "being terminated" not in e["responseStatus"].get("message", "")
        # An API server that was just restarted may answer before it has read the roles.
        and not any(is_use_of(e, right) for right in granted())
    }
    assert forbidden == set()
