"""``stream simulate``: the pipeline's own workers under hundreds of hostile schedules, on this machine, in virtual time."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from stream.cli.loading import libraries_wanted
from stream.cli.options import AsJson, File, Generate, Reveal, Sample
from stream.errors import DefinitionError, StreamError

if libraries_wanted():
    import dataclasses

    from rich.console import Console
    from rich.progress import Progress

    from stream import watchdog
    from stream.cli.output import as_json
    from stream.cli.preview import value_text
    from stream.clock import SystemClock
    from stream.pipeline.checks.lint import check as check_file
    from stream.pipeline.model import Pipeline
    from stream.pipeline.resources.fetching import Fetched, fetch_resources
    from stream.pipeline.trials.cases import CaseFile, cases_path, read_cases, stand_ins
    from stream.pipeline.trials.sample import from_file, generated
    from stream.simulation import elsewhere, purity
    from stream.simulation.campaign import Played, Tally, campaign, minimized
    from stream.simulation.fleet import Tools
    from stream.simulation.judge import records_of
    from stream.simulation.narrate import narration
    from stream.simulation.subject import Subject, payloads, refuse_unrelated
    from stream.transform.engine import CompiledChain
    from stream.transform.stage import SchemaMismatch
    from stream.worker.recipes.recipe import Recipe

EXIT_BROKEN = 1
EXIT_DEFINITION = 2
RECORDS: Final = 100


def simulate(
    file: File,
    *,
    newer: Annotated[
        Path | None,
        typer.Option("--with", help="Also play the rolling update to this file: workers of both run side by side.", exists=True),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many schedules to play.", min=1)] = 200,
    seed: Annotated[int | None, typer.Option("--seed", help="Play only the schedule of this seed.", min=0)] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Begin no schedule after this time.", min=0.0, show_default="no limit")
    ] = None,
    records: Annotated[int, typer.Option("--records", help="Use at most this many records.", min=1, max=10_000)] = RECORDS,
    sample: Sample = None,
    generate: Generate = None,
    reveal: Reveal = False,
    json: AsJson = False,
) -> None:
    """Play random schedules of crashes, lost replies, lost leases and reshards over a pipeline, and prove exactly-once for each.

    Runs the pipeline's real workers and stages in virtual time over a stream and stores in memory; uses no network. Also finds stages that
    are not deterministic. The records are those of the pipeline's test cases, or else made up from the schema.

    Exit code 0: every promise held; 1: one was broken, or a stage is not deterministic; 2: the file or an option is wrong.
    """
    try:
        subject, secrets, source = _subject(file, newer, records, sample, generate)
        recipes = watchdog.run(subject.recipes())
        found, problems = _impure(subject, recipes, secrets, reveal=reveal)
    except (DefinitionError, SchemaMismatch) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_DEFINITION) from error
    except StreamError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_BROKEN) from error
    chosen = range(1, seeds + 1) if seed is None else range(seed, seed + 1)
    clock = SystemClock()
    begun, tally, again = clock.monotonic(), Tally(), _again(file, newer, sample, generate, records)
    failed = _play(subject, chosen, seconds, tally)
    taken = clock.monotonic() - begun
    guilty = [] if failed is None else _guilty(subject, failed, reveal=reveal)
    if json:
        sys.stdout.write(as_json(_document(again, source, (found, problems), (tally, taken), failed, guilty)))
    else:
        for line in _lines(again, source, (found, problems), (tally, taken), failed, guilty):
            typer.echo(line)
    raise typer.Exit(EXIT_BROKEN if found or problems or failed is not None else 0)


def _again(file: Path, newer: Path | None, sample: Path | None, generate: int | None, records: int) -> str:
    """The command, with the options on which schedules depend."""
    options = {"--with": newer, "--sample": sample, "--generate": generate, "--records": records if records != RECORDS else None}
    given = [f"{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return " ".join(["stream simulate", shlex.quote(str(file)), *given])


def _subject(file: Path, newer: Path | None, count: int, sample: Path | None, seed: int | None) -> tuple[Subject, Mapping[str, str], str]:
    """What is to be simulated, the values of its managed secrets, and where its records come from."""
    if sample is not None and seed is not None:
        msg = "--sample already names the records; omit --generate"
        raise DefinitionError(msg)
    cases = _cases(file)
    env = {**os.environ, **(cases.env if cases is not None else {})}
    pipeline, fetched = _loaded(file, env, cases)
    updated = None if newer is None else _loaded(newer, env, cases)
    if updated is not None:
        refuse_unrelated(pipeline, updated[0])
    given = [] if cases is None else [record.content for case in cases.cases for record in case.given or ()]
    if sample is not None:
        contents, source = payloads(from_file(sample, count)), str(sample)
    elif seed is not None or not given:
        chosen = 1 if seed is None else seed
        contents, source = payloads(generated(pipeline, count, chosen)), f"the schema, seed {chosen}"
    else:
        contents, source = tuple(given[:count]), str(cases_path(file))
    secrets = {} if cases is None else cases.secrets
    what = f"{len(contents)} record{'' if len(contents) == 1 else 's'} of {source}"
    if pipeline.source.s3 is not None:
        what += "; they are played as records of a stream: how objects are claimed and read is not played"
    return Subject(pipeline, fetched, file.parent, env, contents, updated, _managed(secrets)), secrets, what


def _cases(file: Path) -> CaseFile | None:
    path = cases_path(file)
    if not path.is_file():
        return None
    read = read_cases(path, os.environ)
    if read.cases is None:
        raise DefinitionError("\n".join(finding.render() for finding in read.findings))
    return read.cases


def _managed(secrets: Mapping[str, str]) -> Any:
    async def managed(name: str) -> bytes:
        if name not in secrets:
            msg = f"the test cases give no value for the secret {name!r}; write secrets: {{{name}: any text}} beside `cases`"
            raise DefinitionError(msg)
        return secrets[name].encode()

    return managed


def _loaded(file: Path, env: Mapping[str, str], cases: CaseFile | None) -> tuple[Pipeline, Fetched]:
    result = check_file(file, env)
    if result.pipeline is None:
        raise DefinitionError("\n".join(finding.render() for finding in result.findings))
    known = {} if cases is None else stand_ins(cases, cases_path(file).parent)
    managed = _managed({} if cases is None else cases.secrets)
    return result.pipeline, watchdog.run(fetch_resources(result.pipeline, file.parent, env, known=known, managed=managed))


def _chain(recipe: Recipe) -> CompiledChain:
    if not isinstance(recipe.chain, CompiledChain):
        msg = f"a recipe has a {type(recipe.chain).__name__} in the place of a compiled chain"
        raise TypeError(msg)
    return recipe.chain


def _impure(
    subject: Subject, recipes: Sequence[Recipe], secrets: Mapping[str, str], *, reveal: bool
) -> tuple[list[purity.Difference], list[str]]:
    """Stages that are not deterministic, and why they could not be run in another process, if so."""
    found: list[purity.Difference] = []
    problems: list[str] = []
    for newer, recipe in zip((False, True), recipes, strict=False):
        pipeline, _ = subject.version(newer=newer)
        other = elsewhere.begin(subject, secrets, newer=newer)
        batch = subject.batch
        here = purity.differences(_chain(recipe), batch)
        try:
            there = purity.differences(_chain(recipe), batch, other=other.results())
        except DefinitionError as error:
            there = []
            problems.append(str(error))
        known = {each.stage for each in here}
        every = here + [each for each in there if each.stage not in known]
        found += every if reveal else purity.hide(every, pipeline, _chain(recipe))
    return list(dict.fromkeys(found)), problems


def _play(subject: Subject, seeds: range, seconds: float | None, tally: Tally) -> Played | None:
    """Play the schedules up to the first that fails, which is then made smaller."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("schedules", total=len(seeds))

        def on_played(played: Played) -> None:
            tally.add(played)
            progress.advance(task)

        first = next(campaign(subject, seeds, Tools(), SystemClock(), seconds, on_played), None)
        return None if first is None else minimized(subject, first, Tools())


