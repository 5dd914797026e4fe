"""`stream query` of pipelines that read objects, and of Iceberg tables: what real runs have left behind."""

import json

import pytest
from typer.testing import CliRunner

from stream import events
from stream.cli.main import app
from stream.worker.sources.reading import Reading
from tests.integration.test_iceberg import lake  # noqa: F401 - the fixture
from tests.integration.test_replay import place  # noqa: F401 - the fixture
from tests.replays import Place, row


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def asked(place: Place, sql: str, *options: str) -> dict:  # noqa: F811 - the fixture
    ran = CliRunner().invoke(app, ["query", str(place.file()), sql, "--json", *options])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("s3", "death", "left"),
    [("", events.IntentCreated, {False}), (", shards: 2, watch: {}", events.ManifestSealed, {True, False})],
    ids=["once", "watched"],
)
def test_claimed_objects_are_there_and_others_are_counted(place, s3, death, left):  # noqa: F811
    place.settings = {"s3": s3, "rows": 20}
    for name, first in (("a", 0), ("b", 50)):
        place.lines(f"{name}.json", range(first, first + 50))
    assert asked(place, "SELECT count(*) AS n FROM rows")["rows"] == [{"n": 0}]

    def kill(event: events.Event) -> None:
        if isinstance(event, death):
            raise Killed

    with pytest.raises((Killed, BaseExceptionGroup)):
        place.run(Reading(once=True), listeners=[kill])
    place.lines("c.json", range(100, 110))
    found = asked(place, "SELECT id, kind, value, doubled, _sealed FROM rows ORDER BY id")
    rows = found["rows"]
    expected = [row(n) | {"doubled": None if row(n)["value"] is None else 2 * row(n)["value"]} for n in range(100)]
    assert [{name: each[name] for name in ("id", "kind", "value", "doubled")} for each in rows] == expected
    assert {each["_sealed"] for each in rows} == left
    assert "1 objects are not claimed by a worker yet: their rows are not here" in found["notes"]
    assert asked(place, "SELECT count(*) AS n FROM rows", "--no-tail")["rows"] == [{"n": sum(each["_sealed"] for each in rows)}]
    assert place.run(Reading(once=True)).code == 0
    rows = asked(place, "SELECT id, _sealed FROM rows ORDER BY id")["rows"]
    assert rows == [{"id": n, "_sealed": True} for n in range(110)]


def test_rows_of_an_iceberg_table_are_there_before_and_after_they_are_loaded(lake):  # noqa: F811
    lake.lines("a.json", range(40))
    assert lake.run().code == 0
    rows = asked(lake, "SELECT id, kind, _sealed FROM rows ORDER BY id")["rows"]
    assert rows == [{"id": n, "kind": row(n)["kind"], "_sealed": True} for n in range(40)]
    assert asked(lake, "SELECT * FROM rows LIMIT 0")["columns"].keys() >= {"id", "_sequence", "_sealed"}
    file = sorted((lake.folder / "table" / "data").rglob("*.parquet"))[0]
    file.unlink()
    found = asked(lake, "SELECT count(*) AS n FROM rows")
    (note,) = found["notes"]
    assert note.endswith("since they were loaded into the table lake.events; ask the table for them")
    assert found["rows"][0]["n"] + int(note.partition(" ")[0]) == 40
