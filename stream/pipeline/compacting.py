"""Which sinks `stream compact` can work on, and where their compacted files go. Pure."""

from __future__ import annotations

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.sink.encode import Format
from stream.sink.objects import ObjectsSinkConfig
from stream.sink.tables import TableSinkConfig


def beside(url: str) -> str:
    """Where the compacted files of the sink at ``url`` go by default: a place with the same name and ``-compacted`` after it.

    Raises:
        DefinitionError: the sink is a whole bucket, beside which there is nothing.
    """
    place = url.rstrip("/")
    if place.startswith("s3://") and "/" not in place.removeprefix("s3://"):
        msg = f"the sink is the whole bucket {place}, and compacted files must not be among the others: name another place with --to"
        raise DefinitionError(msg)
    return f"{place}-compacted/"


def compactable(pipeline: Pipeline, sink: str | None) -> list[ObjectsSinkConfig]:
    """The sinks whose files can be compacted, or the one called ``sink``.

    Raises:
        DefinitionError: there is none, or the one that is named cannot be compacted.
    """
    named = {config.name: config for config in pipeline.sinks}
    if sink is not None and sink not in named:
        msg = f"--sink {sink}: the pipeline has no such sink; it has {', '.join(sorted(named))}"
        raise DefinitionError(msg)
    problems = []
    found = []
    for config in named.values() if sink is None else (named[sink],):
        if isinstance(config, TableSinkConfig) or not isinstance(config, ObjectsSinkConfig):
            problems.append(f"`{config.name}` is of kind {config.kind}, and only files of an s3 sink can be compacted")
        elif config.format is not Format.PARQUET:
            problems.append(f"`{config.name}` writes {config.format}, and only Parquet can be compacted")
        else:
            found.append(config)
    if not found:
        msg = f"nothing can be compacted: {'; '.join(problems)}"
        raise DefinitionError(msg)
    return found
