"""What is wrong, or worth knowing, about where the sinks and the state of a pipeline are, whatever the columns. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from stream.pipeline.findings import Path, Problem, Severity
from stream.pipeline.model import Pipeline
from stream.sink.iceberg import IcebergSinkConfig
from stream.sink.objects import SinkConfig
from stream.sink.redshift import RedshiftSinkConfig, Write
from stream.sink.tables import TableSinkConfig


def place_problems(pipeline: Pipeline, base: FilePath, keys: Sequence[str]) -> Iterator[Problem]:
    """Problems with the places of the state and the sinks. ``keys``: the names that the file uses for the sinks."""
    own = f"{_directory(pipeline.state, base)}{pipeline.application}/"
    for index, sink in enumerate(pipeline.sinks):
        at: Path = ("sinks", index, keys[index])
        path, url = (*at, "url"), _directory(sink.url, base)
        yield from _shared(pipeline.sinks, index, path, base)
        yield from _same_table(pipeline.sinks, index, (*at, "table"))
        if pipeline.source.s3 is not None and isinstance(sink, RedshiftSinkConfig) and sink.mode is Write.UPSERT:
            # Records from objects are numbered by their place in the object, so the numbers do not tell which of two rows is newer.
            message = "if two rows with the same key come from different objects, the older one may win, because objects have no order"
            hint = "use `mode: append`, and choose the latest row by `_arrival` in a view"
            yield Problem((*at, "mode"), "upsert_order", message, hint, Severity.NOTE)
        if pipeline.encryption is not None and isinstance(sink, IcebergSinkConfig) and sink.url.startswith("s3:"):
            message = f"PyIceberg writes the metadata of {sink.table}, and does not use `encryption.kms_key`"
            hint = "make the key the default of the bucket, and use no bucket policy that requires requests to name it"
            yield Problem(path, "bucket_key", message, hint, Severity.NOTE)
        if own.startswith(url):
            hint = f"choose a place outside of {sink.url}"
            yield Problem(("state",), "state_inside_sink", f"a reader of {sink.url} would take the state for data", hint)
        elif url.startswith(own):
            message = f"the pipeline's own state is in {own}, among which the sink's files would be taken for its objects"
            yield Problem(path, "sink_inside_state", message, "choose a place outside of it")


def _shared(sinks: Sequence[SinkConfig], index: int, path: Path, base: FilePath) -> Iterator[Problem]:
    """Problems with the place that the sink ``index`` shares with one before it."""
    for other, before in enumerate(sinks[:index]):
        one, two = _directory(before.url, base), _directory(sinks[index].url, base)
        if one == two:
            message = f"the sinks `{before.name}` and `{sinks[index].name}` both write to {sinks[index].url}"
            yield Problem(path, "same_place", message, "give each sink its own prefix")
            return
        if one.startswith(two) or two.startswith(one):
            outer, inner = (other, index) if two.startswith(one) else (index, other)
            whose = f"the rows of the sink `{sinks[inner].name}`, in {sinks[inner].url}"
            message = f"a reader of everything under {sinks[outer].url} also reads {whose}"
            yield Problem(path, "sink_inside_sink", message, "give each sink its own prefix", Severity.NOTE)


def _same_table(sinks: Sequence[SinkConfig], index: int, path: Path) -> Iterator[Problem]:
    sink = sinks[index]
    if not isinstance(sink, TableSinkConfig):
        return
    for other, before in enumerate(sinks[:index]):
        if isinstance(before, TableSinkConfig) and before.unique_table == sink.unique_table:
            message = f"the sinks {other} and {index} both load the table {sink.table}, which records only one position per shard"
            yield Problem(path, "same_place", message, "give each sink its own table")


def _directory(url: str, base: FilePath) -> str:
    """``url`` in the form that it has in common with every other that names the same place, with a slash at its end."""
    scheme, _, place = url.partition(":")
    return f"file:{os.path.normpath(base.absolute() / place)}/" if scheme == "file" else url.removesuffix("/") + "/"
