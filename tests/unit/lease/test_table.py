"""The lease table with lost replies, throttling, pagination and foreign rows."""

import asyncio
from dataclasses import replace

import pytest

from stream import events
from stream.aws.errors import AccessRefused, AwsRetryable
from stream.errors import Fatal, Retryable
from stream.lease.rows import ExtendedSequenceNumber, Pending, Progress, decode, encode
from tests.unit.lease.tables import FakeClock, MemoryDynamo, lease, settle, table_on


def run(test, *, by_hand=False):
    """``by_hand``: the test moves the clock itself."""

    async def body():
        dynamo, clock = MemoryDynamo(), FakeClock()
        dynamo.tables.add("app")
        emitted = []
        main = asyncio.ensure_future(test(table_on(dynamo, clock, emitted), dynamo, clock, emitted))
        await settle()
        while not (by_hand or main.done()):
            await clock.advance(0.5)
        await main

    asyncio.run(asyncio.wait_for(body(), 120))


def put(dynamo, row):
    dynamo.items[row.key] = encode(row)


@pytest.mark.parametrize("fault", ["lost_before", "lost_after", "throttled"])
@pytest.mark.parametrize("old_item_returned", [True, False])
def test_a_write_whose_reply_was_lost_is_recognised_as_our_own(fault, old_item_returned):
    async def test(table, dynamo, clock, emitted):
        dynamo.old_item_returned = old_item_returned
        dynamo.faults = [fault]
        assert await table.create(lease())
        for operation in ("take", "renew", "checkpoint", "release"):
            before = await table.get("shardId-0")
            dynamo.faults = [fault]
            calls = {
                "take": lambda row: table.take(row, "me"),
                "renew": table.renew,
                "checkpoint": lambda row: table.checkpoint(
                    row, ExtendedSequenceNumber("7"), Progress(7, 0, 3, ExtendedSequenceNumber("7"))
                ),
                "release": table.release,
            }
            after = await calls[operation](before)
            assert after is not None, operation
            assert after == await table.get("shardId-0"), operation
            assert after.counter == before.counter + 1, operation

    run(test)


def test_a_write_overtaken_by_the_kcl_before_its_repetition_has_lost():
    """KCL keeps our mark in the row, so the mark alone does not say who has the lease."""

    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me", counter=3))
        row, answering = await table.get("shardId-0"), dynamo.call

        async def overtaken(operation, name, request):
            dynamo.call = answering
            await answering(operation, name, request)
            dynamo.items["shardId-0"] |= {"leaseOwner": {"S": "java"}, "leaseCounter": {"N": "5"}}
            raise AwsRetryable("no answer", code="ConnectionError")

        dynamo.call = overtaken
        assert await table.renew(row) is None

    run(test)


@pytest.mark.parametrize(
    ("change", "given_to"),
    [
        ({"leaseOwner": {"S": "next"}, "checkpointOwner": {"S": "me"}}, "next"),
        ({"leaseOwner": {"S": "next"}, "checkpointOwner": {"S": "me"}, "leaseCounter": {"N": "4"}}, None),
        ({"leaseOwner": {"S": "next"}, "checkpointOwner": {"S": "other"}}, None),
        ({"leaseOwner": {"S": "next"}}, None),
        ({"leaseOwner": None, "checkpointOwner": {"S": "me"}}, None),
    ],
)
def test_a_release_during_a_hand_off_completes_that_and_nothing_else_that_others_wrote_is_overwritten(change, given_to):
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me", counter=3))
        held = await table.get("shardId-0")
        row = {name: value for name, value in (dynamo.items["shardId-0"] | change).items() if value is not None}
        dynamo.items["shardId-0"] = dict(row)
        released = await table.release(held)
        if given_to is None:
            assert released is None
            assert dynamo.items["shardId-0"] == row
        else:
            assert (released.owner, released.checkpoint_owner, released.counter) == (given_to, None, 4)
            assert await table.get("shardId-0") == released

    run(test)


