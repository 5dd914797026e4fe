"""``stream doctor``: whether a worker of this pipeline would find everything that it needs, from here and now."""

from __future__ import annotations

import dataclasses
import json as json_text
import os
import sys
from typing import Annotated, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import File
from stream.errors import StreamError

if libraries_wanted():
    from rich.console import Console

    from stream import watchdog
    from stream.cli.explain import checked
    from stream.operations.doctor.diagnosis import Environment, Finding, Verdict, examine

    _STYLES: Final = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.FAILED: "bold red"}

EXIT_FAILED: Final = 1
EXIT_DEFINITION: Final = 2
TIMEOUT: Final = 20.0
"""Seconds; as in `stream.operations.doctor.diagnosis`, whose import would take a second."""


def doctor(
    file: File,
    *,
    role: Annotated[
        str | None,
        typer.Option("--role", envvar="AWS_ROLE_ARN", help="ARN or name of the IAM role that must be in use.", show_default="any"),
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option("--audience", help="Audience that the pod's token must have.", show_default="what STS or Pod Identity takes"),
    ] = None,
    service_account: Annotated[
        str | None,
        typer.Option(
            "--service-account",
            envvar="STREAM_SERVICE_ACCOUNT",
            help="NAMESPACE:NAME of the service account that the pod's token must belong to.",
            show_default="any",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that one check may take.", min=0.1)] = TIMEOUT,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check everything that a worker will need: identity, clock, memory, streams, buckets, leases, tables, secrets, warehouse, collector.

    Tries every AWS action that a worker needs, in a form that changes nothing, lists the actions that cannot be tried that way, and looks
    at the lifecycle rules of the buckets. Each problem comes with a remedy. As an init container of the pod, it keeps a worker that could
    not work from starting.

    Exit code 0: a worker can start (there may be notes); 1: at least one check failed; 2: the pipeline file is wrong.
    """
    pipeline = checked(file)
    subject = None if service_account is None else f"system:serviceaccount:{service_account}"
    environment = Environment(file.parent, os.environ, role, audience, subject, timeout=timeout)
    try:
        findings = watchdog.run(examine(pipeline, environment))
    except StreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from error
    failed = sum(each.verdict is Verdict.FAILED for each in findings)
    if json:
        document = {"ok": not failed, "findings": [dataclasses.asdict(each) for each in findings]}
        sys.stdout.write(json_text.dumps(document, indent=2) + "\n")
    else:
        _show(findings, failed)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _show(findings: list[Finding], failed: int) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for each in findings:
        console.print(f"{each.verdict:<7}", style=_STYLES[each.verdict], end="")
        console.print(f"{each.check:<12}{each.what}")
        if each.remedy and each.remedy not in each.what:
            console.print(f"{'':<19}-> {each.remedy}")
    console.print(f"{failed} of {len(findings)} checks failed" if failed else "a worker can start")
