import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stream.cli.main import VERBS, about, app, settings_of_libraries


def test_the_help_names_every_verb():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout
    first_words = [line.strip("│ ").split(" ")[0] for line in shown.splitlines()]
    assert [word for word in first_words if word in VERBS] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_what_the_help_says_of_a_verb_is_what_the_verb_says_of_itself(verb):
    group = typer.main.get_command(app)
    assert about(verb) == group.get_command(typer.Context(group), verb).help != ""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["no-such-verb"]])
def test_no_verb_is_imported_for_what_is_said_of_all_of_them(arguments):
    code = f"""
import sys
from stream.cli.main import app
try:
    app({arguments})
finally:
    print("imported:", *sorted({{"polars", "pyarrow", "aiohttp", "botocore", "obstore"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "imported:", done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_goes_by_its_name_and_leaves_the_shell_alone(verb):
    group = typer.main.get_command(app)
    command = group.get_command(typer.Context(group), verb)
    assert command.name == verb
    assert not {"install_completion", "show_completion"} & {each.name for each in command.params}


@pytest.mark.parametrize(
    ("env", "cores", "threads"),
    [({}, 1, "1"), ({}, 2, "1"), ({}, 8, "4"), ({"STREAM_THREADS": "6"}, 64, "3"), ({"STREAM_THREADS": "many"}, 4, "2")],
)
def test_polars_gets_half_of_the_threads_that_units_are_cooked_in(env, cores, threads):
    assert settings_of_libraries(env, cores)["POLARS_MAX_THREADS"] == threads


def test_what_somebody_has_set_stays():
    assert settings_of_libraries({"POLARS_MAX_THREADS": "7", "OPENBLAS_NUM_THREADS": ""}, 2) == {"ARROW_DEFAULT_MEMORY_POOL": "system"}


def stream(stdout, *arguments, preexec=None):
    command = [sys.executable, "-m", "stream", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, preexec_fn=preexec, timeout=60, check=False)


def test_a_full_disk_is_said_in_a_line():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = stream(full, "--version")
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_a_reader_that_has_gone_is_no_news():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = stream(pipe, "--version")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_output_is_no_error():
    done = stream(None, "schema", preexec=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_terminal_cannot_show_is_escaped(tmp_path):
    pipeline = tmp_path / "月.yaml"
    pipeline.write_text("application: a", encoding="utf-8")
    command = [sys.executable, "-m", "stream", "check", str(pipeline)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\\u6708.yaml:1:1 missing_key" in done.stdout
