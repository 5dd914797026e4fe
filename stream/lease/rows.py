"""Rows of the lease table, exactly as KCL 2.x writes and reads them, plus attributes of this service. Pure.

A row is represented as in DynamoDB's JSON protocol: attribute name to ``{type: value}``. KCL updates single attributes, so attributes that
it does not know survive its writes; ours begin with ``sx``. A row that is not a lease (KCL 3.5 keeps other entities in the same table) is
never decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

Item: TypeAlias = Mapping[str, Mapping[str, Any]]
"""A row on the wire."""

TRIM_HORIZON: Final = "TRIM_HORIZON"
LATEST: Final = "LATEST"
AT_TIMESTAMP: Final = "AT_TIMESTAMP"
SHARD_END: Final = "SHARD_END"
_BEFORE_ALL: Final = {AT_TIMESTAMP: -3, TRIM_HORIZON: -2, LATEST: -1}
"""KCL's order of the sentinels (``ExtendedSequenceNumber``): these come before all numbers, ``SHARD_END`` after them."""


class RowProblem(ValueError):
    """A row that looks like a lease but cannot be read; the message names the row and the attribute."""


@dataclass(frozen=True, slots=True)
class ExtendedSequenceNumber:
    """A checkpoint: the decimal text of a sequence number or a sentinel, and the index of the last user record that is done."""

    text: str
    subsequence: int = 0

    @property
    def sequence(self) -> int | None:
        """The number, or None for a sentinel."""
        return int(self.text) if self.text.isdigit() else None

    @property
    def ended(self) -> bool:
        """Whether the shard is read to its end."""
        return self.text == SHARD_END

    @property
    def rank(self) -> tuple[int, int, int]:
        """A key that sorts checkpoints in KCL's order."""
        if (number := self.sequence) is not None:
            return 0, number, self.subsequence
        return (1, 0, 0) if self.ended else (-1, _BEFORE_ALL[self.text], 0)


@dataclass(frozen=True, slots=True)
class Pending:
    """KCL's prepared checkpoint. This service never writes one, and like KCL keeps what it finds until it checkpoints."""

    checkpoint: ExtendedSequenceNumber
    state: str | None = None
    """Base64, as on the wire."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress that this service stores in addition to KCL's checkpoint.

    ``position``: the last committed sequence number, None once the shard has ended. It may be the end of a gap, which is no record's
    number, so KCL could not read from there. ``unit_after`` and ``generation`` say where in the log the unit is that ends
    there. ``kcl_checkpoint``: the KCL checkpoint that was written at the same time; if the row now has another, somebody else wrote it.
    """

    position: int | None
    subsequence: int
    unit_after: int
    kcl_checkpoint: ExtendedSequenceNumber
    generation: int = 0
    tip: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease. ``key`` is the shard id or, in a table of several streams, ``account:stream:epoch:shardId``.

    ``epoch`` is the stream's creation time in seconds. ``owner``: None if nobody has it. ``checkpoint_owner``: during a graceful hand-off
    of KCL 3.x, the worker that may still checkpoint; ``owner`` is then the next one. ``hash_range`` is inclusive. ``operation`` marks the
    last write of this service, ``signed`` the last owner that was one of its workers, ``refused`` the worker that said last that it cannot
    work on the shard, ``unlisted`` the one that said last that it may not list the objects of a watched source, ``renewed`` when it last
    wrote (ISO 8601; for people, nothing is ever decided by it). ``unknown`` holds all else.
    """

    key: str
    checkpoint: ExtendedSequenceNumber
    counter: int = 0
    owner: str | None = None
    owner_switches: int = 0
    pending: Pending | None = None
    parents: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    hash_range: tuple[int, int] | None = None
    throughput: float | None = None
    checkpoint_owner: str | None = None
    stream_name: str | None = None
    shard_id: str | None = None
    entity_type: str | None = None
    progress: Progress | None = None
    operation: str = ""
    signed: str | None = None
    refused: str | None = None
    unlisted: str | None = None
    renewed: str | None = None
    unknown: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the shard is read to its end."""
        return self.checkpoint.ended

    @property
    def shard(self) -> str:
        """The bare shard id."""
        return self.shard_id or self.key.rpartition(":")[2]

    @property
    def holder(self) -> str | None:
        """Who may work on the shard now; during a hand-off, still the worker that gives it away."""
        return self.checkpoint_owner or self.owner

    @property
    def out_of_reach(self) -> bool:
        """Whether the holder says that it cannot work on the shard, because access is refused to it, or because nothing answers."""
        return self.refused is not None and self.refused == self.holder

    @property
    def bars_listing(self) -> bool:
        """Whether the holder says that it may not list the objects of the source."""
        return self.unlisted is not None and self.unlisted == self.holder

    @property
    def owned_elsewhere(self) -> bool:
        """Whether the owner is a worker of another application, such as a Java KCL, which leaves our attributes as they were."""
        return self.owner is not None and self.owner != self.signed

    @property
    def set_back(self) -> bool:
        """Whether somebody else has moved the checkpoint to before what this service has committed."""
        progress = self.progress
        if progress is None or progress.kcl_checkpoint == self.checkpoint:
            return False
        text = SHARD_END if progress.position is None else str(progress.position)
        return self.checkpoint.rank < ExtendedSequenceNumber(text, progress.subsequence).rank

    @property
    def foreign(self) -> ExtendedSequenceNumber | None:
        """The checkpoint, if another application wrote it and it says more than where to begin."""
        if self.progress is not None and self.progress.kcl_checkpoint == self.checkpoint:
            return None
        return self.checkpoint if self.checkpoint.ended or self.checkpoint.sequence is not None else None


