"""``stream demo``: the whole service on this machine, with a worker killed on purpose and every record checked afterwards."""

from __future__ import annotations

import functools
import os
import secrets
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.errors import Fatal, StreamError

if libraries_wanted():
    import asyncio

    import polars as pl
    from botocore.exceptions import BotoCoreError, ClientError
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table

    from stream import watchdog
    from stream.clock import SystemClock
    from stream.local.aws import LocalClients
    from stream.local.comparison import Finding, judge
    from stream.local.flights import Produced, flights_table, produce
    from stream.local.progress import LogReader
    from stream.local.start import LocalAws
    from stream.local.start import environment as environment_for

STREAM: Final = "flights"
BUCKET: Final = "lake"
SPLIT_AT: Final = 0.3
KILL_AT: Final = 0.3
KILL_BEFORE: Final = 0.7
"""Shares of the records: put before a shard is split; committed before the worker is killed, as soon as a unit is seen half-done, and
at the latest."""

LOOK_SECONDS: Final = 0.25
SETTLE_SECONDS: Final = 120.0
"""How long the worker may take, after the last record was put, until everything is sealed."""


def demo(
    folder: Annotated[
        Path, typer.Option("--output", file_okay=False, help="Directory for the results; replaced if a demo created it.", show_default=True)
    ] = Path("demo-output"),
    rows: Annotated[int, typer.Option(help="How many of the 336,776 flights to send.", min=1000, max=336_776)] = 336_776,
    shards: Annotated[int, typer.Option(help="Shards of the stream.", min=1, max=32)] = 4,
    seed: Annotated[int, typer.Option(help="Determines the order of the records, and which are broken.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave local AWS running at the end, until Ctrl-C.")] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="Use this endpoint for all of AWS, such as LocalStack, instead of starting local AWS.")
    ] = None,
) -> None:
    """Send a year of flights through Kinesis to Parquet on S3, all on this machine; kill the worker half-way; check every record.

    Needs no AWS account and no Docker.

    Exit code 0: all checks passed; 1: one failed, or something did not start.
    """
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        msg = f"{endpoint!r} is not a URL such as http://127.0.0.1:4566"
        raise typer.BadParameter(msg, param_hint="--endpoint")
    try:
        _prepare(folder)
    except OSError as problem:
        typer.echo(f"error: {problem.filename or folder}: {problem.strerror}; choose another directory with --output", err=True)
        raise typer.Exit(1) from problem
    show = Demo(folder.absolute(), flights_table().head(rows), shards, seed, endpoint)
    try:
        good = watchdog.run(show.run(keep=keep))
    except* (StreamError, BotoCoreError, ClientError) as group:
        for error in group.exceptions:
            typer.echo(f"error: {error}", err=True)
        good = False
    raise typer.Exit(0 if good else 1)


def _prepare(folder: Path) -> None:
    marker = folder / ".stream-demo"
    if folder.exists() and not marker.exists() and any(folder.iterdir()):
        typer.echo(f"error: {folder} exists and was not made by the demo; choose another directory with --output", err=True)
        raise typer.Exit(1)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    marker.touch()


