"""Metrics about the health of a worker, and the counters that must exist before they first count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stream import events as ev
from stream.batch import Outcome
from stream.metrics import catalog as m
from stream.metrics.series import Series


def begin_counts(r: Series, stream: str) -> None:
    """Create the counters that alerts use at zero: a counter that begins at one shows no increase."""
    r.add(m.GAPS, 0, stream)
    for outcome in Outcome:
        if outcome is not Outcome.PENDING:
            r.add(m.RECORDS, 0, stream, outcome.label)
    for result in ("ok", "empty", "throttled", "expired_iterator", "error"):
        r.add(m.SOURCE_POLLS, 0, stream, result)
    r.add(m.SHARDS_RELEASED, 0, stream, "drain")


def _stream_described(r: Series, e: ev.StreamDescribed) -> None:
    r.set(m.RETENTION, e.retention, e.stream)
    r.set(m.OPEN_SHARDS, e.open_shards, e.stream)


def _shard_stalled(r: Series, e: ev.ShardStalled) -> None:
    r.set_shard(m.SHARD_STALLED, 1, e)


def _store_hung(r: Series, e: ev.StoreHung) -> None:
    r.set(m.STORE_HUNG, 1, e.store)


def _store_answered(r: Series, e: ev.StoreAnswered) -> None:
    r.set(m.STORE_HUNG, 0, e.store)


def _credentials_renewed(r: Series, e: ev.CredentialsRenewed) -> None:
    r.set(m.CREDENTIALS_EXPIRE, e.expires)


def _worker_failed(r: Series, _: ev.WorkerFailed) -> None:
    r.add(m.WORKER_FAILURES, 1)


def _records_expired(r: Series, e: ev.RecordsExpired) -> None:
    r.add(m.GAPS, 1, e.stream)
    r.lose(e)


HEALTH: Final[dict[type[ev.Event], Callable[[Series, Any], None]]] = {
    ev.StreamDescribed: _stream_described,
    ev.ShardStalled: _shard_stalled,
    ev.StoreHung: _store_hung,
    ev.StoreAnswered: _store_answered,
    ev.CredentialsRenewed: _credentials_renewed,
    ev.RecordsExpired: _records_expired,
    ev.WorkerFailed: _worker_failed,
}
"""What is counted for each of these event classes."""
