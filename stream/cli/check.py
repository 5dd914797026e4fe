"""``stream check``: report everything that is wrong with pipeline files, without running anything."""

from __future__ import annotations

import json as json_text
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.loading import libraries_wanted
from stream.pipeline.checks.host_names import Host

if libraries_wanted():
    from rich.console import Console
    from rich.text import Text

    from stream.pipeline.checks.lint import CheckResult
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.digest import canonical_text
    from stream.pipeline.findings import Finding, Severity

EXIT_OK = 0
EXIT_FINDINGS = 1


def check(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files.", exists=True, dir_okay=False, readable=True, show_default=False)],
    host: Annotated[
        Host, typer.Option("--host", help="What is to run them: the service, a Lambda function for a Kinesis stream, or one for Firehose.")
    ] = Host.SERVICE,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print each valid pipeline with defaults and environment variables filled in.")
    ] = False,
) -> None:
    """Check pipeline files: syntax, options, names, columns through every stage to the sinks, and whether the host can run them.

    Runs nothing, and reads nothing over the network.

    Exit code 0: all files are valid (there may be notes); 1: at least one is not; 2: the command is wrong.
    """
    results = {file: check_file(file, os.environ, host) for file in files}
    if json:
        sys.stdout.write(json_text.dumps(_as_json(results, resolved=resolved), indent=2) + "\n")
    else:
        _show(results, resolved=resolved)
    raise typer.Exit(EXIT_OK if all(result.ok for result in results.values()) else EXIT_FINDINGS)


def _as_json(results: dict[Path, CheckResult], *, resolved: bool) -> dict[str, Any]:
    files = []
    for file, result in results.items():
        entry: dict[str, Any] = {"file": str(file), "ok": result.ok, "findings": [_finding(each) for each in result.findings]}
        if resolved:
            entry["resolved"] = canonical_text(result.pipeline) if result.pipeline else None
        files.append(entry)
    return {"ok": all(result.ok for result in results.values()), "files": files}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "severity": finding.severity.value,
        "code": finding.code,
        "message": finding.message,
        "hint": finding.hint,
    }


def _show(results: dict[Path, CheckResult], *, resolved: bool) -> None:
    """Findings to stdout, unless the resolved pipelines go there; in colour only on a terminal."""
    out = Console(soft_wrap=True, highlight=False, stderr=resolved)
    for file, result in results.items():
        for finding in result.findings:
            out.print(_line(finding, colour=out.is_terminal))
        if result.pipeline is not None:
            if resolved:
                sys.stdout.write(canonical_text(result.pipeline))
            out.print(_verdict(file, result))


def _line(finding: Finding, *, colour: bool) -> Text:
    text = Text(finding.render())
    if colour:
        text.highlight_words([finding.code], "red" if finding.severity is Severity.ERROR else "yellow")
        text.stylize("bold", 0, len(f"{finding.file}:{finding.line}:{finding.column}"))
    return text


def _verdict(file: Path, result: CheckResult) -> Text:
    pipeline = result.pipeline
    if pipeline is None:
        return Text("")
    stages = f"{len(pipeline.stages)} stage{'' if len(pipeline.stages) == 1 else 's'}"
    sinks = f"{len(pipeline.sinks)} sink{'' if len(pipeline.sinks) == 1 else 's'}"
    return Text(f"{file}: ok, {pipeline.application}: {', '.join(pipeline.source.kinesis.names)}, {stages}, {sinks}")