def is_lease(item: Item) -> bool:
    """Whether the row is a lease: other entities of KCL 3.5 carry their type, and all of them lack the counter."""
    return item.get("entityType", {"S": "LEASE"}).get("S") == "LEASE" and "leaseCounter" in item


def decode(item: Item) -> Lease:
    """The lease in a row for which ``is_lease`` holds.

    Raises:
        RowProblem: an attribute is missing, or does not have the type that KCL writes.
    """
    key = item.get("leaseKey", {}).get("S", "")
    rest = dict(item)

    def take(name: str, kind: str) -> Any:
        found = rest.pop(name, None)
        if found is None:
            return None
        if kind not in found:
            msg = f"lease row {key!r}: attribute {name} is of type {next(iter(found), '?')}, but KCL writes {kind}"
            raise RowProblem(msg)
        return found[kind]

    try:
        text = take("checkpoint", "S")
        lease = Lease(
            key=take("leaseKey", "S"),
            checkpoint=_checkpoint(text, take("checkpointSubSequenceNumber", "N")),
            counter=int(take("leaseCounter", "N")),
            owner=take("leaseOwner", "S"),
            owner_switches=int(take("ownerSwitchesSinceCheckpoint", "N") or 0),
            pending=_pending(rest, take),
            parents=frozenset(take("parentShardId", "SS") or ()),
            children=frozenset(take("childShardIds", "SS") or ()),
            hash_range=_range(take("startingHashKey", "S"), take("endingHashKey", "S")),
            throughput=_number(take("throughputKBps", "N")),
            checkpoint_owner=take("checkpointOwner", "S"),
            stream_name=take("streamName", "S"),
            shard_id=take("shardId", "S"),
            entity_type=take("entityType", "S"),
            operation=take("sxOp", "S") or "",
            signed=take("sxOwner", "S"),
            refused=take("sxRefused", "S"),
            unlisted=take("sxUnlisted", "S"),
            renewed=take("sxRenewed", "S"),
            progress=_progress(take),
            unknown=rest,
        )
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, RowProblem):
            raise
        msg = f"lease row {key!r} is not as KCL writes it: {error}"
        raise RowProblem(msg) from error
    return lease


