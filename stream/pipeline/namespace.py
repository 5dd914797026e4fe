"""A pipeline with a separate log and separate outputs, so that the same definition can run beside the live one."""

from __future__ import annotations

import re
from typing import Final

from stream.contracts import CONSOLE
from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.sink.objects import SinkConfig
from stream.sink.tables import TableSinkConfig

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def in_namespace(pipeline: Pipeline, namespace: str) -> Pipeline:
    """``pipeline`` with its own chains (application ``<application>.<namespace>``) and its files under ``<url>-<namespace>/``.

    A sink that loads a table loads another one beside it, ``<table>_<namespace>``.

    Raises:
        DefinitionError: the name cannot be part of a key, or a sink is a whole bucket, which has no place beside it.
    """
    if _NAMESPACE.fullmatch(namespace) is None:
        msg = f"--namespace {namespace!r}: a name is 1 to 40 of A-Z a-z 0-9 _ -, beginning with a letter or digit"
        raise DefinitionError(msg)
    sinks = tuple(_apart(sink, namespace) for sink in pipeline.sinks)
    return pipeline.model_copy(update={"application": f"{pipeline.application}.{namespace}", "sinks": sinks})


def _apart(sink: SinkConfig, namespace: str) -> SinkConfig:
    if sink.url == CONSOLE:
        return sink
    changed = {"url": _beside(sink.url, namespace)}
    if isinstance(sink, TableSinkConfig):
        # Rows of a trial run do not belong in the table that others read.
        changed["table"] = f"{sink.table}_{namespace.lower().replace('-', '_')}"
    return sink.model_copy(update=changed)


def _beside(url: str, namespace: str) -> str:
    if re.fullmatch(r"s3://[^/]+/?|file:/*|memory:", url):
        msg = f"the sink at {url} has no prefix, so --namespace {namespace} has no place beside it: give it a prefix, as in s3://bucket/prefix/"
        raise DefinitionError(msg)
    return f"{url.rstrip('/')}-{namespace}/"
