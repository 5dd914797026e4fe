"""``stream kcl``: the pipeline under the KCL's MultiLangDaemon, which owns leases and retrieval."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import File, Least, LogLevel
from stream.errors import DefinitionError, StreamError

if libraries_wanted():
    import uvloop

    from stream import watchdog
    from stream.cli.run import EXIT_DEFINITION, EXIT_FATAL, End, refuse_failure
    from stream.hosts.multilang import one_stream, protected_pipe, run_child
    from stream.hosts.properties import GRACE_MILLIS, properties
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.model import Pipeline
    from stream.worker.assemble import WorkerOptions, usable_cores

    DRAIN_SECONDS: Final = GRACE_MILLIS / 1000 - 3.0
    """Shorter than the daemon's grace period, so that the last checkpoint still reaches it."""


LOGBACK: Final = """<configuration>
  <appender name="E" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d{ISO8601} %-5level %logger{20} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="E"/></root>
</configuration>
"""

Stream = Annotated[str | None, typer.Option("--stream", help="Which stream, if the pipeline reads several.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="A property to replace or add, as key=value; may be repeated.")]

app = typer.Typer(
    name="kcl",
    add_completion=False,
    help="Run a pipeline under the MultiLangDaemon of the Kinesis Client Library (KCL).",
    no_args_is_help=True,
)


@app.command("properties")
def show_properties(
    file: File,
    stream: Stream = None,
    kcl: Annotated[int, typer.Option(help="Major version of the KCL.", min=2, max=3)] = 3,
    change: Changes = None,
) -> None:
    """Print the daemon's properties file for a pipeline.

    Exit code 0: printed; 2: the pipeline file or the command is wrong.
    """
    typer.echo(_properties(file, stream, change, kcl), nl=False)


@app.command()
def run(file: File, stream: Stream = None, log_level: LogLevel = Least.INFO) -> None:
    """Process one shard. Started by the daemon; speaks its protocol on standard input and output, and logs to standard error.

    Exit code 0: the daemon closed the pipe; 1: it could not continue; 2: the pipeline file is wrong.
    """
    if not _is_pipe(0):
        typer.echo("error: standard input is no pipe: the KCL's daemon starts this command, and `stream kcl daemon` the daemon", err=True)
        raise typer.Exit(EXIT_DEFINITION)
    pipe = protected_pipe()
    try:
        pipeline = one_stream(_checked(file), stream)
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    options = WorkerOptions(file.parent, os.environ, DRAIN_SECONDS, usable_cores(), log_level=log_level.level)
    try:
        watchdog.run(run_child(pipeline, options, pipe), uvloop.new_event_loop)
    except StreamError as error:
        refuse_failure(End(EXIT_DEFINITION if isinstance(error, DefinitionError) else EXIT_FATAL, str(error), logged=True))


@app.command()
def daemon(
    file: File,
    stream: Stream = None,
    jars: Annotated[Path | None, typer.Option(help="Folder with the KCL's jars.", show_default="those of amazon_kclpy")] = None,
    java: Annotated[str, typer.Option(help="The Java command, version 8 or later.")] = "java",
    change: Changes = None,
) -> None:
    """Run the MultiLangDaemon for a pipeline. This process is replaced by Java, so that signals reach it.

    Exit code: the daemon's; 2: the pipeline file is wrong, or Java or the jars are missing.
    """
    try:
        program, classes = _java(java), _jars(jars)
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    text = _properties(file, stream, change, 2 if any(classes.glob("amazon-kinesis-client-multilang-2.*.jar")) else 3)
    folder = Path(tempfile.mkdtemp(prefix="stream-kcl-"))
    (folder / "stream.properties").write_text(text)
    (folder / "logback.xml").write_text(LOGBACK)
    command = [program, "-cp", f"{folder}:{classes}/*", "software.amazon.kinesis.multilang.MultiLangDaemon"]
    watchdog.WATCHDOG.stop_timer()
    os.execv(program, [*command, "-p", "stream.properties"])  # noqa: S606 - the daemon is what was asked for


def _properties(file: Path, stream: str | None, change: list[str] | None, kcl: int) -> str:
    try:
        pairs = [text.partition("=") for text in change or ()]
        if wrong := [key for key, sign, _ in pairs if not (key and sign)]:
            msg = f"--set {wrong[0]}: write key=value"
            raise DefinitionError(msg)
        changes = {key.strip(): value.strip() for key, _, value in pairs}
        pipeline = _checked(file)
        if pipeline.coordination.kcl is None:
            note = "under the KCL's daemon, write `coordination: kcl`, so that `stream check` and `stream iam` know who has the leases"
            typer.echo(f"note: {note}", err=True)
        return properties(one_stream(pipeline, stream), file, os.environ, changes, kcl)
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error


def _checked(file: Path) -> Pipeline:
    result = check_file(file, os.environ)
    for finding in result.findings:
        typer.echo(finding.render(), err=True)
    if result.pipeline is None:
        raise typer.Exit(EXIT_DEFINITION)
    return result.pipeline


def _is_pipe(descriptor: int) -> bool:
    """Whether the event loop can wait for it; a file or /dev/null would abort the process."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


def _java(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"there is no command {name}; install Java 8 or later, or give its path with --java"
        raise DefinitionError(msg)
    return found


def _jars(folder: Path | None) -> Path:
    if folder is None:
        package = importlib.util.find_spec("amazon_kclpy")
        folder = Path(package.origin).parent / "jars" if package is not None and package.origin else None
    if folder is None or not any(folder.glob("amazon-kinesis-client-multilang-*.jar")):
        place = folder or "amazon_kclpy, which is not installed"
        msg = f"no jars of the KCL in {place}: install kinesis-stream[kcl], or name their folder with --jars"
        raise DefinitionError(msg)
    return folder.resolve()
