"""The columns of staged files, and those of the table that their rows are loaded into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``staged`` and ``type`` are warehouse types: that of the column in the file, and that of the column in the table.

    ``limit``: most bytes of a value, 0 if there is no limit. ``parse``: the file has JSON text, the table its parsed value. ``target``
    False: the column is needed for loading only, and the table lacks it. ``deletes``: rows in which it is true delete the table's row of
    their key. ``version``: its values say which of two rows of one key replaces the other.
    """

    name: str
    staged: str
    type: str
    limit: int = 0
    parse: bool = False
    target: bool = True
    deletes: bool = False
    version: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns of a staged file, in file order, and how its rows are merged into the table.

    ``keys``: columns that identify a row; of rows with equal keys, the table keeps the newest. Without keys, rows are appended.
    """

    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()

    @property
    def target(self) -> tuple[Column, ...]:
        """The columns that the table has."""
        return tuple(column for column in self.columns if column.target)

    @property
    def deletes(self) -> Column | None:
        """The boolean column that marks deletions, if any."""
        return next((column for column in self.columns if column.deletes), None)

    @property
    def version(self) -> Column | None:
        """The column by which rows of one key are compared, if any, before the order of the stream."""
        return next((column for column in self.columns if column.version), None)


@runtime_checkable
class HasLayout(Protocol):
    """A sink whose files are loaded into a table."""

    layout: Layout
