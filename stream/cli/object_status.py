"""What ``stream status`` says of objects beside their shards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from stream.audit.completeness import Unclaimed
from stream.cli.complete import unclaimed
from stream.operations.status.finding import count, length
from stream.operations.status.snapshot import ObjectsStatus, Snapshot


def document(snapshot: Snapshot, objects: ObjectsStatus) -> dict[str, Any]:
    """The key ``objects`` of the document, as described in docs/status.md."""
    claim = objects.last_claim
    return {
        "watched": objects.watched,
        **unclaimed(objects.unclaimed or Unclaimed()),
        "listed": objects.unclaimed is not None,
        "unread": _unread(snapshot)[0],
        "unread_bytes": _unread(snapshot)[1],
        "queue": None if objects.messages is None else {"waiting": objects.messages, "hidden": objects.hidden},
        "last_claim": None
        if claim is None
        else {"number": claim.number, "worker": claim.worker, "at": _time(claim.at), "objects": claim.objects},
        "unreadable": objects.given_up,
        "unreadable_at": _time(objects.given_up_at),
        "lister": snapshot.first_holder if snapshot.failover is not None else None,
        "sealed": _time(snapshot.sealed_at),
    }


def _unread(snapshot: Snapshot) -> tuple[int, int]:
    """Claimed objects that are not known to be sealed to their ends, and their bytes."""
    return sum(each.objects or 0 for each in snapshot.shards), sum(each.size or 0 for each in snapshot.shards)


def about(snapshot: Snapshot, objects: ObjectsStatus) -> Iterator[str]:
    """The same in sentences."""
    if objects.unclaimed is not None:
        oldest = f", the oldest for {_ago(snapshot, objects.unclaimed.fresh_since)}" if objects.unclaimed.fresh else ""
        yield f"{count(objects.unclaimed.fresh, 'object waits', 'objects wait')} to be claimed{oldest}."
    unread, size = _unread(snapshot)
    yield f"{count(unread, 'claimed object is', 'claimed objects are')} not sealed to the end ({size:,} bytes)."
    if objects.messages is not None:
        yield f"In the queue {count(objects.messages, 'message waits', 'messages wait')}, and workers hold {objects.hidden:,}."
    if (claim := objects.last_claim) is not None:
        yield f"Claim {claim.number:,}, the last, was made {_ago(snapshot, claim.at)} ago by {claim.worker} ({claim.objects:,} objects)."
    if snapshot.failover is not None and objects.watched:
        yield f"{snapshot.first_holder or 'No worker'} lists objects."
    if objects.given_up:
        yield f"{count(objects.given_up, 'object', 'objects')} could not be read, the last {_ago(snapshot, objects.given_up_at)} ago."


def _ago(snapshot: Snapshot, moment: datetime | None) -> str:
    return "" if moment is None else length(snapshot.since(moment))


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
