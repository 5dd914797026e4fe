"""Real workers that share a stream, of which one alone, or all, lose their access to S3."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.error import HTTPError

import pytest

from tests.chaos.conftest import client
from tests.chaos.gateway import Gateway, gateway
from tests.chaos.test_leases import Fleet
from tests.chaos.test_store_faults import DENIED, logged, refuses
from tests.chaos.workers import Worker, clean
from tests.chaos.world import World
from tests.ports import free_port


@pytest.fixture
def fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[Fleet]:
    dynamo = client("dynamodb", s3_url)
    yield Fleet(make_world(4, s3=True), s3_url, dynamo, failover="5s")
    dynamo.close()


@pytest.fixture
def gates(fleet: Fleet) -> Iterator[list[tuple[str, Gateway]]]:
    """Three ways to S3: one for each worker."""
    with ExitStack() as stack:
        yield [stack.enter_context(gateway(fleet.world.environment["AWS_ENDPOINT_URL_S3"])) for _ in range(3)]


def join(fleet: Fleet, url: str) -> Worker:
    worker = fleet.world.start(fleet.path, AWS_ENDPOINT_URL_S3=url)
    worker.until(lambda: '"event":"worker_started"' in worker.said())
    return worker


def shared_by(fleet: Fleet, *workers: Worker) -> bool:
    owners = list(fleet.owners().values())
    return all(
        sum(owner is not None and f"/{worker.pid}-" in owner for owner in owners) == len(owners) // len(workers) for worker in workers
    )


def said_in(fleet: Fleet) -> list[bool]:
    """For each row, whether it says that its owner has no access."""
    rows = fleet.dynamo.scan(TableName=fleet.table, ConsistentRead=True)["Items"]
    return ["sxRefused" in row and row["sxRefused"] == row.get("leaseOwner") for row in rows]


def test_shards_of_a_worker_that_alone_loses_its_access_are_read_by_those_that_have_it(
    fleet: Fleet, gates: list[tuple[str, Gateway]]
) -> None:
    world, ((one, gate), (two, _), _) = fleet.world, gates
    with free_port() as port:
        fleet.path.write_text(fleet.path.read_text().replace("port: 0", f"port: {port}"))
        first = join(fleet, one)
        fleet.path.write_text(fleet.path.read_text().replace(f"port: {port}", "port: 0"))
        second = join(fleet, two)
        second.until(lambda: shared_by(fleet, first, second))
        world.produce(400)
        first.until(world.committed)
        first.until(lambda: logged(first, "unit_sealed") != [])
        gate.rules.append(refuses("", DENIED))
        world.produce(400)
        second.until(world.committed)
        second.until(lambda: fleet.belongs_to(second, 4))
        taken = [line for line in logged(second, "lease_taken") if line["why"] == "refused"]
        assert taken
        assert all(f"/{first.pid}-" in line["previous"] for line in taken)
        first.until(lambda: any(line["why"] == "refused" for line in logged(first, "lease_dropped")))
        with pytest.raises(HTTPError) as answer, urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
            pass
        assert b"other workers have taken shards of this one" in answer.value.read()
    gate.rules.clear()
    world.produce(100)
    second.until(world.committed)
    assert [first.drain(), second.drain()] == [0, 0]
    assert all(clean(worker.said()) for worker in (first, second))
    world.exact()


def test_when_all_are_cut_off_each_tries_once_and_then_leases_stay_where_they_are(fleet: Fleet, gates: list[tuple[str, Gateway]]) -> None:
    """The third worker has sealed nothing: it takes one shard, is refused, and stays as well."""
    world = fleet.world
    fleet.path.write_text(fleet.path.read_text().replace("look: 300ms", "look: 300ms, max_leases: 3"))
    workers = [join(fleet, url) for url, _ in gates[:2]]
    workers[0].until(lambda: shared_by(fleet, *workers))
    world.produce(400)
    workers[0].until(world.committed)
    for _, gate in gates:
        gate.rules.append(refuses("lake/", DENIED))
    world.produce(400)
    workers[0].until(lambda: all(said_in(fleet)))
    workers.append(join(fleet, gates[2][0]))
    workers[2].until(lambda: bool(logged(workers[2], "shard_halted")))
    moves = [sum(line["why"] == "refused" for line in logged(worker, "lease_taken")) for worker in workers]
    assert sum(moves) <= 4, moves
    halts = len(logged(workers[0], "shard_halted"))
    # One attempt later, all is as it was.
    workers[0].until(lambda: len(logged(workers[0], "shard_halted")) > halts)
    for _, gate in gates:
        gate.rules.clear()
    workers[0].until(world.committed)
    assert [worker.drain() for worker in workers] == [0, 0, 0]
    assert all(clean(worker.said()) for worker in workers)
    world.exact()


def test_the_row_says_so_and_java_workers_are_not_disturbed(fleet: Fleet, gates: list[tuple[str, Gateway]]) -> None:
    world, (url, gate) = fleet.world, gates[0]
    worker = join(fleet, url)
    world.produce(400)
    worker.until(world.committed)
    gate.rules.append(refuses("", DENIED))
    world.produce(400)

    worker.until(lambda: all(said_in(fleet)))
    listing = world.operate("leases", "ls", str(fleet.path), "--json", "--no-lag")
    assert listing.exit() == 0
    assert all(each["without_access"] for each in json.loads(listing.said()))
    gate.rules.clear()
    worker.until(world.committed)
    worker.until(lambda: not any(said_in(fleet)))
    assert worker.drain() == 0
    world.exact()