def encode(lease: Lease) -> dict[str, dict[str, Any]]:
    """The whole row. What KCL leaves out is left out here too (DynamoDB has no empty sets, and KCL does not read empty strings)."""
    item: dict[str, dict[str, Any]] = {name: dict(value) for name, value in lease.unknown.items()}
    item |= {
        "leaseKey": {"S": lease.key},
        "checkpoint": {"S": lease.checkpoint.text},
        "checkpointSubSequenceNumber": {"N": str(lease.checkpoint.subsequence)},
        "leaseCounter": {"N": str(lease.counter)},
        "ownerSwitchesSinceCheckpoint": {"N": str(lease.owner_switches)},
    }
    texts = {
        "leaseOwner": lease.owner,
        "checkpointOwner": lease.checkpoint_owner,
        "streamName": lease.stream_name,
        "shardId": lease.shard_id,
        "entityType": lease.entity_type,
        "sxOp": lease.operation or None,
        "sxOwner": lease.signed,
        "sxRefused": lease.refused,
        "sxUnlisted": lease.unlisted,
        "sxRenewed": lease.renewed,
    }
    item |= {name: {"S": text} for name, text in texts.items() if text is not None}
    sets = {"parentShardId": lease.parents, "childShardIds": lease.children}
    item |= {name: {"SS": sorted(members)} for name, members in sets.items() if members}
    if lease.pending is not None:
        item["pendingCheckpoint"] = {"S": lease.pending.checkpoint.text}
        item["pendingCheckpointSubSequenceNumber"] = {"N": str(lease.pending.checkpoint.subsequence)}
        if lease.pending.state is not None:
            item["pendingCheckpointState"] = {"B": lease.pending.state}
    if lease.hash_range is not None:
        item["startingHashKey"], item["endingHashKey"] = ({"S": str(end)} for end in lease.hash_range)
    if lease.throughput is not None:
        item["throughputKBps"] = {"N": str(lease.throughput)}
    return item | (encode_progress(lease.progress) if lease.progress is not None else {})


PROGRESS_ATTRIBUTES: Final = ("sxPosition", "sxSubsequence", "sxUnitAfter", "sxBeside", "sxGeneration", "sxTip")


def encode_progress(progress: Progress) -> dict[str, dict[str, Any]]:
    """The attributes that hold ``progress``; those that are absent have to be removed from the row."""
    found: dict[str, dict[str, Any]] = {
        "sxPosition": {"S": SHARD_END if progress.position is None else str(progress.position)},
        "sxSubsequence": {"N": str(progress.subsequence)},
        "sxUnitAfter": {"S": str(progress.unit_after)},
        "sxBeside": {"S": f"{progress.kcl_checkpoint.text}:{progress.kcl_checkpoint.subsequence}"},
    }
    if progress.generation:
        found["sxGeneration"] = {"N": str(progress.generation)}
    if progress.tip is not None:
        found["sxTip"] = {"S": progress.tip.isoformat()}
    return found


def _checkpoint(text: Any, subsequence: Any) -> ExtendedSequenceNumber:
    if not isinstance(text, str) or not (text == SHARD_END or text in _BEFORE_ALL or (text.isascii() and text.isdigit())):
        msg = f"checkpoint {text!r} is neither a sequence number nor one of {[*_BEFORE_ALL, SHARD_END]}"
        raise ValueError(msg)
    return ExtendedSequenceNumber(text, int(subsequence or 0))


def _pending(rest: dict[str, Any], take: Any) -> Pending | None:
    text, number = take("pendingCheckpoint", "S"), take("pendingCheckpointSubSequenceNumber", "N")
    # Some versions of KCL write the state of new rows as a number; such a row has no state.
    state = take("pendingCheckpointState", "B") if "B" in rest.get("pendingCheckpointState", {}) else None
    return None if text is None else Pending(_checkpoint(text, number), state)


def _range(first: Any, last: Any) -> tuple[int, int] | None:
    return None if first is None or last is None else (int(first), int(last))


def _number(text: Any) -> float | None:
    return None if text is None else float(text)


def _progress(take: Any) -> Progress | None:
    """Our progress; None if somebody edited the attributes, since a hint may always be missing."""
    position, sub, after, beside, generation, tip = (
        take(name, kind) for name, kind in zip(PROGRESS_ATTRIBUTES, ("S", "N", "S", "S", "N", "S"), strict=True)
    )
    if position is None or after is None or beside is None:
        return None
    try:
        text, _, number = beside.rpartition(":")
        return Progress(
            position=None if position == SHARD_END else int(position),
            subsequence=int(sub or 0),
            unit_after=int(after),
            kcl_checkpoint=_checkpoint(text, number),
            generation=int(generation or 0),
            tip=datetime.fromisoformat(tip) if tip else None,
        )
    except ValueError:
        return None
