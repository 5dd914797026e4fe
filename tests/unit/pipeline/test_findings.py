from __future__ import annotations

import pytest

from stream.pipeline.findings import Finding, near_miss


def test_a_finding_is_one_clickable_line():
    assert Finding("p.yaml", 3, 7, "bad_value", "no such\nthing", "use this").render() == "p.yaml:3:7 bad_value no such thing - use this"
    assert Finding("p.yaml", 3, 7, "bad_value", "wrong").render() == "p.yaml:3:7 bad_value wrong"


def test_findings_sort_by_position_in_the_file():
    late, early = Finding("p", 10, 1, "a", ""), Finding("p", 9, 5, "b", "")
    assert sorted([late, early]) == [early, late]


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("flsh", ["flush", "state"], "did you mean `flush`?"),
        ("FLUSH", ["flush", "state"], "did you mean `flush`?"),
        ("zzz", ["flush", "state"], "known: flush, state"),
        ("zzz", [], ""),
    ],
)
def test_a_similar_name_is_suggested(word, known, hint):
    assert near_miss(word, known) == hint


def test_a_long_list_of_names_is_shortened():
    assert near_miss("?", [f"name{index:03}" for index in range(100)]).endswith("name019, ...")
