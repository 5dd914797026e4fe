"""The series of a worker's metrics: set, counted, and removed with the shards they describe."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream import events as ev
from stream.contracts import Clock
from stream.metrics import catalog as m
from stream.metrics.catalog import CATALOG, PER_SHARD, Kind, Metric

MAX_REASONS: Final = 200
"""Limit on series of ``kst_dlq_records_total`` per recorder; further (stage, reason) pairs count as reason ``other``."""
OTHER: Final = "other"
QUIET_SECONDS: Final = 60.0
"""Seconds that may pass between two looks at a tip without anything being wrong, since quiet shards share a worker's polls."""


class Series:
    """The metrics of ``catalog.py`` in ``registry``, and which shards are held: a shard has series from ``hold`` to ``let_go``.

    Callable from any thread.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._metrics: dict[str, Any] = {metric.name: _instrument(metric, registry) for metric in CATALOG}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._held: set[tuple[str, str]] = set()
        self._tips: dict[tuple[str, str], tuple[float, float]] = {}
        self._halted: set[tuple[str, str]] = set()
        """Shards that have halted and are not known to continue, although they may be tried again."""
        self._received: set[tuple[str, str]] = set()
        """Shards of which records were received since they were started."""
        self._unsealed: dict[tuple[str, str], float] = {}
        """When the oldest record arrived that was received of a shard and is not sealed, in seconds since 1970."""
        self._reasons: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()

    def watch_buffer(self, held: Callable[[], int], limit: int) -> None:
        """Export what ``held`` returns, in bytes, at each scrape, and ``limit``."""
        self._metrics[m.BUFFER_BYTES.name].set_function(held)
        self.set(m.BUFFER_LIMIT_BYTES, limit)

    def now(self) -> float:
        """Wall-clock time in seconds since 1970."""
        return self._clock.now().timestamp()

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Increase a counter; a negative ``amount`` is ignored."""
        self._series(metric, labels).inc(max(0, amount))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._series(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        self._series(metric, labels).observe(value)

    def set_shard(self, metric: Metric, value: float, event: ev.Event) -> None:
        """Set a gauge of the event's shard, unless the shard is no longer held."""
        with self._lock:
            if (event.stream, event.shard) in self._held:
                self.set(metric, value, event.stream, event.shard)

    def hold(self, event: ev.Event, behind: float = 0.0) -> None:
        """Note that the event's shard is this worker's from now on. ``behind``: how far behind its tip, unless that is known already."""
        where = event.stream, event.shard
        with self._lock:
            if where not in self._tips and event.shard:
                # Until the first page, the distance to the tip is unknown, but it grows.
                self._look_at_tip(where, behind)
                self.set(m.SEALED_TIMESTAMP, self.now(), *where)
            self._held.add(where)
            self._show_held(event.stream)
            if where not in self._halted:
                self.set(m.SHARD_HALTED, 0, *where)
            self.set(m.SHARD_PAUSED, 0, *where)
            self.set(m.SHARD_STALLED, 0, *where)

    def begin_anew(self, event: ev.Event) -> None:
        """Note that the event's shard is read again from its last seal."""
        with self._lock:
            self._received.discard((event.stream, event.shard))

    def receive(self, event: ev.Event, records: int, behind_ms: int, oldest: float | None) -> None:
        """Note what was received of the event's shard. If nothing was, and nothing is left, there is nothing at which it could halt."""
        where = event.stream, event.shard
        with self._lock:
            if records:
                self._received.add(where)
                if oldest is not None:
                    self._unsealed.setdefault(where, oldest)
                return
            over = behind_ms == 0 and where not in self._received
        if over:
            self.go_on(event)

    def halt(self, event: ev.Event) -> None:
        """Note that the event's shard stands still until ``go_on``; its lag is the age of its oldest unsealed record meanwhile."""
        with self._lock:
            self._halted.add((event.stream, event.shard))
        self.set_shard(m.SHARD_HALTED, 1, event)

    def lose(self, event: ev.Event) -> None:
        """Note that what was received of the event's shard and not sealed is lost, so that its age no longer matters."""
        with self._lock:
            self._unsealed.pop((event.stream, event.shard), None)

    def go_on(self, event: ev.Event) -> None:
        """Note that the event's shard moves, whatever it had halted for before."""
        where = event.stream, event.shard
        with self._lock:
            self._unsealed.pop(where, None)
            if where in self._halted:
                self._halted.remove(where)
                self.set(m.SHARD_HALTED, 0, *where)

    def let_go(self, event: ev.Event) -> None:
        """Note that the event's shard is no longer this worker's: remove its series."""
        with self._lock:
            self._forget_standstill((event.stream, event.shard))
            self._held.discard((event.stream, event.shard))
            self._show_held(event.stream)
            self._tips.pop((event.stream, event.shard), None)
            for metric in PER_SHARD:
                self._remove(metric, event)

    def see_tip(self, event: ev.Event, behind: float) -> None:
        """Note that reading is ``behind`` seconds behind the tip of the event's shard; the lag grows with each second without news."""
        with self._lock:
            if (event.stream, event.shard) in self._held:
                self._look_at_tip((event.stream, event.shard), behind)

    def lose_sight(self, event: ev.Event) -> None:
        """Note that this worker no longer reads the event's shard, even if the shard is still shown as halted here."""
        with self._lock:
            self._tips.pop((event.stream, event.shard), None)
            self._remove(m.BEHIND_LATEST, event)
            self._remove(m.OBJECTS_UNREAD, event)

    def bounded_reason(self, stream: str, stage: str, reason: str) -> str:
        """``reason``, or ``other`` once too many different ones have been seen."""
        with self._lock:
            if (stream, stage, reason) not in self._reasons and len(self._reasons) >= MAX_REASONS:
                return OTHER
            self._reasons.add((stream, stage, reason))
            return reason

    def _show_held(self, stream: str) -> None:
        self.set(m.LEASES_HELD, sum(1 for held, shard in self._held if held == stream and shard), stream)

    def _look_at_tip(self, where: tuple[str, str], behind: float) -> None:
        if where not in self._tips:
            self._series(m.BEHIND_LATEST, where).set_function(lambda: self._behind(where))
        self._tips[where] = behind, self._clock.monotonic()

    def _behind(self, where: tuple[str, str]) -> float:
        behind, seen = self._tips.get(where, (0.0, self._clock.monotonic()))
        behind += max(0.0, self._clock.monotonic() - seen - QUIET_SECONDS)
        # A halted shard may have been read to its tip, again and again, but what was read of it comes to nothing and grows old.
        return max(behind, self.now() - self._unsealed.get(where, math.inf)) if where in self._halted else behind

    def _forget_standstill(self, where: tuple[str, str]) -> None:
        self._halted.discard(where)
        self._received.discard(where)
        self._unsealed.pop(where, None)

    def _remove(self, metric: Metric, event: ev.Event) -> None:
        self._children.pop((metric.name, (event.stream, event.shard)), None)
        with contextlib.suppress(KeyError):
            self._metrics[metric.name].remove(event.stream, event.shard)

    def _series(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        known = self._children.get((metric.name, labels))
        if known is None:
            # Looking up a series takes the library longer than counting.
            instrument = self._metrics[metric.name]
            known = self._children[metric.name, labels] = instrument.labels(*labels) if labels else instrument
        return known


def _instrument(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    match metric.kind:
        case Kind.COUNTER:
            return Counter(metric.name, metric.help, metric.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)
        case Kind.HISTOGRAM:
            return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
