"""Writes the JSON schema of every kind in Kubernetes' OpenAPI document, as kubeconform reads them.

openapi-to-jsonschema.py SWAGGER.json FOLDER

The schemas are strict: a field that the API does not know is an error, as `kubectl apply` with
strict field validation would say.
"""

import json
import pathlib
import sys

DEFINITIONS = "#/definitions/"


def rewritten(node):
    """A definition with references to the common file and no unknown fields."""
    if isinstance(node, list):
        return [rewritten(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: rewritten(value) for key, value in node.items()}
    reference = out.get("$ref")
    if isinstance(reference, str) and reference.startswith(DEFINITIONS):
        out["$ref"] = "_definitions.json" + reference
    if out.get("format") == "int-or-string":
        return {"oneOf": [{"type": "string"}, {"type": "integer"}]}
    if isinstance(out.get("properties"), dict) and "additionalProperties" not in out:
        out["additionalProperties"] = False
    return out


def main():
    swagger, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True)
    definitions = {}
    kinds = {}
    for name, definition in json.loads(swagger.read_text())["definitions"].items():
        preserve = definition.get("x-kubernetes-preserve-unknown-fields", False)
        schema = definition if preserve else rewritten(definition)
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if "metadata" not in schema.get("properties", {}):
                continue
            api = kind["group"] + "/" + kind["version"] if kind["group"] else kind["version"]
            short = kind["group"].split(".")[0]
            parts = (
                [kind["kind"], short, kind["version"]] if short else [kind["kind"], kind["version"]]
            )
            kinds["-".join(parts).lower() + ".json"] = {
                "allOf": [{"$ref": "_definitions.json" + DEFINITIONS + name}],
                "required": ["apiVersion", "kind"],
                "properties": {"apiVersion": {"enum": [api]}, "kind": {"enum": [kind["kind"]]}},
            }
        definitions[name] = schema
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for file, schema in kinds.items():
        (folder / file).write_text(json.dumps(schema))
    print(f"{len(kinds)} kinds")


if __name__ == "__main__":
    main()
