"""Writes rows to Parquet files, which become part of an Apache Iceberg table when a loader commits them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

import polars as pl
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator, model_validator

from stream.batch import LINEAGE, ROW, type_name
from stream.contracts import Encoded
from stream.references import secret_reference
from stream.sink.iceberg_types import file_type, layout_of
from stream.sink.layouts import Layout
from stream.sink.objects import DEFAULT_FILE_BYTES, ObjectsSink, ObjectsSinkConfig
from stream.sink.partition import INVALID, OVERFLOW, Entry, Partitioning, SinkMismatch
from stream.sink.tables import Evolve, TableSinkConfig

DATA: Final = "data/"
METADATA: Final = "metadata/"
"""Folders below the table's location, with the names that all engines use."""

MAX_PARTITION_TEXT: Final = 1_000
"""In bytes. A file's partition is read from its column bounds, which Parquet files do not have for longer text."""

_LOCATION: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9!_.=/-]+|file:.+")
_TABLE: Final = re.compile(r"[A-Za-z0-9_-]{1,255}(\.[A-Za-z0-9_-]{1,255})+")
_PARTITION: Final = re.compile(r"(year|month|day|hour)\((.+)\)")
_CALL: Final = re.compile(r"[A-Za-z_]+\(.*\)")
_SECRET: Final = re.compile(r"token|password|secret|credential|access-key")
_FORMATS: Final = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%d-%H"}
_BY_VALUE: Final = {pl.String, pl.Boolean, pl.Int32, pl.Int64, pl.Date, pl.Decimal}


class CatalogType(StrEnum):
    """The kind of catalog that has the table."""

    GLUE = "glue"
    REST = "rest"
    SQL = "sql"


class Transform(StrEnum):
    """How a partition value is computed from a column's value (Iceberg table spec, "Partition transforms")."""

    IDENTITY = "identity"
    YEAR = "year"
    MONTH = "month"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class PartitionField:
    """One partition field of the table."""

    transform: Transform
    column: str

    @property
    def name(self) -> str:
        """The field's name, as engines name it by default."""
        return self.column if self.transform is Transform.IDENTITY else f"{self.column}_{self.transform}"

    @property
    def entry(self) -> Entry:
        """The ``Partitioning`` entry that puts the rows of each partition value into a folder of their own."""
        if self.transform is Transform.IDENTITY:
            return self.column
        quoted = self.column.replace('"', '""')
        return {self.name: f"strftime(\"{quoted}\", '{_FORMATS[self.transform]}')"}