def test_of_two_writers_the_second_is_refused():
    async def test(table, dynamo, clock, emitted):
        await table.create(lease())
        assert not await table.create(lease())
        seen = await table.get("shardId-0")
        assert await table.take(seen, "first") is not None
        assert await table.take(seen, "second") is None
        assert (await table.get("shardId-0")).owner == "first"

    run(test)


def test_a_row_that_was_deleted_and_recreated_does_not_match_by_its_counter_alone():
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me", counter=3))
        held = await table.get("shardId-0")
        put(dynamo, lease(owner="other", counter=3))
        assert await table.renew(held) is None
        assert await table.checkpoint(held, ExtendedSequenceNumber("7"), Progress(7, 0, 3, ExtendedSequenceNumber("7"))) is None
        assert await table.release(held) is None

    run(test)


def test_a_checkpoint_drops_the_pending_one_and_keeps_unknown_attributes():
    async def test(table, dynamo, clock, emitted):
        pending = Pending(ExtendedSequenceNumber("9"), "AAEC")
        row = lease(owner="me", counter=3, checkpoint="5", owner_switches=4, pending=pending, unknown={"theirs": {"S": "x"}})
        put(dynamo, row)
        own = ExtendedSequenceNumber("9", 2)
        assert await table.checkpoint(row, own, Progress(9, 2, 5, own)) is not None
        stored = decode(dynamo.items["shardId-0"])
        assert (stored.checkpoint, stored.pending, stored.owner_switches, stored.counter) == (own, None, 0, 4)
        assert stored.unknown == {"theirs": {"S": "x"}}
        assert stored.progress == Progress(9, 2, 5, own)

    run(test)


def test_owner_switches_are_counted_as_in_the_kcl():
    async def test(table, dynamo, clock, emitted):
        await table.create(lease())
        first = await table.take(await table.get("shardId-0"), "a")
        again = await table.take(first, "a")
        other = await table.take(again, "b")
        assert [first.owner_switches, again.owner_switches, other.owner_switches] == [1, 1, 2]
        assert other == await table.get("shardId-0")

    run(test)


def test_a_released_lease_has_no_owner_attribute():
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me"))
        await table.release(lease(owner="me"))
        assert "leaseOwner" not in dynamo.items["shardId-0"]

    run(test)


def test_a_renewal_gives_up_when_its_time_is_over():
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me"))
        dynamo.faults = ["throttled"] * 100
        with pytest.raises(Retryable):
            await table.renew(lease(owner="me"), until=clock.monotonic() + 2)
        assert len(dynamo.faults) > 50

    run(test)


def test_while_access_is_refused_a_held_lease_is_renewed_again_until_its_time_is_over_and_nothing_else_is():
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me"))
        dynamo.refusing = True
        asked = asyncio.ensure_future(table.renew(lease(owner="me"), until=clock.monotonic() + 8))
        await clock.advance(5)
        assert 3 <= len(dynamo.calls) <= 20
        dynamo.refusing = False
        await clock.advance(3)
        assert (await asked).counter == 1
        dynamo.refusing = True
        asked = asyncio.ensure_future(table.renew(lease(owner="me", counter=1), until=clock.monotonic() + 2))
        await clock.advance(4)
        with pytest.raises(Retryable, match="not allowed"):
            await asked
        for call in (table.take(lease(), "me"), table.scan(), table.get("shardId-0")):
            with pytest.raises(AccessRefused):
                await call

    run(test, by_hand=True)


@pytest.mark.parametrize("call", ["renew", "scan", "get"])
def test_a_throttled_table_is_called_less_and_less(call):
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(owner="me"))
        dynamo.throttling = True
        calls = {"renew": lambda: table.renew(lease(owner="me")), "scan": table.scan, "get": lambda: table.get("shardId-0")}
        asked = asyncio.ensure_future(calls[call]())
        await clock.advance(10)
        first = len(dynamo.calls)
        await clock.advance(50)
        assert 5 <= first <= 25
        assert 25 <= len(dynamo.calls) - first <= 90  # one a second on average; without growing pauses 250
        dynamo.throttling = False
        await clock.advance(3)
        assert asked.done()
        assert await asked is not None

    run(test, by_hand=True)


