#!/usr/bin/env python3
"""Writes openapi.json from the service model that the botocore package carries, and from extensions.json.

    pip install --upgrade botocore && python3 openapi/update.py

Names, types and constraints are taken over; documentation is not. `PATTERNS` gives an equal pattern for each one that only
Java's regular expressions can read; the published one stays beside it, because messages quote it.
"""

import gzip
import json
import pathlib

import botocore

HERE = pathlib.Path(__file__).parent
MODEL = "data/sagemaker/2017-07-24/service-2.json.gz"
MEDIA_TYPE = "application/x-amz-json-1.1"

OPERATIONS = [
    "CreateHyperParameterTuningJob",
    "DescribeHyperParameterTuningJob",
    "ListHyperParameterTuningJobs",
    "StopHyperParameterTuningJob",
    "DeleteHyperParameterTuningJob",
    "ListTrainingJobsForHyperParameterTuningJob",
    "DescribeTrainingJob",
    "ListTrainingJobs",
    "StopTrainingJob",
    "DeleteTrainingJob",
    "AddTags",
    "ListTags",
    "DeleteTags",
]

PATTERNS = {
    r"(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*\/)?([a-zA-Z0-9]([a-zA-Z0-9-]){0,62})(?<!-)":
        r"(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*\/)?[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?",
    r"arn:[\p{Alnum}\-]+:lambda:[\p{Alnum}\-]+:[0-9]{12}:function:.*":
        r"arn:[a-zA-Z0-9\-]+:lambda:[a-zA-Z0-9\-]+:[0-9]{12}:function:.*",
}

NUMBERS = {
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    # Seconds since the epoch, with a fraction.
    "timestamp": {"type": "number", "format": "unix-time"},
}


def reference(name):
    return {"$ref": f"#/components/schemas/{name}"}


def bounds(shape, low, high):
    """The shape's min and max under the names that JSON Schema has for its type."""
    return {key: shape[bound] for bound, key in (("min", low), ("max", high)) if bound in shape}


def portable(pattern):
    """The pattern such that every engine reads it as the service's does: there \\d and \\w mean ASCII."""
    return PATTERNS.get(pattern, pattern).replace(r"\d", "[0-9]").replace(r"\w", "[a-zA-Z0-9_]")


def schema(shape):
    kind = shape["type"]
    if kind == "structure":
        members = {name: reference(member["shape"]) for name, member in shape["members"].items()}
        out = {"type": "object", "properties": members}
        if shape.get("required"):
            out["required"] = shape["required"]
        return out | {"additionalProperties": False}
    if kind == "list":
        return {"type": "array", "items": reference(shape["member"]["shape"])} | bounds(shape, "minItems", "maxItems")
    if kind == "map":
        names, values = reference(shape["key"]["shape"]), reference(shape["value"]["shape"])
        out = {"type": "object", "propertyNames": names, "additionalProperties": values}
        return out | bounds(shape, "minProperties", "maxProperties")
    if kind == "string":
        out = {"type": "string"} | bounds(shape, "minLength", "maxLength")
        if "pattern" in shape:
            published = shape["pattern"]
            readable = portable(published)
            # The service means the whole string; JSON Schema means any part of it.
            out["pattern"] = f"^(?:{readable})$"
            if readable != published:
                out["x-published-pattern"] = published
        if "enum" in shape:
            out["enum"] = shape["enum"]
        return out
    if kind == "boolean":
        return {"type": "boolean"}
    return NUMBERS[kind] | bounds(shape, "minimum", "maximum")


def path_item(name, operation):
    target = {
        "name": "X-Amz-Target",
        "in": "header",
        "required": True,
        "schema": {"const": f"SageMaker.{name}"},
    }
    success = {"description": "Success."}
    if "output" in operation:
        success["content"] = {MEDIA_TYPE: {"schema": reference(operation["output"]["shape"])}}
    post = {
        "operationId": name,
        "parameters": [target],
        "requestBody": {
            "required": True,
            "content": {MEDIA_TYPE: {"schema": reference(operation["input"]["shape"])}},
        },
        "responses": {"200": success, "default": {"$ref": "#/components/responses/Error"}},
        "x-errors": [error["shape"] for error in operation.get("errors", [])],
    }
    return {"post": post}


def reachable(shapes, name, found):
    """Adds the shape and all that it is made of, each after the shape that names it first."""
    if name in found:
        return
    shape = found[name] = shapes[name]
    for part in ("key", "value", "member"):
        if part in shape:
            reachable(shapes, shape[part]["shape"], found)
    for member in shape.get("members", {}).values():
        reachable(shapes, member["shape"], found)


def main():
    package = pathlib.Path(botocore.__file__).parent
    with gzip.open(package / MODEL) as file:
        model = json.load(file)
    extensions = json.loads((HERE / "extensions.json").read_text())

    found, paths = {}, {}
    for name in OPERATIONS:
        operation = model["operations"][name]
        paths[f"/#SageMaker.{name}"] = path_item(name, operation)
        for side in ("input", "output"):
            if side in operation:
                reachable(model["shapes"], operation[side]["shape"], found)
    unions = [name for name, shape in found.items() if shape.get("union")]
    if unions:
        raise SystemExit(f"these shapes are unions, which the walker does not know yet: {unions}")

    # Values of ours come after the service's own: clients pass on what their own models do not know.
    for name, values in extensions["x-enums"].items():
        found[name] = found[name] | {"enum": found[name]["enum"] + values}

    components = extensions["components"]
    components["schemas"] |= {name: schema(shape) for name, shape in found.items()}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tunesmith",
            "version": model["metadata"]["apiVersion"],
            "x-model": f"the shapes and constraints of {MODEL} of botocore {botocore.__version__} (Apache-2.0)",
        },
        "paths": paths | extensions["paths"],
        "components": components,
    }
    (HERE / "openapi.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
