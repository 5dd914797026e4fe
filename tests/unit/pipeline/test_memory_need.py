"""How much memory the container of a worker needs: the documentation, the chart and the doctor agree."""

from pathlib import Path

import pytest
import yaml

from stream.pipeline.checks.lint import check
from stream.pipeline.limits import LEAST_MEMORY, READERS_MEMORY, MemoryNeed, memory_need
from stream.source.objects import TYPED_AT_ONCE
from stream.source.reader_child import HEADROOM, LEAST, SHARE, headroom

MIB = 2**20
CHART = Path(__file__).parents[3] / "deploy/eks/chart/values.yaml"
PIPELINE = """\
application: a
source:
  {source}
  schema: {{n: int64}}
sinks:
  - s3: {{url: s3://lake/a/}}
state: s3://lake/_stream/
"""


def need(tmp_path, source):
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.format(source=source))
    return memory_need(check(file, {}).pipeline)


def test_the_chart_gives_what_is_advised_and_the_least_for_typed_objects(tmp_path):
    resources = yaml.safe_load(CHART.read_text())["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == "1Gi"
    assert need(tmp_path, "kinesis: {stream: s}").advised == 1024 * MIB
    for kind in ("parquet", "arrow", "avro"):
        assert need(tmp_path, f"s3: {{url: s3://archive/in/, format: {kind}}}") == MemoryNeed(256 * MIB, 512 * MIB, 1024 * MIB, 1536 * MIB)
    assert need(tmp_path, "s3: {url: s3://archive/in/, format: json}").readers == 0


@pytest.mark.parametrize("budget", [16, 64, 128, 256, 512, 1024, 4096])
def test_reader_processes_at_their_limit_fit_beside_the_worker(budget):
    limit = max(LEAST_MEMORY, 2 * budget * MIB) + READERS_MEMORY
    libraries = 100 * MIB
    worker = (155 + min(1.44 * budget, 60 + 0.85 * budget)) * MIB  # through the peaks in docs/operate.md
    assert worker + TYPED_AT_ONCE * (libraries + headroom(limit)) <= limit


@pytest.mark.parametrize(
    ("limit", "room"), [(None, HEADROOM), (256 * MIB, LEAST), (2048 * MIB, 2048 * MIB // SHARE), (8192 * MIB, HEADROOM), (2**50, HEADROOM)]
)
def test_a_reader_may_take_its_share_of_the_container(limit, room):
    assert headroom(limit) == room


def test_a_container_that_is_too_small_is_told_what_would_do():
    plain, typed = MemoryNeed(256 * MIB, 0, 512 * MIB, 1024 * MIB), MemoryNeed(256 * MIB, 512 * MIB, 1024 * MIB, 1536 * MIB)
    assert plain.shortage(None) == plain.shortage(512 * MIB) == ""
    assert plain.shortage(500 * MIB) == (
        "the memory limit of the container is 500 MiB, and memory.budget of 256 MiB needs 512 MiB; "
        "raise the limit to 1,024 MiB, or lower memory.budget"
    )
    assert "needs 1,024 MiB, with 512 MiB for the processes that read Parquet, Arrow and Avro objects; raise the limit to 1,536 MiB" in (
        typed.shortage(512 * MIB)
    )
