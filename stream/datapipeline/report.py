"""The report on an import: what was written, what is left to do, and every field of every object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from stream.datapipeline.draft import PIPELINE, VALUES
from stream.datapipeline.translate import ActivityOutcome, Imported
from stream.datapipeline.verdicts import Fate

REPORT = "report.md"


def markdown(done: Imported) -> str:
    """The report in Markdown."""
    parts = [f"# What became of {_cell(done.definition)}", _sum(done), "## Activities", *map(_activity, done.outcomes)]
    if not done.outcomes:
        parts.append("The definition has no activity, so there is nothing to run.")
    if done.links or any(each.env for each in done.outcomes):
        parts += ["## With Airflow", *_chain(done)]
    parts += ["## Every object and field", *_objects(done)]
    return "\n\n".join(parts) + "\n"


def document(done: Imported) -> dict[str, Any]:
    """The report as a JSON document."""
    return {
        "definition": done.definition,
        "files": sorted([*done.files, REPORT]),
        "counts": {each.value: done.count(each) for each in Fate},
        "activities": [
            {"id": each.activity, "type": each.type, "pipeline": f"{each.name}/{PIPELINE}" if each.name else None, "todo": list(each.todo)}
            for each in done.outcomes
        ],
        "chains": [{"first": each.first, "then": each.then, "why": each.why} for each in done.links],
        "fields": [
            {"object": each.object, "type": each.type, "field": each.field, "fate": each.fate.value, "text": each.text}
            for each in done.rows
        ],
    }


def _sum(done: Imported) -> str:
    objects = len({each.object for each in done.rows if each.type != "parameter"})
    counts = ", ".join(f"{done.count(each)} {each}" for each in (Fate.TAKEN_OVER, Fate.NOT_NEEDED, Fate.TO_DO))
    return f"{objects} objects, {len(done.rows)} fields: {counts}."


def _activity(outcome: ActivityOutcome) -> str:
    title = f"### `{outcome.activity}` ({outcome.type})"
    if not outcome.name:
        return f"{title}\n\nNo pipeline file: {_line(outcome.todo[0])}."
    lines = [
        title,
        "",
        f"`{outcome.name}/{PIPELINE}` is the pipeline file, and `{outcome.name}/{VALUES}` has the values for the Helm chart.",
    ]
    lines += [
        f"The environment variable `{name}` must be set for each run; in Airflow, to `{template}`."
        for name, template in outcome.env.items()
    ]
    if outcome.todo:
        lines += ["", "Before the first run:", "", *(f"- {_line(each)}" for each in outcome.todo)]
    return "\n".join(lines)


def _chain(done: Imported) -> Iterable[str]:
    if done.links:
        yield "\n".join(f"- `{_line(each.then)}` runs after `{_line(each.first)}`, because of {_line(each.why)}" for each in done.links)
    yield "Tasks for a DAG, with the operator from `examples/airflow/dags/stream_airflow.py`. A run that finds nothing new does nothing."
    names = _task_names(done)
    tasks = "\n".join(_task(each, names[each.activity]) for each in done.outcomes)
    order = "\n".join(f"{names[link.first]} >> {names[link.then]}" for link in done.links)
    yield f"```python\n{tasks}\n{order}\n```".replace("\n\n```", "\n```")


def _task_names(done: Imported) -> Mapping[str, str]:
    made: dict[str, str] = {}
    for each in done.outcomes:
        name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in each.activity)
        name = name if name[:1].isalpha() else f"task_{name}"
        number = 1
        while name in made.values():
            number += 1
            name = f"{name}_{number}"
        made[each.activity] = name
    return made


def _task(outcome: ActivityOutcome, name: str) -> str:
    if not outcome.name:
        return f"{name} = ...  # {outcome.type}: {_line(outcome.todo[0])}"
    env = f", env={json.dumps(dict(outcome.env))}" if outcome.env else ""
    words = ["run", f"{outcome.name}/{PIPELINE}", "--once"]
    if outcome.window is not None:
        begin, end = (f"{{{{ {each}.isoformat() }}}}" for each in outcome.window)
        words = ["backfill", words[1], "--from", begin, "--to", end]
    return f'{name} = StreamOperator(task_id="{name}", arguments={json.dumps(words)}{env})'


def _objects(done: Imported) -> Iterable[str]:
    seen: dict[tuple[str, str], list[str]] = {}
    for row in done.rows:
        lines = seen.setdefault((row.object, row.type), [])
        lines.append(f"| `{_cell(row.field)}` | {row.fate} | {_cell(row.text)} |")
    for (name, kind), lines in seen.items():
        yield f"### `{_line(name)}` ({kind})\n\n| field | what became of it | where, why, or what to do |\n|---|---|---|\n" + "\n".join(
            lines
        )


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())
