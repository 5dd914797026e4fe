"""Values declared sensitive reach the sinks that are allowed to have them, and nothing else that is written or printed."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.metrics.logs import render
from tests.integration.narration import Received
from tests.integration.test_narration import received
from tests.replays import Place

__all__ = ["received"]

MARK = 771_000_000
"""Values from here on are the sensitive ones; they and their doubles occur nowhere else."""
MORE = "sensitive: {{columns: [value], allowed_in: [s3]}}\naudit: {{lineage: {{}}, otlp: {{endpoint: '{url}', signal: both}}}}"


def payload(number):
    return json.dumps({"id": number, "kind": "abc"[number % 3], "value": MARK + number if number % 10 else f"x{MARK}"})


def shows_a_value(text):
    """Whether ``text`` has a run of digits that is a sensitive value or twice one."""
    return any(f"{start}{more:06d}" in text for start, width in ((771, 1), (1542, 2)) for more in range(0, 60 * width, width))


@pytest.fixture
def place(tmp_path, monkeypatch, received: Received):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    place = Place(tmp_path, {"more": MORE.format(url=received.url)})
    place.lines("a.json", range(60), render=payload)
    return place


def ask(place, *words):
    return CliRunner().invoke(
        app, [str(place.folder / each) if each == "pipeline.yaml" else each for each in words], env={"COLUMNS": "300"}
    )


def stored_texts(folder):
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        yield path, str(pl.read_parquet(path).to_dicts()) if path.suffix == ".parquet" else path.read_bytes().decode(errors="replace")


def test_a_sensitive_value_appears_only_where_it_is_allowed(place, received):
    heard = []
    place.file()
    assert place.run(listeners=[heard.append]).code == 0
    lake = [text for _, text in stored_texts(place.folder / "lake")]
    assert lake
    assert all(shows_a_value(text) for text in lake)
    letters = [text for path, text in stored_texts(place.folder / "state") if "/rejects/" in str(path)]
    assert letters
    assert all(shows_a_value(text) for text in letters)

    others = [text for path, text in stored_texts(place.folder / "state") if "/rejects/" not in str(path)]
    assert len(others) > 5
    assert not any(shows_a_value(text) for text in others)
    assert heard
    assert not any(shows_a_value(str(render(event))) for event in heard)
    assert {path for path, _ in received.bodies} == {"/v1/traces", "/v1/logs"}
    assert not any(shows_a_value(body.decode(errors="replace")) for _, body in received.bodies)


def test_commands_that_show_records_hide_sensitive_values(place):
    place.file()
    assert place.run().code == 0
    table = place.table()
    letter = f"{table['_shard'][0]}:{table['_sequence'][0]}"
    good = json.loads(ask(place, "trace", "pipeline.yaml", "message", f"value={MARK + 1}", "--json").stdout)[0]
    written = f"{good['shard']}:{good['sequence']}"
    for words in (
        ("dlq", "show", "pipeline.yaml", letter),
        ("dlq", "show", "pipeline.yaml", letter, "--json"),
        ("trace", "pipeline.yaml", letter, "--show"),
        ("trace", "pipeline.yaml", written, "--show"),
        ("trace", "pipeline.yaml", written, "--show", "--json"),
        ("preview", "pipeline.yaml"),
    ):
        result = ask(place, *words)
        assert result.exit_code == 0, result.output
        assert "(hidden)" in result.stdout
        assert not shows_a_value(result.output), words
        revealed = ask(place, *words, "--reveal").stdout
        assert "(hidden)" not in revealed
        assert shows_a_value(revealed) or words[:2] == ("dlq", "show"), words
    for words in (("dlq", "ls", "pipeline.yaml"), ("dlq", "top", "pipeline.yaml", "--json"), ("audit", "verify", "pipeline.yaml")):
        assert not shows_a_value(ask(place, *words).output)
