"""What a worker takes no more: leases that it gave up for good, and any lease once it stops."""

from tests.unit.lease.test_coordinator import Fleet, play, shards


def test_a_lease_that_is_given_up_for_good_is_left_to_others():
    async def test(fleet):
        await fleet.join("a")
        worker = fleet.workers["a"]
        await worker.release("s", "shardId-000000000000", avoid=True)
        await worker.release("s", "shardId-000000000001")
        await fleet.clock.advance(10 * fleet.settings.failover)
        assert worker.held("s") == {"shardId-000000000001"}
        await fleet.join("b")
        await fleet.clock.advance(1.1)
        assert "shardId-000000000000" in fleet.workers["b"].held("s")

    play(lambda: Fleet(shards(2)), test)


def test_a_lease_that_is_taken_while_the_worker_stops_is_given_back_at_once():
    async def test(fleet):
        worker = fleet.make("a")
        fleet.workers.clear()  # it does not run
        take = worker.table.take

        async def take_and_stop(lease, me):
            taken = await take(lease, me)
            await worker.stop_taking()
            return taken

        worker.table.take = take_and_stop
        await worker.start()
        assert worker.held("s") == set()
        assert [row.owner for row in fleet.rows().values()] == [None, None]

    play(lambda: Fleet(shards(2)), test)
