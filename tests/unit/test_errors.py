import pytest

from stream.errors import Fatal, Halted, LeaseLost, Superseded, most_severe

FATAL, HALTED, LOST, BEATEN, UNFORESEEN = Fatal("f"), Halted("h"), LeaseLost("l"), Superseded("s", position=1), KeyError("k")


@pytest.mark.parametrize(
    ("errors", "heaviest"),
    [
        ([BEATEN], BEATEN),
        ([BEATEN, LOST], LOST),
        ([BEATEN, HALTED, LOST], HALTED),
        ([HALTED, FATAL], FATAL),
        ([FATAL, UNFORESEEN], UNFORESEEN),
        ([LOST, ExceptionGroup("inner", [BEATEN, FATAL])], FATAL),
        ([ExceptionGroup("inner", [ExceptionGroup("in it", [UNFORESEEN])]), FATAL], UNFORESEEN),
    ],
)
def test_the_most_severe_error_decides(errors, heaviest):
    assert most_severe(ExceptionGroup("together", errors)) is heaviest
