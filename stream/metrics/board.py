"""What one worker does now, for a look in a browser: its shards, made from events; as a document, and as a page without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Final

from stream import events
from stream.contracts import Clock
from stream.metrics.standstill import GoingOn
from stream.metrics.thresholds import BEHIND_SECONDS

REFRESH_SECONDS: Final = 10

WAITS: Final = "starting"
READS: Final = "reading"
HALTED: Final = "halted"
STALLED: Final = "stalled"
PAUSED: Final = "paused"
STANDING: Final = frozenset({HALTED, STALLED})


@dataclass(slots=True)
class ShardNow:
    """One shard of this worker.

    ``behind``: how far behind the tip reading was at ``updated``. ``records`` and ``dead`` are those of units sealed since it was started.
    """

    state: str = WAITS
    reason: str = ""
    behind: float | None = None
    updated: datetime | None = None
    sealed: datetime | None = None
    records: int = 0
    dead: int = 0


class Board:
    """An ``Emit`` that knows the state of each shard which this worker works on. Callable from any thread."""

    def __init__(self, application: str, clock: Clock) -> None:
        self._application = application
        self._clock = clock
        self._worker = ""
        self._version = ""
        self._draining = False
        self._shards: dict[tuple[str, str], ShardNow] = {}
        self._goes_on = GoingOn()

    def __call__(self, event: events.Event) -> None:
        """Note what ``event`` changes."""
        self._go_on(event)
        match event:
            case events.PageReceived(behind_ms=behind):
                shard = self._shards.get((event.stream, event.shard))
                if shard is not None:
                    shard.behind, shard.updated = behind / 1000, self._clock.now()
            case events.UnitSealed(outcomes=outcomes):
                self._seal(event, dict(outcomes))
            case events.ShardStarted():
                self._start(event)
            case events.ShardHalted(reason=reason):
                self._stop(event, HALTED, reason)
            case events.ShardStalled(seconds=seconds):
                self._stop(event, STALLED, f"nothing has moved for {seconds:.0f} s")
            case events.ShardPaused(by=by, note=note, until=until, behind=behind):
                why = f"by {by}" + (f", until {until[:19]}Z" if until else "") + (f": {note}" if note else "")
                self._shards[event.stream, event.shard] = ShardNow(PAUSED, why, behind, self._clock.now())
            case events.ShardResumed():
                self._shards[event.stream, event.shard] = ShardNow()
            case events.ShardEnded() | events.ShardReleased() | events.StreamResumed():
                self._shards.pop((event.stream, event.shard), None)
            case _:
                self._of_worker(event)

    def _of_worker(self, event: events.Event) -> None:
        match event:
            case events.WorkerStarted(worker=worker, version=version):
                self._worker, self._version = worker, version
            case events.DrainStarted():
                self._draining = True
            case _:
                pass

    def _start(self, event: events.Event) -> None:
        where = event.stream, event.shard
        before = self._shards.get(where)
        # One that is tried again stands still until it is known to go on.
        self._shards[where] = ShardNow(HALTED, before.reason) if before is not None and before.state == HALTED else ShardNow(READS)

    def _go_on(self, event: events.Event) -> None:
        goes_on, shard = self._goes_on(event), self._shards.get((event.stream, event.shard))
        if goes_on and shard is not None and shard.state == HALTED:
            shard.state, shard.reason = READS, ""

    def _seal(self, event: events.Event, outcomes: Mapping[str, int]) -> None:
        shard = self._shards.setdefault((event.stream, event.shard), ShardNow(READS))
        shard.sealed = self._clock.now()
        shard.records += sum(outcomes.values())
        shard.dead += outcomes.get("dead_lettered", 0)

    def _stop(self, event: events.Event, state: str, reason: str) -> None:
        shard = self._shards.setdefault((event.stream, event.shard), ShardNow())
        shard.state, shard.reason = state, reason.removeprefix(f"{event.stream}/{event.shard}: ")

    def document(self, obstacles: Mapping[str, str], fault: str | None) -> dict[str, Any]:
        """The worker's state; ``obstacles`` and ``fault`` are those of its ``Health``. Shards that need a person come first."""
        now = self._clock.now()
        shards = [_plain(stream, name, shard, now) for (stream, name), shard in sorted(self._shards.items())]
        shards.sort(key=lambda row: (not row["trouble"], -(row["behind_seconds"] or 0.0)))
        return {
            "application": self._application,
            "worker": self._worker,
            "version": self._version,
            "time": now.isoformat(),
            "draining": self._draining,
            "fault": fault,
            "obstacles": dict(obstacles),
            "shards": shards,
        }


