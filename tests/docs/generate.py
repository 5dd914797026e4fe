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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stream import events
from stream.cli.main import app
from stream.contracts import Start
from stream.metrics.catalog import CATALOG
from stream.metrics.logs import LEVELS, render
from stream.pipeline.components import DECODERS, SINKS, STAGES
from stream.pipeline.lint import check
from stream.pipeline.model import Pipeline
from stream.pipeline.units import format_duration
from tests.unit.audit.tampering import CASES, report_on
from tests.unit.metrics.every_event import CLASSES, sample

ROOT = Path(__file__).parents[2]
WRONG = re.compile(r"(```yaml wrong\n(.*?)```\n\n```text findings\n).*?(```)", re.DOTALL)
"""A pipeline with mistakes, and what ``stream check`` says of it."""

BLOCK = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    shown = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(lines[0]), *shown[1:]])


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
    return str(option.default)


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
        rows.append((f"`{name}`", LEVELS[kind].name.lower(), ", ".join(fields), _unwrapped(kind.__doc__ or "")))
    return table(("event", "level", "fields besides stream, shard", "meaning"), rows)


def stages() -> str:
    return _components(sorted(STAGES.items()))


def decoders() -> str:
    return _components(DECODERS.items())


def _components(named: Iterable[tuple[str, Any]]) -> str:
    parts = []
    for name, kind in named:
        parts.append(f"### {name}\n\n{_unwrapped(kind.__doc__ or '')}")
        if kind.model_fields:
            parts.append(table(("option", "meaning", "default"), _options(kind)))
        example = kind.example
        shown = [f"`{name}: {json.dumps(example.config)}`" if example.config else f"`{name}`"]
        shown += [f"in  {_plain(row)}" for row in example.given] + [f"out {_plain(row)}" for row in example.expect]
        parts.append("\n".join([shown[0], "", "```text", *shown[1:], "```"]))
    return "\n\n".join(parts)


def _plain(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=lambda value: value.decode())


def _options(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        yield f"`{field.alias or name}`", field.description or "", _default(field)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "required"
    if value in (None, (), ""):
        return ""
    if isinstance(value, Start):
        return f"`{value.kind.value}`"
    if hasattr(value, "total_seconds"):
        return f"`{format_duration(value)}`"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**20 and value % 2**20 == 0:
        return f"`{value // 2**20}MiB`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def options() -> str:
    return table(("key", "meaning", "default"), _keys(Pipeline, ""))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.__module__ == Pipeline.__module__:
            yield from _keys(inner, f"{key}.")
        else:
            yield f"`{key}`", field.description or "", _default(field)


def sinks() -> str:
    words: dict[type[BaseModel], list[str]] = {}
    for name, kind in SINKS.items():
        words.setdefault(kind, []).append(name)
    parts = []
    for kind, names in words.items():
        parts.append(f"### {' or '.join(names)}\n\n{_unwrapped(kind.__doc__ or '')}")
        parts.append(table(("option", "meaning", "default"), _options(kind)))
    return "\n\n".join(parts)


def tampers() -> str:
    """Every tamper of the table tried on a little sound log, and which checks found it; nothing is asked of the stream."""
    rows = []
    for name, tamper in CASES.items():
        found = asyncio.run(report_on(tamper)).findings
        checks = ", ".join(f"`{check}`" for check in sorted({finding.check.value for finding in found}))
        where = next((finding for finding in found if finding.shard and finding.after), None)
        rows.append((name, checks or "nothing: only the stream knows", "shard and range" if where else ""))
    return table(("what was done", "found by", "named"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": command_line,
    "metrics": metrics,
    "events": log_lines,
    "stages": stages,
    "decoders": decoders,
    "options": options,
    "sinks": sinks,
    "tampers": tampers,
}


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
    return WRONG.sub(lambda match: f"{match[1]}{findings(match[2])}{match[3]}", made)


if __name__ == "__main__":
    for page in pages():
        before = page.read_text()
        after = regenerated(before)
        if after != before:
            page.write_text(after)
            sys.stdout.write(f"rewrote {page.relative_to(ROOT)}\n")
