"""Which columns the values of a column come from, followed through the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from stream.transform.stage import StageConfig
from stream.transform.types import SYSTEM


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """A column of the decoder, or one that a stage added. ``masked``: its values cannot be read in the column that comes from it."""

    column: str
    masked: bool


def column_origins(
    stages: Sequence[StageConfig], schemas: Sequence[pl.Schema], masked: Collection[str] = ()
) -> tuple[Mapping[str, frozenset[Origin]], ...]:
    """For each of ``schemas``, the origins of each of its columns but the system's. A new column is an origin of itself too.

    ``schemas``: the columns after the decoder, then after each of ``stages``. No origin is left out, but a stage that cannot tell where
    its values come from names too many. The columns ``masked`` count as masked wherever they appear.
    """
    now = {name: frozenset({Origin(name, name in masked)}) for name in schemas[0] if name not in SYSTEM}
    found = [now]
    for stage, before, after in zip(stages, schemas, schemas[1:], strict=False):
        sources, masks = stage.origins(before, after), stage.masked().union(masked)
        following: dict[str, frozenset[Origin]] = {}
        for name in after:
            if name in SYSTEM:
                continue
            from_before = [origin for each in sources.get(name, before) for origin in now.get(each, ())]
            own = [] if name in before else [Origin(name, masked=False)]
            hides = name in masks
            following[name] = frozenset(Origin(each.column, each.masked or hides) for each in (*from_before, *own))
        found.append(following)
        now = following
    return tuple(found)
