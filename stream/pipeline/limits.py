"""How large units become: what the pipeline asks for and what memory allows. The worker goes by these numbers and estimates do too."""

from __future__ import annotations

from typing import Final

from stream.pipeline.model import Pipeline

READING_SHARE: Final = 0.5
"""Of the memory budget that records may occupy between the socket and the seal; the rest is for what cooking makes of them."""

UNIT_SHARE: Final = 1 / 16
"""Of the memory budget that one unit may reach: on two cores two units are cooked at once, each taking a few times its bytes."""

SPARED_SHARE: Final = 0.25
"""Of the largest unit: below it, memory pressure alone does not end a unit while pages come."""


def unit_bytes(pipeline: Pipeline) -> int:
    """Record bytes at which a unit ends: as the pipeline says, and no more than memory allows."""
    return min(pipeline.flush.bytes, int(pipeline.memory.budget * UNIT_SHARE))
