"""The values of the chart, their schema, and the lists of requirements agree. What Helm makes of the chart: `make chart-check`."""

import json
import re

import yaml

from tests.docs.generate import ROOT

CHART = ROOT / "deploy" / "eks" / "chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def differences(schema, values, path=""):
    """Keys that only one of the two has; maps with free keys are not compared further."""
    if "properties" not in schema:
        return
    for key in sorted(set(schema["properties"]) ^ set(values)):
        yield f"{path}{key}"
    for key in set(schema["properties"]) & set(values):
        if isinstance(values[key], dict):
            yield from differences(schema["properties"][key], values[key], f"{path}{key}.")


def test_schema_and_values_have_the_same_keys():
    assert list(differences(SCHEMA, VALUES)) == ["global", "resources.limits.cpu"]


def closed(schema, path=""):
    """Maps with named keys that also accept other keys."""
    if "properties" in schema:
        if schema.get("additionalProperties") is not False:
            yield path
        for key, part in schema["properties"].items():
            yield from closed(part, f"{path}.{key}")


def test_a_misspelled_value_is_never_ignored():
    assert list(closed(SCHEMA)) == []


def undescribed(schema, path=""):
    for key, part in schema.get("properties", {}).items():
        if "description" not in part:
            if "properties" not in part:
                yield f"{path}{key}"
            yield from undescribed(part, f"{path}{key}.")


def test_every_value_has_a_description():
    assert list(undescribed(SCHEMA)) == []


def locked(name):
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def test_the_image_and_the_tests_use_the_same_versions():
    tested = locked("dev.txt")
    image = locked("run.txt") | locked("build.txt")
    assert len(image) > 20
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}


def test_the_build_sends_only_what_the_image_needs():
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {"requirements/*.txt" if word.startswith("requirements/") else word for word in copied} == admitted
