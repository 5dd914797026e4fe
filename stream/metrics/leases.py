"""Counts of what happens to leases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stream import events as ev
from stream.metrics import catalog as m
from stream.metrics.series import Series


def _lease_taken(r: Series, e: ev.LeaseTaken) -> None:
    r.add(m.LEASES_TAKEN, 1, e.stream, e.why)


def _lease_dropped(r: Series, e: ev.LeaseDropped) -> None:
    r.add(m.LEASES_DROPPED, 1, e.stream, e.why)
    r.lose_sight(e)


def _lease_vanished(r: Series, e: ev.LeaseVanished) -> None:
    r.add(m.LEASE_ROWS_VANISHED, 1, e.stream)


def _checkpoint_set_back(r: Series, e: ev.CheckpointSetBack) -> None:
    r.add(m.LEASE_ROWS_SET_BACK, 1, e.stream)


def _lease_created(r: Series, e: ev.LeaseCreated) -> None:
    r.add(m.LEASE_ROWS, 1, e.stream)


def _lease_written(r: Series, e: ev.LeaseWritten) -> None:
    r.add(m.LEASE_WRITES, 1, e.operation)


def _leases_scanned(r: Series, e: ev.LeasesScanned) -> None:
    r.add(m.LEASE_SCANS, 1)
    r.add(m.LEASE_SCAN_BYTES, e.size)


def _lease_row_unreadable(r: Series, _: ev.LeaseRowUnreadable) -> None:
    r.add(m.LEASE_ROWS_UNREADABLE, 1)


def _lease_holes(r: Series, e: ev.LeaseHoles) -> None:
    r.set(m.LEASE_HOLES, e.holes, e.stream)


def _mixed_fleet(r: Series, e: ev.MixedFleet) -> None:
    r.set(m.FOREIGN_OWNERS, e.workers)


def _fleet_led(r: Series, e: ev.FleetLed) -> None:
    r.set(m.FLEET_LED, float(e.led))


def _lease_wanted(r: Series, e: ev.LeaseWanted) -> None:
    r.add(m.LEASES_WANTED, 1, e.stream)


LEASES: Final[dict[type[ev.Event], Callable[[Series, Any], None]]] = {
    ev.LeaseTaken: _lease_taken,
    ev.LeaseDropped: _lease_dropped,
    ev.LeaseVanished: _lease_vanished,
    ev.CheckpointSetBack: _checkpoint_set_back,
    ev.LeaseCreated: _lease_created,
    ev.LeaseWritten: _lease_written,
    ev.LeasesScanned: _leases_scanned,
    ev.LeaseRowUnreadable: _lease_row_unreadable,
    ev.LeaseHoles: _lease_holes,
    ev.MixedFleet: _mixed_fleet,
    ev.FleetLed: _fleet_led,
    ev.LeaseWanted: _lease_wanted,
}
"""What is counted for each of these event classes."""
