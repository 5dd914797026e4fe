"""The tables in the documentation that are made from the code: ``python -m tests.docs.generate`` rewrites them.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; a test compares what stands there with what is made here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import re
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main
import yaml
from pydantic import BaseModel

from deploy.eks.monitoring import generate as monitoring
from stream import events
from stream.cli.importing import _first_error
from stream.cli.main import app
from stream.datapipeline.object_types import OBJECT_TYPES
from stream.datapipeline.report import markdown
from stream.datapipeline.translate import import_definition
from stream.metrics.catalog import CATALOG
from stream.metrics.logs import LEVELS, render
from stream.pipeline.checks.lint import check
from stream.pipeline.components import DECODERS, SINKS, STAGES
from stream.pipeline.model import Pipeline
from stream.pipeline.replay import Part
from stream.pipeline.schema import json_schema
from tests.docs import filetypes, reference, scale, transcripts
from tests.docs.reference import overview
from tests.docs.tables import default_text, table
from tests.readers import known
from tests.unit.audit.tampering import CASES, report_on
from tests.unit.metrics.every_event import CLASSES, sample

ROOT = Path(__file__).parents[2]
WRONG = re.compile(r"(```yaml wrong\n(.*?)```\n\n```text findings\n).*?(```)", re.DOTALL)
"""A pipeline with mistakes, and what ``stream check`` says of it."""

BLOCK = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def command_line() -> str:
    group = typer.main.get_command(app)
    parts = []
    for path, command in _commands(group, ()):
        arguments = " ".join(_argument(each) for each in command.params if each.param_type_name == "argument")
        options = [each for each in command.params if each.param_type_name == "option" and not each.hidden and each.name != "help"]
        rows = [(f"`{_switch(each)}`", each.help or "", _shown(each)) for each in options]
        parts.append(f"### `stream {' '.join(path)}{' ' + arguments if arguments else ''}`\n\n{_unwrapped(command.help or '')}")
        if rows:
            parts.append(table(("option", "meaning", "default"), rows))
    return "\n\n".join(parts)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    for name in command.list_commands(None):
        yield from _commands(command.get_command(None, name), (*path, name))


def _argument(argument: Any) -> str:
    text = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return text if argument.required else f"[{text}]"


def _switch(option: Any) -> str:
    return ", ".join(option.opts) + (f" / {', '.join(option.secondary_opts)}" if option.secondary_opts else "")


def _shown(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if option.default is None or option.default is False or callable(option.default):
        return ""
    return f"`{option.opts[0]}`" if option.default is True else str(option.default)


def _unwrapped(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).replace("``", "`").split("\n\n"))


def metrics() -> str:
    rows = ((f"`{each.name}`", each.kind.value, ", ".join(each.labels), each.help) for each in CATALOG)
    return table(("metric", "kind", "labels", "meaning"), rows)


def log_lines() -> str:
    rows = []
    for kind in sorted(CLASSES, key=lambda each: list(vars(events)).index(each.__name__)):
        name = render(sample(kind))["event"]
        fields = [field.name for field in dataclasses.fields(kind) if field.name not in {"stream", "shard"}]
        rows.append((f"`{name}`", LEVELS[kind].name.lower(), ", ".join(fields), " ".join(_unwrapped(kind.__doc__ or "").split())))
    return table(("event", "level", "fields besides stream, shard", "meaning"), rows)


def stages() -> str:
    return overview("stages", STAGES, "reference/")


def decoders() -> str:
    return overview("decoders", DECODERS, "reference/")


def sinks() -> str:
    return overview("sinks", SINKS, "reference/")


def options() -> str:
    return table(("key", "meaning", "default"), _keys(Pipeline, ""))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = field.annotation
        parts = [each for each in (inner, *typing.get_args(inner)) if isinstance(each, type) and issubclass(each, Part)]
        if parts and typing.get_origin(inner) is not tuple:
            yield from _keys(parts[0], f"{key}.<name>." if typing.get_origin(inner) is dict else f"{key}.")
        else:
            yield f"`{key}`", field.description or "", default_text(field)


def values() -> str:
    """The values of the Helm chart: meaning from its schema, defaults from its values."""
    chart = ROOT / "deploy" / "eks" / "chart"
    schema, given = json.loads((chart / "values.schema.json").read_text()), yaml.safe_load((chart / "values.yaml").read_text())
    return table(("value", "meaning", "default"), _values(schema, given, ""))


def _values(schema: dict[str, Any], given: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, part in schema["properties"].items():
        if "properties" in part and "description" not in part:
            yield from _values(part, given[name], f"{prefix}{name}.")
        elif name in given:
            shown = json.dumps(given[name], ensure_ascii=False)
            yield f"`{prefix}{name}`", part["description"], "" if given[name] in ("", {}, []) else f"`{shown}`"


def kinds() -> str:
    rows = [
        (f"`{name}`", kind.group, kind.becomes, ", ".join(f"`{each}`" for each in kind.translated)) for name, kind in OBJECT_TYPES.items()
    ]
    return table(("object", "group", "what becomes of it", "fields that are taken over"), rows)


def imported(page: str) -> Iterator[tuple[str, str]]:
    """What the definition of ``page`` becomes, with the options that follow `imported`."""
    found = re.search(r"```json definition\n(.*?)```", page, re.DOTALL)
    if found is None:
        return
    done = import_definition(found[1].encode(), "sales.json", (), "", _first_error)
    for path, text in done.files.items():
        yield path.rpartition("/")[2], text
    yield "Raw", markdown(done).partition("### `Raw` (S3DataNode)\n\n")[2].partition("\n\n")[0] + "\n"


def tampers() -> str:
    """Every kind of tampering in the table, tried on a small intact log, and which checks find it without reading the stream."""
    rows = []
    for name, tamper in CASES.items():
        found = asyncio.run(report_on(tamper)).findings
        checks = ", ".join(f"`{check}`" for check in sorted({finding.check.value for finding in found}))
        where = next((finding for finding in found if finding.shard and finding.after), None)
        rows.append((name, checks or "nothing: only the stream knows", "shard and range" if where else ""))
    return table(("what was done", "found by", "named"), rows)


def readers() -> str:
    return table(("reader", *known.FORMATS), known.cells())


TABLES: dict[str, Callable[[], str]] = {
    "commands": command_line,
    "metrics": metrics,
    "events": log_lines,
    "stages": stages,
    "decoders": decoders,
    "options": options,
    "filetypes": filetypes.file_types,
    "largefleet": scale.large_fleet,
    "smallfleet": scale.small_fleet,
    "readers": readers,
    "sinks": sinks,
    "kinds": kinds,
    "tampers": tampers,
    "values": values,
}


def files() -> Iterator[tuple[str, str]]:
    """Path and content of every file that is made from the code as a whole."""
    yield "docs/pipeline.schema.json", json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    yield from reference.pages()
    yield from monitoring.files()


def pages() -> list[Path]:
    """Every page that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def findings(pipeline: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        path.write_text(pipeline)
        lines = [dataclasses.replace(finding, file="pipeline.yaml").render() for finding in check(path, {}).findings]
    return "".join(f"{line}\n" for line in lines)


def regenerated(text: str) -> str:
    made = BLOCK.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", text)
    for words, text_ in imported(made):
        made = re.sub(
            rf"(```\w+ imported {re.escape(words)}\n).*?(```)", lambda match, new=text_: match[1] + new + match[2], made, flags=re.DOTALL
        )
    made = WRONG.sub(lambda match: f"{match[1]}{findings(match[2])}{match[3]}", made)
    return transcripts.BLOCK.sub(lambda match: f"{match[1]}{transcripts.transcript(match[2], ROOT)}{match[3]}", made)


if __name__ == "__main__":
    made = dict(files())
    for stale in sorted(set((ROOT / reference.FOLDER).rglob("*.md")) - {ROOT / name for name in made}):
        stale.unlink()
    for name, content in made.items():
        path = ROOT / name
        if not path.exists() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            sys.stdout.write(f"rewrote {name}\n")
    for page in pages():
        before = page.read_text()
        after = regenerated(before)
        if after != before:
            page.write_text(after)
            sys.stdout.write(f"rewrote {page.relative_to(ROOT)}\n")
