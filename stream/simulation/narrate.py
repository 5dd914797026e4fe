"""Tells what happened in a schedule, one line for each event, in terms of workers, shards and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from stream import events
from stream.events import Event
from stream.simulation.judge import spelled
from stream.simulation.schedule import Struck, Trouble
from stream.simulation.world import World, short

_TROUBLES: Final = {
    Trouble.KILLED_BEFORE: "is killed (SIGKILL) before: {call}",
    Trouble.KILLED_AFTER: "is killed (SIGKILL) right after: {call}",
    Trouble.UNDONE: "gets no reply, and nothing happened: {call}",
    Trouble.UNANSWERED: "gets no reply, although it happened: {call}",
    Trouble.LATE: "gets no reply, and it happens {seconds:.3f} s later: {call}",
    Trouble.FROZEN: "stands still for {seconds:.3f} s, before: {call}",
    Trouble.THROTTLED: "is throttled: {call}",
    Trouble.EXPIRED: "finds its shard iterator expired, or is throttled: {call}",
    Trouble.DENIED: "is refused access for {seconds:.3f} s, from here on: {call}",
    Trouble.LEASE_LOST: "loses its lease to a worker that dies, right before it stores a checkpoint",
}


def narration(world: World) -> Iterator[str]:
    """The lines, in order; polls without records are left out."""
    workers, records = sum(1 for name in world.processes if "worker" in name), sum(len(put.numbers) for put in world.puts)
    yield (
        f"{records} record{'' if records == 1 else 's'}, {workers} worker{'' if workers == 1 else 's'}; "
        f"a unit is cut after {world.schedule.rows} record{'' if world.schedule.rows == 1 else 's'} or {world.schedule.age:g} s"
    )
    for each in world.happened:
        text = _line(world, each.what)
        if text:
            yield f"{each.at:9.3f} s  {each.who + ': ' if each.who else ''}{text}"


def _line(world: World, what: Event | Struck | str) -> str:
    if isinstance(what, str):
        return what
    if isinstance(what, Struck):
        return _TROUBLES[what.disturbance.trouble].format(seconds=what.disturbance.seconds, call=_called(what.call))
    tell = _EVENTS.get(type(what))
    return tell(_Teller(world, what.stream, what.shard), what) if tell is not None else ""


def _called(text: str) -> str:
    """A call without the digits of its key, which nobody can tell apart."""
    what, _, key = text.partition(" ")
    parts = key.split("/")
    if parts[0] == "commits" and len(parts) == 4:
        kind = "genesis" if parts[3].startswith("genesis") else "manifest"
        return f"{what} {kind} of {short(parts[2])}"
    if what in {"PutItem", "UpdateItem", "GetItem", "DeleteItem"} and "shardId-" in key:
        return f"{what} of the lease of {short(key)}"
    if parts[0] == "checkpoints" and len(parts) == 3:
        return f"{what} checkpoint of {short(parts[2].removesuffix('.json'))}"
    return f"{what} {key if len(key) < 60 else key[:40] + '...' + key[-16:]}".rstrip()


class _Teller:
    """Names a shard's ranges by the records in them."""

    def __init__(self, world: World, stream: str, shard: str) -> None:
        self._puts = [put for put in world.puts if (put.stream, put.shard) == (stream, shard)]
        self.shard = world.named(stream, shard) if shard else ""

    def span(self, after: int, last: int | None) -> str:
        """The records of a range; of a link without range, what it is."""
        if last is None:
            return "the end of the shard"
        return spelled([put for put in self._puts if after < put.sequence <= last])


def _sealed(teller: _Teller, event: Any) -> str:
    if event.last is None:
        return f"seals the end of {teller.shard}"
    return f"seals the unit of {teller.shard} with {teller.span(event.after, event.last)}"


_EVENTS: Final[dict[type, Callable[[_Teller, Any], str]]] = {
    events.IntentCreated: lambda t, e: f"begins a unit of {t.shard} with {t.span(e.after, e.last)}",
    events.IntentAdopted: lambda t, e: (
        f"finds the unit of {t.shard} with {t.span(e.after, e.last)} begun by another worker, "
        + ("its files in place" if e.how == "in_place" else "and makes its files again")
    ),
    events.IntentAmended: lambda t, e: (
        f"made other files for the unit of {t.shard} with {t.span(e.after, e.last)}, and replaces {e.superseded} of the recorded ones"
    ),
    events.FileWritten: lambda t, e: f"writes a file of {e.rows} rows to {e.sink} ({t.shard})",
    events.ManifestSealed: _sealed,
    events.Checkpointed: lambda t, _: f"stores the checkpoint of {t.shard}",
    events.LeftoversRemoved: lambda t, e: f"removes {e.files} files that no manifest lists ({t.shard})",
    events.ShardHalted: lambda t, e: f"halts {t.shard}: {e.reason}",
    events.ShardEnded: lambda t, _: f"has read {t.shard} to its end",
    events.LeaseTaken: lambda t, e: f"takes the lease of {t.shard} ({e.why})",
    events.LeaseDropped: lambda t, e: f"no longer has the lease of {t.shard} ({e.why})",
    events.LeaseCreated: lambda t, _: f"creates the lease of {t.shard}",
    events.ShardPaused: lambda t, e: f"does not read {t.shard}, which {e.by} has paused",
    events.ShardResumed: lambda t, _: f"may read {t.shard} again",
    events.ShardRewound: lambda t, _: f"goes on with {t.shard} where it was rewound to",
    events.ShardReleased: lambda t, e: f"stops reading {t.shard} ({e.why})",
}
