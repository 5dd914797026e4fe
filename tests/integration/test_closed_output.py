"""Every verb, with a standard output that is closed after its first line, or before it: ``stream VERB | head -1``."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from stream.cli.main import VERBS
from tests.forked import Forked
from tests.integration.stage import Stage, sealed

DEFINITION = """
{"objects": [
  {"id": "Default", "name": "Default", "scheduleType": "ondemand", "role": "r", "resourceRole": "r"},
  {"id": "In", "name": "In", "type": "S3DataNode", "directoryPath": "s3://in/"},
  {"id": "Out", "name": "Out", "type": "S3DataNode", "directoryPath": "s3://out/"},
  {"id": "Copy", "name": "Copy", "type": "CopyActivity", "input": {"ref": "In"}, "output": {"ref": "Out"}}
]}
"""
CASES = """
cases:
  - name: a number
    given: [{json: {n: 1}}]
    expect: {rows: [{n: 1}]}
"""
COMMANDS: dict[str, Sequence[str]] = {
    "--help": ("--help",),
    "--version": ("--version",),
    "init": ("init", "new-{lines}"),
    "import": ("import", "definition.json", "--into", "imported-{lines}"),
    "check": ("check", "pipeline.yaml"),
    "test": ("test", "pipeline.yaml"),
    "simulate": ("simulate", "pipeline.yaml", "--seeds", "2"),
    "preview": ("preview", "pipeline.yaml"),
    "diff": ("diff", "pipeline.yaml", "other.yaml"),
    "explain": ("explain", "pipeline.yaml"),
    "schema": ("schema",),
    "ddl": ("ddl", "s3.yaml"),
    "iam": ("iam", "pipeline.yaml", "--account", "111122223333", "--region", "eu-west-1"),
    "doctor": ("doctor", "pipeline.yaml"),
    "run": ("run", "pipeline.yaml", "--once", "--result", "-"),
    "run to the console": ("run", "console.yaml", "--once"),
    "backfill": ("backfill", "pipeline.yaml", "--from", "{before}", "--to", "{now}", "--result", "-"),
    "kcl": ("kcl", "properties", "pipeline.yaml"),
    "status": ("status", "pipeline.yaml"),
    "status --json": ("status", "pipeline.yaml", "--json"),
    "shards": ("shards", "pipeline.yaml"),
    "leases": ("leases", "--help"),
    "pause": ("pause", "pipeline.yaml", "--list"),
    "resume": ("resume", "pipeline.yaml", "--note", "done"),
    "dlq": ("dlq", "ls", "pipeline.yaml"),
    "dlq top": ("dlq", "top", "pipeline.yaml"),
    "loads": ("loads", "--help"),
    "compact": ("compact", "pipeline.yaml", "--dry-run"),
    "query": ("query", "pipeline.yaml", "SELECT * FROM rows"),
    "query --json": ("query", "pipeline.yaml", "SELECT * FROM rows", "--json"),
    "trace": ("trace", "pipeline.yaml", "message", "n=1"),
    "audit": ("audit", "verify", "pipeline.yaml"),
    "audit ls": ("audit", "ls", "pipeline.yaml"),
    "complete": ("complete", "pipeline.yaml", "--until", "{now}"),
    "local": ("local", "--help"),
    "demo": ("demo", "--help"),
}


@pytest.fixture
def place(stage: Stage) -> Path:
    """A folder with a pipeline of which something is committed, some records are dead letters, and some wait."""
    stage.put([*range(40), *["x"] * 8])
    stage.work(sealed(48))
    stage.put(range(4))
    folder = stage.folder
    text = (folder / "pipeline.yaml").read_text()
    (folder / "other.yaml").write_text(text.replace("n: int64", "n: float64"))
    (folder / "console.yaml").write_text(text.replace('s3: {url: "file:lake"}', "console: {}").replace("file:state", "file:s2"))
    (folder / "s3.yaml").write_text(text.replace("file:lake", "s3://lake/numbers/"))
    (folder / "pipeline.test.yaml").write_text(CASES)
    (folder / "definition.json").write_text(DEFINITION)
    return folder


def piped(place: Path, arguments: Sequence[str], lines: int) -> tuple[int, str]:
    """Exit code and standard error of the command whose output a reader closes after so many lines."""
    reader, writer = os.pipe()

    def read() -> None:
        with os.fdopen(reader, "rb") as pipe:
            for _ in range(lines):
                pipe.readline()

    reading = threading.Thread(target=read)
    with tempfile.TemporaryFile() as errors, Path(os.devnull).open() as nothing:
        if not lines:
            os.close(reader)
        process = Forked(arguments, (nothing.fileno(), writer, errors.fileno()), cwd=place)
        os.close(writer)
        if lines:
            reading.start()
        try:
            code = process.wait()
        finally:
            process.kill()
            if lines:
                reading.join()
        errors.seek(0)
        return code, errors.read().decode()


TOLD = ("Traceback", "Exception ignored", "BrokenPipe", "unexpected")


def test_no_verb_troubles_somebody_who_reads_nothing_and_each_ends_with_1(place: Path, stage: Stage) -> None:
    assert {arguments[0] for arguments in COMMANDS.values()} - {"--help", "--version"} == set(VERBS)
    now = stage.clock.now()
    moments = {"now": now.isoformat(), "before": (now - timedelta(hours=1)).isoformat()}
    found = {}
    for name, arguments in COMMANDS.items():
        code, said = piped(place, [each.format(lines=0, **moments) if "{" in each else each for each in arguments], 0)
        if code != 1 or any(word in said for word in TOLD):
            found[name] = (code, said)
    assert not found, json.dumps(found, indent=1)


@pytest.mark.parametrize("name", ["--help", "schema", "query", "status --json", "run to the console"])
def test_nor_somebody_who_reads_the_first_line(place: Path, name: str) -> None:
    code, said = piped(place, COMMANDS[name], 1)
    assert code in {0, 1}
    assert not [word for word in TOLD if word in said], said
