"""``stream test``: run the test cases of a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.loading import libraries_wanted
from stream.errors import DefinitionError

if libraries_wanted():
    from stream import watchdog
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.findings import Finding
    from stream.pipeline.resources.fetching import fetch_resources
    from stream.pipeline.trials.cases import SUFFIX, CaseFile, cases_path, read_cases, stand_ins
    from stream.pipeline.trials.trial import Trial, Verdict
    from stream.storage.whole import write_whole

EXIT_OK = 0
EXIT_DIFFERENT = 1
EXIT_DEFINITION = 2


def run_cases(
    file: Annotated[
        Path,
        typer.Argument(help="Pipeline file, or its file of test cases.", exists=True, dir_okay=False, readable=True, show_default=False),
    ],
    cases: Annotated[
        Path | None, typer.Option("--cases", help="File of test cases.", show_default="<name>.test.yaml beside the pipeline file")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Overwrite golden files with the actual output.")] = False,
    only: Annotated[str, typer.Option("--only", help="Run only cases whose name contains this text.", show_default=False)] = "",
) -> None:
    """Run a pipeline's test cases: input records, and the rows, rejects and partitions expected of them. Uses no network.

    Exit code 0: all cases pass; 1: at least one fails; 2: the pipeline or the file of test cases is wrong, or no case was run.
    """
    if cases is None and file.name.endswith(SUFFIX):
        file, cases = file.with_name(file.name.removesuffix(SUFFIX) + ".yaml"), file
    path = cases or cases_path(file)
    read = read_cases(path, os.environ)
    if read.cases is None:
        _refuse(read.findings)
        raise typer.Exit(EXIT_DEFINITION)
    chosen = [case for case in read.cases.cases if only in case.name]
    if not chosen:
        typer.echo(f"error: no case of {path} has {only!r} in its name", err=True)
        raise typer.Exit(EXIT_DEFINITION)
    try:
        trial = _trial(file, read.cases, path.parent)
    except DefinitionError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    verdicts = [trial.judge(case) for case in chosen]
    if update:
        for verdict in verdicts:
            _write_golden(verdict, path.parent)
        verdicts = [trial.judge(case) for case in chosen]
    _show(verdicts)
    raise typer.Exit(EXIT_DIFFERENT if any(verdict.differences for verdict in verdicts) else EXIT_OK)


def _refuse(findings: Sequence[Finding]) -> None:
    for finding in findings:
        typer.echo(finding.render(), err=True)


def _trial(file: Path, cases: CaseFile, base: Path) -> Trial:
    env = {**os.environ, **cases.env}
    result = check_file(file, env)
    if result.pipeline is None:
        _refuse(result.findings)
        raise typer.Exit(EXIT_DEFINITION)

    async def managed(name: str) -> bytes:
        if name not in cases.secrets:
            msg = f"the cases give no value for the secret {name!r}; write secrets: {{{name}: any text}} beside `cases`"
            raise DefinitionError(msg)
        return cases.secrets[name].encode()

    fetched = watchdog.run(fetch_resources(result.pipeline, file.parent, env, known=stand_ins(cases, base), managed=managed))
    return Trial(result.pipeline, fetched.resources, base)


def _write_golden(verdict: Verdict, base: Path) -> None:
    expect = verdict.case.expect
    if verdict.golden is None or expect is None or expect.golden is None:
        return
    path = base / expect.golden
    content = verdict.golden.encode()
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        typer.echo(f"wrote {path}")


def _show(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        mark = typer.style("FAIL", fg="red") if verdict.differences else typer.style("ok  ", fg="green")
        typer.echo(f"{mark} {verdict.case.name}")
        for difference in verdict.differences:
            typer.echo(f"     {difference}")
    failed = sum(1 for verdict in verdicts if verdict.differences)
    typer.echo(f"{len(verdicts)} case{'' if len(verdicts) == 1 else 's'}, {failed} failed")