def _guilty(subject: Subject, failed: Played, *, reveal: bool) -> list[purity.Difference]:
    """The stages that are not deterministic over the records of the units whose rows are wrong."""
    found: list[purity.Difference] = []
    for each in failed.failures:
        recipe = subject.known.recipes.get(each.unit[0].pipeline) if each.unit is not None else None
        batch = records_of(failed.world, each)
        if batch is None or recipe is None:
            continue
        pipeline = next(
            pipeline
            for pipeline, fetched in (subject.version(newer=newer) for newer in (False, True))
            if subject.known.written[id(pipeline)][0] == recipe.digest
        )
        every = purity.differences(_chain(recipe), batch)
        found += every if reveal else purity.hide(every, pipeline, _chain(recipe))
    return list(dict.fromkeys(found))


Impure = tuple["list[purity.Difference]", "list[str]"]
Course = tuple["Tally", float]


def _lines(
    again: str, source: str, impure: Impure, course: Course, failed: Played | None, guilty: Sequence[purity.Difference]
) -> Iterator[str]:
    (found, problems), (tally, taken) = impure, course
    yield source
    for each in found:
        yield from _difference_lines(each)
    yield from problems
    if not found and not problems:
        yield "every stage gives each record the same result, however often, with whichever others and wherever it is run"
    yield (
        f"{tally.schedules:,} schedule{'' if tally.schedules == 1 else 's'} in {taken:.1f} s: {tally.workers:,} workers, "
        f"{tally.records:,} records, {tally.units:,} units, {tally.calls:,} calls"
    )
    if tally.troubles:
        yield "  " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(tally.troubles.items()))
    if failed is None:
        yield "every promise held: one outcome for each record; each row once, in order, as the stages make it; nothing left over"
        return
    yield f"seed {failed.schedule.seed} fails:"
    for failure in failed.failures:
        yield f"  {failure.promise}: {failure.message}"
    known = {(each.stage, each.column) for each in found}
    for each in guilty:
        if (each.stage, each.column) not in known:
            yield from _difference_lines(each)
    yield f"what happened, as far as it matters (again: {again} --seed {failed.schedule.seed}):"
    for line in narration(failed.world):
        yield f"  {line}"


