"""Finds everything that is wrong with a pipeline file at once; each finding has its place and a hint.

It asks three questions in turn, each about whatever passed the one before: is it YAML that can be read as data, is the
data a pipeline, and do the columns fit through the whole chain up to the sinks?
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from stream.pipeline import components
from stream.pipeline.checks.flow import check_flow
from stream.pipeline.checks.host_names import Host
from stream.pipeline.checks.hosts import as_run_by, misfits
from stream.pipeline.checks.valid_part import valid_part
from stream.pipeline.findings import START, Finding, Path, Severity, near_miss
from stream.pipeline.load import Document, load
from stream.pipeline.model import Pipeline
from stream.pipeline.regions import FORM, REGIONS
from stream.pipeline.trials.cases import SUFFIX
from stream.pipeline.wording import worded

_AT_KEY: Final = frozenset({"unknown_key", "unknown_stage", "unknown_decoder", "unknown_sink", "bad_stage"})
"""Codes about a name, which is a key unless it is itself a value."""

_AT_PARENT: Final = frozenset({"missing_key", "not_checked"})
"""Codes that say nothing about the value at their place."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found, in the order of the file. ``pipeline`` is set if and only if no finding is an error."""

    findings: tuple[Finding, ...]
    pipeline: Pipeline | None

    @property
    def ok(self) -> bool:
        """Whether the pipeline can be run as written; there may be notes."""
        return self.pipeline is not None


