from __future__ import annotations

import asyncio

import pytest

from stream.pipeline.checks.lint import check
from stream.pipeline.resources.fetching import fetch_resources
from stream.simulation import elsewhere, purity
from stream.simulation.subject import Subject

RECORDS = tuple(b'{"id": %d, "city": "city %d"}' % (number, number % 5) for number in range(1, 21))
PIPELINE = """\
application: orders
source:
  kinesis: {{stream: orders}}
  schema: {{id: int64, city: string}}
stages:
{stages}
sinks:
  - s3: {{url: s3://lake/orders/}}
state: s3://lake/_stream/
"""


def subject(tmp_path, *stages, more=""):
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.format(stages="\n".join(f"  - {each}" for each in stages)) + more)
    pipeline = check(file, {}).pipeline
    return Subject(pipeline, asyncio.run(fetch_resources(pipeline, tmp_path, {})), tmp_path, {}, RECORDS)


def python(function):
    return f"python: {{function: 'tests.unit.simulation.impure:{function}', adds: {{x: float64}}}}"


def chain_of(one):
    return asyncio.run(one.recipes())[0].chain


def found(one, *, there=True):
    """Differences; with ``there``, also from another process, which takes a second to start."""
    return purity.differences(chain_of(one), one.batch, other=elsewhere.begin(one, {}).results() if there else None)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        ("clock", purity.AGAIN),
        ("dice", purity.AGAIN),
        ("counter", purity.AGAIN),
        ("once_only", purity.AGAIN),
        ("size", purity.HALVES),
        ("place", purity.HALVES),
        ("first_row", purity.HALVES),
        ("row_number", purity.HALVES),
        ("today", purity.ELSEWHERE),
        ("hash_seed", purity.ELSEWHERE),
        ("set_order", purity.ELSEWHERE),
        ("environment", purity.ELSEWHERE),
    ],
)
def test_a_stage_that_is_not_deterministic_is_named_with_column_record_and_values(tmp_path, function, how):
    one = subject(tmp_path, "derive: {y: id + 1}", python(function))
    (difference,) = found(one, there=how == purity.ELSEWHERE)
    assert difference.stage == "2:python"
    assert difference.column == (purity.FATE if function == "once_only" else "x")
    assert 1 <= difference.record <= len(RECORDS)
    assert difference.one != difference.other
    assert (difference.how_one, difference.how_other) == (purity.WHOLE, how)


def test_stages_after_an_impure_one_are_not_accused(tmp_path):
    differences = found(subject(tmp_path, python("dice"), "derive: {z: x + 1}"))
    assert [each.stage for each in differences] == ["1:python"]


def test_deterministic_stages_are_not_accused(tmp_path):
    assert found(subject(tmp_path, *(python(each) for each in ("pure", "careful", "raises_on_some")))) == []
    built_in = ["derive: {y: city || '!'}", "sql: 'SELECT *, id * 2 AS twice FROM batch'", "filter: id > 3", "dedupe: city"]
    assert found(subject(tmp_path, *built_in)) == []


def test_values_of_sensitive_columns_are_hidden(tmp_path):
    one = subject(tmp_path, python("dice"), more="sensitive: {columns: [x], allowed_in: [s3]}\n")
    chain = chain_of(one)
    (difference,) = purity.hide(purity.differences(chain, one.batch), one.pipeline, chain)
    assert (difference.column, difference.one, difference.other) == ("x", "(hidden)", "(hidden)")
