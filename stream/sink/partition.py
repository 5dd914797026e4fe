"""Which partition each row belongs to, and what its directory is called.

The path is computed for each row separately, and its text is an injective encoding of the row's values: two different values never share a
directory, and no value can escape from the sink's prefix. The encoding of one value:

    null                        ``__HIVE_DEFAULT_PARTITION__``
    empty text                  ``__EMPTY__``
    letters, digits, ``.``, ``_``, ``-``  unchanged
    any other UTF-8 byte        ``%XX``
    text beginning with ``__``  its first byte as ``%5F``, so that it never equals a token of this module
    ``.`` and ``..``            ``%2E`` and ``%2E.``
    longer than 120 bytes       its first bytes, ``__sha256-`` and 40 hex digits; longer than every other encoding, so different from all
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

import numpy as np
import polars as pl

from stream.arithmetic import TOO_DEEP, TOO_DEEP_CURE, angles_of_objects, exact, too_deep
from stream.batch import type_name
from stream.dry_run import polars_message, type_error
from stream.errors import DefinitionError
from stream.recorded import is_recorded

NULL: Final = "__HIVE_DEFAULT_PARTITION__"
"""Hive's own name for null; Spark, Trino, Athena and DuckDB read it back as null."""
EMPTY: Final = "__EMPTY__"
OVERFLOW: Final = "__overflow__"
"""Rows of partitions beyond the limit, and rows whose path would be too long."""
INVALID: Final = "__invalid__"
"""Rows for which the expression fails, such as text that a CAST cannot parse."""

MAX_VALUE_BYTES: Final = 120
MAX_PATH_BYTES: Final = 500
"""Leaves room for the sink's prefix and the file name inside the 1,024 bytes of an S3 key."""
_KEPT_BYTES: Final = 88
_MAX_FAILURES: Final = 1024

_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_WORD: Final = re.compile(r"[a-z_]+")
_CLOCK_WORDS: Final = {"now", "current_timestamp", "current_date", "current_time", "localtimestamp", "localtime"}
"""Polars replaces these by a constant, the time at which the expression was parsed."""

Entry: TypeAlias = str | dict[str, str]


