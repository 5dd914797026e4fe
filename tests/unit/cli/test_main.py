import pytest

from stream.cli.main import settings_of_libraries


@pytest.mark.parametrize(
    ("env", "cores", "threads"),
    [({}, 1, "1"), ({}, 2, "1"), ({}, 8, "4"), ({"STREAM_THREADS": "6"}, 64, "3"), ({"STREAM_THREADS": "many"}, 4, "2")],
)
def test_polars_gets_half_of_the_threads_that_units_are_cooked_in(env, cores, threads):
    assert settings_of_libraries(env, cores)["POLARS_MAX_THREADS"] == threads


def test_what_somebody_has_set_stays():
    assert settings_of_libraries({"POLARS_MAX_THREADS": "7", "OPENBLAS_NUM_THREADS": ""}, 2) == {"ARROW_DEFAULT_MEMORY_POOL": "system"}
