"""The CustomResourceDefinition by itself: what the API server refuses, defaults, selects and shows.

The tables in crd_cases/ are tried with strict field validation, as kubectl does, and as dry runs,
so that no operator starts to work on them."""

import json
from pathlib import Path

import pytest
import yaml
from kubernetes import client, watch

GROUP, VERSION, PLURAL = "profiling.pyspy.dev", "v1alpha1", "pyspyprofiles"
NAME = f"{PLURAL}.{GROUP}"
CASES = Path(__file__).parent / "crd_cases"
UNFINISHED = "status.phase!=Completed,status.phase!=Failed,status.phase!=Cancelled"


def table(file):
    documents = list(yaml.safe_load_all((CASES / file).read_text()))
    assert len({d["metadata"]["name"] for d in documents}) == len(documents)
    return [pytest.param(d, id=d["metadata"]["name"]) for d in documents]


def profile(name, **spec):
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PySpyProfile",
        "metadata": {"name": name},
        "spec": {"target": {"podName": "web-0"}, **spec},
    }


def create(k8s, namespace, body, **options):
    return client.CustomObjectsApi(k8s).create_namespaced_custom_object(
        GROUP, VERSION, namespace, PLURAL, body, field_validation="Strict", **options
    )


def patch_status(k8s, namespace, name, status):
    return client.CustomObjectsApi(k8s).patch_namespaced_custom_object_status(
        GROUP, VERSION, namespace, PLURAL, name, {"status": status}
    )


def refusal(error):
    """(HTTP status, [(field, message), ...]) of an answer that refuses a request."""
    status = json.loads(error.body)
    causes = (status.get("details") or {}).get("causes") or [{"message": status["message"]}]
    return error.status, [(c.get("field"), c["message"]) for c in causes]


def expect_refused(error, field, text):
    code, causes = refusal(error)
    assert code == (422 if field else 400), causes
    assert any(f == field and text in message for f, message in causes), causes


@pytest.mark.parametrize("body", table("accepted.yaml"))
def test_accepted(k8s, body):
    # A field that the schema does not know would be missing from the answer.
    answer = create(k8s, "default", body, dry_run="All")
    assert contains(answer["spec"], body["spec"])


def contains(whole, part):
    if isinstance(part, dict):
        return all(k in whole and contains(whole[k], v) for k, v in part.items())
    return whole == part


@pytest.mark.parametrize("body", table("refused.yaml"))
def test_refused(k8s, body):
    expected = body["metadata"].pop("annotations")
    with pytest.raises(client.ApiException) as caught:
        create(k8s, "default", body, dry_run="All")
    expect_refused(caught.value, expected.get("test/field"), expected["test/text"])


def test_change(k8s, namespace):
    before = profile(
        "changing",
        sampling={"duration": "45s"},
        formats=["flamegraph", "raw"],
        startDeadlineSeconds=60,
    )
    create(k8s, namespace, before)
    wrong = {}
    for case in yaml.safe_load((CASES / "changes.yaml").read_text()):
        try:
            patch(k8s, namespace, "changing", {"spec": case["spec"]}, dry_run="All")
            if "text" in case:
                wrong[case["name"]] = "accepted"
        except client.ApiException as error:
            _, causes = refusal(error)
            if "text" not in case or not any(
                f == case["field"] and case["text"] in message for f, message in causes
            ):
                wrong[case["name"]] = causes
    assert wrong == {}


def patch(k8s, namespace, name, body, **options):
    return client.CustomObjectsApi(k8s).patch_namespaced_custom_object(
        GROUP, VERSION, namespace, PLURAL, name, body, field_validation="Strict", **options
    )


def test_cancel_is_final(k8s, namespace):
    create(k8s, namespace, profile("cancelled"))
    patch(k8s, namespace, "cancelled", {"spec": {"cancel": True}})
    for again in (False, None):
        with pytest.raises(client.ApiException) as caught:
            patch(k8s, namespace, "cancelled", {"spec": {"cancel": again}})
        expect_refused(caught.value, "spec.cancel", "a cancelled profile cannot be resumed")


def test_defaults(k8s):
    answer = create(k8s, "default", profile("defaults"), dry_run="All")
    assert answer["spec"] == {
        "target": {"podName": "web-0", "process": {"select": "Oldest"}},
        "sampling": {
            "duration": "30s",
            "rate": 100,
            "subprocesses": True,
            "native": False,
            "gil": False,
            "idle": False,
            "nonblocking": False,
            "threads": False,
            "functions": False,
            "asyncTasks": False,
            "engine": "Auto",
            "commandLines": False,
        },
        "formats": ["flamegraph"],
        "output": {"configMap": {}},
        "cancel": False,
        "startDeadlineSeconds": 120,
        "ttlSecondsAfterFinished": 604800,
    }