def _plain(stream: str, name: str, shard: ShardNow, now: datetime) -> dict[str, Any]:
    # While there is no news, it falls behind further; a shard that stands still does so even if it had been at its tip.
    falls = shard.updated is not None and (bool(shard.behind) or shard.state in STANDING)
    silent = (now - shard.updated).total_seconds() if falls and shard.updated is not None else 0.0
    behind = None if shard.behind is None else shard.behind + silent
    return {
        "stream": stream,
        "shard": name or "all",
        "state": shard.state,
        "reason": shard.reason,
        "trouble": shard.state in STANDING or (shard.state != PAUSED and (behind or 0.0) > BEHIND_SECONDS),
        "behind_seconds": behind,
        "sealed": None if shard.sealed is None else shard.sealed.isoformat(),
        "records": shard.records,
        "dead_letters": shard.dead,
    }


_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0; } p { margin: .3rem 0; }
.ok { color: #197a37; } .bad { color: #c62828; }
table { border-collapse: collapse; width: 100%; margin-top: 1rem; font-variant-numeric: tabular-nums; }
p { overflow-wrap: anywhere; }
th, td { text-align: left; white-space: nowrap; padding: .35rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
td.n, th.n { text-align: right; } tr.bad td:first-child { border-left: 4px solid #c62828; }
"""


def page(document: Mapping[str, Any]) -> str:
    """``document`` as a page that stands alone: no scripts, nothing from elsewhere. Everything that is not ours is escaped."""
    problems = [("this worker asks to be restarted", document["fault"])] if document["fault"] else []
    problems += sorted(document["obstacles"].items())
    late = [row for row in document["shards"] if row["trouble"] and row["state"] not in STANDING]
    problems += [(f"shard {row['stream']}/{row['shard']}", f"is {_length(row['behind_seconds'])} behind") for row in late]
    verdict = '<span class="bad">needs attention</span>' if problems else '<span class="ok">fine</span>'
    lines = "".join(f"<p><b>{escape(part)}</b>: {escape(_without_place(part, why))}</p>" for part, why in problems)
    rows = "".join(_row(row) for row in document["shards"])
    heads = "".join(f"<th{kind}>{name}</th>" for name, kind in _HEADS)
    none = "" if rows else "<p>This worker reads no shard now.</p>"
    title = f"{escape(document['application'])}: {escape(document['worker'] or 'a worker that starts')}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title} &ndash; {verdict}</h1>"
        f"<p>{escape(document['time'][:19])}Z, version {escape(document['version'] or '?')}. This is one worker; "
        "<code>stream status</code> looks at the whole pipeline.</p>"
        f"{lines}{none}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


_HEADS: Final = (
    ("stream", ""),
    ("shard", ""),
    ("state", ""),
    ("behind the tip", ' class="n"'),
    ("last seal", ' class="n"'),
    ("records", ' class="n"'),
    ("dead letters", ' class="n"'),
)


def _row(row: Mapping[str, Any]) -> str:
    numbers = (_length(row["behind_seconds"]), (row["sealed"] or "")[11:19], f"{row['records']:,}", f"{row['dead_letters']:,}")
    state = f"{row['state']} {row['reason']}" if row["state"] == PAUSED else row["state"]
    cells = "".join(f"<td>{escape(text)}</td>" for text in (row["stream"], row["shard"], state))
    cells += "".join(f'<td class="n">{escape(cell)}</td>' for cell in numbers)
    kind = ' class="bad"' if row["trouble"] else ""
    return f"<tr{kind}>{cells}</tr>"


def _without_place(part: str, why: str) -> str:
    """``why`` without the place that reasons begin with, if ``part`` says it."""
    return why.removeprefix(f"{part.partition(' ')[2]}: ")


def _length(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.0f} s"
