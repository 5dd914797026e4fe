from __future__ import annotations

import pytest

from stream.pipeline.trials.cases import cases_path, read_cases, stand_ins

GOOD = """\
env: {KEY: 5}
cases:
  - name: one
    given:
      - {json: {a: 1, b: "é"}, partition_key: k, arrival: 2026-01-01T00:00:00Z}
      - plain text
      - {text: "x"}
      - {base64: /w==}
    expect: {rows: [{a: 1}]}
  - {name: two, rows: any}
"""


def read(tmp_path, text):
    path = tmp_path / "p.test.yaml"
    path.write_text(text)
    return read_cases(path, {})


def test_records_can_be_written_in_each_form(tmp_path):
    got = read(tmp_path, GOOD)
    assert got.findings == ()
    first, second = got.cases.cases
    assert [record.content for record in first.given] == ['{"a":1,"b":"é"}'.encode(), b"plain text", b"x", b"\xff"]
    assert first.given[0].partition_key == "k"
    assert got.cases.env == {"KEY": "5"}
    assert (second.rows, second.count, second.seed) == ("any", 200, 1)


@pytest.mark.parametrize(
    ("text", "place", "code", "says"),
    [
        ("cases: []", (1, 8), "bad_value", "at least 1"),
        ("cases: [{name: a, rows: any}]\ncaces: []", (2, 1), "unknown_key", "`caces`"),
        ("cases:\n  - {name: a, given: [x]}", (2, 5), "bad_value", "`given` and `expect`"),
        ("cases:\n  - {name: a, rows: any, given: [x]}", (2, 5), "bad_value", "uses random records"),
        ("cases:\n  - {name: a, rows: some}", (2, 21), "bad_value", "any"),
        ("cases:\n  - {name: a, given: [{jsn: 1}], expect: {}}", (2, 23), "bad_value", "exactly one of `json`, `text` and `base64`"),
        ("cases:\n  - {name: a, given: [{n: 1}], expect: {}}", (2, 23), "bad_value", "one that is JSON is written {json: {n: ...}}"),
        ("cases:\n  - {name: a, given: [x], rows: [{n: 1}]}", (2, 33), "bad_value", "written under `expect`: {rows: [...]}"),
        ("cases:\n  - {name: a, given: [{json: 1, text: x}], expect: {}}", (2, 23), "bad_value", "exactly one of `json`"),
        ("cases:\n  - {name: a, given: [{base64: 'a'}], expect: {}}", (2, 23), "bad_value", "is not base64"),
        ("cases:\n  - {name: a, given: [{text: 5}], expect: {}}", (2, 23), "bad_value", "in quotes"),
        ("cases:\n  - {name: a, given: [{text: x, arrival: 2026-01-01T00:00:00}], expect: {}}", (2, 42), "bad_value", "no time zone"),
        ("cases:\n  - {name: a, given: [], expect: {rws: []}}", (2, 35), "unknown_key", "`rws`"),
        ("cases:\n  - {name: a, given: [], expect: {outcomes: {wrtten: 1}}}", (2, 45), "bad_value", "is not an outcome"),
        ("cases:\n  - {name: a, given: [], expect: {golden: f, rows: []}}", (2, 34), "bad_value", "the rows and rejects are in that file"),
        ("cases:\n  - {name: a, rows: any}\n  - {name: a, rows: any}", (2, 3), "bad_value", "the name 'a'"),
        ("cases: [", (1, 8), "bad_yaml", ""),
    ],
)
def test_an_error_has_a_position(tmp_path, text, place, code, says):
    got = read(tmp_path, text)
    assert got.cases is None
    (finding,) = got.findings
    assert says in finding.message
    assert (finding.code == code and (finding.line, finding.column) == place) or code == "bad_yaml"


def test_a_misspelt_key_gets_a_suggestion(tmp_path):
    (finding,) = read(tmp_path, "cases:\n  - {name: a, given: [], expect: {rws: []}}").findings
    assert finding.hint == "did you mean `rows`?"


def test_a_missing_file_of_cases_is_reported(tmp_path):
    assert read_cases(tmp_path / "none.yaml", {}).findings[0].code == "unreadable"
    assert cases_path(tmp_path / "flights.yaml").name == "flights.test.yaml"


def test_tables_can_be_replaced_by_files(tmp_path):
    (tmp_path / "t.csv").write_text("a\n1\n")
    got = read(tmp_path, "tables: {s3://b/t.csv: t.csv}\ncases: [{name: a, rows: any}]").cases
    assert stand_ins(got, tmp_path) == {"s3://b/t.csv": b"a\n1\n"}
    with pytest.raises(Exception, match=r"t\.csv"):
        stand_ins(got, tmp_path / "none")
