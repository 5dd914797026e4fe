"""Whether and when to repeat a call: pure decisions; the caller passes in the random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stream.errors import Retryable


@dataclass(frozen=True, slots=True)
class Wait:
    """Call again after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Hand the error to the caller."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The n-th pause is a random part of ``min(cap, base * 2 ** (n - 1))`` seconds; ``attempts`` None means no limit."""

    base: float = 0.1
    cap: float = 10.0
    attempts: int | None = None


FOR_EVER: Final = Policy()
A_FEW_TIMES: Final = Policy(attempts=8)
THROTTLED: Final = Policy(base=0.5, cap=5.0)
"""For reads of one shard: 10 MB read at once use up its 2 MB/s for five seconds, so longer pauses only add delay."""

_MAX_DOUBLINGS: Final = 30


def decide(error: Exception, attempt: int, jitter: float, policy: Policy = FOR_EVER) -> Wait | GiveUp:
    """What to do after ``error`` in attempt number ``attempt`` (the first is 1).

    Full jitter: ``jitter``, in [0, 1], scales the pause, so that callers that failed together do not repeat together. Only
    ``Retryable`` errors are repeated.
    """
    if not isinstance(error, Retryable):
        return GiveUp()
    if policy.attempts is not None and attempt >= policy.attempts:
        return GiveUp()
    ceiling = min(policy.cap, policy.base * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
    return Wait(ceiling * jitter)