def test_partial_parents_get_the_other_defaults(k8s):
    body = profile("partial", sampling={"rate": 7})
    body["spec"]["target"]["process"] = {"pid": 1}
    spec = create(k8s, "default", body, dry_run="All")["spec"]
    assert (spec["sampling"]["rate"], spec["sampling"]["duration"]) == (7, "30s")
    assert spec["target"]["process"] == {"pid": 1, "select": "Oldest"}


def test_phase_is_pending_without_a_write(k8s, namespace):
    created = create(k8s, namespace, profile("fresh"))
    assert created["status"] == {"phase": "Pending"}
    # Exactly that version, so that an operator at work cannot have written yet.
    listed = client.CustomObjectsApi(k8s).list_namespaced_custom_object(
        GROUP,
        VERSION,
        namespace,
        PLURAL,
        field_selector=UNFINISHED,
        resource_version=created["metadata"]["resourceVersion"],
        resource_version_match="Exact",
    )
    assert [(i["metadata"]["name"], i["status"]) for i in listed["items"]] == [
        ("fresh", {"phase": "Pending"})
    ]
    assert listed["items"][0]["metadata"]["uid"] == created["metadata"]["uid"]
    assert all(
        m.get("subresource") != "status" for m in listed["items"][0]["metadata"]["managedFields"]
    )


def test_status_of_the_creator_is_ignored(k8s):
    body = profile("forged") | {"status": {"phase": "Completed", "samples": 1}}
    assert create(k8s, "default", body, dry_run="All")["status"] == {"phase": "Pending"}


def test_watch_under_the_selector(k8s, namespace):
    api = client.CustomObjectsApi(k8s)
    empty = api.list_namespaced_custom_object(
        GROUP, VERSION, namespace, PLURAL, field_selector=UNFINISHED
    )
    for name in ("one", "two"):
        create(k8s, namespace, profile(name))
    patch_status(k8s, namespace, "two", {"phase": "Completed"})
    seen = []
    for event in watch.Watch().stream(
        api.list_namespaced_custom_object,
        GROUP,
        VERSION,
        namespace,
        PLURAL,
        field_selector=UNFINISHED,
        resource_version=empty["metadata"]["resourceVersion"],
        timeout_seconds=15,
    ):
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if seen[-1][0] == "ADDED":
            assert event["object"]["status"] == {"phase": "Pending"}
        if seen[-1] == ("DELETED", "two"):
            break
    assert ("ADDED", "one") in seen and ("ADDED", "two") in seen
    assert seen[-1] == ("DELETED", "two"), seen
    # It left the selection, not the cluster.
    two = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, "two")
    assert two["status"]["phase"] == "Completed"


def test_select_by_phase_and_pod(k8s, namespace):
    for name, pod in (("one", "web-0"), ("two", "web-1")):
        create(k8s, namespace, profile(name, target={"podName": pod}))
    patch_status(k8s, namespace, "two", {"phase": "Completed"})

    def names(selector):
        listed = client.CustomObjectsApi(k8s).list_namespaced_custom_object(
            GROUP, VERSION, namespace, PLURAL, field_selector=selector
        )
        return [i["metadata"]["name"] for i in listed["items"]]

    assert names("status.phase=Completed") == ["two"]
    assert names("spec.target.podName=web-0") == ["one"]
    assert names("spec.target.podName=web-0,status.phase=Completed") == []
    with pytest.raises(client.ApiException) as caught:
        names("spec.sampling.rate=100")
    assert caught.value.status == 400


FULL_STATUS = {
    "observedGeneration": 1,
    "phase": "Completed",
    "reason": "",
    "message": "",
    "startTime": "2024-01-02T03:04:05Z",
    "completionTime": "2024-01-02T03:04:36Z",
    "summary": "1/1",
    "samples": 2987,
    "targets": [
        {
            "podName": "web-0",
            "podUID": "1b0d1c7e-6f3a-4b52-9c57-0f2f8f3a9a11",
            "nodeName": "node1",
            "container": "app",
            "jobName": "pyspy-1b0d1c7e",
            "phase": "Completed",
            "reason": "",
            "message": "",
            "engine": "PySpy",
            "engineReason": "UnsupportedPython",
            "engineMessage": "Python 3.7.16 is not supported (3.8 to 3.14 are)",
            "accuracy": "GILOnly",
            "processes": [
                {
                    "hostPID": 31245,
                    "pid": 7,
                    "command": "gunicorn: worker [app]",
                    "pythonVersion": "3.11.2",
                    "engine": "Native",
                    "samples": 2987,
                    "errors": 0,
                    "late": 3,
                    "held": 2,
                }
            ],
            "cost": {"cpuSeconds": "0.41", "maxMemoryBytes": 7340032},
        }
    ],
    "results": [
        {
            "target": "web-0",
            "format": "flamegraph",
            "mediaType": "image/svg+xml",
            "encoding": "",
            "sizeBytes": 48213,
            "sha256": "0" * 64,
            "configMapKeyRef": {"name": "full-1a2b3c", "key": "flamegraph.svg"},
        }
    ],
    "conditions": [
        {
            "type": "Complete",
            "status": "True",
            "reason": "Completed",
            "message": "",
            "lastTransitionTime": "2024-01-02T03:04:36Z",
            "observedGeneration": 1,
        }
    ],
}


