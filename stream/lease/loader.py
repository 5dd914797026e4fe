"""Which worker of the fleet loads a table: one small object in the state store, changed only by compare-and-swap.

This lease only saves work. Two loaders at once, or a wrong clock, cost a failed transaction and nothing else, because the transaction of a
load locks and reads the load ledger.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

import msgspec

from stream.contracts import Clock, ObjectStore

SKEW: Final = timedelta(minutes=10)
"""Most by which the clocks of two workers differ: AWS refuses calls signed with a time that is off by more than five minutes."""

SLACK: Final = timedelta(seconds=10)
"""Allowance for the calls of one look at the log."""


def life_for(every: timedelta) -> timedelta:
    """How long a dead loader keeps others waiting, if a live one renews its lease every ``every`` and after each load.

    A load that takes longer may lose the lease, which costs another loader a failed transaction.
    """
    return 2 * every + SLACK


class Hold(Enum):
    """The result of taking the lease. ``ANEW``: this worker did not hold it before, so another one may have loaded in the meantime."""

    NO = auto()
    ANEW = auto()
    KEPT = auto()


class Claim(msgspec.Struct, frozen=True):
    """Who loads, and until when (UTC); a time in the past: nobody."""

    holder: str
    until: datetime


_DECODER: Final = msgspec.json.Decoder(Claim)


class LoaderLease:
    """The lease at ``key`` of ``store``, as one worker sees it."""

    def __init__(self, store: ObjectStore, key: str, worker: str, clock: Clock, life: timedelta) -> None:
        self._store = store
        self._key = key
        self._worker = worker
        self._clock = clock
        self._life = life

    async def take(self) -> Hold:
        """Take or renew the lease. An unreadable object is replaced."""
        body = msgspec.json.encode(Claim(self._worker, self._clock.now() + self._life))
        stored = await self._store.get(self._key)
        if stored is None:
            return Hold.NO if await self._store.create(self._key, body) is None else Hold.ANEW
        claim = _read(stored.body)
        valid = claim is not None and self._valid(claim)
        own = claim is not None and claim.holder == self._worker
        if (valid and not own) or await self._store.replace(self._key, body, stored.etag) is None:
            return Hold.NO
        return Hold.KEPT if own else Hold.ANEW

    async def give_up(self) -> None:
        """Let another worker have the lease at once; does nothing if this one does not have it."""
        stored = await self._store.get(self._key)
        claim = _read(stored.body) if stored is not None else None
        if stored is not None and claim is not None and claim.holder == self._worker:
            await self._store.replace(self._key, msgspec.json.encode(Claim(self._worker, self._clock.now())), stored.etag)

    async def holder(self) -> str:
        """Who has the lease now; empty if nobody has."""
        stored = await self._store.get(self._key)
        claim = _read(stored.body) if stored is not None else None
        return claim.holder if claim is not None and self._valid(claim) else ""

    def _valid(self, claim: Claim) -> bool:
        """Whether the claim holds now. One from a clock that was far ahead would otherwise hold until that time has come."""
        left = claim.until - self._clock.now()
        return timedelta() < left <= self._life + SKEW


def _read(body: bytes) -> Claim | None:
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError:
        return None
