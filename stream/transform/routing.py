"""Which sinks take which rows: the last step of a chain in which a sink has a condition.

A condition is decided for each row by itself, as that of a `filter` stage is. Rows that no sink takes are left out, so a record of which no
row is left has the outcome `filtered`. A row for which a condition raises makes its record a dead letter for all sinks, so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Final, TypeAlias

import polars as pl

from stream.batch import ROW
from stream.transform.expressions import compile_condition
from stream.transform.stage import Applied

SINKS: Final = "sinks"
"""The name of the step, in outcomes, metrics and the audit."""

ELSE: Final = "else"
"""In place of a condition: the rows for which no other sink's condition is true. As a word of SQL, it is no condition itself."""

Conditions: TypeAlias = Sequence[tuple[str, str | None]]
"""The name of each sink and its condition; None if it takes every row."""


@dataclass(frozen=True, slots=True)
class Routing:
    """The conditions of sinks, by the sinks' names; none of them gives null. ``complete``: every row is taken by a sink."""

    conditions: Mapping[str, pl.Expr]
    complete: bool

    def taken(self, frame: pl.DataFrame) -> dict[str, pl.Series]:
        """For each sink with a condition, whether it takes each row of ``frame``."""
        # The row number gives a condition without columns, such as `1 = 1`, a value for each row. No sink can have its name.
        found = frame.select(ROW, **self.conditions)
        return {name: found[name] for name in self.conditions}

    def apply(self, frame: pl.DataFrame) -> Applied:
        """The rows of ``frame`` that a sink takes."""
        taken = self.taken(frame)
        return Applied(frame if self.complete else frame.filter(reduce(or_, taken.values())))


def compile_routing(conditions: Conditions, schema: pl.Schema) -> Routing | None:
    """How ``conditions`` divide rows of ``schema`` among the sinks; None if every sink takes every row.

    Raises:
        SchemaMismatch: ``path`` is ``("sinks", <index from 0>, "where")``.
    """
    compiled = {
        name: compile_condition(text, schema, ("sinks", at, "where")).fill_null(value=False)
        for at, (name, text) in enumerate(conditions)
        if text is not None and text != ELSE
    }
    if not compiled:
        return None
    rest = ~pl.any_horizontal(*compiled.values())
    complete = any(text in {None, ELSE} for _, text in conditions)
    return Routing({name: compiled.get(name, rest) for name, text in conditions if text is not None}, complete)
