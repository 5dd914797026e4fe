"""The lease table. Every write is conditional on the row's counter and owner, and a lost reply is never taken for a failure.

KCL conditions only on the counter, and gives up a lease if the reply to a successful write is lost. Here each write carries a unique
mark (``sxOp``): if a retried write fails, and the row carries that mark and the counter to be written, the first attempt had succeeded.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, TypeAlias

from stream import events
from stream.aws.dynamodb import TABLE_MISSING, ConditionFailed, DynamoDb, Item
from stream.aws.errors import AccessRefused, AwsFatal, AwsRetryable, is_throttle
from stream.aws.retry import Policy, Wait
from stream.aws.retry import decide as decide_retry
from stream.contracts import Clock, Emit
from stream.errors import Fatal
from stream.lease.rows import (
    PROGRESS_ATTRIBUTES,
    ExtendedSequenceNumber,
    Lease,
    Progress,
    RowProblem,
    decode,
    encode,
    encode_progress,
    is_lease,
)
from stream.lease.updates import LeaseUpdate

RETRY_SECONDS: Final = 0.2
"""Seconds between attempts at a call that got no answer: a lease does not wait for long."""

CROWDED: Final = Policy(base=0.4, cap=2.0)
"""Seconds after throttling or a refusal: a write is tried about ten times in 10 s, and a fleet asks less often the longer that lasts."""

CREATE_SECONDS: Final = 120.0
"""How long creating a table may take; 10 to 30 s are usual."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The result of one scan; ``size`` is roughly the number of bytes that DynamoDB counts for it."""

    leases: tuple[Lease, ...]
    size: int