def check(path: FilePath, env: Mapping[str, str], host: Host = Host.SERVICE) -> CheckResult:
    """Check a pipeline file, and whether ``host`` can run it.

    ``env`` gives the values of ``${NAME}`` and of secrets. Reads the file, the local reference tables it names and the modules of
    its user functions, and nothing over the network. Never raises for what is in the file or for a file that cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        finding = Finding(str(path), START.line, START.column, "unreadable", f"the file cannot be read: {error.strerror}")
        return CheckResult((finding,), None)
    return check_content(content, str(path), path.parent, env, host)


def check_content(content: bytes, file: str, base: FilePath, env: Mapping[str, str], host: Host = Host.SERVICE) -> CheckResult:
    """Check the text of a pipeline file; ``file`` is its name in findings, and paths in it are relative to ``base``."""
    document = load(content, file, env)
    if isinstance(document.data, Mapping) and "cases" in document.data and "source" not in document.data:
        at = document.key_position(("cases",))
        tested = FilePath(file.removesuffix(SUFFIX) + ".yaml" if file.endswith(SUFFIX) else "PIPELINE.yaml").name
        message = "this is a file of cases, not a pipeline"
        return CheckResult((Finding(file, at.line, at.column, "not_a_pipeline", message, f"run it with `stream test {tested}`"),), None)
    later: list[Finding] = []
    pipeline = None
    if document.data is not None:
        try:
            pipeline = Pipeline.model_validate(document.data)
        except ValidationError as error:
            later += shape_findings(document, error)
            rest = valid_part(document.data, [_known_path(document, line["loc"]) for line in error.errors(include_url=False)])
            if rest is not None:
                later += check_flow(rest.pipeline, document, base, env, rest)
        else:
            later += check_flow(as_run_by(pipeline, host), document, base, env)
            later += _misfits(pipeline, document, host)
    findings = _settle(document, [*later, *(_unknown_regions(document) if document.data is not None else ())])
    errors = any(finding.severity is Severity.ERROR for finding in findings)
    return CheckResult(tuple(findings), None if errors else pipeline)


def _unknown_regions(document: Document) -> Iterator[Finding]:
    for path, at in document.values.items():
        model = _model_at(path[:-1]) if path[-1:] == ("region",) else None
        if model is None or "region" not in model.model_fields:  # columns may have that name, too
            continue
        options = document.data
        for part in path[:-1]:
            options = options[part]
        region = options["region"]
        if isinstance(region, str) and re.fullmatch(FORM, region) and region not in REGIONS and not options.get("endpoint"):
            message = f"AWS had no region {region!r} when this version was made"
            yield Finding(document.file, at.line, at.column, "unknown_region", message, near_miss(region, REGIONS), Severity.NOTE)


def _misfits(pipeline: Pipeline, document: Document, host: Host) -> Iterator[Finding]:
    for each in misfits(pipeline, host):
        path = _known_path(document, each.path)
        at = document.key_position(path) if path == each.path else document.value_position(path)
        yield Finding(document.file, at.line, at.column, f"not_in_{host}", each.message, each.hint, each.severity)


def _settle(document: Document, later: Iterable[Finding]) -> list[Finding]:
    """All findings in the order of the file, without those that only follow from a value that could not be read."""
    unread = {(each.line, each.column) for each in document.findings}
    kept = [each for each in later if (each.line, each.column) not in unread or each.code in _AT_PARENT]
    first: dict[tuple[int, int, str, str], Finding] = {}
    for finding in (*document.findings, *kept):
        # A value that may have several forms fails once for each of them; the first failure says enough.
        words = "" if finding.code == "bad_value" else finding.message
        first.setdefault((finding.line, finding.column, finding.code, words), finding)
    return sorted(first.values())


_CONDITIONS: Final = frozenset({"filter", "when", "if", "condition", "route", "match"})
"""Names of options by which other tools choose the rows of a destination."""


def shape_findings(document: Document, error: ValidationError) -> Iterator[Finding]:
    """One finding for each line of a validation error of ``Pipeline``."""
    for line in error.errors(include_url=False):
        path = _known_path(document, line["loc"])
        code, message, hint = _words(line, path, document)
        named = code == "missing_key" or (code in _AT_KEY and path == line["loc"])
        at = document.key_position(path) if named else document.value_position(path)
        yield Finding(document.file, at.line, at.column, code, message, hint)


def _known_path(document: Document, loc: Path) -> Path:
    """``loc`` without the parts that are not places in the file, such as the tag of a union."""
    path: Path = ()
    for part in loc:
        if (*path, part) in document.values:
            path = (*path, part)
    return path


def _words(line: Any, path: Path, document: Document) -> tuple[str, str, str]:
    """Code, message and hint of one line of a validation error."""
    loc: Path = line["loc"]
    if line["type"] == "finding":
        context = line["ctx"]
        return context["code"], context["message"], context["hint"] or _empty_hint(path, document)
    if line["type"] == "extra_forbidden":
        hint = near_miss(str(loc[-1]), _fields(_model_at(loc[:-1])))
        if loc[0] == "sinks" and loc[-1] in _CONDITIONS:
            hint = "rows that go to this sink alone are chosen by `where`, a condition over the columns"
        return "unknown_key", f"there is no option `{loc[-1]}` here", hint
    if line["type"] == "missing":
        description = _fields(_model_at(loc[:-1])).get(str(loc[-1]), "")
        where = ".".join(str(part) for part in path)
        return "missing_key", f"`{loc[-1]}` is missing" + (f" in `{where}`" if where else ""), description
    message, hint = worded(line, _fields(_model_at(loc[:-1])).get(str(loc[-1]), "") if loc else "")
    if line["type"] == "string_type" and isinstance(line.get("input"), int | float):
        hint = "put the value in quotes"
    return "bad_value", message, _empty_hint(path, document) or hint


def _empty_hint(path: Path, document: Document) -> str:
    value = document.data
    for part in path:
        value = value[part]
    return "nothing is written here; check the indentation of what follows" if value is None else ""


def _model_at(loc: Path) -> type[BaseModel] | None:
    """The model that describes the mapping at ``loc``."""
    model: type[BaseModel] | None = Pipeline
    rest = list(loc)
    while rest and model is not None:
        part = rest.pop(0)
        if isinstance(part, int):
            continue
        kind = {"stages": "stage", "sinks": "sink"}.get(str(part)) if model is Pipeline else None
        if kind == "stage" and len(rest) >= 2:
            model = components.STAGES.get(str(rest[1]))
            rest = rest[2:]
        elif kind == "sink" and len(rest) >= 2:
            model = components.SINKS.get(str(rest[1]))
            rest = rest[2:]
        elif part == "decode" and rest:
            model = components.DECODERS.get(str(rest.pop(0)))
        else:
            model = _submodel(model, str(part))
    return model


def _submodel(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    for field_name, field in model.model_fields.items():
        if name in {field_name, field.alias}:
            return next(_models_in(field.annotation), None)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _fields(model: type[BaseModel] | None) -> dict[str, str]:
    """Options of ``model`` as written in a file, with what they mean."""
    if model is None:
        return {}
    return {field.alias or name: field.description or "" for name, field in model.model_fields.items()}