@dataclass(slots=True)
class Demo:
    """One run: what it works on, and how far it has got."""

    folder: Path
    flights: pl.DataFrame
    shards: int
    seed: int
    endpoint: str | None = None
    console: Console = field(default_factory=lambda: Console(highlight=False))
    clock: SystemClock = field(default_factory=lambda: SystemClock())  # noqa: PLW0108 - the name is imported later
    mask_key: str = field(default_factory=lambda: secrets.token_hex(16))
    put: int = 0
    sealed: int = 0

    async def run(self, *, keep: bool) -> bool:
        """Whether every check held."""
        begun = self.clock.monotonic()
        with self._aws() as environment:
            self.tell(f"Kinesis is at {environment['AWS_ENDPOINT_URL_KINESIS']}, S3 at {environment['AWS_ENDPOINT_URL_S3']}")
            shutil.copy(str(files("stream.data") / "flights.yaml"), self.folder / "pipeline.yaml")
            with LocalClients(environment) as clients:
                await asyncio.to_thread(clients.create_bucket, BUCKET)
                await asyncio.to_thread(clients.create_stream, STREAM, self.shards)
                produced = await self._stream(environment, clients)
                objects = await asyncio.to_thread(clients.copy_bucket, BUCKET, self.folder / BUCKET)
            self.tell(f"copied {objects} objects from s3://{BUCKET} to {self.folder / BUCKET}")
            seconds = self.clock.monotonic() - begun
            good = await self._judge(produced, seconds)
            self._say_what_next(keep=keep)
            if keep:
                await self._stay(environment)
        return good

    @contextmanager
    def _aws(self) -> Iterator[dict[str, str]]:
        """The environment variables that point to AWS, local or elsewhere."""
        if self.endpoint is not None:
            yield environment_for(self.endpoint, self.endpoint)
            return
        with LocalAws(logs=self.folder / "logs") as aws:
            yield aws.environment()

    def tell(self, text: str) -> None:
        """Say what just happened."""
        self.console.print(f"[cyan]•[/] {text}")

    async def _stream(self, environment: Mapping[str, str], clients: LocalClients) -> Produced:
        """Put the records while workers read them; split, kill, replace, drain."""
        endpoint, region = environment["AWS_ENDPOINT_URL_KINESIS"], environment["AWS_REGION"]
        reader = LogReader(clients, BUCKET, f"_stream/{STREAM}/commits/")
        rows = self.flights.height

        def on_put(records: int) -> None:
            self.put = records

        with self._bars() as bars:
            put = bars.add_task("put into Kinesis", total=rows)
            sealed = bars.add_task("committed to S3", total=rows)

            async def until(reached: Callable[[], bool], every: float = LOOK_SECONDS) -> None:
                while not reached():
                    await self.clock.sleep(every)
                    self.sealed = await asyncio.to_thread(reader.sealed_records)
                    bars.update(put, completed=self.put)
                    bars.update(sealed, completed=self.sealed)

            async with asyncio.TaskGroup() as group:
                producing = group.create_task(_until_stopped(produce, endpoint, region, STREAM, self.flights, self.seed, on_put))
                async with self._worker(environment, 1) as first:
                    await until(lambda: self.put > SPLIT_AT * rows or first.returncode is not None)
                    parent, children = await asyncio.to_thread(clients.split_widest_shard, STREAM)
                    self.tell(f"split {parent} into {' and '.join(children)} after {self.put:,} records were put")
                    await until(lambda: self.sealed > KILL_AT * rows or first.returncode is not None)
                    await until(lambda: reader.unfinished > 0 or self.sealed > KILL_BEFORE * rows or first.returncode is not None, 0.0)
                    first.send_signal(signal.SIGKILL)
                    await first.wait()
                    half_done = f", {reader.unfinished} of its units half-done" if reader.unfinished else ""
                    self.tell(f"SIGKILL to worker 1 (pid {first.pid}) after {self.sealed:,} records were committed{half_done}")
                async with self._worker(environment, 2) as second:
                    self.tell(f"worker 2 (pid {second.pid}) takes over")
                    started = self.folder / "logs" / "worker-2.log"
                    await until(lambda: second.returncode is not None or (producing.done() and b"worker_started" in started.read_bytes()))
                    produced = await producing
                    bars.update(put, completed=produced.records, total=produced.records)
                    bars.update(sealed, total=produced.records)
                    deadline = self.clock.monotonic() + SETTLE_SECONDS
                    await until(lambda: self.sealed >= produced.records or self.clock.monotonic() > deadline)
                    second.send_signal(signal.SIGTERM)
                    self.tell(f"SIGTERM to worker 2: it drained and ended with exit code {await second.wait()}")
        return produced

    @asynccontextmanager
    async def _worker(self, environment: Mapping[str, str], number: int) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process of the pipeline; killed at the end if it still runs."""
        log = self.folder / "logs" / f"worker-{number}.log"
        extra = {"MASK_KEY": self.mask_key, "FLUSH_AGE": "1s", "FLUSH_BYTES": "4MiB", "METRICS_PORT": "0", "STREAM": STREAM}
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "stream", "run", str(self.folder / "pipeline.yaml")),
                stderr=errors,
                env={**os.environ, **environment, **extra},
            )
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode not in {0, -signal.SIGKILL}:
            msg = f"worker {number} ended with exit code {process.returncode}; its log is {log}"
            raise Fatal(msg)

    def _bars(self) -> Progress:
        columns = (TextColumn("{task.description:18}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self.console, transient=not self.console.is_terminal)

    async def _judge(self, produced: Produced, seconds: float) -> bool:
        findings = await asyncio.to_thread(
            judge,
            self.folder / BUCKET / "flights",
            self.folder / BUCKET / "_stream" / STREAM / "ledger",
            rows=produced.flights,
            broken=produced.broken,
            mask_key=self.mask_key.encode(),
        )
        self.console.print(_table(findings, f"{produced.records:,} records in {seconds:.1f} s, checked with DuckDB against the source"))
        good = all(finding.good for finding in findings)
        verdict = "[bold green]Every record is accounted for, once.[/]" if good else "[bold red]The result is not what the source says.[/]"
        self.console.print(verdict)
        return good

    def _say_what_next(self, *, keep: bool) -> None:
        lake = self.folder / BUCKET / "flights"
        self.console.print(f"\nThe files are in {lake}, the workers' logs in {self.folder / 'logs'}. Try next:", soft_wrap=True)
        lines = [
            f'{shlex.quote(sys.executable)} -c "import duckdb; duckdb.sql(\\"FROM \'{lake}/**/*.parquet\' LIMIT 10\\").show()"',
            f"MASK_KEY=secret {_command()} check {shlex.quote(str(self.folder / 'pipeline.yaml'))}",
        ]
        if not keep:
            lines.append(
                f"{_command()} demo --rows 20000 --keep  # leaves local AWS running, so that you can ask what became of each record"
            )
        for line in lines:
            self.console.print(f"  {line}", soft_wrap=True)

    async def _stay(self, environment: Mapping[str, str]) -> None:
        self.console.print("\nLocal AWS keeps running until Ctrl-C. In another terminal, point any AWS client at it with:")
        for name, value in environment.items():
            self.console.print(f"  export {name}={value}", soft_wrap=True)
        pipeline = shlex.quote(str(self.folder / "pipeline.yaml"))
        self.console.print("Then ask what became of the records:")
        for verb, words in (("trace", " message outcome=dead_lettered"), ("audit verify", ""), ("status", "")):
            self.console.print(f"  MASK_KEY=secret {_command()} {verb} {pipeline}{words}", soft_wrap=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


def _command() -> str:
    """This command as it is typed here."""
    return shlex.quote(Path(sys.argv[0]).name if shutil.which(Path(sys.argv[0]).name) else sys.argv[0])


async def _until_stopped(put: Callable[..., Produced], *arguments: Any) -> Produced:
    """The result of ``put``, run in a thread. If cancelled, the thread stops at its next call of its last argument, before this returns."""
    *given, heard = arguments
    stopped = threading.Event()

    def listen(records: int) -> None:
        if stopped.is_set():
            raise asyncio.CancelledError
        heard(records)

    thread = asyncio.get_running_loop().run_in_executor(None, functools.partial(put, *given, listen))
    try:
        return await asyncio.shield(thread)
    finally:
        stopped.set()
        await asyncio.gather(thread, return_exceptions=True)


def _table(findings: list[Finding], title: str) -> Table:
    table = Table("", "check", "expected", "found", title=title, title_justify="left")
    for finding in findings:
        mark = "[green]ok[/]" if finding.good else "[bold red]NO[/]"
        table.add_row(mark, finding.what, _shown(finding.expected), _shown(finding.found))
    return table


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{label} {count:,}" for label, count in sorted(value.items()))
    return f"{value:,}" if isinstance(value, int) else str(value)