def _fields(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _reference(value: object) -> object:
    return {name: secret_reference(each) for name, each in value.items()} if isinstance(value, dict) else value


_SECRETS: Final = {"type": "object", "additionalProperties": {"x-is": "secret"}}


class IcebergSinkConfig(TableSinkConfig):
    """Rows in an Apache Iceberg table, each exactly once, in a catalog of AWS Glue, REST or SQL.

    Files are written under `location` like those of any sink. One loader of the fleet commits the files of sealed units, many at a time,
    together with a note of how far each shard is loaded. See [Loading Iceberg tables](../../iceberg.md).
    """

    kind: ClassVar[str] = "iceberg"

    url: str = Field(alias="location", description="Where the table is: s3://bucket/prefix/ or file:directory.")
    name: str = Field(default="iceberg", pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Name in manifests and metrics.")
    table: str = Field(description="`namespace.table`; with Glue `database.table`.")
    catalog: dict[str, str] = Field(
        default={"type": "glue"},
        description="`type`: glue, rest or sql; further properties go to the catalog as PyIceberg names them: uri, warehouse, ...",
    )
    secrets: Annotated[dict[str, str], BeforeValidator(_reference), PlainSerializer(lambda value: value), WithJsonSchema(_SECRETS)] = Field(
        default={}, description="Properties of the catalog that are secret, as `{credential: {env: NAME}}`."
    )
    partition_by: Annotated[tuple[str, ...], BeforeValidator(_fields)] = Field(
        default=(), max_length=3, description="Columns, or year, month, day or hour of one: `[day(_arrival), origin]`."
    )
    max_partitions: int = Field(
        default=512, ge=1, le=10_000, description="Most partitions per unit; records of further ones become dead letters."
    )
    create: bool = Field(default=True, description="Create the table if it is missing.")
    evolve: Evolve = Field(default=Evolve.ADD, description="If the table lacks columns: add them, or halt loading.")
    properties: dict[str, str] = Field(default={}, description="Properties of the table, if it is created.")
    lineage: bool = Field(default=True, description="Write _shard, _sequence, _subsequence and _arrival.")

    @field_validator("url")
    @classmethod
    def _valid_location(cls, value: str) -> str:
        if _LOCATION.fullmatch(value) is None or {".", ".."} & set(value.split("/")[3:]) or len(value) > 200:
            msg = f"{value!r} is not a location for a table; write s3://bucket/prefix/ with letters, digits and ! _ . = - in the prefix"
            raise ValueError(msg)
        return value

    @field_validator("table")
    @classmethod
    def _valid_table(cls, value: str) -> str:
        if _TABLE.fullmatch(value) is None:
            msg = f"{value!r} is not a table; write `namespace.table` with letters, digits, _ and -"
            raise ValueError(msg)
        return value

    @field_validator("catalog")
    @classmethod
    def _valid_catalog(cls, value: dict[str, str]) -> dict[str, str]:
        kinds = [kind.value for kind in CatalogType]
        if value.get("type") not in kinds:
            msg = f"`type` of the catalog is {value.get('type')!r}; allowed: {', '.join(kinds)}"
            raise ValueError(msg)
        for name in value:
            if _SECRET.search(name):
                msg = f"the property {name!r} is a secret, which a pipeline file must not contain; write secrets: {{{name}: {{env: NAME}}}}"
                raise ValueError(msg)
        return value

    @field_validator("partition_by")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            msg = f"{list(value)!r} names a partition field twice"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        kind = self.catalog["type"]
        if kind != CatalogType.GLUE and "uri" not in self.catalog and "uri" not in self.secrets:
            msg = f"a catalog of type {kind} needs its `uri`"
            raise ValueError(msg)
        if kind == CatalogType.GLUE and (self.table != self.table.lower() or self.table.count(".") != 1):
            msg = f"{self.table!r} is not a table name in Glue, which has the form `database.table` in lower case"
            raise ValueError(msg)
        return self

    @property
    def fields(self) -> tuple[PartitionField, ...]:
        """The partition fields of the table."""
        found = []
        for text in self.partition_by:
            match = _PARTITION.fullmatch(text)
            found.append(PartitionField(Transform(match[1]), match[2]) if match else PartitionField(Transform.IDENTITY, text))
        return tuple(found)

    @property
    def unique_table(self) -> tuple[object, ...]:
        """See ``TableSinkConfig``."""
        return tuple(sorted(self.catalog.items())), self.table.lower()

    @property
    def keeps_files(self) -> bool:
        """See ``TableSinkConfig``."""
        return True

    @property
    def files(self) -> ObjectsSinkConfig:
        """The sink that writes the files, relative to ``data/``."""
        entries = tuple(field.entry for field in self.fields)
        bounds = {"max_partitions": self.max_partitions, "file_bytes": DEFAULT_FILE_BYTES}
        return ObjectsSinkConfig.model_validate(
            {"url": self.url, "name": self.name, "lineage": self.lineage, "partition_by": entries, **bounds}
        )

    def key_columns(self) -> frozenset[str]:
        """The columns that the partitions are computed from."""
        return frozenset(field.column for field in self.fields)

    def secret_names(self) -> tuple[str, ...]:
        """See ``SinkConfig``."""
        return tuple(self.secrets.values())

    def check(self, schema: pl.Schema) -> None:
        """Make sure that an Iceberg table can store rows of ``schema`` (lineage and ``_row`` included).

        Raises:
            SinkMismatch: Iceberg does not allow a column's name or type, or a partition field cannot be computed.
        """
        self.layout(schema)
        files = self._file_schema(schema)
        for index, field in enumerate(self.fields):
            dtype = files.get(field.column)
            if dtype is None:
                called = _CALL.fullmatch(field.column)
                transforms = f"a partition is a column, or one of {', '.join(_FORMATS)} of a time, as in `day(time)`"
                hint = transforms if called is not None else "columns here: " + ", ".join(files)
                raise SinkMismatch(("partition_by", index), f"there is no column '{field.column}'", hint)
            allowed = _BY_VALUE if field.transform is Transform.IDENTITY else {pl.Datetime} if field.transform is Transform.HOUR else _TIMES
            if dtype.base_type() not in allowed:
                raise SinkMismatch(
                    ("partition_by", index), f"column '{field.column}' of type {type_name(dtype)} has no {field.transform}", _HINT
                )
        if self.partition_by:
            Partitioning(self.files.partition_by).check(pl.Schema(files))

    def layout(self, schema: pl.Schema) -> Layout:
        """The layout of files for rows of ``schema``; raises ``SinkMismatch`` as ``check`` does."""
        return layout_of(self._file_schema(schema))

    def key_pattern(self, unit: str) -> str:
        """See ``SinkConfig``."""
        return DATA + self.files.key_pattern(unit)

    def most_files(self, partitions: float, encoded_bytes: float) -> float:
        """See ``SinkConfig``."""
        return self.files.most_files(partitions, encoded_bytes)

    def _file_schema(self, schema: pl.Schema) -> dict[str, pl.DataType]:
        user_columns = [name for name in schema.names() if name != ROW and name not in LINEAGE]
        return {name: file_type(schema[name]) for name in (*user_columns, *(name for name in LINEAGE if self.lineage and name in schema))}


_TIMES: Final = {pl.Datetime, pl.Date}
_HINT: Final = "whole columns: text, whole numbers, decimals, booleans, dates; year, month and day: dates, times; hour: times"


class IcebergSink:
    """``contracts.Sink`` that writes files ``data/<partition>/<unit>.<part>.<sha16>.parquet``; also ``contracts.RefusingSink``."""

    def __init__(self, config: IcebergSinkConfig, schema: pl.Schema) -> None:
        self.config = config
        self.layout = config.layout(schema)
        self._files = ObjectsSink(config.files)
        self._partitions = Partitioning(config.files.partition_by, config.max_partitions)
        self._texts = [field.column for field in config.fields if schema[field.column].base_type() in _TEXTS]

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return self.config.name

    def encode(self, frame: pl.DataFrame, unit: str) -> Encoded:
        """See ``contracts.Sink``. The files have the columns of ``layout``, in its order, and rows of one partition each."""
        encoded = self._files.encode(_as_file_types(frame), unit)
        return dataclasses.replace(encoded, files=tuple(dataclasses.replace(file, key=DATA + file.key) for file in encoded.files))

    def refused(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The records of ``frame`` without a partition: ``_row`` UInt32, ``reason`` String; one row per record, ascending.

        Reasons: ``partition_too_long``, ``no_partition``.
        """
        no_records = pl.DataFrame(schema={ROW: pl.UInt32(), "reason": pl.String()})
        if not self.config.partition_by:
            return no_records
        lengths = [pl.col(name).cast(pl.String).str.len_bytes() > MAX_PARTITION_TEXT for name in self._texts]
        too_long = (
            frame.select(pl.any_horizontal(lengths).fill_null(value=False)).to_series() if lengths else pl.zeros(len(frame), eager=True)
        )
        assigned = self._partitions.assign(_as_file_types(frame))
        without_partition = [path.endswith((f"={OVERFLOW}", f"={INVALID}")) for path in assigned.paths]
        unplaced = pl.Series(without_partition, dtype=pl.Boolean).gather(assigned.codes) if len(frame) else pl.Series([], dtype=pl.Boolean)
        reason = pl.when(too_long.cast(pl.Boolean)).then(pl.lit("partition_too_long")).when(unplaced).then(pl.lit("no_partition"))
        failed = frame.select(ROW, reason.alias("reason")).filter(pl.col("reason").is_not_null())
        return failed.unique(ROW, keep="first", maintain_order=True).sort(ROW)


_TEXTS: Final[set[Any]] = {pl.String, pl.Categorical, pl.Enum}


def _as_file_types(frame: pl.DataFrame) -> pl.DataFrame:
    changed = {name: file_type(dtype) for name, dtype in frame.schema.items() if name != ROW and file_type(dtype) != dtype}
    return frame.with_columns(_cast(name, frame.schema[name], dtype) for name, dtype in changed.items())


def _cast(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        column = column.dt.convert_time_zone("UTC")
    return column.cast(wanted)
