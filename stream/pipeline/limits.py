"""How large units become, within what memory allows, and how much memory a worker needs. Used by the worker and by estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.pipeline.model import Pipeline
from stream.source.object_formats import TYPED

READING_SHARE: Final = 0.5
"""Share of the memory budget for records between reading and sealing; the rest is for what transforming and encoding make of them."""

UNIT_SHARE: Final = 1 / 16
"""Share of the memory budget that one unit may reach. On two cores two units are rendered at once, each taking a few times its bytes."""

SMALL_UNIT_SHARE: Final = 0.25
"""Share of the largest unit, below which memory pressure alone does not end a unit while pages arrive."""


def unit_bytes(pipeline: Pipeline) -> int:
    """Record bytes at which a unit is cut: what the pipeline sets, but no more than memory allows."""
    return min(pipeline.flush.bytes, int(pipeline.memory.budget * UNIT_SHARE))


LEAST_MEMORY: Final = 256 * 2**20
"""Bytes that a worker needs however small its budget is: libraries, imports and threads take 155 MiB."""

LEAST_BUDGETS: Final = 2
"""Least memory of a worker in budgets; with the default budget, peaks of 1.9 to 2.2 were measured in a process without readers."""

ADVISED_BUDGETS: Final = 4
"""Memory to give a worker, in budgets."""

READERS_MEMORY: Final = 512 * 2**20
"""Bytes for the processes that read typed objects, two at a time: 100 MB of libraries each, and what the parts of an object take
(``reader_child.SHARE``). With twice the default budget that makes a gigabyte, of which a quarter may go into such parts."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that the container of one worker needs. ``readers``: what is in ``least`` and ``advised`` for reader processes; may be 0."""

    budget: int
    readers: int
    least: int
    advised: int

    def shortage(self, limit: int | None) -> str:
        """Why a container with ``limit`` bytes is too small, and what to do; empty if it is not, or has no limit."""
        if limit is None or limit >= self.least:
            return ""
        needed = f"memory.budget of {mebibytes(self.budget)} needs {mebibytes(self.least)}"
        if self.readers:
            needed += f", with {mebibytes(self.readers)} for the processes that read Parquet, Arrow and Avro objects"
        remedy = f"raise the limit to {mebibytes(self.advised)}, or lower memory.budget"
        return f"the memory limit of the container is {mebibytes(limit)}, and {needed}; {remedy}"


def memory_need(pipeline: Pipeline) -> MemoryNeed:
    """What the container of a worker of ``pipeline`` needs, without reference tables and what ``python`` stages keep."""
    budget, objects = pipeline.memory.budget, pipeline.source.s3
    readers = READERS_MEMORY if objects is not None and objects.format in TYPED else 0
    least = max(LEAST_MEMORY, LEAST_BUDGETS * budget)
    return MemoryNeed(budget, readers, least + readers, max(least, ADVISED_BUDGETS * budget) + readers)


def mebibytes(size: int) -> str:
    """``size`` in bytes for people."""
    return f"{size / 2**20:,.0f} MiB"
