"""Writes rows to staged Parquet files, which a loader copies into a Redshift table."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final, Self

import msgspec
import polars as pl
from pydantic import Field, field_validator, model_validator

from stream.batch import LINEAGE, ROW, SEQUENCE, type_name
from stream.contracts import Encoded
from stream.sink.encode import Compression
from stream.sink.layouts import Layout
from stream.sink.objects import ObjectsSink, ObjectsSinkConfig
from stream.sink.partition import SinkMismatch
from stream.sink.redshift_names import BadName, check_name
from stream.sink.redshift_types import LINE, layout_of, staged_column
from stream.sink.tables import Duration, Evolve, TableSinkConfig

MAX_ROW_BYTES: Final = 4 * 2**20
"""Largest input row that COPY accepts (Amazon Redshift Developer Guide, COPY)."""
_STAGING: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.=-]+)*/?")
_KEY_TYPES: Final = {pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime, pl.Decimal}
_VERSION_TYPES: Final = {pl.Date, pl.Datetime, pl.Decimal}


class Write(StrEnum):
    """How rows enter the table."""

    APPEND = "append"
    UPSERT = "upsert"


class RedshiftSinkConfig(TableSinkConfig):
    """Rows in a table of Amazon Redshift, each exactly once.

    Files are staged on S3 like those of any sink. One loader of the fleet copies sealed units into the table, many at a time, in one
    transaction that also records them in a load ledger. Statements go through the Redshift Data API.
    See [Loading Redshift](../../redshift.md).
    """

    kind: ClassVar[str] = "redshift"

    url: str = Field(alias="staging", description="Where files wait for the loader: s3://bucket/prefix/, in the region of the database.")
    name: str = Field(default="redshift", pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="Name in manifests and metrics.")
    table: str = Field(description="`table` or `schema.table`; the default schema is `public`.")
    database: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$-]{0,126}$", description="Database to connect to.")
    workgroup: str | None = Field(default=None, pattern=r"^[a-z0-9-]{3,64}$", description="Redshift Serverless: the workgroup's name.")
    cluster: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Provisioned: the cluster's identifier.")
    db_user: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_:.@+/$-]{0,127}$",
        description="With `cluster`: the database user to log in as; by default, the role's own.",
    )
    secret_arn: str | None = Field(
        default=None,
        pattern=r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+$",
        description="Log in with a stored secret.",
    )
    iam_role: str = Field(
        pattern=r"^(default|arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+)$",
        description="Role with which COPY reads the files, such as arn:aws:iam::123456789012:role/redshift-copy, or `default`.",
    )
    mode: Write = Field(default=Write.APPEND, description="append, or upsert: of each key, the row with the last sequence number stays.")
    keys: tuple[str, ...] = Field(default=(), max_length=16, description="With `mode: upsert`: columns that identify a row; never null.")
    deletes: str | None = Field(
        default=None, description="With `mode: upsert`: a boolean column. A row in which it is true deletes its key's row."
    )
    version: str | None = Field(
        default=None,
        description="With `mode: upsert`: a column of whole numbers, decimals, dates or timestamps. A row replaces or deletes that of its "
        "key only if its version is not smaller; of equal versions, the last in the stream stays. Never null.",
    )
    create: bool = Field(default=True, description="Create the table if it is missing.")
    evolve: Evolve = Field(default=Evolve.ADD, description="If the table lacks columns: add them, or halt loading.")
    types: dict[str, str] = Field(
        default={}, description="Types by column: varchar(n), varbyte(n), super (text that is JSON), timestamptz, smallint, ..."
    )
    lineage: bool = Field(default=True, description="Write _shard, _sequence, _subsequence and _arrival; needed for upserts.")
    keep_staged: Duration = Field(default=timedelta(days=7), description="How long files are kept after their load.")

    @field_validator("url")
    @classmethod
    def _valid_staging(cls, value: str) -> str:
        if _STAGING.fullmatch(value) is None or {".", ".."} & set(value.split("/")) or len(value) > 200:
            msg = f"{value!r} is not a place to stage files; write s3://bucket/prefix/ with letters, digits and ! _ . = - in the prefix"
            raise ValueError(msg)
        return value

    @field_validator("table")
    @classmethod
    def _valid_table(cls, value: str) -> str:
        parts = value.split(".")
        if len(parts) > 2:
            msg = f"{value!r} is not a table; write `table` or `schema.table`, and the database in `database`"
            raise ValueError(msg)
        for part in parts:
            check_name(part)
        check_name(parts[-1] + LEDGER_SUFFIX)
        return value

    @field_validator("keys", mode="before")
    @classmethod
    def _one_key(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if (self.cluster is None) == (self.workgroup is None):
            given = "neither `cluster` nor `workgroup` is" if self.cluster is None else "both `cluster` and `workgroup` are"
            msg = f"{given} given; name either the cluster (provisioned) or the workgroup (serverless)"
            raise ValueError(msg)
        if self.db_user is not None and (self.workgroup is not None or self.secret_arn is not None):
            msg = "`db_user` goes with `cluster` and without `secret_arn`"
            raise ValueError(msg)
        if (self.mode is Write.UPSERT) != bool(self.keys):
            msg = "`mode: upsert` needs `keys`" if not self.keys else "`keys` only work with `mode: upsert`"
            raise ValueError(msg)
        if self.deletes is not None and self.mode is not Write.UPSERT:
            msg = "`deletes` only works with `mode: upsert`: without keys, it is unknown which row to delete"
            raise ValueError(msg)
        if self.version is not None and self.mode is not Write.UPSERT:
            msg = "`version` only works with `mode: upsert`: without keys, no row replaces another"
            raise ValueError(msg)
        if self.deletes is not None:
            check_name(self.deleted_keys[1])
        if self.mode is Write.UPSERT and not self.lineage:
            msg = "an upsert needs the lineage columns: they say which row is the last"
            raise ValueError(msg)
        return self

    @property
    def target(self) -> tuple[str, str]:
        """Schema and table, in lower case as Redshift stores names."""
        schema, _, table = self.table.rpartition(".")
        return check_name(schema or "public"), check_name(table)

    @property
    def place(self) -> tuple[str | None, str | None, str]:
        """Where the database is: cluster, workgroup, database name."""
        return self.cluster, self.workgroup, self.database

    @property
    def unique_table(self) -> tuple[object, ...]:
        """See ``TableSinkConfig``."""
        return self.place, self.target

    @property
    def staged_for(self) -> timedelta:
        """See ``TableSinkConfig``."""
        return self.keep_staged

    @property
    def ledger(self) -> tuple[str, str]:
        """Schema and table of the load ledger. Each target table has its own, so loads of different tables never wait for each other."""
        schema, table = self.target
        return schema, table + LEDGER_SUFFIX

    @property
    def deleted_keys(self) -> tuple[str, str]:
        """Schema and table that record which keys were deleted."""
        schema, table = self.target
        return schema, table + DELETED_SUFFIX

    def check(self, schema: pl.Schema) -> None:
        """Make sure that Redshift can store rows of ``schema`` (lineage and ``_row`` included).

        Raises:
            SinkMismatch: Redshift does not allow a column's name or type, or a key column is missing or of an unsuitable type.
        """
        self.layout(schema)
        for index, key in enumerate(self.keys):
            dtype = schema.get(key)
            if dtype is None or key in LINEAGE or key == ROW:
                raise SinkMismatch(("keys", index), f"there is no column '{key}'", "columns here: " + ", ".join(self._user_columns(schema)))
            if not (dtype.is_integer() or dtype.base_type() in _KEY_TYPES):
                raise SinkMismatch(
                    ("keys", index), f"column '{key}' of type {type_name(dtype)} cannot be a key", "take text, whole numbers or times"
                )
        if self.deletes is not None:
            self._check_deletes(self.deletes, schema)
        if self.version is not None:
            self._check_version(self.version, schema)

    def _check_version(self, name: str, schema: pl.Schema) -> None:
        if name not in self._user_columns(schema):
            raise SinkMismatch(("version",), f"there is no column '{name}'", "columns here: " + ", ".join(self._user_columns(schema)))
        dtype = schema[name]
        if not (dtype.is_integer() or dtype.base_type() in _VERSION_TYPES):
            how = "take whole numbers, decimals, dates or timestamps: `cast` it in a stage, since text has another order"
            raise SinkMismatch(("version",), f"column '{name}' of type {type_name(dtype)} cannot be a version", how)
        if name in self.keys:
            raise SinkMismatch(("version",), f"column '{name}' is a key", "choose another one: all rows of a key would have one version")

    def _check_deletes(self, name: str, schema: pl.Schema) -> None:
        if name not in self._user_columns(schema):
            raise SinkMismatch(("deletes",), f"there is no column '{name}'", "columns here: " + ", ".join(self._user_columns(schema)))
        if schema[name] != pl.Boolean:
            how = "make one in a stage, such as `derive: {gone: \"operation = 'delete'\"}`"
            raise SinkMismatch(("deletes",), f"column '{name}' of type {type_name(schema[name])} is not a boolean column", how)
        if name in self.keys:
            raise SinkMismatch(("deletes",), f"column '{name}' is a key", "choose another one")

    def layout(self, schema: pl.Schema) -> Layout:
        """The layout of staged files for rows of ``schema``; raises ``SinkMismatch`` as ``check`` does."""
        if LINE in schema:
            raise SinkMismatch((), f"the column name '{LINE}' belongs to this sink", "rename it in a stage")
        staged: dict[str, pl.DataType] = {name: schema[name] for name in self._user_columns(schema)}
        if self.mode is Write.UPSERT:
            staged[LINE] = pl.Int32()
        staged |= {name: schema[name] for name in LINEAGE if self.lineage and name in schema}
        columns, keys = layout_of(staged, self.types).columns, tuple(check_name(key) for key in self.keys)
        if self.deletes is not None and self.deletes in schema:
            flag = check_name(self.deletes)
            columns = tuple(replace(each, target=False, deletes=True) if each.name == flag else each for each in columns)
        if self.version is not None and self.version in schema:
            version = check_name(self.version)
            columns = tuple(replace(each, version=True) if each.name == version else each for each in columns)
        return Layout(columns, keys)

    @staticmethod
    def _user_columns(schema: pl.Schema) -> list[str]:
        return [name for name in schema.names() if name != ROW and name not in LINEAGE]


LEDGER_SUFFIX: Final = "__loads"
DELETED_SUFFIX: Final = "__deleted"
COPY_MANIFESTS: Final = "_loads/"
"""Folder under the staging prefix that holds the manifests passed to COPY."""


class RedshiftSink:
    """``contracts.Sink`` that stages files ``<unit>.<part>.<sha16>.parquet``; also ``contracts.RefusingSink``."""

    def __init__(self, config: RedshiftSinkConfig, schema: pl.Schema) -> None:
        self.config = config
        self.layout = config.layout(schema)
        # Of the codecs of Parquet, the guide of Redshift lists gzip and snappy.
        files = ObjectsSinkConfig(url=config.url, name=config.name, lineage=config.lineage, compression=Compression.SNAPPY)
        self._files = ObjectsSink(files)
        self._columns = {column.name: column for column in self.layout.columns}

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return self.config.name

    def encode(self, frame: pl.DataFrame, unit: str) -> Encoded:
        """See ``contracts.Sink``. The files have the columns of ``layout``, in its order."""
        schema = frame.schema
        columns = [staged_column(name, schema[name]) for name in schema.names() if name != ROW]
        staged = frame.select(ROW, *columns)
        if self.config.deletes is not None:
            staged = staged.with_columns(pl.col(self.config.deletes).fill_null(False))
        if self.config.mode is Write.UPSERT:
            staged = staged.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias(LINE))
        return self._files.encode(staged, unit)

    def refused(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The records of ``frame`` on which COPY would fail: ``_row`` UInt32, ``reason`` String; one row per record, ascending.

        Reasons: ``null_key``, ``null_version``, ``text_too_long``, ``nul_character``, ``binary_too_long``, ``not_json``, ``row_too_large``.
        """
        tests: list[tuple[str, pl.Expr]] = [("null_key", pl.col(key).is_null()) for key in self.config.keys]
        if self.config.version is not None:
            tests.append(("null_version", pl.col(self.config.version).is_null()))
        sizes = []
        for name, dtype in frame.schema.items():
            column = self._columns.get(name.lower())
            if column is None or name == ROW or name in LINEAGE:
                continue
            if dtype == pl.String:
                sizes.append(pl.col(name).str.len_bytes().fill_null(0).cast(pl.UInt64))
                tests.append(("text_too_long", pl.col(name).str.len_bytes() > column.limit))
                tests.append(("nul_character", pl.col(name).str.contains("\0", literal=True)))
                if column.parse:
                    tests.append(("not_json", pl.lit(pl.Series([not _is_json(value) for value in frame[name]], dtype=pl.Boolean))))
            elif dtype == pl.Binary:
                sizes.append(pl.col(name).bin.size().fill_null(0).cast(pl.UInt64))
                tests.append(("binary_too_long", pl.col(name).bin.size() > column.limit))
        if sizes:
            tests.append(("row_too_large", pl.sum_horizontal(sizes) > MAX_ROW_BYTES))
        return _first_reasons(frame, tests)


def _first_reasons(frame: pl.DataFrame, tests: list[tuple[str, pl.Expr]]) -> pl.DataFrame:
    """For each record with a row that fails a test: the name of the first test that its first such row fails."""
    reason = pl.coalesce([pl.when(test).then(pl.lit(name)) for name, test in tests]) if tests else pl.lit(None, pl.String)
    failed = frame.select(ROW, reason.cast(pl.String).alias("reason")).filter(pl.col("reason").is_not_null())
    return failed.unique(ROW, keep="first", maintain_order=True).sort(ROW)


def _is_json(value: str | None) -> bool:
    if value is None:
        return True
    try:
        msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


__all__ = ["COPY_MANIFESTS", "LEDGER_SUFFIX", "SEQUENCE", "BadName", "Evolve", "RedshiftSink", "RedshiftSinkConfig", "Write"]
