"""``stream import``: turns an AWS Data Pipeline definition into pipeline files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.errors import DefinitionError

if libraries_wanted():
    from stream.cli.output import as_json
    from stream.datapipeline.report import REPORT, document, markdown
    from stream.datapipeline.translate import Imported, import_definition
    from stream.datapipeline.verdicts import Fate
    from stream.pipeline.checks.lint import check_content
    from stream.pipeline.findings import Severity
    from stream.storage.whole import write_whole

EXIT_TODO = 1
EXIT_DEFINITION = 2


def import_(
    definition: Annotated[
        Path,
        typer.Argument(help="AWS Data Pipeline definition file, JSON.", exists=True, dir_okay=False, readable=True, show_default=False),
    ],
    *,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", help="Directory to write to; created if missing.", file_okay=False, show_default="the file's name without its suffix"
        ),
    ] = None,
    values: Annotated[
        list[Path] | None,
        typer.Option(
            "--values",
            help="File with more `parameters` and `values` for the definition; may be repeated.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    state: Annotated[
        str, typer.Option("--state", help="Where the pipelines keep their state.", show_default="_stream/ in the bucket they write to")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False,
) -> None:
    """Turn an AWS Data Pipeline definition into pipeline files, values for the Helm chart, and a report.

    The report says for every field of every object what became of it. Reads nothing over the network, never overwrites a file, and never
    writes secrets of the definition.

    Exit code 0: every field has been taken over or is not needed; 1: written, and the report lists what is left to do; 2: the file is not
    such a definition, or nothing can be written.
    """
    try:
        more = [(str(each), _read(each)) for each in values or ()]
        done = import_definition(_read(definition), str(definition), more, _state_url(state), _first_error)
        folder = into if into is not None else definition.with_suffix("")
        written = _write(folder, {**done.files, REPORT: markdown(done)})
    except DefinitionError as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    if json:
        sys.stdout.write(as_json(document(done)))
    else:
        _print_result(done, written, folder)
    raise typer.Exit(EXIT_TODO if done.count(Fate.TO_DO) else 0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise DefinitionError(msg) from error


def _state_url(state: str) -> str:
    if state and (not state.startswith("s3://") or len(state) < len("s3://abc/") or set("${}") & set(state)):
        msg = f"--state is {state!r}; write s3://bucket/prefix/"
        raise DefinitionError(msg)
    return state.rstrip("/") + "/" if state else ""


def _first_error(text: str, env: Mapping[str, str]) -> str:
    """The first error that `stream check` finds in ``text``, and the line that it is about; empty if there is none."""
    result = check_content(text.encode(), "pipeline.yaml", Path(), env)
    wrong = [each for each in result.findings if each.severity is Severity.ERROR]
    return f"{wrong[0].message} (in `{text.splitlines()[wrong[0].line - 1].strip()}`)" if wrong else ""


def _write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write ``files`` below ``folder``: all of them, or none if one of them exists already."""
    paths = {folder / name: text for name, text in files.items()}
    existing = next((path for path in paths if path.exists()), None)
    if existing is not None:
        msg = f"{existing} exists already; choose another directory with --into"
        raise DefinitionError(msg)
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode())
    except OSError as error:
        msg = f"{error.filename or folder} cannot be written: {error.strerror}; name another directory with --into"
        raise DefinitionError(msg) from error
    return list(paths)


def _print_result(done: Imported, written: list[Path], folder: Path) -> None:
    for path in written:
        typer.echo(f"wrote {path}")
    for each in done.outcomes:
        if not each.name:
            typer.echo(f"no pipeline file for {each.activity}: {each.todo[0]}")
    counts = ", ".join(f"{done.count(each)} {each}" for each in (Fate.TAKEN_OVER, Fate.NOT_NEEDED, Fate.TO_DO))
    typer.echo(f"{len(done.rows)} fields: {counts}; next: read {folder / REPORT}")