def test_status_keeps_every_field(k8s, namespace):
    create(k8s, namespace, profile("full"))
    assert patch_status(k8s, namespace, "full", FULL_STATUS)["status"] == FULL_STATUS


@pytest.mark.parametrize(
    "field, value, text",
    [
        ("phase", "Done", "Unsupported value"),
        ("reason", "no samples", "should match"),
        ("samples", -1, "greater than or equal to 0"),
        ("startTime", "now", "must be of type date-time"),
        ("conditions", FULL_STATUS["conditions"] * 2, "Duplicate value"),
        ("conditions", [FULL_STATUS["conditions"][0] | {"reason": ""}], "at least 1 chars"),
    ],
)
def test_status_refused(k8s, namespace, field, value, text):
    create(k8s, namespace, profile("bad"))
    with pytest.raises(client.ApiException) as caught:
        patch_status(k8s, namespace, "bad", FULL_STATUS | {field: value})
    code, causes = refusal(caught.value)
    assert code == 422
    assert any(f.startswith(f"status.{field}") and text in m for f, m in causes), causes


def test_columns(k8s, namespace):
    create(k8s, namespace, profile("full", formats=["flamegraph", "raw"]))
    result = {"target": "web-0", "format": "raw"}
    secret = {"secretKeyRef": {"name": "full-secret", "key": "raw.txt"}}
    for stored, shown in (
        (FULL_STATUS["results"][0], "full-1a2b3c"),
        (result | secret, "full-secret"),
    ):
        patch_status(
            k8s,
            namespace,
            "full",
            FULL_STATUS | {"results": [stored], "reason": "R", "message": "m"},
        )
        columns, row = as_table(k8s, namespace, "full")
        assert [c for c, priority in columns if priority == 0] == (
            "Name Target Node Phase Pods Samples Duration Age".split()
        )
        assert [
            c for c, priority in columns if priority == 1
        ] == "Formats Result Reason Message".split()
        cells = dict(zip((c for c, _ in columns), row, strict=True))
        assert cells.pop("Age")
        assert cells == {
            "Name": "full",
            "Target": "web-0",
            "Node": "node1",
            "Phase": "Completed",
            "Pods": "1/1",
            "Samples": 2987,
            "Duration": "30s",
            "Formats": '["flamegraph","raw"]',
            "Result": shown,
            "Reason": "R",
            "Message": "m",
        }


def as_table(k8s, namespace, name):
    """The columns (name, priority) and cells that kubectl get prints."""
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    tables = client.ApiClient(k8s.configuration, header_name="Accept", header_value=accept)
    answer = client.CustomObjectsApi(tables).get_namespaced_custom_object(
        GROUP, VERSION, namespace, PLURAL, name
    )
    columns = [(c["name"], c["priority"]) for c in answer["columnDefinitions"]]
    return columns, answer["rows"][0]["cells"]


def schema_of(k8s):
    crd = client.ApiextensionsV1Api(k8s).read_custom_resource_definition(NAME)
    version = next(v for v in crd.spec.versions if v.name == VERSION)
    return k8s.sanitize_for_serialization(version.schema.open_apiv3_schema)


def walk(schema, path=""):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def test_every_field_is_described_and_bounded(k8s):
    wrong = []
    for path, schema in walk(schema_of(k8s)):
        if path.startswith((".apiVersion", ".kind", ".metadata")):
            continue
        if not path.endswith("[]") and not schema.get("description"):
            wrong.append(f"{path}: no description")
        if schema["type"] == "string" and not {"maxLength", "enum", "format"} & schema.keys():
            wrong.append(f"{path}: unbounded string")
        if schema["type"] == "array" and "maxItems" not in schema:
            wrong.append(f"{path}: unbounded list")
        if schema["type"] == "integer" and "minimum" not in schema:
            wrong.append(f"{path}: integer without a minimum")
    assert wrong == []


def test_default_and_description_agree(k8s):
    """Each default of a leaf of the spec stands in its description, which people read."""
    for path, schema in walk(schema_of(k8s)):
        if path.startswith(".spec.") and "default" in schema and schema["type"] != "object":
            default = schema["default"]
            if isinstance(default, list):
                text = f"[{', '.join(default)}]"
            else:
                text = str(default).lower() if isinstance(default, bool) else str(default)
            assert f"Default: {text}" in schema["description"], path


def test_short_name_and_categories(k8s):
    names = client.ApiextensionsV1Api(k8s).read_custom_resource_definition(NAME).spec.names
    assert names.short_names == ["pyspy"]
    assert names.categories == ["all", "profiling"]
