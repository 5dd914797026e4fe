"""How the answer about a pipeline is shown: on one screen, with commands that can be typed."""

from __future__ import annotations

import io
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from stream.audit.completeness import State
from stream.cli.status import commands_of, document, shown
from stream.operations.status.rules import judge
from stream.operations.status.snapshot import ShardStatus, Snapshot
from stream.pipeline.checks.lint import check_content
from stream.pipeline.model import Pipeline

NOW = datetime(2026, 1, 1, 3, tzinfo=UTC)
TEXT = """
application: app
source: {{kinesis: {{{streams}}}, schema: {{n: int64}}}}
sinks: [s3: {{url: "file:lake"}}]
state: file:state
coordination: native
"""


def pipeline(streams: str = "stream: numbers") -> Pipeline:
    found = check_content(TEXT.format(streams=streams).encode(), "pipeline.yaml", Path(), {}).pipeline
    assert found is not None
    return found


def fleet(shards: int) -> Snapshot:
    """So many shards, each of a worker of its own, each later than the one before."""
    looks = tuple(
        ShardStatus(
            f"shardId-{n:012}",
            open=True,
            state=State.UNSEALED,
            unread=NOW - timedelta(seconds=n),
            reach=NOW - timedelta(seconds=n + 5),
            sealed_at=NOW,
            leased=True,
            owner=f"worker-{n}",
            renewed=NOW,
        )
        for n in range(shards)
    )
    return Snapshot("numbers", NOW, timedelta(minutes=1), timedelta(days=1), 10.0, NOW, looks)


def rendered(snapshot: Snapshot, worst: int, file: str = "pipeline.yaml") -> list[str]:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    console.print(shown(pipeline(), Path(file), [(snapshot, judge(snapshot))], worst))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_thousand_shards_fit_on_one_screen_the_worst_first() -> None:
    lines = rendered(fleet(1000), 10)
    assert len(lines) < 50
    assert lines[0] == "behind: app on numbers, 2026-01-01 03:00:00Z"
    rows = [line for line in lines if line.startswith("│ shardId")]
    assert [int(row[10:22]) for row in rows] == list(range(999, 989, -1))
    assert "and 990 more workers; --shards N shows more" in lines
    assert lines[-1] == "121 of 1,000 shards are fine."


def test_as_many_as_are_asked_for() -> None:
    lines = rendered(fleet(1000), 300)
    assert sum(line.startswith("│ shardId") for line in lines) == 300
    assert not any(line.startswith("│ shardId") for line in rendered(fleet(1000), 0))


def test_the_document_has_every_shard() -> None:
    snapshot = fleet(1000)
    found = document(pipeline(), Path("pipeline.yaml"), [(snapshot, judge(snapshot))])
    assert (found["verdict"], found["healthy"], len(found["streams"][0]["shards"])) == ("behind", False, 1000)


def test_commands_can_be_typed_as_they_are() -> None:
    snapshot = fleet(1000)
    (finding,) = judge(snapshot)
    file = Path("my pipelines/it's.yaml")
    (command,) = commands_of(finding, snapshot, pipeline(), file)
    assert shlex.split(command) == ["stream", "shards", str(file)]
    several = pipeline("streams: [{stream: numbers}, {stream: letters}]")
    (command,) = commands_of(finding, snapshot, several, file)
    assert shlex.split(command) == ["stream", "shards", str(file), "--stream", "numbers"]
