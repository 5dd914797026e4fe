"""Every exception of this package, sorted by what the loop must do about it.

    StreamError
    ├── DefinitionError   the pipeline file or the command is wrong: stop before anything is read (exit code 2)
    ├── Retryable         try the same call again after a pause; it is not known whether anything happened
    ├── LeaseLost         another worker has this shard: end the shard's task, keep the process
    ├── Superseded        another worker committed this unit differently: continue from where the log now ends
    ├── Halted            this shard must not continue by itself: park it, keep the others, raise the alarm
    │   └── Expired       records were lost in the stream before they were read: record the gap, or park the shard
    └── Fatal             nothing in this process can continue: a missing stream, bucket or permission (exit code 1)
        └── OtherStream   the log is of another stream than the one found here: this deployment is wrong, not the log

A bad *record* is never an exception outside a stage: it is a row with the outcome ``dead_lettered``.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final


class StreamError(Exception):
    """Base of all errors raised on purpose. The message says what is wrong, where, with which value, what is allowed, and what to do."""


class DefinitionError(StreamError):
    """What the user asked for cannot be run as written."""


class Retryable(StreamError):
    """The far side may answer differently if asked again."""


class LeaseLost(StreamError):
    """This worker no longer holds the shard's lease; nothing it committed is in doubt."""


class Superseded(StreamError):
    """The commit log ends elsewhere than this worker thought; ``position``, a sequence number, is where to continue."""

    def __init__(self, message: str, *, position: int) -> None:
        super().__init__(message)
        self.position = position


class Halted(StreamError):
    """The shard stops at a safe point: nothing is lost, nothing further is consumed until a person acts."""


class Expired(Halted):
    """The source may no longer hold records after the shard's position; continuing means admitting a gap.

    ``resume``: the position up to which they are lost, if the source knows it; None if only the next record shows it.
    """

    def __init__(self, message: str, *, resume: int | None = None) -> None:
        super().__init__(message)
        self.resume = resume


class Fatal(StreamError):
    """The process cannot do its job; restarting it without a change would fail the same way."""


class OtherStream(Fatal):
    """The stream that was found is not the one that the log is of. Deployments that find the right one are not affected."""


_BY_SEVERITY: Final = (Fatal, Halted, LeaseLost, Superseded)


def most_severe(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several errors that ended tasks together, the one that decides what happens next. An unexpected error outranks all others."""
    leaves = [leaf for error in group.exceptions for leaf in ([most_severe(error)] if isinstance(error, BaseExceptionGroup) else [error])]
    unexpected = [error for error in leaves if not isinstance(error, _BY_SEVERITY)]
    if unexpected:
        return unexpected[0]
    return min(leaves, key=lambda error: next(rank for rank, kind in enumerate(_BY_SEVERITY) if isinstance(error, kind)))


def unforeseen(error: BaseException) -> str:
    """A report of an unexpected ``error`` without its message, which may quote a record: its type, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in reversed(frames))
    words = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return f"unexpected {type(error).__name__}{words}; please report it with this trace: {where}"
