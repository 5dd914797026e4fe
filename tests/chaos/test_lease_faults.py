"""Real workers whose lease table is throttled, or refuses them, for longer than leases last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.conftest import client
from tests.chaos.gateway import Answer, Gateway, gateway
from tests.chaos.test_leases import Fleet
from tests.chaos.test_store_faults import logged
from tests.chaos.workers import clean
from tests.chaos.world import World

THROTTLED = Answer(400, "ThrottlingException", "Rate of requests exceeds the allowed throughput.")
DENIED = Answer(400, "AccessDeniedException", "User is not authorized to perform this action.")


@pytest.fixture
def fleet(make_world: Callable[..., World], s3_url: str) -> Iterator[tuple[Fleet, Gateway]]:
    dynamo = client("dynamodb", s3_url)
    with gateway(s3_url) as (url, gate):
        yield Fleet(make_world(2), url, dynamo), gate
    dynamo.close()


@pytest.mark.parametrize(
    ("answer", "cause", "remedy"),
    [
        (THROTTLED, "ThrottlingException: Rate of requests", "bill the table on demand"),
        (DENIED, "AccessDeniedException: User is not", "allow dynamodb:"),
    ],
    ids=["throttled", "denied"],
)
def test_workers_stop_in_time_name_the_table_and_the_remedy_and_go_on_by_themselves(
    fleet: tuple[Fleet, Gateway], answer: Answer, cause: str, remedy: str
) -> None:
    shared, gate = fleet
    world = shared.world
    world.produce(100)
    workers = [shared.join(), shared.join()]
    workers[0].until(world.committed)
    for worker in workers:
        # One that is still taking its first leases does not renew them.
        worker.until(lambda worker=worker: any(logged(worker, "worker_started")))  # type: ignore[misc]
    gate.rules.append(lambda asked: answer if asked.operation else None)
    for worker in workers:
        worker.until(lambda worker=worker: any(line["why"] == "expired" for line in logged(worker, "lease_dropped")))  # type: ignore[misc]
        said = [line["detail"] for line in logged(worker, "call_repeated") if line["call"].startswith("lease")]
        assert any(f"table {shared.table}" in each and cause in each and remedy in each for each in said), said
    world.produce(200)
    gate.rules.clear()
    workers[0].until(world.committed)
    assert [worker.drain() for worker in workers] == [0, 0]
    assert all(clean(worker.said()) for worker in workers)
    world.exact()
