from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stream.pipeline.checks.lint import check_content
from stream.pipeline.findings import Severity
from tests.unit.pipeline.definitions import least


def findings(tmp_path, *stages, **changes):
    text = yaml.safe_dump(least(stages=list(stages), **changes), sort_keys=False, width=1000)
    return check_content(text.encode(), "p.yaml", tmp_path, {}).findings


def words(found):
    return [each.message.split(";")[0] for each in found if each.severity is Severity.ERROR]


def test_a_derived_column_can_be_used_by_later_stages_and_sinks(tmp_path):
    sinks = [{"s3": {"url": "s3://lake/x/", "partition_by": ["late"]}}]
    assert findings(tmp_path, {"derive": {"late": "delay > 15"}}, {"filter": "late"}, {"select": ["late"]}, sinks=sinks) == ()


@pytest.mark.parametrize(
    ("stage", "lost"),
    [({"select": ["carrier"]}, "delay"), ({"select": {"drop": ["delay"]}}, "delay"), ({"rename": {"delay": "minutes"}}, "delay")],
)
def test_a_removed_column_cannot_be_used(tmp_path, stage, lost):
    assert findings(tmp_path, {"filter": f"{lost} > 5"}, stage) == ()
    (message,) = words(findings(tmp_path, stage, {"filter": f"{lost} > 5"}))
    assert f"no column '{lost}'" in message


def test_an_invalid_stage_that_keeps_columns_does_not_end_the_check(tmp_path):
    mask = {"mask": {"columns": ["nobody"], "method": "redact"}}
    found = findings(tmp_path, {"filter": "nothing > 5"}, mask, {"derive": {"x": "nowhere + 1"}})
    assert len(words(found)) == 3


def test_an_invalid_stage_that_changes_columns_ends_the_check_with_a_note(tmp_path):
    found = findings(tmp_path, {"flatten": ["nowhere"]}, {"filter": "nothing > 5"}, {"filter": "x > 5"})
    assert len(words(found)) == 1
    assert [each.code for each in found if each.severity is Severity.NOTE] == ["not_checked"]


def test_after_an_invalid_entry_of_a_list_all_other_columns_are_checked(tmp_path):
    stages = [{"derive": {"x": "nowhere + 1", "y": "delay + 1"}}, {"filter": "nothing > 5"}, {"filter": "x > 5"}, {"filter": "y > 'a'"}]
    found = findings(tmp_path, *stages, {"cast": {"y": "whole"}}, {"derive": {"z": "y + 1", "x": "delay"}}, {"filter": "x > 'a'"})
    assert [message.split("`")[1] if "`" in message else message[:12] for message in words(found)] == [
        "nowhere + 1", "nothing > 5", "y > 'a'", "type 'whole'", "x > 'a'",
    ]  # fmt: skip
    assert not [each for each in found if each.severity is Severity.NOTE]


def test_every_error_of_a_stage_is_reported_but_not_its_consequences(tmp_path):
    found = findings(tmp_path, {"derive": {"a": "nowhere + 1", "b": "a + 1", "c": "nothing + 1", "d": "delay + 1"}})
    assert [message.split("'")[1] for message in words(found)] == ["nowhere", "nothing"]


def test_each_sink_is_checked(tmp_path):
    sinks = [{"s3": {"url": f"s3://lake/{name}/", "name": name, "partition_by": [name]}} for name in ("carrier", "nobody")]
    (finding,) = findings(tmp_path, sinks=sinks)
    assert "'nobody'" in finding.message


@pytest.mark.parametrize(
    ("state", "clean"),
    [
        ("s3://lake/_stream/", True),
        ("s3://lake/flights", False),
        ("s3://lake/flights/x/", False),
        ("s3://lake/flights_state", True),
    ],
)
def test_the_state_must_not_be_inside_a_sink(tmp_path, state, clean):
    codes = [each.code for each in findings(tmp_path, state=state)]
    assert codes == ([] if clean else ["state_inside_sink"])


@pytest.mark.parametrize(
    ("outer", "inner", "told"),
    [("s3://lake/a/", "s3://lake/a/late", True), ("s3://lake/a", "s3://lake/ab/", False), ("file:lake", "file:./x/../lake/late/", True)],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_that_readers_of_one_sink_would_read_the_rows_of_another_is_noted(tmp_path, outer, inner, told, swapped):
    first, second = (inner, outer) if swapped else (outer, inner)
    sinks = [{"s3": {"url": url, "name": name}} for url, name in ((first, "one"), (second, "two"))]
    found = findings(tmp_path, sinks=sinks)
    assert [(each.code, each.severity) for each in found] == [("sink_inside_sink", Severity.NOTE)] * told
    assert all(f"a reader of everything under {outer} also reads" in each.message for each in found)


def test_a_wrong_place_does_not_hide_what_is_wrong_with_sensitive_columns(tmp_path):
    found = findings(tmp_path, state="s3://lake/flights", sensitive=["carrier"])
    assert {each.code for each in found} == {"state_inside_sink", "sensitive_column"}


def test_the_hint_names_the_stage_that_removed_a_column():
    text = (Path(__file__).parent / "corpus" / "partition_and_mask_after_rename.yaml").read_bytes()
    hints = [each.hint for each in check_content(text, "p.yaml", Path(), {}).findings]
    assert hints[0] == hints[2] == "stage 1, `rename`, renames it to `plane`"
    dropped = (Path(__file__).parent / "corpus" / "column_dropped_earlier.yaml").read_bytes()
    assert [each.hint for each in check_content(dropped, "p.yaml", Path(), {}).findings if each.hint] == ["stage 1, `select`, removes it"]