def test_workers_throttled_together_retry_at_different_times():
    async def test(table, dynamo, clock, emitted):
        rows = [lease(f"shardId-{number}", owner="me") for number in range(20)]
        for row in rows:
            put(dynamo, row)
        dynamo.throttling = True
        renewals = [asyncio.ensure_future(table.renew(row)) for row in rows]
        await clock.advance(4)
        pauses = [event.wait for event in emitted if isinstance(event, events.CallRepeated)]
        assert len(set(pauses)) > len(pauses) / 2
        dynamo.throttling = False
        await clock.advance(4)
        assert all([await renewal for renewal in renewals])

    run(test, by_hand=True)


def test_unknown_rows_are_skipped_and_reported():
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease("a"))
        dynamo.items["Leader"] = {"leaseKey": {"S": "Leader"}, "entityType": {"S": "LEADER"}}
        dynamo.items["odd"] = {"leaseKey": {"S": "odd"}}
        dynamo.items["bad"] = encode(lease("bad")) | {"checkpoint": {"S": "?"}}
        scanned = await table.scan()
        assert [row.key for row in scanned.leases] == ["a"]
        unreadable = [event.detail for event in emitted if isinstance(event, events.LeaseRowUnreadable)]
        assert len(unreadable) == 2

    run(test)


def test_a_large_table_is_scanned_in_pages():
    async def test(table, dynamo, clock, emitted):
        dynamo.page = 7
        for number in range(100):
            put(dynamo, lease(f"shardId-{number:03}"))
        assert len((await table.scan()).leases) == 100
        assert dynamo.calls.count("Scan") == 15

    run(test)


def test_an_existing_table_needs_no_permission_to_create_one():
    async def test(table, dynamo, clock, emitted):
        dynamo.denied = {"CreateTable"}
        assert not await table.open(create=True)
        dynamo.tables.clear()
        with pytest.raises(Fatal, match="not allowed"):
            await table.open(create=True)
        dynamo.denied = set()
        with pytest.raises(Fatal, match="does not exist"):
            await table.open(create=False)
        assert await table.open(create=True)

    run(test)


def test_a_table_with_another_key_is_refused_with_both_keys():
    async def test(table, dynamo, clock, emitted):
        dynamo.key = [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}]
        told = await refusal(table)
        assert (
            "the table app is not a lease table: its key is `id` (HASH), `at` (RANGE); that of a lease table is `leaseKey` (HASH)" in told
        )
        assert "coordination.native.table" in told

    run(test)


def test_a_table_that_never_becomes_active_is_reported_with_its_status():
    async def test(table, dynamo, clock, emitted):
        dynamo.status = "INACCESSIBLE_ENCRYPTION_CREDENTIALS"
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(refusal(table))
            await clock.advance(130)
        assert "app (memory) is still INACCESSIBLE_ENCRYPTION_CREDENTIALS after 120 s" in await opening

    run(test)


async def refusal(table):
    with pytest.raises(Fatal) as refused:
        await table.open(create=True)
    return str(refused.value)


@pytest.mark.parametrize("fault", [None, "lost_before", "lost_after"])
def test_only_the_row_as_it_was_seen_is_deleted(fault):
    async def test(table, dynamo, clock, emitted):
        row = lease(checkpoint="SHARD_END", counter=3)
        put(dynamo, row)
        assert not await table.delete(replace(row, counter=2))
        # Somebody has set the checkpoint back by hand, which moves no counter.
        assert not await table.delete(replace(row, checkpoint=ExtendedSequenceNumber("TRIM_HORIZON")))
        dynamo.faults = [fault]
        assert await table.delete(row)
        assert not dynamo.items

    run(test)


def test_children_are_noted_without_changing_the_counter_or_creating_a_row():
    async def test(table, dynamo, clock, emitted):
        put(dynamo, lease(counter=4))
        await table.note_children("shardId-0", frozenset({"b", "a"}))
        await table.note_children("gone", frozenset({"b"}))
        stored = decode(dynamo.items["shardId-0"])
        assert (stored.counter, stored.children) == (4, {"a", "b"})
        assert list(dynamo.items) == ["shardId-0"]

    run(test)
