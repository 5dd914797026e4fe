"""What the columns of staged files look like, and those of the table that is to have their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``staged`` and ``type`` are types of the warehouse: of the column in the file, and in the table.

    ``limit``: bytes of a value, 0 for none. ``parse``: text that the table has as values. ``target`` False: needed while loading only.
    ``deletes``: true in rows that delete what the table has for their key.
    """

    name: str
    staged: str
    type: str
    limit: int = 0
    parse: bool = False
    target: bool = True
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns of a staged file, in its order, and how its rows get into the table.

    ``keys``: of the table's rows with the same values in these columns the last one stays; without keys, rows are appended.
    """

    columns: tuple[Column, ...]
    keys: tuple[str, ...] = ()

    @property
    def target(self) -> tuple[Column, ...]:
        """Those that the table has."""
        return tuple(column for column in self.columns if column.target)

    @property
    def deletes(self) -> Column | None:
        """The one that says which rows delete."""
        return next((column for column in self.columns if column.deletes), None)


@runtime_checkable
class LaidOut(Protocol):
    """A sink whose files are for a table."""

    layout: Layout
