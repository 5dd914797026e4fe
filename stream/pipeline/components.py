"""The available stages, decoders and sinks: explicit tables, and entry points for stages of other packages.

A package adds a stage by an entry point in the group ``stream.stages`` whose name is the stage's. It is imported only when a
pipeline uses that name, so an installed but unused package can neither slow down nor break anything. Built-in names win.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

import polars as pl
from pydantic import BaseModel

from stream.contracts import Sink
from stream.errors import DefinitionError
from stream.sink.console import ConsoleSinkConfig
from stream.sink.iceberg import IcebergSink, IcebergSinkConfig
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig, SinkConfig
from stream.sink.redshift import RedshiftSink, RedshiftSinkConfig
from stream.transform.decode import DecoderConfig
from stream.transform.decoders import DECODERS
from stream.transform.stage import StageConfig
from stream.transform.stages import STAGES as STAGE_CLASSES

__all__ = ["DECODERS", "ENTRY_POINT_GROUP", "SINKS", "STAGES", "canonical_name", "make_sink", "stage_class", "stage_names"]

ENTRY_POINT_GROUP: Final = "stream.stages"

STAGES: Final[Mapping[str, type[StageConfig]]] = MappingProxyType({stage.name: stage for stage in STAGE_CLASSES})
SINKS: Final[Mapping[str, type[SinkConfig]]] = MappingProxyType(
    {
        "s3": ObjectsSinkConfig,
        "files": ObjectsSinkConfig,
        "redshift": RedshiftSinkConfig,
        "iceberg": IcebergSinkConfig,
        "console": ConsoleSinkConfig,
    }
)
"""``s3`` and ``files`` are two names of one sink, whose URL says where the objects go. The first is the canonical one."""


def stage_class(name: str) -> type[StageConfig] | None:
    """The stage called ``name``, or None if there is no such stage.

    Raises:
        DefinitionError: an entry point of that name exists and does not lead to a stage of that name.
    """
    if name in STAGES:
        return STAGES[name]
    found = [point for point in _foreign_stages() if point.name == name]
    return _load(found[0]) if found else None


def stage_names() -> list[str]:
    """Names that ``stage_class`` knows, sorted; entry points are named without being imported."""
    return sorted({*STAGES, *(point.name for point in _foreign_stages())})


def _foreign_stages() -> list[EntryPoint]:
    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))


def _load(point: EntryPoint) -> type[StageConfig]:
    where = f"entry point `{point.name} = {point.value}` of group {ENTRY_POINT_GROUP}"
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        msg = f"{where} cannot be imported: {error}"
        raise DefinitionError(msg) from error
    if not (isinstance(loaded, type) and issubclass(loaded, StageConfig)) or loaded.name != point.name:
        msg = f"{where} does not lead to a subclass of StageConfig with the name `{point.name}`"
        raise DefinitionError(msg)
    return loaded


def make_sink(config: SinkConfig, schema: pl.Schema) -> Sink:
    """The sink that ``config`` describes, for frames of ``schema``.

    Raises:
        SinkMismatch: it cannot write such frames.
    """
    config.check(schema)
    if isinstance(config, RedshiftSinkConfig):
        return RedshiftSink(config, schema)
    if isinstance(config, IcebergSinkConfig):
        return IcebergSink(config, schema)
    if isinstance(config, ConsoleSinkConfig):
        return ObjectsSink(config.as_files())
    if isinstance(config, ObjectsSinkConfig):
        return ObjectsSink(config)
    msg = f"there is no sink for {type(config).__qualname__}"
    raise DefinitionError(msg)


def canonical_name(component: BaseModel) -> str:
    """The name of ``component``, a stage, decoder or sink, in a pipeline file."""
    if isinstance(component, StageConfig | DecoderConfig):
        return component.name
    for name, known in SINKS.items():
        if type(component) is known:
            return name
    msg = f"{type(component).__qualname__} is not in the tables of components"
    raise DefinitionError(msg)
