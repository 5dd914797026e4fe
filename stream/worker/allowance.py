"""What a function may use: its time and its memory, and which pipelines cannot be run by one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.errors import DefinitionError
from stream.pipeline.model import Pipeline
from stream.sink.objects import SinkConfig

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

KEPT_FOLDER: Final = "file:/mnt/"
"""Where Lambda mounts file systems that outlive a function."""


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


def refuse_unfit(pipeline: Pipeline, *, on_lambda: bool) -> None:
    """Make sure that a function can run ``pipeline``.

    Raises:
        DefinitionError: it reads objects, or, ``on_lambda``, its state or its files would be on a disk that does not outlive the function.
    """
    if pipeline.source.s3 is not None:
        msg = "the pipeline reads objects (source.s3), and a function is told about records of a Kinesis stream; use `stream run` for it"
        raise DefinitionError(msg)
    places = {"state": pipeline.state} | {f"the sink {sink.name}": _url(sink) for sink in pipeline.sinks}
    for what, url in places.items():
        if on_lambda and url.startswith("file:") and not url.startswith(KEPT_FOLDER):
            msg = (
                f"{what} is at {url}, on the function's own disk, which each function has for itself and which goes with it. Use s3://, or "
                f"a file system that is mounted below {KEPT_FOLDER.removeprefix('file:')}."
            )
            raise DefinitionError(msg)


def _url(sink: SinkConfig) -> str:
    return sink.url
