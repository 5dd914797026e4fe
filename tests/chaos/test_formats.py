"""One unit in every format: a worker dies between two of its files, and another one finishes them byte for byte."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from stream.audit.outputs import Separation, rows_of
from stream.cli.main import app

SINKS = """\
  - s3: {name: lines, url: "file:lines/", format: csv}
  - s3: {name: tabs, url: "file:tabs/", format: csv, compression: none, csv: {delimiter: "\\t", quote: null, escape: "\\\\", null: "\\\\N"}}
  - s3: {name: avro, url: "file:avro/", format: avro}
  - s3: {name: arrow, url: "file:arrow/", format: arrow}
flush"""
TABS = Separation("\t", None, "\\", "\\N")


@pytest.mark.parametrize("at", ["IntentCreated", "FileWritten:5"])
@pytest.mark.parametrize(("first", "second"), [("off", "on"), ("on", "off")])
def test_what_one_worker_began_in_any_format_another_finishes_byte_for_byte(world, at, first, second):
    world.produce(400)
    path = world.pipeline()
    path.write_text(path.read_text().replace("flush", SINKS, 1))
    world.crash(path, at, STREAM_NATIVE=first)
    begun = {(manifest["shard"], manifest["after"]): manifest["files"] for manifest in world.manifests() if manifest["state"] == "intent"}
    assert begun
    world.finish(path, STREAM_NATIVE=second)
    units = [manifest for manifest in world.manifests() if manifest["kind"] == "unit"]
    for manifest in units:
        assert not manifest.get("superseded")
        assert manifest["files"] == begun.get((manifest["shard"], manifest["after"]), manifest["files"])
    proof = CliRunner().invoke(app, ["audit", "verify", str(path)], env=world.environment)
    assert proof.exit_code == 0, proof.output
    expected = sorted(values(world, "lake"))
    assert len(expected) > 100
    for sink in ("lines", "avro", "arrow", "tabs"):
        assert sorted(values(world, sink)) == expected


def values(world, folder):
    """The position, number and note of every row below ``folder``."""
    for file in (world.folder / folder).rglob("*shardId-*"):
        rows = rows_of(file.name, file.read_bytes(), TABS if folder == "tabs" else Separation()).collect()
        columns = ("_shard", "_sequence", "_subsequence", "id", "note")
        yield from zip(*(["" if value is None else str(value) for value in rows[name]] for name in columns), strict=True)
