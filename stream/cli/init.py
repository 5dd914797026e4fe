"""``stream init``: start a pipeline from a template."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Annotated, Final

import typer

from stream.cli.loading import libraries_wanted

if libraries_wanted():
    from stream.pipeline.findings import near_miss
    from stream.pipeline.schema import json_schema
    from stream.storage.whole import write_whole

EXIT_REFUSED = 2
SCHEMA_FILE: Final = "pipeline.schema.json"


def templates() -> dict[str, str]:
    """The templates by name, each with its description, the second line of its pipeline file."""
    found = {}
    for folder in sorted(_root().iterdir(), key=lambda each: each.name):
        if folder.is_dir() and (folder / "pipeline.yaml").is_file():
            found[folder.name] = (folder / "pipeline.yaml").read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    return found


def _root() -> Path:
    return Path(str(importlib.resources.files("stream.data") / "templates"))


def init(
    folder: Annotated[Path, typer.Argument(help="Directory to write to; created if missing.", file_okay=False)] = Path(),
    *,
    template: Annotated[
        str, typer.Option("--template", help="Name of the template; --list shows all.", autocompletion=lambda: list(templates()))
    ] = "kinesis-to-s3",
    listed: Annotated[bool, typer.Option("--list", help="List the templates and write nothing.")] = False,
) -> None:
    """Write a starter pipeline from a template, with test cases and a JSON Schema for editors. Never overwrites a file.

    Exit code 0: written; 2: there is no such template, or a file exists already.
    """
    known = templates()
    if listed:
        for name, about in known.items():
            typer.echo(f"{name:24} {about}")
        return
    if template not in known:
        typer.echo(f"error: there is no template `{template}` - {near_miss(template, known)}", err=True)
        raise typer.Exit(EXIT_REFUSED)
    source = _root() / template
    contents = {path.name: path.read_text(encoding="utf-8") for path in sorted(source.iterdir()) if path.is_file()}
    contents[SCHEMA_FILE] = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if existing := [name for name in contents if (folder / name).exists()]:
        typer.echo(f"error: {folder / existing[0]} exists already; choose another directory", err=True)
        raise typer.Exit(EXIT_REFUSED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(folder / name, content.encode())
            typer.echo(f"wrote {folder / name}")
    except OSError as error:
        typer.echo(f"error: {error.filename} cannot be written: {error.strerror}", err=True)
        raise typer.Exit(EXIT_REFUSED) from error
    typer.echo(f"next: edit {folder / 'pipeline.yaml'}, then `stream check` and `stream test` it")
