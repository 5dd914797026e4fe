"""A fleet of workers under faults of every kind, judged by what is in the stream and in the bucket.

``FLEET_SEED``, ``FLEET_SECONDS`` and ``FLEET_FAILOVER`` choose another run. The seed determines the records, the plan and what happens
to each request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.local.moto import moto
from stream.local.process import helper
from tests.chaos.conftest import KEYS, client
from tests.chaos.oracle import Definition
from tests.chaos.world import KNOWN, LARGE, World
from tests.fleet.fleet import FAILOVER, NATIVE, Fleet
from tests.fleet.plan import draw
from tests.forked import ROOT, prepare

SEED = int(os.environ.get("FLEET_SEED", "1"))
SECONDS = float(os.environ.get("FLEET_SECONDS", "120"))
PATIENCE = 240.0
"""Seconds without faults and without a unit committed, after which the fleet is taken for stuck."""

SIZE = "  - derive: {size: \"CASE WHEN value > 75 THEN 'large' ELSE 'medium' END\"}"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    prepare()
    with ExitStack() as stack:
        kinesis_url = stack.enter_context(helper("stream.local.kinesis")).url
        s3_url, dynamodb_url = (stack.enter_context(moto()).url for _ in range(2))
        upstreams = [f"kinesis={kinesis_url}", f"dynamodb={dynamodb_url}", f"s3={s3_url}"]
        proxy = stack.enter_context(helper("tests.fleet.proxy", ["--seed", str(SEED), *upstreams]))
        kinesis, s3 = (stack.enter_context(closing(client(name, url))) for name, url in (("kinesis", kinesis_url), ("s3", s3_url)))
        kinesis.create_stream(StreamName="fleet", ShardCount=16)
        s3.create_bucket(Bucket="fleet")
        environment = {**KEYS, **{f"AWS_ENDPOINT_URL_{name}": proxy.url for name in ("KINESIS", "DYNAMODB", "S3")}}
        world = World(tmp_path, kinesis, "fleet", kinesis_url, environment, SEED, s3, "fleet")
        stack.callback(lambda: [worker.end() for worker in world.workers])
        versions = [
            world.pipeline("old", age="1s", budget="8MiB"),
            world.pipeline("new", age="1s", budget="8MiB", keep=LARGE.mark, partition="size", stages=SIZE),
        ]
        for path in versions:
            path.write_text(path.read_text() + NATIVE.format(table="fleet", failover=FAILOVER))
        yield Fleet(world, versions, proxy.url, SEED)


@pytest.mark.timeout(10 * SECONDS + 4 * PATIENCE)
def test_nothing_is_lost_duplicated_or_reordered(fleet: Fleet, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    world, versions = fleet.world, (KNOWN, LARGE)
    fleet.live_through(draw(SEED, SECONDS, FAILOVER), SECONDS)
    fleet.settle(PATIENCE)
    verdict = world.exact(*versions, leftovers=True)
    assert sum(verdict.outcomes.values()) == world.put_so_far
    reported = report(fleet, len(verdict.rows))
    with capfd.disabled():
        os.write(1, f"\n{reported}\n".encode())
    verify(fleet, monkeypatch)
    exact_for_plain_readers(world, *versions)


def exact_for_plain_readers(world: World, *versions: Definition) -> None:
    """The repair leaves only what sealed manifests list, so a reader of every file reads each record once."""
    world.exact(*versions)


def verify(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own audit agrees, and removes what replaced workers left over."""
    for name, value in fleet.world.environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["audit", "verify", str(fleet.paths[0]), "--repair", "--json"])
    assert result.exit_code == 0, result.output[-3000:]


def report(fleet: Fleet, rows: int) -> str:
    """One line for the run, kept in a file too."""
    fates = fleet.fates_so_far()
    faults = sum(count for name, count in fates.items() if not name.endswith(".passed"))
    units = sum(manifest["kind"] == "unit" for manifest in fleet.sealed.values())
    reported = {"seed": SEED, "seconds": SECONDS, "records": fleet.world.put_so_far, "rows": rows, "units": units, **fleet.done}
    reported |= {"requests": sum(fates.values()), "faults": faults, "fates": dict(sorted(fates.items()))}
    folder = ROOT / ".make" / "fleet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{SEED}.json").write_text(json.dumps(reported, indent=1))
    return " ".join(f"{key}={value:g}" for key, value in reported.items() if isinstance(value, int | float))
