"""Messages on standard error about what a command waits for."""

from __future__ import annotations

from typing import Final

import typer

from stream import events
from stream.clock import SystemClock
from stream.contracts import Clock

QUIET_SECONDS: Final = 5.0
"""Seconds between two lines about the same call: calls to DynamoDB are retried several times a second."""


class Notices:
    """An ``Emit`` that reports retried calls, and spans that a collector refuses, on standard error."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._printed_at: dict[tuple[str, str], float] = {}

    def __call__(self, event: events.Event) -> None:
        """Print a line for events that a user should see."""
        match event:
            case events.CallRepeated(_, shard, call, detail, wait):
                self._repeated(shard, call, detail, wait)
            case events.PollRepeated(_, shard, "error", detail, wait):
                self._repeated(shard, "poll", detail, wait)
            case events.LeaseRowUnreadable(_, _, table, detail):
                typer.echo(f"table {table}: {detail}; it is passed over", err=True)
            case events.ExportRefused(_, shard, status, items, why):
                typer.echo(f"{shard}: the collector answered {status} {why}: {items:,} spans were not taken", err=True)
            case _:
                return

    def _repeated(self, shard: str, call: str, detail: str, wait: float) -> None:
        now = self._clock.monotonic()
        if now - self._printed_at.get((shard, call), float("-inf")) >= QUIET_SECONDS:
            self._printed_at[shard, call] = now
            typer.echo(f"{shard or call}: {detail}; trying again in {wait:.1f} s", err=True)
