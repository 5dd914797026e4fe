"""What a page shows in fenced blocks, and its commands, carried out in this process or in one of their own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import boto3
import pytest
from click.testing import Result
from typer.testing import CliRunner

from stream.cli.main import app
from stream.contracts import Clock
from stream.local.aws import LocalClients
from stream.local.kinesis.server import running
from stream.local.start import LocalAws
from tests import forked


def blocks(page: str, info: str) -> list[str]:
    """What is between the fences of each block that begins with ``info``."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def block(page: str, info: str) -> str:
    """The same of the only one."""
    (found,) = blocks(page, info)
    return found


def commands(page: str, info: str) -> list[str]:
    """The lines of all blocks that begin with ``info``, in order."""
    return [line for found in blocks(page, info) for line in found.splitlines()]


def fields(page: str) -> set[str]:
    """What the page's section "The JSON document" puts into code spans: the names of fields."""
    return set(re.findall(r"`(?:streams\[\]\.)?([a-z_]+)(?:\[\])?`", page.partition("## The JSON document")[2]))


def carried_out(line: str, *, code: int = 0, typed: str | None = None) -> Result:
    """What the command ``line`` answers in this process if ``typed`` is its standard input; it must end with ``code``."""
    done = CliRunner().invoke(app, _words(line), input=typed)
    assert done.exit_code == code, f"{line}: {done.output}"
    return done


def forked_out(line: str, folder: Path, *more: str, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """What the command ``line``, with the words ``more``, answers in a process of its own in ``folder``; it must succeed."""
    done = forked.run(*_words(line), *more, cwd=folder, env=env)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done


def _words(line: str) -> list[str]:
    name, *words = shlex.split(line, comments=True)
    assert name == "stream", line
    return words


@contextmanager
def emulated(folder: Path, pipeline: str, stream: str, shards: int, clock: Clock | None = None) -> Iterator[Any]:
    """A client of the Kinesis emulator, where ``stream`` is. Commands of this process find it, and ``pipeline.yaml`` in ``folder``."""
    (folder / "pipeline.yaml").write_text(pipeline)
    with pytest.MonkeyPatch.context() as patched, running(clock=clock) as emulator:
        patched.chdir(folder)
        named = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1", "ENDPOINT_URL_KINESIS": emulator.url}
        for name, value in named.items():
            patched.setenv(f"AWS_{name}", value)
        client = boto3.client("kinesis", endpoint_url=emulator.url, region_name="us-east-1")
        client.create_stream(StreamName=stream, ShardCount=shards)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def local_aws(folder: Path, stream: str, shards: int) -> Iterator[LocalAws]:
    """All of local AWS with ``stream``; commands of this process find it, and run in ``folder``."""
    with pytest.MonkeyPatch.context() as patched, LocalAws() as local, LocalClients(local.environment()) as clients:
        patched.chdir(folder)
        for name, value in local.environment().items():
            patched.setenv(name, value)
        clients.create_stream(stream, shards)
        yield local
