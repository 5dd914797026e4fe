"""What a function may use: its time and its memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline

ANSWER_SECONDS: Final = 1.0
"""Seconds kept for the answer. A function that is stopped by force is started anew, which takes seconds."""
ANSWER_SHARE: Final = 0.1
"""Share of the time kept for the answer where that is less than ``ANSWER_SECONDS``."""

SEALING_SECONDS: Final = 20.0
"""Seconds kept for sealing what was read: a unit of the largest size is transformed, encoded and written in a few seconds."""
SEALING_SHARE: Final = 1 / 3
"""Share of the time kept for sealing where that is less than ``SEALING_SECONDS``."""

BASE_BYTES: Final = 224 * 2**20
"""What the process takes besides records: Python, Polars, Arrow and the AWS clients. 202 MiB were measured after the first invocation."""

BUDGET_FACTOR: Final = 3
"""A process takes two to four times its memory budget (docs/guarantees.md, P5)."""

LEAST_MEMORY_MB: Final = 512
"""With less memory than this nothing would be left for records, and with little more than that a function has a third of a core."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Seconds from the beginning of an invocation: when reading stops, so that what was read can be sealed, and when everything stops."""

    reading: float
    working: float


def allowance(remaining: float) -> Allowance:
    """How an invocation divides the ``remaining`` seconds."""
    working = max(0.0, remaining - min(ANSWER_SECONDS, remaining * ANSWER_SHARE))
    return Allowance(working - min(SEALING_SECONDS, working * SEALING_SHARE), working)


def within_memory(pipeline: Pipeline, megabytes: int) -> Pipeline:
    """``pipeline`` with a memory budget that fits a function of so many MB; it makes the same rows.

    Raises:
        DefinitionError: that is too little for any.
    """
    if megabytes < LEAST_MEMORY_MB:
        msg = f"the function has {megabytes} MB of memory; a pipeline needs at least {LEAST_MEMORY_MB} MB, and 1769 MB for a whole core"
        raise DefinitionError(msg)
    fitting = (megabytes * 2**20 - BASE_BYTES) // BUDGET_FACTOR
    if pipeline.memory.budget <= fitting:
        return pipeline
    return pipeline.model_copy(update={"memory": pipeline.memory.model_copy(update={"budget": fitting})})
