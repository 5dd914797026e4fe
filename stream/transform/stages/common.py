"""Checks that several stages share."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from stream.batch import ROW
from stream.transform.row_numbers import without
from stream.transform.stage import Applied, SchemaMismatch
from stream.transform.types import RESERVED, SYSTEM, near, refuse_pattern


def rejecting(frame: pl.DataFrame, reason: pl.Series) -> Applied:
    """``frame`` without the rows whose ``reason`` is not null, which are rejected."""
    rejected = reason.is_not_null().arg_true()
    if not len(rejected):
        return Applied(frame)
    rejects = pl.DataFrame({ROW: frame[ROW].gather(rejected), "reason": reason.gather(rejected)})
    return Applied(without(frame, rejected), rejects)


def user_columns(schema: pl.Schema) -> list[str]:
    """The columns that stages may write."""
    return [name for name in schema if name not in SYSTEM]


def require(name: str, schema: pl.Schema, path: tuple[str | int, ...]) -> pl.DataType:
    """The type of user column ``name``.

    Raises:
        SchemaMismatch: there is no such column, or it is one of the system's.
    """
    refuse_system(name, path)
    if name not in schema:
        known = user_columns(schema)
        raise SchemaMismatch(path, f"no column {name!r}; there are: {', '.join(known)}", near(name, known))
    return schema[name]


def refuse_system(name: str, path: tuple[str | int, ...]) -> None:
    """Refuse a column name that belongs to the service.

    Raises:
        SchemaMismatch: ``name`` belongs to the service, or is a pattern of several columns.
    """
    refuse_pattern(name, path)
    if name in RESERVED:
        message = f"column {name!r} belongs to the service: it may be read in expressions and is always kept, but never written"
        raise SchemaMismatch(path, message, "use another name")


def refuse_clash(names: Iterable[str], schema: pl.Schema, path: tuple[str | int, ...]) -> None:
    """Refuse names that columns already have.

    Raises:
        SchemaMismatch: a column of that name exists.
    """
    for name in names:
        refuse_system(name, path)
        if name in schema:
            raise SchemaMismatch(path, f"column {name!r} already exists", "give the new column another name, or drop the old one first")
