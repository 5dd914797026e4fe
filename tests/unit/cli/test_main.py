import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stream.cli import doctor
from stream.cli.loading import settings_of_libraries
from stream.cli.main import GROUPS, VERBS, about, app, clearer
from stream.operations.doctor import diagnosis
from stream.pipeline.trials import sample
from tests.standard_error import without_loading


def test_the_help_names_every_verb():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout
    first_words = [line.strip("│ ").split(" ")[0] for line in shown.splitlines()]
    assert [word for word in first_words if word in VERBS] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_summary_of_a_verb_is_the_same_in_both_helps(verb):
    group = typer.main.get_command(app)
    assert about(verb) == group.get_command(typer.Context(group), verb).help != ""


LIGHT = """
import sys
before = set(sys.modules)
from stream.cli.main import app
for arguments in {lines}:
    try:
        app(arguments, prog_name="stream")
    except SystemExit:
        pass
for name in sorted(set(sys.modules) - before):
    file = getattr(sys.modules[name], "__file__", None) or ""
    if "site-packages" in file or name.partition(".")[0] in {{"stream", "asyncio"}}:
        print("imported:", name)
"""
OF_TYPER = {
    "annotated_doc",
    "annotated_types",
    "attr",
    "markdown_it",
    "mdurl",
    "pydantic",
    "pydantic_core",
    "pygments",
    "rich",
    "shellingham",
} | {
    "typer",
    "typing_extensions",
    "typing_inspection",
}
"""What typer itself imports, and rich, which prints for it."""
OF_STREAM = {
    "stream",
    "stream.cli",
    "stream.cli.loading",
    "stream.cli.main",
    "stream.cli.options",
    "stream.errors",
    "stream.malloc",
    "stream.pipeline",
    "stream.pipeline.access",
    "stream.pipeline.access.role_names",
    "stream.pipeline.checks",
    "stream.pipeline.checks.host_names",
}


def imported_by(*lines, **environment):
    """The modules of ours and of third parties that a process has imported after these command lines."""
    code = LIGHT.format(lines=[list(each) for each in lines])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120, check=True
    )
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("imported: ")}


def unexpected(modules):
    return {each for each in modules - OF_STREAM if each.partition(".")[0] not in OF_TYPER}


def command_lines():
    """Every verb, and every verb of those that have more."""
    group = typer.main.get_command(app)
    for verb in VERBS:
        command = group.get_command(typer.Context(group), verb)
        yield [verb]
        yield from ([verb, each] for each in getattr(command, "commands", ()))


def test_no_library_is_imported_for_help_and_usage_errors():
    lines = list(command_lines())
    assert ["audit", "verify"] in lines
    asked = [["--help"], ["--version"], [], ["no-such-verb"]]
    asked += [[*line, "--help"] for line in lines] + [[*line, "--no-such-option"] for line in lines]
    asked += [["run"], ["run", "no-such-file.yaml"], ["leases", "rewind"], ["iam", "p.yaml", "--role", "nobody"]]
    assert unexpected(imported_by(*asked)) == set()


