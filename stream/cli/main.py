"""The ``stream`` command. Each verb has its own file, which is imported only when that verb is used."""

from __future__ import annotations

import ast
import difflib
import errno
import importlib
import importlib.util
import io
import os
import signal
import sys
from importlib.abc import InspectLoader
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

import stream
from stream.cli import loading
from stream.errors import DefinitionError, StreamError

GROUPS: Final[dict[str, dict[str, str]]] = {
    "Try it": {
        "demo": "demo:demo",
        "local": "local:local",
    },
    "Write a pipeline": {
        "init": "init:init",
        "import": "importing:import_",
        "check": "check:check",
        "test": "test:run_cases",
        "simulate": "simulate:simulate",
        "preview": "preview:preview",
        "diff": "diff:diff",
        "explain": "explain:explain",
        "schema": "schema:schema",
        "ddl": "ddl:ddl",
    },
    "Run it": {
        "iam": "iam:iam",
        "doctor": "doctor:doctor",
        "run": "run:run",
        "backfill": "backfill:backfill",
        "kcl": "kcl:app",
    },
    "Operate it": {
        "status": "status:status",
        "shards": "shards:shards",
        "leases": "leases:app",
        "pause": "pausing:pause",
        "resume": "pausing:resume",
        "dlq": "dlq:app",
        "loads": "loads:app",
        "compact": "compact:compact",
    },
    "Ask what became of records": {
        "query": "query:query",
        "trace": "trace:trace",
        "audit": "audit:app",
        "complete": "complete:complete",
    },
}
"""The verbs as the help text groups them, and for each its place in ``stream.cli``: its function, or the application with its sub-verbs."""

VERBS: Final = {verb: place for verbs in GROUPS.values() for verb, place in verbs.items()}
"""The place of each verb, in the order of the help text."""


EXIT_FATAL: Final = 1
EXIT_DEFINITION: Final = 2
EXIT_INTERRUPTED: Final = 130
"""What shells report of a command that SIGINT ended: 128 and its number."""

_CANNOT_BE_WRITTEN: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})
"""Errors of writing output for which a traceback would not help: a full disk, or a pipe that its reader, such as `head`, has closed."""


def _open_devnull() -> TextIO:
    """A text stream that discards everything; never closed."""
    return Path(os.devnull).open("w", encoding="utf-8")


def handle_sigterm_as_pid_1(process: int) -> None:
    """Make SIGTERM end this process, if it is PID 1 of a container, until another handler is installed.

    The kernel ignores signals to PID 1 that have no handler, and imports take a second. Without this, a pod deleted within that second
    would start up, take shards, and be killed at the end of its grace period.
    """
    if process == 1:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def about(verb: str) -> str:
    """The help text of ``verb``, read from its source, because importing all verbs takes a second."""
    module, _, name = VERBS[verb].partition(":")
    spec = importlib.util.find_spec(f"stream.cli.{module}")
    source = spec.loader.get_source(spec.name) if spec is not None and isinstance(spec.loader, InspectLoader) else None
    for node in ast.parse(source or "").body:
        match node:
            case ast.FunctionDef() if node.name == name:
                return ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Call(keywords=options)) if target == name:
                return "".join(ast.literal_eval(each.value) for each in options if each.arg == "help")
            case _:
                pass
    return ""


class Verbs(TyperGroup):
    """Loads a verb only when it is asked for, and its libraries only when it is carried out."""

    _listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text of the whole command, without importing any verb."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What may follow ``stream``, for which no verb is imported either."""
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command; the exit code is 1 if standard output cannot be written.

        A ``StreamError`` that a command did not handle is printed as one line, without a traceback.
        """
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # the caller has closed it
                setattr(sys, name, _open_devnull())
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # record data may contain characters that the terminal's encoding lacks
        try:
            try:
                return super().main(*args, **options)
            except StreamError as error:
                typer.echo(f"error: {error}", err=True)
                sys.exit(EXIT_DEFINITION if isinstance(error, DefinitionError) else EXIT_FATAL)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if error.errno not in _CANNOT_BE_WRITTEN:
                raise
            sys.stdout = _open_devnull()  # otherwise Python complains again when it exits
            if error.errno != errno.EPIPE:
                what = "the output" if error.filename is None else error.filename
                typer.echo(f"error: {what} cannot be written: {error.strerror}", err=True)
            sys.exit(1)

    def invoke(self, ctx: Any) -> Any:
        """Carry out the verb. Ctrl-C ends it with a line, unless the verb itself knows how to stop, as a worker does."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the library's
        """The names of all verbs."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb with that name, or None; a misspelt name is a usage error that says which one is like it."""
        if cmd_name not in VERBS:
            close = difflib.get_close_matches(cmd_name, VERBS, n=1)
            if close and not ctx.resilient_parsing:
                ctx.fail(f"No such command '{cmd_name}'. Did you mean '{close[0]}'?")
            return None
        if self._listing:
            panel = next(group for group, verbs in GROUPS.items() if cmd_name in verbs)
            return TyperCommand(cmd_name, help=about(cmd_name), rich_help_panel=panel)
        handle_sigterm_as_pid_1(os.getpid())
        module, _, name = VERBS[cmd_name].partition(":")
        verb = loading.verb(f"stream.cli.{module}", name)
        if isinstance(verb, typer.Typer):
            return typer.main.get_command(verb)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=app.info.context_settings)
        single.command(cmd_name)(verb)
        return typer.main.get_command(single)


app = typer.Typer(
    name="stream",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(stream.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Kinesis to S3, Iceberg and Redshift, exactly once, with an account of what became of every record."""