class LeaseTable:
    """One lease table. ``marks`` returns a unique text for each write."""

    def __init__(self, client: DynamoDb, name: str, clock: Clock, emit: Emit, marks: Callable[[], str]) -> None:
        self.name = name
        self.client = client
        self._clock = clock
        self._emit = emit
        self._marks = marks

    # --- the table --------------------------------------------------------------------------------------------------------

    async def open(self, *, create: bool) -> bool:
        """Make sure that the table exists and is usable; True if this call created it.

        A table that exists needs no permission to create one.

        Raises:
            Fatal: it is missing and must not or cannot be created, or has another key.
        """
        created = False
        deadline = self._clock.monotonic() + CREATE_SECONDS
        while (found := await self._describe()) is None or found["TableStatus"] not in {"ACTIVE", "UPDATING"}:
            if found is None and not create:
                msg = (
                    f"the lease table {self.name} does not exist ({self.client.place}). Create it with the string hash key `leaseKey`, "
                    "or allow its creation with coordination.native.create_table"
                )
                raise Fatal(msg)
            if found is None:
                created = await self._create() or created
            if self._clock.monotonic() > deadline:
                status = "missing" if found is None else found["TableStatus"]
                msg = f"the lease table {self.name} ({self.client.place}) is still {status} after {CREATE_SECONDS:g} s; it must be ACTIVE"
                raise Fatal(msg)
            await self._clock.sleep(0.5 if created else RETRY_SECONDS)
        keys = found["KeySchema"]
        if [(key["AttributeName"], key["KeyType"]) for key in keys] != [("leaseKey", "HASH")]:
            msg = f"the table {self.name} is not a lease table: its key is {keys}; a lease table has only the hash key `leaseKey`"
            raise Fatal(msg)
        return created

    async def exists(self) -> bool:
        """Whether there is such a table."""
        return await self._describe() is not None

    async def _describe(self) -> dict[str, Any] | None:
        try:
            answer = await self._patiently("DescribeTable", {})
        except AwsFatal as error:
            if error.code == TABLE_MISSING:
                return None
            raise
        described: dict[str, Any] = answer["Table"]
        return described

    async def _create(self) -> bool:
        try:
            await self.client.call(
                "CreateTable",
                self.name,
                {
                    "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
                    "BillingMode": "PAY_PER_REQUEST",
                },
            )
        except AwsRetryable:
            # Somebody else may be creating it right now; DescribeTable will tell.
            return False
        return True

    # --- reading ----------------------------------------------------------------------------------------------------------

    async def scan(self, *, consistent: bool = False) -> Scanned:
        """All leases; unless ``consistent``, which costs twice as much, perhaps as they were a second ago.

        Rows that are not leases are ignored; damaged ones are reported and ignored.
        """
        leases, size = [], 0
        async for item in self._items({"ConsistentRead": True} if consistent else {}):
            size += item_size(item)
            if not is_lease(item):
                if "entityType" not in item:
                    self._emit(
                        events.LeaseRowUnreadable("", "", self.name, f"row {item.get('leaseKey', {}).get('S')!r} has no leaseCounter")
                    )
                continue
            try:
                leases.append(decode(item))
            except RowProblem as error:
                self._emit(events.LeaseRowUnreadable("", "", self.name, str(error)))
        return Scanned(tuple(leases), size)

    async def _items(self, options: Mapping[str, Any]) -> AsyncIterator[Item]:
        request: dict[str, Any] = {**options}
        while True:
            answer = await self._patiently("Scan", request)
            for item in answer["Items"]:
                yield item
            if "LastEvaluatedKey" not in answer:
                return
            request = {**options, "ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def item(self, key: str) -> Item | None:
        """The current row, whether or not it is a lease."""
        answer = await self._patiently("GetItem", {"Key": {"leaseKey": {"S": key}}, "ConsistentRead": True})
        found: Item | None = answer.get("Item")
        return found

    async def get(self, key: str) -> Lease | None:
        """The current lease.

        Raises:
            RowProblem: the row cannot be read.
        """
        item = await self.item(key)
        return None if item is None or not is_lease(item) else decode(item)

    # --- writing ----------------------------------------------------------------------------------------------------------

    async def create(self, lease: Lease) -> bool:
        """Create the row; False if it exists already."""
        mark = self._marks()
        request = {
            "Item": encode(replace(lease, operation=mark)),
            "ConditionExpression": "attribute_not_exists(leaseKey)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        return await self._write("create", "PutItem", lease.key, request, {"sxOp": {"S": mark}}) is None

    async def take(self, lease: Lease, me: str) -> Lease | None:
        """Become the owner if the row is still as in ``lease``; otherwise write nothing and return None."""
        update = LeaseUpdate().set("leaseOwner", {"S": me}).set("sxOwner", {"S": me}).remove("checkpointOwner")
        after = _saying(update, lease, refused=False, unlisted=False)
        if lease.owner != me:
            update.add("ownerSwitchesSinceCheckpoint", 1)
        switches = lease.owner_switches + (lease.owner != me)
        after = replace(after, owner=me, signed=me, checkpoint_owner=None, counter=lease.counter + 1)
        after = replace(after, owner_switches=switches)
        return await self._update("take", lease, update, after)

    async def renew(
        self, lease: Lease, throughput: float | None = None, until: float = math.inf, *, refused: bool = False, unlisted: bool = False
    ) -> Lease | None:
        """Renew the lease; None if the row is no longer as in ``lease``.

        ``refused``: say in the row that its holder has no access. ``unlisted``: that it may not list the objects of the source.

        Raises:
            Retryable: there was no answer by ``until``, monotonic seconds.
        """
        update = LeaseUpdate()
        if throughput is not None:
            update.set("throughputKBps", {"N": f"{throughput:.6f}"})
        after = _saying(update, lease, refused=refused, unlisted=unlisted)
        after = replace(after, counter=lease.counter + 1, throughput=lease.throughput if throughput is None else throughput)

        def again(row: Lease) -> Awaitable[Lease | None]:
            return self.renew(row, throughput, until, refused=refused, unlisted=unlisted)

        return await self._update("renew", lease, update, after, until, again)

    async def adopt(self, lease: Lease) -> Lease | None:
        """Accept a lease that a leader has assigned, with a first renewal; None if the row is no longer as in ``lease``."""
        after = replace(lease, signed=lease.owner, counter=lease.counter + 1)
        return await self._update("adopt", lease, LeaseUpdate().set("sxOwner", {"S": lease.owner}), after)

    async def checkpoint(
        self,
        lease: Lease,
        checkpoint: ExtendedSequenceNumber,
        progress: Progress,
        until: float = math.inf,
        throughput: float | None = None,
        *,
        unlisted: bool = False,
    ) -> Lease | None:
        """Move the checkpoint; as in KCL, this drops a prepared checkpoint and counts as a renewal. None if the lease is another worker's.

        ``unlisted``: as for ``renew``.

        Raises:
            Retryable: there was no answer by ``until``, monotonic seconds.
        """
        update = LeaseUpdate().set("checkpoint", {"S": checkpoint.text})
        update.set("checkpointSubSequenceNumber", {"N": str(checkpoint.subsequence)})
        update.set("ownerSwitchesSinceCheckpoint", {"N": "0"})
        update.remove("pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState")
        after = _saying(update, lease, refused=False, unlisted=unlisted)
        values = encode_progress(progress)
        for name in PROGRESS_ATTRIBUTES:
            if name in values:
                update.set(name, values[name])
            else:
                update.remove(name)
        if throughput is not None:
            update.set("throughputKBps", {"N": f"{throughput:.6f}"})
        after = replace(after, counter=lease.counter + 1, checkpoint=checkpoint, progress=progress, pending=None, owner_switches=0)
        after = replace(after, throughput=lease.throughput if throughput is None else throughput)

        def again(row: Lease) -> Awaitable[Lease | None]:
            return self.checkpoint(row, checkpoint, progress, until, throughput, unlisted=unlisted)

        return await self._update("checkpoint", lease, update, after, until, again)

    async def release(self, lease: Lease, until: float = math.inf) -> Lease | None:
        """Release the lease, so that others need not wait for its expiry; None if it is another worker's.

        Raises:
            Retryable: there was no answer by ``until``, monotonic seconds.
        """
        return await self.assign(lease, None, until)

    async def assign(self, lease: Lease, worker: str | None, until: float = math.inf) -> Lease | None:
        """Give the lease to ``worker``, or to nobody; None if it is another worker's. A graceful hand-off is completed as planned.

        Raises:
            Retryable: there was no answer by ``until``, monotonic seconds.
        """
        after = replace(lease, owner=worker, checkpoint_owner=None, counter=lease.counter + 1)
        update = LeaseUpdate().remove("leaseOwner") if worker is None else LeaseUpdate().set("leaseOwner", {"S": worker})
        if lease.checkpoint_owner is not None:
            update.remove("checkpointOwner")
        what = "release" if worker is None else "assign"
        return await self._update(what, lease, update, after, until, lambda row: self.assign(row, row.owner, until))

    async def note_children(self, key: str, children: frozenset[str]) -> None:
        """Record which shards continue this one, without touching the counter. A row that is gone is not recreated."""
        request = {
            "Key": {"leaseKey": {"S": key}},
            "UpdateExpression": "SET childShardIds = :children",
            "ConditionExpression": "attribute_exists(leaseKey)",
            "ExpressionAttributeValues": {":children": {"SS": sorted(children)}},
        }
        await self._write("note children", "UpdateItem", key, request)

    async def delete(self, lease: Lease) -> bool:
        """Remove the row of an ended shard, if it is still there; False if it has changed meanwhile."""
        request = {
            "Key": {"leaseKey": {"S": lease.key}},
            "ConditionExpression": "leaseCounter = :counter AND #checkpoint = :checkpoint",
            "ExpressionAttributeNames": {"#checkpoint": "checkpoint"},
            "ExpressionAttributeValues": {":counter": {"N": str(lease.counter)}, ":checkpoint": {"S": lease.checkpoint.text}},
        }
        return not await self._write("delete", "DeleteItem", lease.key, request)

    async def _update(
        self, what: str, lease: Lease, update: LeaseUpdate, after: Lease, until: float = math.inf, retry: _Again | None = None
    ) -> Lease | None:
        """Write if the row is still as in ``lease``; return ``after`` as written, or None. ``retry``: called if a hand-off has begun."""
        mark = self._marks()
        now = self._clock.now().isoformat(timespec="milliseconds")
        update.set("leaseCounter", {"N": str(after.counter)}).set("sxOp", {"S": mark}).set("sxRenewed", {"S": now})
        request = update.request(lease)
        # The KCL leaves our mark as it is, but moves the counter.
        signature = {"sxOp": {"S": mark}, "leaseCounter": {"N": str(after.counter)}}
        refused = await self._write(what, "UpdateItem", lease.key, request, signature, until)
        if refused is None:
            return replace(after, operation=mark, renewed=now)
        handed_off = _handed_off(lease, refused)
        return await retry(handed_off) if retry is not None and handed_off is not None else None

    async def _write(
        self, what: str, operation: str, key: str, request: Mapping[str, Any], signature: Item | None = None, until: float = math.inf
    ) -> Item | None:
        """Retry until the outcome is known: None if the row has ``signature``, else the row that prevented it, empty if there is none.

        With ``until``, the row is about a lease that is held, so that access which is refused now was allowed before, and may be again.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                await self.client.call(operation, self.name, request)
            except (AwsRetryable, AccessRefused) as error:
                if isinstance(error, AccessRefused) and until == math.inf:
                    raise
                if self._clock.monotonic() >= until:
                    raise AwsRetryable(str(error), code=error.code) from error
                await self._wait(error, key, f"lease {what}", attempt, until)
            except ConditionFailed as error:
                item = error.item if error.item is not None else await self.item(key)
                ours = signature and item and all(item.get(name) == value for name, value in signature.items())
                return None if ours else item or {}
            else:
                self._emit(events.LeaseWritten("", key, what))
                return None

    async def _patiently(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Retry a read until it is answered."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.client.call(operation, self.name, request)
            except AwsRetryable as error:
                await self._wait(error, "", f"lease {operation}", attempt)

    async def _wait(self, error: AwsRetryable | AccessRefused, key: str, call: str, attempt: int, until: float = math.inf) -> None:
        pause = retry_pause(error, attempt, self._marks())
        self._emit(events.CallRepeated("", key, call, str(error), pause))
        await self._clock.sleep(min(pause, max(0.0, until - self._clock.monotonic())))


def retry_pause(error: AwsRetryable | AccessRefused, attempt: int, seed: str) -> float:
    """Seconds until the next attempt after ``error`` in attempt number ``attempt``; ``seed``: a unique text that seeds the jitter."""
    if isinstance(error, AwsRetryable) and not is_throttle(error):
        return RETRY_SECONDS
    decision = decide_retry(AwsRetryable(str(error), code=error.code), attempt, Random(seed).random(), CROWDED)  # noqa: S311 - only spreads callers
    return decision.seconds if isinstance(decision, Wait) else CROWDED.cap


_Again: TypeAlias = Callable[[Lease], Awaitable[Lease | None]]


def _handed_off(lease: Lease, row: Item) -> Lease | None:
    """``lease`` with the owners of ``row``, if the only change is that its owner has to hand it over."""
    owner, next_owner = row.get("checkpointOwner", {}).get("S"), row.get("leaseOwner", {}).get("S")
    unmoved = row.get("leaseCounter") == {"N": str(lease.counter)}
    if lease.checkpoint_owner is not None or owner is None or owner != lease.owner or next_owner is None or not unmoved:
        return None
    return replace(lease, owner=next_owner, checkpoint_owner=owner)


def _saying(update: LeaseUpdate, lease: Lease, *, refused: bool, unlisted: bool) -> Lease:
    """``lease`` once ``update`` lets its row say that its holder has no access, or may not list; or no longer say so."""
    after = replace(lease, refused=lease.holder if refused else None, unlisted=lease.holder if unlisted else None)
    for name, before, now in (("sxRefused", lease.refused, after.refused), ("sxUnlisted", lease.unlisted, after.unlisted)):
        if now is not None:
            update.set(name, {"S": now})
        elif before is not None:
            update.remove(name)
    return after


def item_size(item: Item) -> int:
    """Bytes of a row as DynamoDB counts them, roughly: names and values, no overhead."""
    return sum(len(name) + sum(len(str(part)) for part in value.values()) for name, value in item.items())
