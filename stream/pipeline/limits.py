"""How large units become: what the pipeline asks for, within what memory allows. Used by the worker and by estimates."""

from __future__ import annotations

from typing import Final

from stream.pipeline.model import Pipeline

READING_SHARE: Final = 0.5
"""Share of the memory budget for records between reading and sealing; the rest is for what transforming and encoding make of them."""

UNIT_SHARE: Final = 1 / 16
"""Share of the memory budget that one unit may reach. On two cores two units are rendered at once, each taking a few times its bytes."""

SMALL_UNIT_SHARE: Final = 0.25
"""Share of the largest unit, below which memory pressure alone does not end a unit while pages arrive."""


def unit_bytes(pipeline: Pipeline) -> int:
    """Record bytes at which a unit is cut: what the pipeline sets, but no more than memory allows."""
    return min(pipeline.flush.bytes, int(pipeline.memory.budget * UNIT_SHARE))