class SinkMismatch(DefinitionError, ValueError):
    """The sink cannot write these columns; ``path`` names the option of the sink's config to change."""

    def __init__(self, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        super().__init__(f"{message} - {hint}" if hint else message)
        self.path = path
        self.message = message
        self.hint = hint


def encode_value(value: str | None) -> str:
    """The directory name for one value, different for different values: 1 to 137 characters of [A-Za-z0-9._%-]."""
    if value is None:
        return NULL
    if not value:
        return EMPTY
    text = quote(value, safe="").replace("~", "%7E")
    if text.startswith("__"):
        text = "%5F" + text[1:]
    if text in {".", ".."}:
        text = "%2E" + text[1:]
    if len(text) <= MAX_VALUE_BYTES:
        return text
    head = text[:_KEPT_BYTES]
    cut = head.rfind("%", _KEPT_BYTES - 2)
    digest = hashlib.sha256(value.encode()).hexdigest()[:40]
    return f"{head if cut < 0 else head[:cut]}__sha256-{digest}"


class Folders(StrEnum):
    """What the directories of partitions are called."""

    HIVE = "hive"
    PLAIN = "plain"


def values_in(key: str, names: Sequence[str]) -> dict[str, str | None]:
    """The partition columns of the file ``key``, by their names, as the directories say: the inverse of ``encode_value``.

    Plain directories have values only, which are those of ``names``, in their order. No encoded value contains ``=``. Values that have no
    directory of their own are the words for that: ``__overflow__``, ``__invalid__``, and what long values begin with.
    """
    folders = key.split("/")[:-1]
    pairs = [(unquote(name), value) for name, mark, value in (folder.partition("=") for folder in folders) if mark]
    if not pairs and len(folders) == len(names):
        pairs = list(zip(names, folders, strict=True))
    return {name: {NULL: None, EMPTY: ""}.get(value, unquote(value)) for name, value in pairs}


@dataclass(frozen=True, slots=True)
class Assignment:
    """The partition of each row of a frame: row i belongs to ``paths[codes[i]]``.

    ``codes`` is UInt32 of the frame's height; ``paths`` are distinct directories without a leading or trailing slash, numbered in
    order of first appearance.
    """

    codes: pl.Series
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    source: pl.Expr
    path: tuple[str | int, ...]


class Partitioning:
    """Partition columns, ready to evaluate. ``entries`` are column names or one-key mappings of a name to an SQL expression.

    Raises:
        SinkMismatch: an expression does not parse, does not work row by row, or two entries have one name.
    """

    def __init__(self, entries: Sequence[Entry], limit: int = 512, folders: Folders = Folders.HIVE) -> None:
        self.limit = limit
        self._folders = folders
        self._columns = tuple(_column(index, entry) for index, entry in enumerate(entries))
        names = [column.name for column in self._columns]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise SinkMismatch((index,), f"partition column '{name}' is listed twice", "remove one of them")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the partition columns, in the order of the path."""
        return tuple(column.name for column in self._columns)

    @property
    def sources(self) -> frozenset[str]:
        """The columns that the partition columns are computed from."""
        return frozenset(name for column in self._columns for name in column.source.meta.root_names())

    def check(self, schema: pl.Schema) -> None:
        """Make sure that every partition column can be computed from columns of ``schema``.

        Raises:
            SinkMismatch: a column is missing, an expression does not type-check, or its type has no unambiguous text form.
        """
        rows = pl.LazyFrame(schema=schema)
        for column in self._columns:
            try:
                if angles_of_objects(column.source, schema):
                    message = f"partition column '{column.name}' cannot be computed: atan2 takes numbers, no objects"
                    raise SinkMismatch(column.path, message, "name fields of the object, as in `atan2(o.y, o.x)`")
                dtype = rows.select(column.source.alias(column.name)).collect_schema()[column.name]
            except pl.exceptions.ColumnNotFoundError as error:
                missing = next((name for name in column.source.meta.root_names() if name not in schema), column.name)
                message = f"partition column '{column.name}': no column '{missing}'; there are: {', '.join(schema.names())}"
                raise SinkMismatch(column.path, message) from error
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
                message = f"partition column '{column.name}' cannot be computed: {polars_message(error)}"
                raise SinkMismatch(column.path, message) from error
            if dtype.is_nested() or dtype.base_type() in {pl.Binary, pl.Duration, pl.Object, pl.Null}:
                message = f"partition column '{column.name}' has type {type_name(dtype)}, which has no unambiguous text"
                raise SinkMismatch(column.path, message, "allowed: text, numbers, booleans, dates, times")
            used = {name: schema[name] for name in column.source.meta.root_names()}
            if not is_recorded() and (problem := type_error(self._evaluation(column), used)):
                message = f"partition column '{column.name}' cannot be computed: {problem}"
                raise SinkMismatch(column.path, message, "compute it in a stage before, such as `cast` or `parse`")

    @staticmethod
    def _evaluation(column: _Column) -> Callable[[pl.DataFrame], pl.DataFrame]:
        return lambda row: row.with_columns(column.source.cast(pl.String).alias(column.name))

    def assign(self, frame: pl.DataFrame) -> Assignment:
        """The partition of every row.

        Never raises because of data: rows whose expression fails go to ``__invalid__``. They are found by bisection. Once 1,024 slices
        have failed, every further slice that fails goes there as a whole.
        """
        if not self._columns:
            return Assignment(pl.Series(np.zeros(frame.height, np.uint32)), ("",) if frame.height else ())
        values = self._evaluate(frame)
        distinct = values.unique(maintain_order=True).with_row_index("code")
        codes = values.join(distinct, on=values.columns, how="left", nulls_equal=True, maintain_order="left")["code"]
        return self._assignment(codes, distinct.head(self.limit).drop("code"), distinct.height)

    def _assignment(self, codes: pl.Series, distinct: pl.DataFrame, total: int) -> Assignment:
        """``distinct``: the first rows of values, as many as the limit allows; ``codes`` number all ``total`` rows of values."""
        path_numbers: dict[str, int] = {}
        index = [path_numbers.setdefault(self._path(row), len(path_numbers)) for row in distinct.iter_rows()]
        if total > len(index):
            overflow = path_numbers.setdefault(self._every_column(OVERFLOW), len(path_numbers))
            index.extend([overflow] * (total - len(index)))
        if len(path_numbers) == total:
            return Assignment(codes, tuple(path_numbers))
        return Assignment(pl.Series(index, dtype=pl.UInt32).gather(codes), tuple(path_numbers))

    def _path(self, row: tuple[object, ...]) -> str:
        *values, valid = row
        if not valid:
            return self._every_column(INVALID)
        texts = [value if isinstance(value, str) else None for value in values]
        path = "/".join(self._folder(column, encode_value(text)) for column, text in zip(self._columns, texts, strict=True))
        return path if len(path) <= MAX_PATH_BYTES else self._every_column(OVERFLOW)

    def _every_column(self, token: str) -> str:
        return "/".join(self._folder(column, token) for column in self._columns)

    def _folder(self, column: _Column, value: str) -> str:
        return value if self._folders is Folders.PLAIN else f"{encode_value(column.name)}={value}"

    def _evaluate(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The values as text in columns "0", "1", ..., then a column ``valid``. Rows that fail are found by bisection."""
        names = [str(index) for index in range(len(self._columns))]
        sources = [exact(column.source, frame.schema) for column in self._columns]
        wanted = [source.cast(pl.String).alias(name) for source, name in zip(sources, names, strict=True)]
        no_values = pl.DataFrame(schema={**dict.fromkeys(names, pl.String), "valid": pl.Boolean})
        pending, done, failures = [frame], [], 0
        while pending:
            rows = pending.pop()
            try:
                done.append(rows.with_columns(wanted).select(*names, valid=pl.lit(value=True)))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                failures += 1
                if rows.height <= 1 or failures > _MAX_FAILURES:
                    done.append(no_values.clear(rows.height))
                else:
                    half = rows.height // 2
                    pending += [rows.slice(half), rows.head(half)]
        return pl.concat(done)


def _column(index: int, entry: Entry) -> _Column:
    if isinstance(entry, str):
        if entry.startswith("^") and entry.endswith("$") and not is_recorded():
            raise SinkMismatch((index,), f"partition column '{entry}' reads as a pattern", "rename the column in a stage")
        return _Column(entry, pl.col(entry), (index,))
    name, text = _single_item(index, entry)
    path = (index, name)
    try:
        source = pl.sql_expr(text)
        if too_deep(source):
            raise SinkMismatch(path, f"partition column '{name}': {TOO_DEEP}", TOO_DEEP_CURE)
        row_wise = _is_row_wise(source)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        message = f"partition column '{name}': cannot read the expression {text!r}: {polars_message(error)}"
        raise SinkMismatch(path, message, "write one SQL expression such as strftime(_arrival, '%Y-%m-%d')") from error
    if not is_recorded() and not source.meta.eq(source.meta.undo_aliases()):
        message = f"partition column '{name}': {source.meta.output_name()!r} at the end of {text!r} would be a name for the result"
        raise SinkMismatch(path, message, "write an operator between, or double quotes around a name with a blank")
    words = set(_WORD.findall(_QUOTED.sub(" ", text.lower())))
    if words & _CLOCK_WORDS:
        message = f"partition column '{name}': {text!r} depends on when it runs"
        raise SinkMismatch(path, message, "a rewrite must find the same partition; use _arrival, the time of arrival")
    if "over" in words or not row_wise:
        message = f"partition column '{name}': {text!r} looks at more than one row"
        raise SinkMismatch(path, message, "a partition is decided row by row; compute aggregates in a stage")
    return _Column(name, source, path)


def _is_row_wise(source: pl.Expr) -> bool:
    """Whether each row's value depends on that row only, or is a constant."""
    tree = _operators_as_sums(json.loads(source.meta.serialize(format="json")))
    try:
        whole, *parts = (_expression(each) for each in (tree, *_all_row_parts(tree)))
    except pl.exceptions.ComputeError:
        return source.meta.is_row_separable()  # it contains a number that JSON cannot express, such as infinity
    meta = whole.meta
    constant = meta.is_scalar() and not meta.root_names()
    parts_row_wise = not any(part.meta.is_scalar() or not part.meta.is_row_separable() for part in parts)
    return parts_row_wise and meta.is_row_separable() and (meta.is_length_preserving() or constant)


def _expression(tree: Any) -> pl.Expr:
    return pl.Expr.deserialize(io.StringIO(json.dumps(tree)), format="json")


def _all_row_parts(tree: Any) -> Iterator[Any]:
    """The parts of an expression's tree that read all rows at once, such as ``MAX(a)`` in ``a - MAX(a)``, which has a value per row."""
    if isinstance(tree, list):
        yield from (part for each in tree for part in _all_row_parts(each))
    elif tree == "Len":
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in {"Agg", "Over"} or (key == "Function" and not _expression(tree).meta.is_row_separable()):
                yield tree
            if key not in {"Literal", "Column"}:
                yield from _all_row_parts(value)


def _operators_as_sums(tree: Any) -> Any:
    """The tree of an expression, with each SQL operator such as ``%`` replaced by a sum.

    SQL operators all work row by row, but Polars cannot tell as long as the types of the columns are unknown.
    """
    if isinstance(tree, list):
        return [_operators_as_sums(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    parts = {key: _operators_as_sums(value) for key, value in tree.items()}
    function = parts.get("Function")
    if not isinstance(function, dict) or not isinstance(function["function"], dict) or "Sql" not in function["function"]:
        return parts
    first, *others = function["input"]
    for other in others:
        first = {"BinaryExpr": {"left": first, "op": "Plus", "right": other}}
    return first


def _single_item(index: int, entry: Mapping[str, str]) -> tuple[str, str]:
    if len(entry) != 1:
        message = f"a partition entry has one name and one expression, got {len(entry)} names"
        raise SinkMismatch((index,), message, "write one list item per partition column")
    return next(iter(entry.items()))
