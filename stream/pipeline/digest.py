"""The canonical text of a pipeline, and the digest that tells whether two definitions make the same rows.

A manifest names the digest of the definition that made its rows, and the canonical text is what is recorded under it: with
environment references replaced, shorthand forms and defaults written out, and secrets as the references they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import yaml
from pydantic import ValidationError

from stream.audit.context import DEFAULT_PATHS
from stream.errors import DefinitionError
from stream.pipeline.load import load, resolve
from stream.pipeline.model import Pipeline
from stream.recorded import as_recorded

_DIGEST_HEX: Final = 32
_PLACES: Final = {
    "kinesis": frozenset({"start", "region", "endpoint", "on_expired", "retrieval", "consumer"}),
    "s3": frozenset({"url", "manifest", "time", "shards", "watch"}),
}
"""Options that say where, how and from when to read. They do not count, since a unit's range determines its records."""
_WITHOUT_PART: Final = frozenset({"coordination", "flush", "rejects", "memory", "metrics", "telemetry", "notify", "requires", "encryption"})
"""What has no part in making rows and files, and a default for each. ``sensitive`` is not here: without it, columns would be shown."""


class _Dumper(yaml.SafeDumper):
    """Writes each value out where it stands, and quotes every text that the loader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    escaped = value.replace("${", "$${")
    plain = escaped.isascii() and escaped.isprintable() and isinstance(resolve(escaped), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def canonical_text(pipeline: Pipeline) -> str:
    """YAML that loads back to an equal pipeline, the same for equal pipelines. Holds no secret."""
    data = pipeline.model_dump(mode="json", by_alias=True)
    dumped: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=1_000_000)
    return dumped


def read_canonical(text: str) -> Pipeline:
    """The pipeline of which ``text`` is the canonical text; no environment and no file is looked at.

    Rules for new definitions do not apply, and what has no part in making rows is as by default if this version does not allow it any more.

    Raises:
        DefinitionError: ``text`` is not a pipeline that this version understands.
    """
    with as_recorded():
        document = load(text.encode(), "recorded definition", {})
        if document.findings:
            raise DefinitionError(document.findings[0].render())
        try:
            return _validated(document.data)
        except ValueError as error:
            msg = f"the recorded definition is not one that this version understands: {error}"
            raise DefinitionError(msg) from error


def _validated(data: dict[str, Any]) -> Pipeline:
    try:
        return Pipeline.model_validate(data)
    except ValidationError as error:
        refused = {line["loc"][0] if line["loc"] else "" for line in error.errors(include_url=False)}
        if not refused <= _WITHOUT_PART:
            raise
    return _validated({key: value for key, value in data.items() if key not in refused})


def pipeline_digest(pipeline: Pipeline, tables: Mapping[str, str], build: str) -> str:
    """32 hex digits, equal for definitions that make the same rows and files.

    ``tables`` maps each reference table's URL to the SHA-256 (hex) of its content; ``build`` names the version of the code. When
    units end, what may be held in memory, where metrics and state are kept, where spans go, and where reading starts have no part in it.
    Where records carry their trace context has: the ledger is one of the files.
    """
    data = pipeline.model_dump(mode="json", by_alias=True, include={"application", "source", "stages", "sinks"})
    for kind, places in _PLACES.items():
        if kind in data["source"]:
            data["source"] = {**data["source"], kind: {key: value for key, value in data["source"][kind].items() if key not in places}}
    kinesis = data["source"].get("kinesis", {})
    if "streams" in kinesis:
        kinesis["streams"] = sorted(entry["stream"] for entry in kinesis["streams"])
    content: dict[str, Any] = {"pipeline": data, "tables": dict(sorted(tables.items())), "build": build}
    if pipeline.audit.trace_context != DEFAULT_PATHS:
        content["trace_context"] = list(pipeline.audit.trace_context)
    # Keys keep their order: it is the order of columns, and derived columns may build on those before them.
    encoded = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(encoded.encode()).hexdigest()[:_DIGEST_HEX]