@pytest.mark.parametrize("words", ["stream ", "stream audit ", "stream run pipeline.yaml --log-level "])
def test_no_library_is_imported_for_completion(words):
    asked = {"_STREAM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    assert unexpected(imported_by([], **asked)) == set()


def test_a_command_imports_its_libraries_when_it_runs():
    assert {"stream.cli.schema", "stream.pipeline.schema", "polars"} <= unexpected(imported_by(["schema"]))


FORGOTTEN = """
import sys
from stream.cli import loading
found = loading.verb("stream.cli.leases", "app")
assert "import_positions" in [each.callback.__name__ for each in found.registered_commands]
assert loading.libraries_wanted()
assert not {"stream.cli.leases", "stream.cli.positions"} & set(sys.modules)
from stream.cli import positions
assert positions.Pipeline is loading.load("stream.cli.leases").Pipeline
"""


def test_modules_loaded_without_libraries_are_loaded_again():
    """They are incomplete, and so are those of ours that they import."""
    subprocess.run([sys.executable, "-c", FORGOTTEN], check=True, timeout=120)


def test_values_repeated_in_signatures_equal_those_in_the_modules():
    assert doctor.TIMEOUT == diagnosis.TIMEOUT
    shown = " ".join(CliRunner().invoke(app, ["preview", "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert f"({', '.join(sample.LINES)})" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_its_own_name_and_no_options_for_shell_completion(verb):
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), verb)
    assert command.name == verb
    assert not {"install_completion", "show_completion"} & {each.name for each in command.params}


@pytest.mark.parametrize(
    ("env", "cores", "threads"),
    [({}, 1, "1"), ({}, 2, "1"), ({}, 8, "4"), ({"STREAM_THREADS": "6"}, 64, "3"), ({"STREAM_THREADS": "many"}, 4, "2")],
)
def test_polars_gets_half_of_the_rendering_threads(env, cores, threads):
    assert settings_of_libraries(env, cores)["POLARS_MAX_THREADS"] == threads


def test_settings_in_the_environment_are_kept():
    assert settings_of_libraries({"POLARS_MAX_THREADS": "7", "OPENBLAS_NUM_THREADS": ""}, 2) == {"ARROW_DEFAULT_MEMORY_POOL": "system"}


def stream(stdout, *arguments, preexec=None):
    command = [sys.executable, "-m", "stream", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=preexec, timeout=120, check=False)


def test_a_full_disk_is_reported_in_one_line():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = stream(full, "--version")
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_a_closed_pipe_is_not_reported():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = stream(pipe, "--version")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_standard_output_is_not_an_error():
    done = stream(None, "schema", preexec=lambda: os.close(1))
    assert (done.returncode, without_loading(done.stderr)) == (0, "")


def test_characters_the_terminal_cannot_show_are_escaped(tmp_path):
    pipeline = tmp_path / "月.yaml"
    pipeline.write_text("application: a", encoding="utf-8")
    command = [sys.executable, "-m", "stream", "check", str(pipeline)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, without_loading(done.stderr)) == (1, "")
    assert "\\u6708.yaml:1:1 missing_key" in done.stdout


def test_the_error_for_a_misspelt_verb_names_a_similar_one():
    misspelt = CliRunner().invoke(app, ["prevew"])
    assert misspelt.exit_code == 2
    assert "No such command 'prevew'. Did you mean 'preview'?" in misspelt.stderr
    unlike = CliRunner().invoke(app, ["xyzzy"])
    assert (unlike.exit_code, "Did you mean" in unlike.stderr) == (2, False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("iam", "--role", "wroker"), "'wroker' is not one of 'bootstrap', 'worker', 'redshift-copy', 'backfill', 'reader', 'analyst',"),
        (("iam", "--role", "wroker"), "'compactor'. Did you mean 'worker'?"),
        (("run", "p.yaml", "--log-level", "degub"), "'degub' is not one of 'debug', 'info', 'warning', 'error'. Did you mean 'debug'?"),
        (("run", "p.yaml", "--threads", "0"), "Invalid value for '--threads': Input should be greater than or equal to 1"),
        (("dlq", "redriev"), "No such command 'redriev'. Did you mean 'redrive'?"),
        (("check", "--jsn"), "--json"),
    ],
)
def test_the_error_for_a_misspelt_word_names_a_similar_one(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").touch()
    found = CliRunner().invoke(app, words)
    told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", found.stderr).split())
    assert found.exit_code == 2
    assert says in told
    assert "Value error" not in told


def test_a_value_that_is_like_no_other_gets_no_suggestion():
    assert clearer("Value error, 'xyzzy' is not one of 'debug', 'info'.") == "'xyzzy' is not one of 'debug', 'info'."


def test_the_help_of_every_verb_says_what_its_exit_codes_mean():
    page = (Path(doctor.__file__).parents[2] / "docs" / "command-line.md").read_text().partition("<!-- generated: commands -->")[2]
    verbs = page.split("\n### ")[1:]
    assert len(verbs) > 35
    assert [verb.partition("\n")[0] for verb in verbs if "Exit code" not in verb] == []


def test_the_help_text_groups_the_verbs():
    lines = CliRunner().invoke(app, ["--help"]).stdout.splitlines()
    assert [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭")] == ["Options", *GROUPS]
