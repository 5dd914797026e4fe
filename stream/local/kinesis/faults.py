"""Scripted faults: which calls fail, how, and how often.

A fault is a JSON object, such as ``{"operation": "GetRecords", "action": "throttle", "times": 3}``; a script is a list of them. Each
call gets the first fault that matches it and is not used up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from stream.local.kinesis.errors import ApiError


class Action(StrEnum):
    """What happens to the call."""

    THROTTLE = "throttle"
    """ProvisionedThroughputExceededException (LimitExceededException where the service has no such error); not applied."""
    ERROR500 = "error500"
    """InternalFailureException with status 500; not applied."""
    ERROR = "error"
    """``code`` with ``status``; not applied."""
    EXPIRE_ITERATOR = "expire_iterator"
    """ExpiredIteratorException, however young the iterator."""
    CLOSE_BEFORE_REPLY = "close_before_reply"
    """The connection is closed without a reply; not applied."""
    CLOSE_AFTER_APPLY = "close_after_apply"
    """The connection is closed without a reply, though the call was applied."""
    DELAY = "delay"
    """Answered correctly after ``seconds``."""
    TRUNCATE = "truncate"
    """Applied; the reply breaks off in the middle. A subscription breaks off in the middle of an event."""
    DUPLICATE_PAGE = "duplicate_page"
    """GetRecords: the next iterator points to the same page again."""
    EMPTY_PAGE = "empty_page"
    """GetRecords: no records, though the shard has some; the lag is still reported."""
    STALL = "stall"
    """SubscribeToShard: after its first event the subscription sends nothing more, and stays open."""
    FAIL_RECORDS = "fail_records"
    """PutRecords: every ``every``-th record, counted from the first, fails and is not stored."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of a script.

    ``operation``, ``stream`` and ``shard`` None fit any. The fault first lets ``skip`` fitting calls pass, then takes
    ``times`` of them (None: all that follow).
    """

    action: Action
    operation: str | None = None
    stream: str | None = None
    shard: str | None = None
    times: int | None = 1
    skip: int = 0
    seconds: float = 0.0
    code: str = "InternalFailureException"
    status: int = 500
    every: int = 2

    def fits(self, operation: str, stream: str | None, shard: str | None) -> bool:
        """Whether the fault applies to such a call."""
        return self.operation in (None, operation) and self.stream in (None, stream) and self.shard in (None, shard)

    def error(self, operation: str) -> ApiError | None:
        """The error that this fault answers with, or None if it does something else."""
        if self.action is Action.THROTTLE:
            data_call = operation in {"GetRecords", "GetShardIterator", "PutRecord", "PutRecords"}
            code = "ProvisionedThroughputExceededException" if data_call else "LimitExceededException"
            return ApiError(code, f"Rate exceeded for {operation} (scripted fault).")
        if self.action is Action.ERROR500:
            return ApiError("InternalFailureException", f"{operation} failed (scripted fault).", 500)
        if self.action is Action.ERROR:
            return ApiError(self.code, f"{operation} failed (scripted fault).", self.status)
        if self.action is Action.EXPIRE_ITERATOR:
            return ApiError("ExpiredIteratorException", "Iterator expired (scripted fault).")
        return None


@dataclass(slots=True)
class _Armed:
    fault: Fault
    skip: int
    times: int | None


class Script:
    """The faults that are not used up."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._armed: list[_Armed] = []
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        """Append to the script."""
        self._armed.extend(_Armed(fault, fault.skip, fault.times) for fault in faults)

    def clear(self) -> None:
        """Remove all faults."""
        self._armed.clear()

    def take(self, operation: str, stream: str | None, shard: str | None) -> Fault | None:
        """The fault for this call, which counts as used, or None."""
        for armed in self._armed:
            if not armed.fault.fits(operation, stream, shard):
                continue
            if armed.skip:
                armed.skip -= 1
                continue
            if armed.times is None:
                return armed.fault
            armed.times -= 1
            if not armed.times:
                self._armed.remove(armed)
            return armed.fault
        return None

    def remaining(self) -> list[dict[str, Any]]:
        """The faults that are not used up, in the form of a script."""
        return [asdict(armed.fault) | {"skip": armed.skip, "times": armed.times} for armed in self._armed]


_TYPES: dict[str, tuple[type, ...]] = {
    "action": (str,),
    "operation": (str, type(None)),
    "stream": (str, type(None)),
    "shard": (str, type(None)),
    "times": (int, type(None)),
    "skip": (int,),
    "seconds": (int, float),
    "code": (str,),
    "status": (int,),
    "every": (int,),
}


def parse(script: object) -> list[Fault]:
    """Faults from parsed JSON.

    Raises:
        ValueError: not a list of objects, an unknown or missing member, a wrong type, an unknown action, a number out of range.
    """
    if not isinstance(script, list):
        message = f"a fault script is a list of objects, got {type(script).__name__}"
        raise ValueError(message)  # noqa: TRY004 - the type is the user's, not the program's
    return [_parse_one(position, entry) for position, entry in enumerate(script)]


def _parse_one(position: int, entry: object) -> Fault:
    known = ", ".join(field.name for field in fields(Fault))
    if not isinstance(entry, dict) or "action" not in entry or not entry.keys() <= _TYPES.keys():
        message = f"fault {position} must be an object with 'action' and no members but {known}; got {entry!r}"
        raise ValueError(message)
    for name, value in entry.items():
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            message = f"fault {position}: {name} is {value!r}, which has the wrong type"
            raise ValueError(message)  # noqa: TRY004 - as above
    if entry["action"] not in set(Action):
        message = f"fault {position}: unknown action {entry['action']!r}; there are: {', '.join(Action)}"
        raise ValueError(message)
    fault = Fault(**{**entry, "action": Action(entry["action"])})
    if (fault.times is not None and fault.times < 1) or fault.skip < 0 or fault.seconds < 0 or fault.every < 1:
        message = f"fault {position}: times and every must be at least 1, skip and seconds at least 0; got {entry!r}"
        raise ValueError(message)
    return fault
