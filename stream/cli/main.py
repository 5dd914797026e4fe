"""The ``stream`` command."""

from __future__ import annotations

from typing import Annotated

import typer

import stream
from stream.cli.audit import app as audit
from stream.cli.check import check
from stream.cli.demo import demo
from stream.cli.local import local
from stream.cli.run import run
from stream.cli.trace import trace

app = typer.Typer(
    name="stream",
    help="Kinesis to S3, exactly once, with a record of what became of every record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, run, check, local, trace):
    app.command()(command)
app.add_typer(audit)


def _version(value: bool) -> None:
    if value:
        typer.echo(stream.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Kinesis to S3, exactly once, with a record of what became of every record."""
