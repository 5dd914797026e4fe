"""Rows to Parquet files that become an Apache Iceberg table's own when a loader commits them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

import polars as pl
from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator, model_validator

from stream.batch import LINEAGE, ROW
from stream.contracts import Encoded
from stream.references import secret_reference
from stream.sink.iceberg_types import filed, layout_of
from stream.sink.layouts import Layout
from stream.sink.objects import DEFAULT_FILE_BYTES, ObjectsSink, ObjectsSinkConfig
from stream.sink.partition import INVALID, OVERFLOW, Entry, Partitioning, SinkMismatch
from stream.sink.tables import Evolve, TableSinkConfig

DATA: Final = "data/"
METADATA: Final = "metadata/"
"""Folders below the table's location, named as every engine names them."""

MAX_PARTITION_TEXT: Final = 1_000
"""Bytes; Parquet files keep no bounds of longer text, and a file's partition is read from its bounds."""

_LOCATION: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9!_.=/-]+|file:.+")
_TABLE: Final = re.compile(r"[A-Za-z0-9_-]{1,255}(\.[A-Za-z0-9_-]{1,255})+")
_PARTITION: Final = re.compile(r"(year|month|day|hour)\((.+)\)")
_SECRET: Final = re.compile(r"token|password|secret|credential|access-key")
_FORMATS: Final = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%d-%H"}
_BY_VALUE: Final = {pl.String, pl.Boolean, pl.Int32, pl.Int64, pl.Date, pl.Decimal}


class CatalogType(StrEnum):
    """Which catalog knows the table."""

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
        """As engines name it."""
        return self.column if self.transform is Transform.IDENTITY else f"{self.column}_{self.transform}"

    @property
    def entry(self) -> Entry:
        """The partition entry that names the folders; each folder has the rows of one value only."""
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
    def _plain_place(cls, value: str) -> str:
        if _LOCATION.fullmatch(value) is None or {".", ".."} & set(value.split("/")[3:]) or len(value) > 200:
            msg = f"{value!r} is no place for a table; write s3://bucket/prefix/ with letters, digits and ! _ . = - in the prefix"
            raise ValueError(msg)
        return value

    @field_validator("table")
    @classmethod
    def _in_a_namespace(cls, value: str) -> str:
        if _TABLE.fullmatch(value) is None:
            msg = f"{value!r} is not a table; write `namespace.table` with letters, digits, _ and -"
            raise ValueError(msg)
        return value

    @field_validator("catalog")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
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
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            msg = f"{list(value)!r} names a partition field twice"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
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
        """The files, below ``data/``."""
        entries = tuple(field.entry for field in self.fields)
        bounds = {"max_partitions": self.max_partitions, "file_bytes": DEFAULT_FILE_BYTES}
        return ObjectsSinkConfig.model_validate(
            {"url": self.url, "name": self.name, "lineage": self.lineage, "partition_by": entries, **bounds}
        )

    def secret_names(self) -> tuple[str, ...]:
        """See ``SinkConfig``."""
        return tuple(self.secrets.values())

    def check(self, schema: pl.Schema) -> None:
        """Make sure that rows of ``schema`` (lineage and ``_row`` included) have a place in a table.

        Raises:
            SinkMismatch: a column's name or type has none in Iceberg, or a partition field cannot be computed.
        """
        self.layout(schema)
        files = self._filed(schema)
        for index, field in enumerate(self.fields):
            dtype = files.get(field.column)
            if dtype is None:
                raise SinkMismatch(("partition_by", index), f"there is no column '{field.column}'", "columns here: " + ", ".join(files))
            allowed = _BY_VALUE if field.transform is Transform.IDENTITY else {pl.Datetime} if field.transform is Transform.HOUR else _TIMES
            if dtype.base_type() not in allowed:
                raise SinkMismatch(("partition_by", index), f"column '{field.column}' of type {dtype} has no {field.transform}", _HINT)
        if self.partition_by:
            Partitioning(self.files.partition_by).check(pl.Schema(files))

    def layout(self, schema: pl.Schema) -> Layout:
        """What files of ``schema`` look like; raises ``SinkMismatch`` as ``check`` does."""
        return layout_of(self._filed(schema))

    def key_pattern(self, unit: str) -> str:
        """See ``SinkConfig``."""
        return DATA + self.files.key_pattern(unit)

    def most_files(self, partitions: float, encoded_bytes: float) -> float:
        """See ``SinkConfig``."""
        return self.files.most_files(partitions, encoded_bytes)

    def _filed(self, schema: pl.Schema) -> dict[str, pl.DataType]:
        own = [name for name in schema.names() if name != ROW and name not in LINEAGE]
        return {name: filed(schema[name]) for name in (*own, *(name for name in LINEAGE if self.lineage and name in schema))}


_TIMES: Final = {pl.Datetime, pl.Date}
_HINT: Final = "whole columns: text, whole numbers, decimals, booleans, dates; year, month and day: dates, times; hour: times"


class IcebergSink:
    """``contracts.Sink`` over files ``data/<partition>/<unit>.<part>.<sha16>.parquet``; also ``contracts.Choosy``."""

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
        """See ``contracts.Sink``: files with the columns of ``layout``, in its order, each with the rows of one partition."""
        encoded = self._files.encode(_as_filed(frame), unit)
        return dataclasses.replace(encoded, files=tuple(dataclasses.replace(file, key=DATA + file.key) for file in encoded.files))

    def refused(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Records of ``frame`` without a partition: ``_row`` UInt32, ``reason`` String, one row for each, ascending.

        Reasons: ``partition_too_long``, ``no_partition``.
        """
        nothing = pl.DataFrame(schema={ROW: pl.UInt32(), "reason": pl.String()})
        if not self.config.partition_by:
            return nothing
        lengths = [pl.col(name).cast(pl.String).str.len_bytes() > MAX_PARTITION_TEXT for name in self._texts]
        long = frame.select(pl.any_horizontal(lengths).fill_null(value=False)).to_series() if lengths else pl.zeros(len(frame), eager=True)
        assigned = self._partitions.assign(_as_filed(frame))
        beyond = [path.endswith((f"={OVERFLOW}", f"={INVALID}")) for path in assigned.paths]
        many = pl.Series(beyond, dtype=pl.Boolean).gather(assigned.codes) if len(frame) else pl.Series([], dtype=pl.Boolean)
        reason = pl.when(long.cast(pl.Boolean)).then(pl.lit("partition_too_long")).when(many).then(pl.lit("no_partition"))
        told = frame.select(ROW, reason.alias("reason")).filter(pl.col("reason").is_not_null())
        return told.unique(ROW, keep="first", maintain_order=True).sort(ROW)


_TEXTS: Final[set[Any]] = {pl.String, pl.Categorical, pl.Enum}


def _as_filed(frame: pl.DataFrame) -> pl.DataFrame:
    changed = {name: filed(dtype) for name, dtype in frame.schema.items() if name != ROW and filed(dtype) != dtype}
    return frame.with_columns(_changed(name, frame.schema[name], dtype) for name, dtype in changed.items())


def _changed(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        column = column.dt.convert_time_zone("UTC")
    return column.cast(wanted)
