"""Turns rows into content-named objects under a prefix, partitioned row by row."""

from __future__ import annotations

import hashlib
import math
import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np
import polars as pl
from polars.datatypes import DataTypeClass
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from stream.batch import LINEAGE, ROW, type_name
from stream.contracts import Encoded, OutputFile
from stream.recorded import as_recorded, is_recorded
from stream.sink import avro
from stream.sink.csv import SeparatedValues
from stream.sink.encode import COMPRESSIONS, DEFAULT_LEVELS, LEVELS, Compression, Encoder, Format
from stream.sink.partition import Entry, Folders, Partitioning, SinkMismatch
from stream.storage.keys import problem_of_place

MAX_KEY_BYTES: Final = 1024
MAX_PREFIX_BYTES: Final = 200
DEFAULT_FILE_BYTES: Final = 128 * 2**20
_UNITS: Final = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE: Final = re.compile(r"(\d+)\s*([A-Za-z]*)")
_SAFE_KEY: Final = re.compile(r"[A-Za-z0-9._%=@/-]+")
PLACEMENT: Final = pl.Schema({ROW: pl.UInt32(), "file": pl.UInt16(), "line": pl.UInt32()})
_NOT_INSIDE: Final[dict[Format, frozenset[Any]]] = {
    Format.PARQUET: frozenset({pl.Int128, pl.UInt128, pl.Categorical, pl.Enum}),
    Format.NDJSON: frozenset({pl.Binary}),
}
"""Types that a format can hold as a column, but not inside lists and objects."""
NOTHING_PLACED: Final = PLACEMENT.to_frame()


def _size(value: object) -> object:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        return value
    return int(match[1]) * _UNITS[match[2]]