def _difference_lines(each: purity.Difference) -> Iterator[str]:
    what = "what becomes" if each.column == purity.FATE else f"column `{each.column}`"
    yield f"stage {each.stage} is not deterministic: {what} of record {each.record} is not always the same"
    yield f"  {value_text(each.one)}  {each.how_one}"
    yield f"  {value_text(each.other)}  {each.how_other}"


def _document(
    again: str, source: str, impure: Impure, course: Course, failed: Played | None, guilty: Sequence[purity.Difference]
) -> dict[str, Any]:
    (found, problems), (tally, taken) = impure, course
    failure = None
    if failed is not None:
        failure = {
            "seed": failed.schedule.seed,
            "replay": f"{again} --seed {failed.schedule.seed}",
            "failures": [{"promise": each.promise, "message": each.message} for each in failed.failures],
            "differences": [dataclasses.asdict(each) for each in guilty],
            "narration": list(narration(failed.world)),
        }
    return {
        "records": source,
        "holds": not found and not problems and failed is None,
        "differences": [dataclasses.asdict(each) for each in found],
        "problems": problems,
        "schedules": tally.schedules,
        "seconds": round(taken, 3),
        "played": {"workers": tally.workers, "records": tally.records, "units": tally.units, "calls": tally.calls},
        "troubles": dict(sorted(tally.troubles.items())),
        "failed": failure,
    }
