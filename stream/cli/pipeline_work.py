"""Carries out the work of a command on the pipeline in a file: checks the file, chooses streams, and reports errors in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import typer

from stream.cli.loading import libraries_wanted
from stream.errors import DefinitionError, StreamError

if libraries_wanted():
    from stream import watchdog
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.model import Pipeline

EXIT_UNKNOWN: Final = 2
"""The pipeline file is wrong, or the answer could not be found."""

T = TypeVar("T")


def carry_out(file: Path, run: Callable[[Pipeline], Coroutine[Any, Any, T]]) -> T:
    """The result of ``run`` for the pipeline in ``file``; exits with code 2 if the file is wrong or ``run`` raises a ``StreamError``."""
    result = check_file(file, os.environ)
    if result.pipeline is None:
        for finding in result.findings:
            typer.echo(finding.render(), err=True)
        raise typer.Exit(EXIT_UNKNOWN)
    try:
        return watchdog.run(run(result.pipeline))
    except StreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_UNKNOWN) from error
    except ExceptionGroup as group:
        _, rest = group.split(StreamError)
        if rest is not None:
            raise
        for text in dict.fromkeys(str(each) for each in group.exceptions):
            typer.echo(f"error: {text}", err=True)
        raise typer.Exit(EXIT_UNKNOWN) from group


def chosen(pipeline: Pipeline, stream: str | None) -> list[Pipeline]:
    """``pipeline`` narrowed to each of its streams, or only to the one named.

    Raises:
        DefinitionError: the pipeline does not read that stream.
    """
    wanted = None if stream is None else pipeline.source.kinesis.called(stream)
    found = [one for one in pipeline.each() if wanted in {None, one.source.kinesis.stream}]
    if not found:
        msg = f"--stream {stream}: the pipeline reads {', '.join(pipeline.source.kinesis.names)}"
        raise DefinitionError(msg)
    return found