def _entries(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [{name: expression} for name, expression in value.items()]
    return value


class SinkConfig(BaseModel):
    """The options of every sink: where its files go, its name, and which rows it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str] = ""
    later_options: ClassVar[frozenset[str]] = frozenset({"where"})
    """Options that came later. They are recorded only if they are given, so that older definitions, and their digests, stay as they are."""

    url: str
    name: str
    where: str | None = Field(
        default=None,
        description="Rows that go here: those for which this condition is true, or `else`, those that no other sink's condition is true "
        "for. By default, all.",
    )

    @model_serializer(mode="wrap")
    def _without_later_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {key: value for key, value in data.items() if key not in self.later_options or value != fields[key].default}

    def secret_names(self) -> tuple[str, ...]:
        """References to the secrets that the sink reads."""
        return ()

    @abstractmethod
    def check(self, schema: pl.Schema) -> None:
        """Make sure that rows of ``schema`` (lineage and ``_row`` included) can be written.

        Raises:
            SinkMismatch: they cannot; its path names the option to change.
        """

    def key_pattern(self, unit: str) -> str:
        """The pattern of a unit's file keys; parts that depend on the rows are in angle brackets."""
        return f"{unit}.<part>.<digest>.parquet"

    def key_columns(self) -> frozenset[str]:
        """The columns whose values appear in file keys, and so in manifests, the ledger and spans."""
        return frozenset()

    def most_files(self, partitions: float, encoded_bytes: float) -> float:  # noqa: ARG002 - for sinks with partitions
        """An estimate of the files of one unit with rows in ``partitions`` partitions and ``encoded_bytes`` bytes after encoding."""
        return max(1.0, math.ceil(encoded_bytes / DEFAULT_FILE_BYTES))


class ObjectsSinkConfig(SinkConfig):
    """Files in an S3 prefix or a local directory, each row exactly once.

    ``partition_by`` takes column names and named SQL expressions: ``[origin, {day: "strftime(_arrival, '%Y-%m-%d')"}]``.
    ``file_bytes`` limits the encoded size of one file; ``lineage`` adds the columns that say where each row came from. In NDJSON, decimals
    are text, bytes are base64, and times look like `2026-01-01T00:00:00+00:00`; NaN and infinities, which JSON cannot express, are null.
    What each format does with each type: `docs/files.md`.
    """

    kind: ClassVar[str] = "s3"
    later_options: ClassVar[frozenset[str]] = SinkConfig.later_options | {"csv", "folders", "shared"}

    url: str = Field(description="Where the files go: s3://bucket/prefix/ or file:directory.")
    name: str = Field(default="s3", pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Name in manifests and metrics.")
    format: Format = Field(default=Format.PARQUET, description="parquet, ndjson, csv (any separated values), avro or arrow (an IPC file).")
    compression: Compression | None = Field(
        default=None, description="By default, zstd for Parquet and Arrow, gzip for NDJSON and CSV, deflate for Avro."
    )
    compression_level: int | None = Field(default=None, description="zstd 1 to 22 (default 1), gzip and deflate 1 to 9 (default 5).")
    csv: SeparatedValues | None = Field(default=None, description="How separated values are written, for `format: csv`.")
    partition_by: Annotated[tuple[Entry, ...], BeforeValidator(_entries)] = Field(
        default=(), max_length=8, description="Columns, or names with SQL expressions, that make up the path."
    )
    folders: Folders = Field(
        default=Folders.HIVE,
        description="What a partition's folders are called: hive (name=value), or plain (value), as Amazon Data Firehose has them.",
    )
    max_partitions: int = Field(
        default=512, ge=1, le=10_000, description="Most partitions per unit; rows of further ones share __overflow__."
    )
    file_bytes: Annotated[int, BeforeValidator(_size), Field(ge=64 * 1024), WithJsonSchema({"type": ["string", "integer"]})] = Field(
        default=DEFAULT_FILE_BYTES, description="Size of one file, compressed, such as 128MiB."
    )
    shared: bool = Field(
        default=False,
        description="Others write under `url` too: `stream audit verify` passes over files that are not named as sinks name files.",
    )
    lineage: bool = Field(default=True, description="Write _shard, _sequence, _subsequence and _arrival.")

    @field_validator("url")
    @classmethod
    def _valid_url(cls, value: str) -> str:
        if not re.match(r"s3://[^/\s]+(/|$)|file:.|memory:", value):
            msg = f"{value!r} is not a place for files; write s3://bucket/prefix/ or file:directory"
            raise ValueError(msg)
        if value.startswith("s3://") and not is_recorded() and (problem := problem_of_place(value)):
            msg = f"{value!r} is not a place for files: {problem}; write s3://bucket/prefix/ with single slashes"
            raise ValueError(msg)
        if value.startswith("s3://") and len(value.encode()) > MAX_PREFIX_BYTES:
            msg = f"the prefix is {len(value.encode())} bytes long, at most {MAX_PREFIX_BYTES} are allowed; keys must fit 1,024"
            raise ValueError(msg)
        return value

    @field_validator("partition_by")
    @classmethod
    def _valid_partitions(cls, value: tuple[Entry, ...]) -> tuple[Entry, ...]:
        Partitioning(value)
        return value

    @model_validator(mode="after")
    def _valid_level(self) -> Self:
        codec, codecs = self.codec, COMPRESSIONS[self.format]
        if codec not in codecs:
            msg = f"compression {codec} does not exist for {self.format}, which takes {', '.join(codecs)}"
            raise ValueError(msg)
        if self.csv is not None and self.format is not Format.CSV:
            msg = f"csv has the options of `format: csv`, but the format is {self.format}; remove one of the two"
            raise ValueError(msg)
        levels = LEVELS.get(codec)
        if self.compression_level is not None and (levels is None or self.compression_level not in levels):
            allowed = f"{levels.start} to {levels.stop - 1}" if levels else "no level at all"
            msg = f"compression_level {self.compression_level} does not fit {codec}, which takes {allowed}"
            raise ValueError(msg)
        return self

    @property
    def codec(self) -> Compression:
        """The compression in force."""
        return self.compression or COMPRESSIONS[self.format][0]

    @property
    def encoder(self) -> Encoder:
        """What turns rows into files."""
        level = self.compression_level or DEFAULT_LEVELS.get(self.codec)
        return Encoder(self.format, self.codec, level, self.csv or SeparatedValues())

    def check(self, schema: pl.Schema) -> None:
        """Make sure that rows of ``schema`` (lineage and ``_row`` included) can be written.

        Raises:
            SinkMismatch: a partition column cannot be computed or a column has no representation in the format.
        """
        try:
            Partitioning(self.partition_by).check(schema)
        except SinkMismatch as error:
            raise SinkMismatch(("partition_by", *error.path), error.message, error.hint) from error
        columns = self.columns(schema)
        if not columns:
            raise SinkMismatch((), "no column is left to write", "keep a column, or switch lineage on")
        for name in columns:
            self._check_column(name, schema[name])
        if self.format is Format.CSV and len(columns) == 1 and not self.encoder.csv.null_text and not is_recorded():
            message = f"column '{columns[0]}' is the only one, so a line for null would be blank, and readers skip blank lines"
            raise SinkMismatch(("csv", "null"), message, "give `csv.null` a text such as \\N, or switch lineage on")

    def columns(self, schema: pl.Schema) -> list[str]:
        """The columns of the files: those of ``schema`` in order, then lineage; never ``_row``."""
        lineage = [name for name in LINEAGE if name in schema] if self.lineage else []
        return [name for name in schema.names() if name != ROW and name not in LINEAGE] + lineage

    def key_pattern(self, unit: str) -> str:
        """See ``SinkConfig``."""
        names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in self.partition_by]
        folders = "".join(f"<{name}>/" if self.folders is Folders.PLAIN else f"{name}=<{name}>/" for name in names)
        return f"{folders}{unit}.<part>.<digest>{self.encoder.extension}"

    def key_columns(self) -> frozenset[str]:
        """The columns that the partitions are computed from."""
        return Partitioning(self.partition_by).sources

    def most_files(self, partitions: float, encoded_bytes: float) -> float:
        """See ``SinkConfig``; a partition that grows beyond ``file_bytes`` is split."""
        used_partitions = min(partitions if self.partition_by else 1.0, float(self.max_partitions))
        return max(used_partitions, math.ceil(encoded_bytes / self.file_bytes))

    def _check_column(self, name: str, dtype: pl.DataType) -> None:
        inner = _leaves(dtype)
        if pl.Object in inner:
            raise SinkMismatch((), f"column '{name}' holds Python objects", "give it a type in a stage")
        if self.format is Format.CSV and dtype.is_nested():
            hint = "take its fields out with `flatten`, make rows of a list with `explode`, or leave it out with `select`"
            raise SinkMismatch((), f"column '{name}' of type {type_name(dtype)} has no representation in {self.format}", hint)
        if self.format is Format.AVRO and (problem := avro.misfit(name, dtype)):
            raise SinkMismatch((), f"column '{name}': {problem[0]}", problem[1])
        if self.format in {Format.PARQUET, Format.AVRO, Format.ARROW} and has_empty_object(dtype):
            raise SinkMismatch(
                (), f"column '{name}' of type {type_name(dtype)} holds an object without fields", "leave it out with `select`"
            )
        if dtype.is_nested() and inner & _NOT_INSIDE.get(self.format, frozenset()):
            message = f"column '{name}' of type {type_name(dtype)} has no representation in {self.format}"
            raise SinkMismatch((), message, "cast the inner values to text in a stage")


def _leaves(dtype: DataTypeClass | pl.DataType) -> set[DataTypeClass]:
    if isinstance(dtype, pl.Struct):
        return {leaf for field in dtype.fields for leaf in _leaves(field.dtype)}
    if isinstance(dtype, pl.List | pl.Array):
        return _leaves(dtype.inner)
    return {dtype.base_type()}


def has_empty_object(dtype: DataTypeClass | pl.DataType) -> bool:
    """Whether the type is, or contains, an object without fields, which Parquet cannot represent."""
    if isinstance(dtype, pl.Struct):
        return not dtype.fields or any(has_empty_object(field.dtype) for field in dtype.fields)
    return isinstance(dtype, pl.List | pl.Array) and has_empty_object(dtype.inner)


class ObjectsSink:
    """``contracts.Sink`` that writes files ``<partition>/<unit>.<part>.<sha16>.<ext>``, relative to the config's url."""

    def __init__(self, config: ObjectsSinkConfig) -> None:
        self.config = config
        self._checked: pl.Schema | None = None
        self._rules = as_recorded if is_recorded() else nullcontext
        self._partitions = Partitioning(config.partition_by, config.max_partitions, config.folders)
        self._encoder = config.encoder

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return self.config.name

    def key_pattern(self, unit: str) -> str:
        """See ``SinkConfig``."""
        return self.config.key_pattern(unit)

    def encode(self, frame: pl.DataFrame, unit: str) -> Encoded:
        """The files for ``frame``, each with its rows in the frame's order; none for a frame without rows.

        Raises:
            SinkMismatch: the frame has a column that the format cannot hold.
        """
        if frame.schema != self._checked:
            with self._rules():
                self.config.check(frame.schema)
            self._checked = frame.schema
        columns = self.config.columns(frame.schema)
        assigned = self._partitions.assign(frame)
        files: list[OutputFile] = []
        placements: list[pl.DataFrame] = []
        for path, rows in _groups(frame, assigned.codes, assigned.paths):
            start = 0
            for part, (height, body) in enumerate(self._encoder.encode_split(rows[columns], self.config.file_bytes)):
                placements.append(_placement(rows[ROW].slice(start, height), len(files)))
                files.append(self._file(path, unit, part, height, body))
                start += height
        placement = placements[0] if len(placements) == 1 else pl.concat([NOTHING_PLACED, *placements], rechunk=True)
        return Encoded(tuple(files), placement)

    def _file(self, path: str, unit: str, part: int, rows: int, body: bytes) -> OutputFile:
        digest = hashlib.sha256(body).hexdigest()
        stem = f"{unit}.{part}.{digest[:16]}{self._encoder.extension}"
        return OutputFile(self.name, checked_key(f"{path}/{stem}" if path else stem), body, rows, digest)


def checked_key(key: str) -> str:
    """``key``, guaranteed to stay below the sink's prefix and, with any allowed prefix, within the length limit of an S3 key.

    Raises:
        ValueError: it would not; the names that it was built from are invalid.
    """
    limit = MAX_KEY_BYTES - MAX_PREFIX_BYTES
    if not _SAFE_KEY.fullmatch(key) or {"", ".", ".."} & set(key.split("/")) or len(key) > limit:
        msg = f"{key!r} is not a valid key: it must have segments of [A-Za-z0-9._%=@-], none of dots only, and at most {limit} bytes"
        raise ValueError(msg)
    return key


def _groups(frame: pl.DataFrame, codes: pl.Series, paths: tuple[str, ...]) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of each partition, in the frame's order, with the partition's path."""
    if len(paths) == 1:
        yield paths[0], frame
        return
    order = codes.to_frame("code").with_row_index("row").sort("code", maintain_order=True)
    start = 0
    for code, height in order["code"].rle().struct.unnest().select("value", "len").iter_rows():
        yield paths[code], frame[order["row"].slice(start, height)]
        start += height


def _placement(rows: pl.Series, file: int) -> pl.DataFrame:
    count = rows.len()
    return pl.DataFrame({ROW: rows, "file": np.full(count, file, np.uint16), "line": np.arange(count, dtype=np.uint32)})
