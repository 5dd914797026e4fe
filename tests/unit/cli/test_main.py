import pytest
import typer
from typer.testing import CliRunner

from stream.cli.main import VERBS, app, settings_of_libraries


def test_the_help_names_every_verb():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout
    first_words = [line.strip("│ ").split(" ")[0] for line in shown.splitlines()]
    assert [word for word in first_words if word in VERBS] == list(VERBS)


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
