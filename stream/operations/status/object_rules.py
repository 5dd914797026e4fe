"""What is wrong with the objects of a pipeline beside their shards: nobody claims them, some changed, some cannot be read. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from stream.metrics import thresholds
from stream.operations.status.finding import Finding, Harm, clock, count
from stream.operations.status.snapshot import Snapshot


def not_claimed(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Objects that a worker should have claimed; if no claim was made for long, nobody finds them."""
    objects = snapshot.objects
    if objects is None or not objects.watched or objects.unclaimed is None or snapshot.why:
        return
    found, claim = objects.unclaimed, objects.last_claim
    waited = snapshot.since(found.fresh_since)
    if waited is None or waited <= objects.limit:
        return
    quiet = None if claim is None else snapshot.since(claim.at)
    stuck = waited > objects.limit + thresholds.UNSEALED_SECONDS and (quiet is None or quiet > thresholds.UNSEALED_SECONDS)
    last = "nothing was ever claimed" if claim is None else f"the last claim was made at {clock(claim.at)} by {claim.worker}"
    yield Finding(
        "not_claimed",
        Harm.STUCK if stuck else Harm.BEHIND,
        f"{count(found.fresh, 'object is', 'objects are')} not claimed",
        "streamobjectsunclaimed",
        since=found.fresh_since,
        figure=waited,
        limit=objects.limit,
        details=(last,),
        commands=("stream doctor FILE", "stream leases ls FILE" if snapshot.failover is not None else "stream run FILE"),
    )


def changed(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Objects that were overwritten after they were claimed: what they hold now is never read."""
    found = None if snapshot.objects is None else snapshot.objects.unclaimed
    if found is not None and found.changed:
        more = found.changed - len(found.examples)
        yield Finding(
            "objects_changed",
            Harm.DEGRADED,
            f"{count(found.changed, 'object was', 'objects were')} overwritten after being claimed; give each version a key of its own",
            "streamobjectsrefused",
            since=found.changed_since,
            details=(*found.examples, *((f"and {more:,} more",) if more > 0 else ())),
            commands=("stream complete FILE --until NOW STREAM",),
        )


def given_up(snapshot: Snapshot, _: set[str]) -> Iterator[Finding]:
    """Objects that became dead letters within the last hour, because their content could not be read."""
    objects = snapshot.objects
    if objects is not None and objects.recent:
        yield Finding(
            "objects_unreadable",
            Harm.DEGRADED,
            f"{count(objects.recent, 'object', 'objects')} could not be read to the end within the last hour",
            "streamobjectsrefused",
            since=objects.given_up_at,
            details=objects.newest[: objects.recent],
            commands=("stream dlq ls FILE", "stream dlq redrive FILE"),
        )
