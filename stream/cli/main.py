"""The ``stream`` command. Each verb lives in a file of its own, which is imported when the verb is asked for."""

from __future__ import annotations

import importlib
import os
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import stream

VERBS: Final = {
    "demo": "demo:demo",
    "run": "run:run",
    "init": "init:init",
    "check": "check:check",
    "test": "test:run_cases",
    "explain": "explain:explain",
    "iam": "iam:iam",
    "doctor": "doctor:doctor",
    "preview": "preview:preview",
    "diff": "diff:diff",
    "schema": "schema:schema",
    "trace": "trace:trace",
    "audit": "audit:app",
    "kcl": "kcl:app",
    "leases": "leases:app",
    "dlq": "dlq:app",
    "backfill": "backfill:backfill",
    "loads": "loads:app",
    "local": "local:local",
}
"""In the order of the help text: where in ``stream.cli`` the verb's function, or the application of its own verbs, is."""


LIBRARIES: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
"""What libraries read when they are loaded, unless somebody has set it: one allocator in place of two that each keep their own peak, and
no threads for linear algebra, of which there is none."""


class Verbs(TyperGroup):
    """Imports a verb's module only when it is needed: a worker should not wait for what the demo imports."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the library's
        """Names of all verbs."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the signature is the library's
        """The verb, or None if there is none of that name."""
        if cmd_name not in VERBS:
            return None
        for variable, value in LIBRARIES.items():
            os.environ.setdefault(variable, value)
        module, _, name = VERBS[cmd_name].partition(":")
        verb = getattr(importlib.import_module(f"stream.cli.{module}"), name)
        if isinstance(verb, typer.Typer):
            return typer.main.get_command(verb)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=app.info.context_settings)
        single.command(cmd_name)(verb)
        return typer.main.get_command(single)


app = typer.Typer(
    name="stream",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
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
    """Kinesis to S3, exactly once, with a record of what became of every record."""
