import polars as pl
import pytest
from stream_stage_luhn import Luhn

from stream.testing.stages import STAGE_CHECKS, frame_of, step_of
from stream.transform.engine import advance
from stream.transform.stage import Resources, SchemaMismatch


@pytest.mark.parametrize("check", STAGE_CHECKS, ids=lambda check: check.__name__)
def test_the_contract_holds(check):
    check(Luhn, Resources())


def refused(*numbers):
    frame = frame_of([{"card": number} for number in numbers])
    _, settled = advance(step_of(Luhn(column="card"), frame.schema, Resources()), frame)
    assert set(settled["reason"]) <= {"luhn:card"}
    return settled["_row"].to_list()


def test_only_one_check_digit_fits():
    assert refused(*(f"7992739871{digit}" for digit in range(10))) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("number", ["", "0", "x", "4111x", "٣٤", "1" * 25, "-"])
def test_what_is_no_number_is_refused(number):
    assert refused(number) == [0]


def test_a_column_of_another_type_is_refused_with_a_hint():
    with pytest.raises(SchemaMismatch) as caught:
        Luhn(column="card").output(pl.Schema({"card": pl.Int64()}), Resources())
    assert "cast" in caught.value.hint
