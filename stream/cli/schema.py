"""``stream schema``: the pipeline file as a JSON Schema, for editors."""

from __future__ import annotations

import json
import sys

import typer

from stream.cli.loading import libraries_wanted
from stream.errors import DefinitionError

if libraries_wanted():
    from stream.pipeline.schema import installed_stages, json_schema

EXIT_DEFINITION = 2


def schema() -> None:
    """Print the JSON Schema of pipeline files, including stages from installed packages.

    To use it in an editor, make `# yaml-language-server: $schema=pipeline.schema.json` the first line of the pipeline file.

    Exit code 0: printed; 2: an installed package registers something that is not a stage.
    """
    try:
        made = json_schema(installed_stages())
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    sys.stdout.write(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
