"""What the pages name exists, the examples in them work, and a test holds each promise in them."""

import ast
import functools
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
from typer.main import get_command

from stream.cli.main import app
from stream.pipeline.checks.lint import check
from stream.pipeline.components import DECODERS, SINKS, STAGES
from stream.pipeline.findings import Severity
from stream.pipeline.load import load
from tests import forked
from tests.docs.generate import ROOT, pages

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:stream|tests|docs|examples|requirements|benchmarks|deploy)/[\w./-]*)`")
COMMAND = re.compile(r"`stream ([a-z][^`\n]*)`")
TEST_ID = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
ROOMS = {path.name for path in (ROOT / "stream").iterdir() if path.is_dir()} | {"deploy", "docs", "benchmarks", "native"}


def named(page):
    return str(page.relative_to(ROOT))


def fences(info):
    return [pytest.param(match[2], id=f"{named(page)}-{number}") for page in pages() for number, match in enumerate(shown(page, info))]


def shown(page, info):
    return [match for match in FENCE.finditer(page.read_text()) if match[1] == info]


def prose(page):
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


@functools.cache
def anchors(page):
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere():
    dead = []
    for page in pages():
        for target in LINK.findall(prose(page)):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            if not place.exists() or (anchor and anchor not in anchors(place)):
                dead.append((named(page), target))
    assert dead == []


def test_every_named_path_exists():
    assert [(named(page), path) for page in pages() for path in PATH.findall(prose(page)) if not (ROOT / path).exists()] == []


def test_every_named_test_exists():
    wanted = {found for page in pages() for found in TEST_ID.findall(page.read_text())}
    there = {path: functions(ROOT / path) for path, _ in wanted}
    assert len(wanted) > 10
    assert sorted(f"{path}::{name}" for path, name in wanted if name not in there[path]) == []


def functions(path):
    """The names of a module's functions; none if there is no such file."""
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_is_held_by_a_test():
    sections = re.split(r"^## ", (ROOT / "docs" / "guarantees.md").read_text(), flags=re.MULTILINE)[1:]
    assert [section[:3] for section in sections] == [f"P{number}:" for number in range(1, 9)]
    assert [section[:2] for section in sections if not TEST_ID.search(section.partition("Held by")[2])] == []


@pytest.mark.parametrize("text", fences("yaml pipeline"))
def test_every_shown_pipeline_has_no_errors(text, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    result = check(file, {"MASK_KEY": "any"})
    assert [finding.render() for finding in result.findings if finding.severity is Severity.ERROR] == []
    assert result.pipeline is not None


@pytest.mark.parametrize("kind", ["stage", "decoder", "sink"])
def test_every_shown_component_is_valid(kind):
    texts = [match[2] for page in pages() for match in shown(page, f"yaml {kind}")]
    known = {"stage": STAGES, "decoder": DECODERS, "sink": SINKS}[kind]
    assert len(texts) >= len(known)
    for text in texts:
        data = load(f"a:\n{textwrap.indent(text, '  ')}".encode(), "page", {}).data["a"]
        entry = data["decode"] if kind == "decoder" else data[0]
        ((name, options),) = entry.items() if isinstance(entry, dict) else ((entry, None),)
        known[name].model_validate({} if options is None else options)


def test_every_yaml_block_is_checked():
    assert [named(page) for page in pages() if shown(page, "yaml")] == []


@pytest.mark.parametrize("text", fences("sh runnable"))
def test_every_runnable_command_succeeds(text):
    for line in text.splitlines():
        name, *words = shlex.split(line, comments=True)
        assert name == "stream"
        done = forked.run(*words, cwd=ROOT)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


GROUP = get_command(app)


@functools.cache
def subcommand(group, name):
    """The command ``name`` of ``group``, which typer makes anew each time it is asked; None if it has none of this name."""
    return group.get_command(click.Context(group), name) if hasattr(group, "get_command") else None


def command(words):
    """The command of the ``stream`` that begins with ``words``, and the words that follow its name."""
    found, rest = GROUP, list(words)
    while rest and (inner := subcommand(found, rest[0])) is not None:
        found, rest = inner, rest[1:]
    return found, rest


def test_every_command_in_the_text_exists_with_its_options():
    wrong = []
    for place, text in [(named(page), text) for page in pages() for text in COMMAND.findall(prose(page))]:
        found, rest = command(text.replace("|", " ").split())
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "--"}
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        if (isinstance(found, click.Group) and rest) or not options <= known:
            wrong.append((place, text))
    assert wrong == []


@pytest.mark.parametrize("text", fences("sh local"))
def test_local_aws_starts_as_shown(text):
    started = text.replace("stream local", "stream local --port 0 --moto-port 0")
    script = f'{started}\necho "$AWS_ENDPOINT_URL_KINESIS"; kill "$local"; wait "$local"'
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("http://127.0.0.1:")


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_line_of_the_changelog_begins_with_its_room():
    lines = re.findall(r"^- (\w+):", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    items = re.findall(r"^- ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(lines) == len(items)
    assert set(lines) <= ROOMS


def test_every_dependency_has_a_decision_page():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in extras if name != "dev" for each in extras[name])]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted} - {"kinesis-stream"}
    written = {re.sub(r"^\d{4}-", "", path.stem) for path in (ROOT / "docs" / "decisions").glob("0*.md")}
    assert names <= written
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert [path.name for path in (ROOT / "docs" / "decisions").glob("0*.md") if f"]({path.name})" not in index] == []


@pytest.mark.parametrize("name", ["add-a-stage", "add-a-sink"])
def test_the_example_changes_still_apply(name):
    done = subprocess.run(["git", "apply", "--check", f"docs/examples/{name}.diff"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def strings(node):
    """The literal text in ``node``; a blank stands for what an f-string inserts."""
    within = [each for each in ast.walk(node) if isinstance(each, ast.JoinedStr | ast.Constant)]
    return " ".join(
        "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in each.values)
        for each in within
        if isinstance(each, ast.JoinedStr)
    ) + " ".join(each.value for each in within if isinstance(each, ast.Constant) and isinstance(each.value, str))


@functools.cache
def modules():
    """The service's modules by path: text and syntax tree."""
    texts = {path: path.read_text() for path in sorted((ROOT / "stream").rglob("*.py"))}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


def halting_functions():
    for module, (text, tree) in modules().items():
        for node in ast.walk(tree) if re.search(r"\b(Halted|Expired)\(", text) else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                raised = [each.exc.func.id for each in ast.walk(node) if isinstance(each, ast.Raise) and called(each)]
                if {"Halted", "Expired"} & set(raised):
                    yield f"{module.relative_to(ROOT)}:{node.name}", node


def called(statement):
    return isinstance(statement.exc, ast.Call) and isinstance(statement.exc.func, ast.Name)


def runbook():
    section = (ROOT / "docs" / "runbook.md").read_text().partition("## When a shard is halted")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row)]


def test_the_runbook_quotes_messages_that_exist():
    whole = "\n".join(strings(tree) for _, tree in modules().values())
    assert [phrase for phrase in runbook() if phrase not in whole] == []


def test_every_reason_to_halt_is_in_the_runbook():
    phrases = runbook()
    found = dict(halting_functions())
    assert len(found) > 10
    said = {where: strings(node) for where, node in found.items() if "_lost" not in ast.dump(node)}
    assert [where for where, text in said.items() if not any(phrase in text for phrase in phrases)] == []


def test_the_main_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {path.name for path in pages()}
    assert Path(ROOT / "docs" / "guarantees.md") in pages()
