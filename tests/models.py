"""What the models of botocore, which AWS makes from the services themselves, say about requests, responses and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

TARGETS = {
    "Kinesis_20131202": "kinesis",
    "DynamoDB_20120810": "dynamodb",
    "AmazonSQS": "sqs",
    "RedshiftData": "redshift-data",
    "secretsmanager": "secretsmanager",
    "AWSGlue": "glue",
}
"""The services with a JSON protocol, by what ``x-amz-target`` says before the operation."""

_OF_JAVA = {
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010FFFF",
    r"\p{Print}": r"[\x20-\x7E]",
    r"\p{L}\p{N}\p{P}": r"\S",
}


@cache
def service(name: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(name)


def operation(target: str) -> OperationModel:
    """The operation that ``x-amz-target`` names."""
    prefix, _, name = target.partition(".")
    return service(TARGETS[prefix]).operation_model(name)


def problems(target: str, given: Mapping[str, Any]) -> list[str]:
    """Why the service would not accept a request: missing, unknown or ill-typed members, values that its model excludes."""
    shape = operation(target).input_shape
    if shape is None:
        return [f"{target} takes nothing"] if given else []
    report = ParamValidator().validate(dict(given), shape)
    return [*report.generate_report().splitlines(), *_excluded(shape, given, target)]


def _excluded(shape: Shape, value: Any, where: str) -> Iterator[str]:
    """What botocore does not look at: patterns, enumerations, upper limits."""
    for part, member, place in _parts(shape, value, where):
        yield from _excluded(part, member, place)
    limit, size = shape.metadata.get("max"), len(value) if isinstance(value, str | list | dict) else value
    if limit is not None and size is not None and size > limit:
        yield f"{where}: {size} is more than {limit}"
    pattern = shape.metadata.get("pattern")
    if isinstance(value, str) and pattern and not _translated(pattern).fullmatch(value):
        yield f"{where}: {value!r} is not {pattern}"
    if (allowed := getattr(shape, "enum", None)) and value not in allowed:
        yield f"{where}: {value!r} is none of {allowed}"


def _parts(shape: Shape, value: Any, where: str) -> Iterator[tuple[Shape, Any, str]]:
    if shape.type_name == "structure" and isinstance(value, Mapping):
        yield from ((shape.members[name], member, f"{where}.{name}") for name, member in value.items() if name in shape.members)
    elif shape.type_name == "list" and isinstance(value, list):
        yield from ((shape.member, member, where) for member in value)
    elif shape.type_name == "map" and isinstance(value, Mapping):
        yield from ((shape.key, name, where) for name in value)
        yield from ((shape.value, member, f"{where}.{name}") for name, member in value.items())


@cache
def _translated(pattern: str) -> re.Pattern[str]:
    """A pattern of a model, which is Java's: with pairs of surrogates for characters beyond 16 bits, and with other names of classes."""
    for java, python in _OF_JAVA.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def always(model: str, shape: str) -> set[str]:
    """Members that ``shape`` of the service ``model`` always has in a response."""
    return set(service(model).shape_for(shape).required_members)


def errors(name: str, operations: list[str]) -> Iterator[tuple[str, str, int]]:
    """The operation, code and HTTP status of every error that the model gives these operations."""
    model = service(name)
    for each in operations:
        for shape in model.operation_model(each).error_shapes:
            said = shape.metadata.get("error", {})
            fault = 500 if shape.metadata.get("fault") or shape.metadata.get("exception") == "server" else 400
            yield each, said.get("code", shape.name), said.get("httpStatusCode", fault)
