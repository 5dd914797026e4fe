"""Moments and ranges of time as they are written on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import typer

from stream.audit.chain import Bounds
from stream.clock import SystemClock
from stream.pipeline.units import parse_duration


def moment(text: str, option: str) -> datetime:
    """The moment that ``text`` names, UTC; without a zone it is taken to be UTC. ``option`` is named in errors."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        msg = f"{option} {text}: give a moment as 2026-01-01T00:00:00Z, or a date"
        raise typer.BadParameter(msg) from error


def bounds_of(since: str | None, begin: str | None, end: str | None) -> Bounds:
    """The range of arrivals that ``--since``, ``--from`` and ``--to`` give."""
    if since is not None and (begin is not None or end is not None):
        msg = "--since already names the time; omit --from and --to"
        raise typer.BadParameter(msg)
    first, last = None if begin is None else moment(begin, "--from"), None if end is None else moment(end, "--to")
    if first is not None and last is not None and first >= last:
        msg = f"--from {begin} must be before --to {end}"
        raise typer.BadParameter(msg)
    return Bounds(first if since is None else SystemClock().now() - _age(since), last)


def _age(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        msg = f"--since: {error}"
        raise typer.BadParameter(msg) from error
