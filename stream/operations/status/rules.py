"""What is wrong with a pipeline, how badly, and what to do next, given all that could be read of its shared state. Pure.

One cause gives one finding: a shard that is halted, or that nobody reads, is not also said to be behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from stream.audit.completeness import State
from stream.metrics import thresholds
from stream.operations.status import lease_rules, object_rules
from stream.operations.status.definitions import several_definitions
from stream.operations.status.finding import DETAILS, Finding, Harm, clock, count, length, lines_of
from stream.operations.status.snapshot import DAMAGED_PIN, LEASE_ROW, STREAM, ShardStatus, Snapshot
from stream.worker.halts.note import Halt

_TOO_MANY_DEAD_LETTERS: Final = "would become dead letters"
"""Words of the reason with which a shard halts because of `rejects.max_ratio`."""


def judge(snapshot: Snapshot) -> list[Finding]:
    """The findings of ``snapshot``, the most harmful first."""
    explained: set[str] = set()
    found = [each for rule in (_OF_THE_LOG if snapshot.other_stream else _RULES) for each in rule(snapshot, explained)]
    return sorted(found, key=lambda each: -each.harm)


def verdict(findings: Sequence[Finding]) -> Harm:
    """How the pipeline is: as bad as its worst finding."""
    return max((each.harm for each in findings), default=Harm.HEALTHY)


def _halted(snapshot: Snapshot, explained: set[str]) -> Iterator[Finding]:
    halts = [(each, each.halt) for each in snapshot.shards if each.halt is not None]
    if snapshot.stream_halt is not None:
        explained.update(each.name for each in snapshot.shards)
        halt = snapshot.stream_halt
        yield Finding(
            "stream_halted",
            Harm.STUCK,
            "the whole stream is halted",
            "streamshardhalted",
            since=halt.since,
            details=(_reason(halt, snapshot.stream),),
            commands=("stream doctor FILE",),
        )
    if not halts:
        return
    halts.sort(key=lambda pair: pair[1].since)
    explained.update(each.name for each, _ in halts)
    yield Finding(
        "shard_halted",
        Harm.STUCK,
        f"{count(len(halts), 'shard is', 'shards are')} halted",
        "when-a-shard-is-halted",
        tuple(each.name for each, _ in halts),
        halts[0][1].since,
        details=lines_of((each.name, _reason(halt, f"{snapshot.stream}/{each.name}")) for each, halt in halts),
        commands=_commands_for([halt for _, halt in halts]),
    )


def _commands_for(halts: Sequence[Halt]) -> tuple[str, ...]:
    rejected = [halt for halt in halts if _TOO_MANY_DEAD_LETTERS in halt.reason]
    return ("stream preview FILE --unsealed",) * bool(rejected) + ("stream doctor FILE",) * (len(rejected) < len(halts))


def _reason(halt: Halt, where: str) -> str:
    """The reason without the place that reasons begin with, and who halted."""
    reason = halt.reason.removeprefix(f"{where}: ")
    return f"{reason} ({halt.worker})" if halt.worker else reason


def _other_stream(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    if snapshot.other_stream:
        yield Finding(
            "other_stream",
            Harm.STUCK,
            "the log is of another stream than the one that was found here",
            "when-the-log-is-of-another-stream",
            details=(snapshot.other_stream,),
            commands=("stream doctor FILE",),
        )


def _damaged_pin(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    for each in snapshot.unread:
        if each.part == DAMAGED_PIN:
            yield Finding(
                "damaged_pin",
                Harm.STUCK,
                "it is not known which stream the log is of, so no worker that starts reads anything",
                "when-the-log-does-not-say-which-stream-it-is-of",
                details=(each.why,),
                commands=("stream doctor FILE",),
            )


def _expiring(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    if snapshot.retention is None:
        return
    limit = snapshot.retention.total_seconds() * thresholds.RETENTION_SHARE
    late = _latest(snapshot, lambda each: (snapshot.since(each.unread) or 0.0) > limit)
    if late:
        left = snapshot.left(late[0])
        yield Finding(
            "expiring",
            Harm.EXPIRING,
            f"unread records of {count(len(late), 'shard', 'shards')} expire, the first in {length(left)}",
            "streamretentionquarterused",
            tuple(each.name for each in late),
            late[0].unread,
            snapshot.since(late[0].unread),
            limit,
            lines_of((each.name, f"expires in {length(snapshot.left(each))}") for each in late),
            ("stream shards FILE STREAM",),
        )


def _lost(snapshot: Snapshot, explained: set[str]) -> Iterator[Finding]:
    gone = [each for each in snapshot.shards if each.state in {State.EXPIRED, State.GONE}]
    if gone:
        explained.update(each.name for each in gone)
        yield Finding(
            "records_expired",
            Harm.LOST,
            f"records of {count(len(gone), 'shard', 'shards')} may have expired unread",
            "streamrecordsexpired",
            tuple(each.name for each in gone),
            details=lines_of((each.name, each.why) for each in gone),
            commands=("stream complete FILE --until NOW STREAM",),
        )
    gaps = snapshot.dead_letters.gaps if snapshot.dead_letters is not None else ()
    if gaps:
        yield Finding(
            "gap",
            Harm.LOST,
            f"records of {count(len({shard for shard, _ in gaps}), 'shard', 'shards')} expired unread within the last hour",
            "streamrecordsexpired",
            tuple(dict.fromkeys(shard for shard, _ in gaps)),
            min(moment for _, moment in gaps),
            details=lines_of((shard, f"the log has a gap, sealed at {clock(moment)}") for shard, moment in gaps),
            commands=("stream audit ls FILE STREAM",),
        )


def _paused(snapshot: Snapshot, explained: set[str]) -> Iterator[Finding]:
    """Nothing that is paused on purpose needs a person; that unread records expire is still said."""
    shards = {each.name: each.paused for each in snapshot.shards if each.paused is not None}
    explained.update(shards)
    tables = {each.sink: each.paused for each in snapshot.tables if each.paused is not None}
    for what, paused in (("reading of {} is paused", shards), ("loads into {} are paused", tables)):
        if paused:
            objects = count(len(paused), "shard", "shards") if paused is shards else ", ".join(paused)
            yield Finding(
                "paused",
                Harm.HEALTHY,
                what.format(objects),
                "streampaused",
                tuple(paused) if paused is shards else (),
                details=tuple(dict.fromkeys(paused.values()))[:DETAILS],
                commands=("stream pause FILE --list", "stream resume FILE STREAM"),
            )


def _not_sealing(snapshot: Snapshot, explained: set[str]) -> Iterator[Finding]:
    limit = thresholds.UNSEALED_SECONDS

    def stands(each: ShardStatus) -> bool:
        quiet = snapshot.since(each.sealed_at)
        return each.name not in explained and (snapshot.since(each.unread) or 0.0) > limit and (quiet is None or quiet > limit)

    stuck = _latest(snapshot, stands)
    if stuck:
        explained.update(each.name for each in stuck)
        yield Finding(
            "not_sealing",
            Harm.STUCK,
            f"{count(len(stuck), 'shard has', 'shards have')} unread records, of which nothing is sealed",
            "streamnotsealing",
            tuple(each.name for each in stuck),
            min((each.sealed_at or each.unread for each in stuck if each.unread is not None), default=None),
            snapshot.since(stuck[0].unread),
            limit,
            lines_of((each.name, f"{_sealed(each)}; {_waits(snapshot, each)}") for each in stuck),
            ("stream doctor FILE", "stream leases ls FILE" if snapshot.failover is not None else "stream run FILE"),
        )


def _behind(snapshot: Snapshot, explained: set[str]) -> Iterator[Finding]:
    limit = thresholds.BEHIND_SECONDS + snapshot.flush_age.total_seconds()
    late = _latest(snapshot, lambda each: each.name not in explained and (snapshot.since(each.unread) or 0.0) > limit)
    if late:
        yield Finding(
            "behind",
            Harm.BEHIND,
            f"{count(len(late), 'shard is', 'shards are')} behind, the worst by {length(snapshot.since(late[0].unread))}",
            "streambehind",
            tuple(each.name for each in late),
            late[0].unread,
            snapshot.since(late[0].unread),
            limit,
            lines_of((each.name, f"{_waits(snapshot, each)}; {_sealed(each)}") for each in late),
            ("stream shards FILE STREAM",),
        )


def _unfinished(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    limit = thresholds.COMMIT_SECONDS
    begun = [each for each in snapshot.shards if each.begun is not None and not each.paused and (snapshot.since(each.begun) or 0.0) > limit]
    begun.sort(key=lambda each: each.begun or snapshot.asked_at)
    if begun:
        yield Finding(
            "unfinished_unit",
            Harm.DEGRADED,
            f"{count(len(begun), 'unit was begun and is', 'units were begun and are')} not sealed",
            "streamcommitsslow",
            tuple(each.name for each in begun),
            begun[0].begun,
            snapshot.since(begun[0].begun),
            limit,
            lines_of((each.name, f"begun at {clock(each.begun)} by {each.begun_by or 'a worker'}") for each in begun),
            ("stream doctor FILE",),
        )


def _tables(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    for table in snapshot.tables:
        ls = f"stream loads ls FILE --sink {table.sink}"
        if table.parked:
            parked = sorted(table.parked, key=lambda each: each.since)
            yield Finding(
                "load_parked",
                Harm.STUCK,
                f"the loader of {table.sink} has parked {count(len(parked), 'shard', 'shards')}",
                "streamloadparked",
                tuple(each.shard for each in parked),
                parked[0].since,
                details=lines_of((each.shard, each.reason) for each in parked),
                commands=(ls, f"stream loads retry FILE --sink {table.sink}"),
            )
        waited = snapshot.since(table.since)
        if waited is not None and waited > thresholds.LOAD_LAG_SECONDS and table.paused is None:
            yield Finding(
                "load_lag",
                Harm.BEHIND,
                f"sealed rows of {count(table.waiting, 'shard', 'shards')} are not in the table of {table.sink}",
                "streamloadlag",
                since=table.since,
                figure=waited,
                limit=thresholds.LOAD_LAG_SECONDS,
                commands=(ls,),
            )


def _dead_letters(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    seen = snapshot.dead_letters
    if seen is None or not seen.records or seen.dead / seen.records <= thresholds.DEAD_LETTER_SHARE:
        return
    share = seen.dead / seen.records
    causes = tuple(f"{records:,} at {stage or '?'}: {reason or '?'}" for stage, reason, records in seen.causes[:DETAILS])
    yield Finding(
        "dead_letters",
        Harm.DEGRADED,
        f"{share:.1%} of the records of the last hour are dead letters ({seen.dead:,} of {seen.records:,})",
        "streamdeadletters",
        figure=share,
        limit=thresholds.DEAD_LETTER_SHARE,
        details=causes,
        commands=("stream dlq top FILE STREAM",),
    )


def _exports(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    exported = snapshot.exported
    if exported is None:
        return
    if halted := exported.halted:
        yield Finding(
            "export_halted",
            Harm.STUCK if exported.blocking else Harm.DEGRADED,
            f"the export of spans is halted for {count(len(halted), 'shard', 'shards')}{', and checkpoints wait' * exported.blocking}",
            "streamaudithalted",
            tuple(name for name, _ in halted),
            halted[0][1].since,
            details=lines_of((name, _reason(halt, f"{snapshot.stream}/{name}")) for name, halt in halted),
            commands=("stream doctor FILE",),
        )
    waited = snapshot.since(exported.since)
    if len(halted) < exported.waiting and waited is not None and waited > thresholds.EXPORT_LAG_SECONDS:
        yield Finding(
            "export_lag",
            Harm.DEGRADED,
            f"spans of {count(exported.waiting, 'shard', 'shards')} are not exported",
            "streamauditlag",
            since=exported.since,
            figure=waited,
            limit=thresholds.EXPORT_LAG_SECONDS,
            commands=("stream doctor FILE",),
        )


def _unknown(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    if snapshot.why:
        yield Finding("not_begun", Harm.STUCK, snapshot.why, "streamdown", commands=("stream doctor FILE", "stream run FILE"))
    for each in snapshot.unread:
        if each.part == DAMAGED_PIN:
            continue
        row = each.part == LEASE_ROW  # permissions are not in question then
        yield Finding(
            "unreadable",
            Harm.UNKNOWN,
            f"the {each.part} could not be read",
            "streamleaserowsunreadable" if row else "when-a-part-cannot-be-read",
            details=(each.why,),
            commands=("stream leases ls FILE" if row else "stream doctor FILE",),
        )
    silent = [each for each in snapshot.shards if each.state is State.SILENT and each.halt is None]
    if silent and not any(each.part == STREAM for each in snapshot.unread):
        yield Finding(
            "shard_unreadable",
            Harm.UNKNOWN,
            f"the state of {count(len(silent), 'shard', 'shards')} could not be read",
            "when-a-part-cannot-be-read",
            tuple(each.name for each in silent),
            details=lines_of((each.name, each.why) for each in silent),
            commands=("stream doctor FILE",),
        )


_RULES: Final[tuple[Callable[[Snapshot, set[str]], Iterator[Finding]], ...]] = (
    _other_stream,
    _damaged_pin,
    _halted,
    _lost,
    _expiring,
    _paused,
    lease_rules.read_elsewhere,
    lease_rules.read_by_nobody,
    lease_rules.wrong_clocks,
    _not_sealing,
    _behind,
    object_rules.not_claimed,
    _tables,
    lease_rules.holes,
    _unfinished,
    several_definitions,
    object_rules.changed,
    object_rules.given_up,
    _dead_letters,
    _exports,
    _unknown,
)
"""In this order, since earlier rules explain what later ones would find."""

_OF_THE_LOG: Final = (_other_stream, _halted, _tables, several_definitions, _dead_letters, _exports, _unknown)
"""Those that compare nothing with the stream: of another one, shards of the same ids say nothing about the log."""


def _latest(snapshot: Snapshot, wanted: Callable[[ShardStatus], bool]) -> list[ShardStatus]:
    """The shards for which ``wanted`` holds, those whose records have waited longest first."""
    return sorted((each for each in snapshot.shards if wanted(each)), key=lambda each: (each.unread or snapshot.asked_at, each.name))


def _waits(snapshot: Snapshot, shard: ShardStatus) -> str:
    return f"the oldest record that is not sealed has waited for {length(snapshot.since(shard.unread))}"


def _sealed(shard: ShardStatus) -> str:
    return "nothing was ever sealed" if shard.sealed_at is None else f"last sealed at {clock(shard.sealed_at)}"
