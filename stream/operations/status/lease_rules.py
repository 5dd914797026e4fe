"""What is wrong with the leases of a pipeline: who reads which shard. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from stream.operations.status.finding import Finding, Harm, clock, count, length, lines_of
from stream.operations.status.snapshot import Snapshot


def read_by_nobody(snapshot: Snapshot, explained: set[str]) -> Iterator[Finding]:
    """Shards whose lease no living worker has."""
    nobody = [each for each in snapshot.shards if each.name not in explained and snapshot.read_by_nobody(each)]
    if not nobody:
        return
    nobody.sort(key=lambda each: each.renewed or snapshot.asked_at)
    explained.update(each.name for each in nobody)
    lines = []
    for each in nobody:
        if not each.leased:
            lines.append((each.name, "there is no lease for it"))
        elif each.owner is None:
            lines.append((each.name, "its lease has no owner"))
        else:
            lines.append((each.name, f"{each.owner} last renewed its lease at {clock(each.renewed)}, by its own clock"))
    silent = max((seconds for each in nobody if (seconds := snapshot.since(each.renewed)) is not None), default=None)
    yield Finding(
        "no_worker",
        Harm.STUCK,
        f"{count(len(nobody), 'open shard has', 'open shards have')} no living worker",
        "streamshardunread",
        tuple(each.name for each in nobody),
        min((each.renewed for each in nobody if each.renewed is not None), default=None),
        silent,
        snapshot.silent_after,
        lines_of(lines),
        ("stream leases ls FILE", "stream run FILE"),
    )


def read_elsewhere(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Not wrong, but worth knowing: the lake has nothing of what those workers process, and they know of no pause."""
    if others := [each for each in snapshot.shards if each.elsewhere]:
        what = f"{count(len(others), 'shard is', 'shards are')} read by another application, such as a Java KCL"
        owned = lines_of((each.name, f"its lease is {each.owner}'s") for each in others)
        pause = ("that application does not know of the pause",) if any(each.paused for each in others) else ()
        yield Finding(
            "read_elsewhere",
            Harm.HEALTHY,
            what,
            "when-another-application-reads-shards",
            tuple(each.name for each in others),
            details=("what it processes is not in the lake", *pause, *owned),
            commands=("stream leases ls FILE",),
        )


def wrong_clocks(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Leases do not go by clocks, but AWS refuses what is signed five minutes off."""
    if wrong := snapshot.wrong_clocks:
        yield Finding(
            "wrong_clock",
            Harm.HEALTHY,
            f"the clocks of {count(len(wrong), 'worker', 'workers')} and of Kinesis differ",
            "when-a-clock-is-wrong",
            figure=max(map(abs, wrong.values())),
            details=lines_of(
                (name, f"its clock is {length(abs(late))} {'behind' if late > 0 else 'ahead'}") for name, late in wrong.items()
            ),
            commands=("stream doctor FILE",),
        )


def holes(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Records that nobody reads, since no lease covers their hash keys."""
    if snapshot.holes:
        what = f"no lease covers {count(snapshot.holes, 'range', 'ranges')} of hash keys, so nobody reads their records"
        yield Finding("hash_range_holes", Harm.STUCK, what, "streamhashrangeholes", commands=("stream leases ls FILE",))
