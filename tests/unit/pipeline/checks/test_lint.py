from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from botocore.loaders import create_loader

from stream.pipeline.checks.lint import check, check_content
from stream.pipeline.findings import Severity
from stream.pipeline.load import load
from stream.pipeline.regions import REGIONS
from tests.unit.pipeline.definitions import DESIGNED, EXAMPLES

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.yaml"))


def expected(text):
    lines = [line.removeprefix("# expect: ") for line in text.splitlines() if line.startswith("# expect: ")]
    return sorted(tuple(line.split(" ")) for line in lines)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_each_invalid_file_gives_exactly_the_findings_it_names(path):
    text = path.read_text()
    result = check(path, {})
    assert expected(text), "every file of the corpus names its findings"
    assert sorted((f"{each.line}:{each.column}", each.code) for each in result.findings) == expected(text)
    assert not result.ok


WRONG = {"number": 1.5, "text": "nonsense", "nothing": None, "list": [[1]], "mapping": {"nonsense": {}}}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("part", ["application", "source", "source.kinesis", "source.schema", "stages", "sinks", "flush", "state"])
def test_a_value_of_another_type_is_a_finding_and_never_an_exception(part, wrong):
    data = load(DESIGNED.encode(), "pipeline.yaml", {"MASK_KEY": "k"}).data
    place = data
    *above, last = part.split(".")
    for key in above:
        place = place[key]
    place[last] = wrong
    result = check_content(yaml.safe_dump(data).encode(), "pipeline.yaml", Path(), {"MASK_KEY": "k"})
    assert {each.code for each in result.findings}
    if part == "stages" and wrong is not None:
        assert {each.code for each in result.findings} <= {"bad_value", "bad_component"}, (
            "what stages of another kind would add is not missed at the sinks"
        )


def test_the_corpus_is_complete():
    assert len(CORPUS) >= 30


@pytest.fixture
def designed(tmp_path, monkeypatch):
    """The designed pipeline with the tables and the module that it names, as a file."""
    (tmp_path / "reference").mkdir()
    pl.DataFrame({"carrier": ["UA"], "name": ["United"]}).write_parquet(tmp_path / "reference" / "airlines.parquet")
    hour = pl.Series("time_hour", ["2013-01-01T10:00:00Z"]).str.to_datetime(time_unit="us", time_zone="UTC")
    weather = pl.DataFrame({"origin": ["EWR"], "time_hour": hour, "temp": [39.0], "wind_speed": [12.7], "visib": [10.0]})
    weather.write_parquet(tmp_path / "reference" / "weather.parquet")
    (tmp_path / "my_company").mkdir()
    (tmp_path / "my_company" / "__init__.py").touch()
    (tmp_path / "my_company" / "flights.py").write_text("def score(frame):\n    return frame.with_columns(score=frame['made_up'] * 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "pipeline.yaml"
    path.write_text(DESIGNED)
    return path


def test_the_sample_pipeline_has_no_findings(designed):
    result = check(designed, {"MASK_KEY": "k"})
    assert result.findings == ()
    assert len(result.pipeline.stages) == 6


def test_a_column_is_checked_up_to_the_sink(designed):
    designed.write_text(DESIGNED.replace("month: strftime", "year_month: strftime"))
    (finding,) = check(designed, {"MASK_KEY": "k"}).findings
    assert (finding.line, finding.column, finding.code) == (23, 67, "schema_mismatch")
    assert "month" in finding.message


def test_the_example_has_no_findings():
    assert check(EXAMPLES / "flights" / "pipeline.yaml", {"MASK_KEY": "k"}).findings == ()


def test_a_missing_secret_is_a_note(designed):
    result = check(designed, {})
    assert [(each.code, each.severity) for each in result.findings] == [("secret_unset", Severity.NOTE)]
    assert result.ok


@pytest.mark.parametrize(("location", "noted"), [("s3://lake/t/", ["bucket_key"]), ("file:./t/", [])])
def test_a_note_says_that_metadata_in_glue_is_encrypted_by_the_bucket(location, noted, tmp_path):
    catalog = "{type: glue}" if noted else "{type: sql, uri: 'sqlite:///c.db'}"
    text = f"""\
application: a
source:
  kinesis: {{stream: s}}
  schema: {{id: int64}}
sinks:
  - iceberg: {{location: "{location}", table: lake.t, catalog: {catalog}}}
state: s3://lake/state/
encryption: {{kms_key: "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"}}
"""
    result = check_content(text.encode(), "p.yaml", tmp_path, {})
    assert result.ok, [each.render() for each in result.findings]
    assert [each.code for each in result.findings] == noted
    without = check_content(text.rpartition("encryption")[0].encode(), "p.yaml", tmp_path, {})
    assert without.findings == ()


@pytest.mark.parametrize(
    ("source", "mode", "noted"),
    [
        ("s3: {url: s3://raw/orders/}", "{mode: upsert, keys: [id]}", ["upsert_order"]),
        ("s3: {url: s3://raw/orders/}", "{mode: append}", []),
        ("kinesis: {stream: orders}", "{mode: upsert, keys: [id]}", []),
    ],
)
def test_a_note_says_that_rows_from_objects_have_no_order_for_upserts(source, mode, noted, tmp_path):
    text = f"""\
application: a
source:
  {source}
  schema: {{id: int64}}
sinks:
  - redshift: {{staging: s3://lake/staging/, table: public.orders, database: dev, workgroup: main, iam_role: default, {mode[1:-1]}}}
state: s3://lake/state/
"""
    result = check_content(text.encode(), "p.yaml", tmp_path, {})
    assert result.ok, [each.render() for each in result.findings]
    assert [each.code for each in result.findings] == noted


def test_a_remote_table_ends_the_check_of_columns_with_a_note(designed):
    designed.write_text(DESIGNED.replace("reference/weather", "s3://lake/weather").replace("made_up: dep", "made_up: depp"))
    codes = [each.code for each in check(designed, {"MASK_KEY": "k"}).findings]
    assert codes == ["schema_mismatch", "not_checked"]
    designed.write_text(DESIGNED.replace("reference/weather", "s3://lake/weather"))
    result = check(designed, {"MASK_KEY": "k"})
    assert [each.code for each in result.findings] == ["not_checked"]
    assert result.ok


def test_an_unreadable_file_is_a_finding(tmp_path):
    result = check(tmp_path / "none.yaml", {})
    assert [each.code for each in result.findings] == ["unreadable"]
    assert not result.ok


@pytest.mark.parametrize("keep", range(0, len(DESIGNED), 23))
def test_a_file_cut_off_anywhere_gives_findings_and_never_raises(keep, tmp_path):
    result = check_content(DESIGNED[:keep].encode(), "p.yaml", tmp_path, {})
    assert result.findings


def test_findings_are_in_the_order_of_the_file():
    findings = check(CORPUS[0].parent / "unknown_keys_everywhere.yaml", {}).findings
    assert [(each.line, each.column) for each in findings] == sorted((each.line, each.column) for each in findings)


def with_sinks(tmp_path, *sinks):
    (tmp_path / "p.yaml").write_text(
        "application: a\nsource:\n  kinesis: {stream: a}\n  schema: {tenant: string, n: int64}\nstate: s3://lake/_stream/\nsinks:\n"
        + "".join(f"  - {sink}\n" for sink in sinks)
    )
    return check(tmp_path / "p.yaml", {})


@pytest.mark.parametrize(("key", "hint"), [("filter", "chosen by `where`"), ("route", "chosen by `where`"), ("wehre", "mean `where`?")])
def test_who_looks_for_a_condition_on_a_sink_is_told_how_it_is_called(tmp_path, key, hint):
    (finding,) = with_sinks(tmp_path, f"s3: {{url: s3://lake/a/, {key}: tenant = 'acme'}}").findings
    assert (finding.code, finding.line) == ("unknown_key", 7)
    assert hint in finding.hint


@pytest.mark.parametrize(
    ("condition", "code", "words"),
    [
        ("tennant = 'acme'", "schema_mismatch", "no column 'tennant'; there are:"),
        ("n", "schema_mismatch", "`n` gives int64, but a condition is true or false"),
        ("SUM(n) > 1", "schema_mismatch", "sum looks at more than one row"),
        ("tenant > 1", "schema_mismatch", "does not fit its columns"),
        ("''", "schema_mismatch", "the expression is empty"),
        ("else", "bad_value", "no other sink has a condition"),
    ],
)
def test_a_condition_that_cannot_be_decided_is_found_at_its_place(tmp_path, condition, code, words):
    found = with_sinks(tmp_path, "s3: {url: s3://lake/a/}", f"s3: {{name: b, url: s3://lake/b/, where: {condition}}}")
    (finding,) = found.findings
    assert not found.ok
    assert (finding.code, finding.line, finding.column) == (code, 8, 45)
    assert words in finding.message


def test_conditions_that_divide_rows_are_fine(tmp_path):
    warehouse = "staging: s3://lake/r/, table: a.b, database: d, workgroup: analytics, iam_role: default"
    found = with_sinks(
        tmp_path,
        "s3: {url: s3://lake/a/, where: tenant = 'acme'}",
        f"redshift: {{{warehouse}, where: n > 5}}",
        "s3: {name: c, url: s3://lake/c/, where: else}",
    )
    assert found.findings == ()


def test_misspelt_keys_get_suggestions():
    findings = check(CORPUS[0].parent / "unknown_keys_everywhere.yaml", {}).findings
    assert [each.hint for each in findings if each.code == "unknown_key"] == [
        "did you mean `stream`?",
        "did you mean `schema`?",
        "did you mean `partition_by`?",
        "did you mean `coordination`?",
    ]


REGIONAL = """
application: a
source:
  kinesis: {stream: s, region: REGION}
  schema: {region: string}
stages:
  - derive: {region: "upper(region)"}
sinks: [s3: {url: "file:lake", partition_by: region}]
state: file:state
"""


@pytest.mark.parametrize(("region", "found"), [("eu-west-1", []), ("us-gov-east-1", []), ("eu-wset-1", [(4, "did you mean `eu-west-1`?")])])
def test_a_region_that_does_not_exist_is_noted_and_columns_of_that_name_are_not(region, found):
    result = check_content(REGIONAL.replace("REGION", region).encode(), "p.yaml", Path(), {})
    assert result.ok
    assert [(each.line, each.hint) for each in result.findings] == found


VALID = """\
application: a
source:
  kinesis: {stream: s}
  schema: {n: int64, t: timestamp}
sinks: [s3: {url: "s3://lake/a/"}]
state: s3://lake/_stream/
"""
WAREHOUSE = "redshift: {staging: s3://lake/r/, table: a.b, database: d, iam_role: default, workgroup: main}"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("stream: s", "stream: s, region: eu-west-1a", "'eu-west-1a' is an availability zone, not a region - write eu-west-1"),
        ("n: int64", "n: [int64]", "expected a type such as `int64?`, got ['int64'] - write a list as `list<int64>`"),
        ("  schema:", "  decode: jsonl\n  schema:", "there is no decoder `jsonl` - did you mean `json_lines`?"),
        ("stream: s", "stream: {{ .Values.stream }}", "templates, such as those of Helm, are not filled in here"),
        ("  kinesis", "\tkinesis", "a tab stands where only spaces are allowed - indent with spaces, not tabs"),
        ("sinks:", "rejects: {max_ratio: 50}\nsinks:", "50 is out of range: a share is more than 0 and at most 1 - write 0.5 for 50 %"),
        ("sinks:", "rejects: {max_ratio: 2.5%}\nsinks:", "2.5% is out of range: a share is more than 0 and at most 1 - write 0.025 for"),
        ("sinks:", "rejects: {max_ratio: 0}\nsinks:", "0 is out of range: more than 0"),
        ("sinks:", "notify: {webhook: hooks}\nsinks:", "'hooks' is not the URL of a webhook - write one such as https://"),
        ("sinks:", "audit: {otlp: {endpoint: x}}\nsinks:", "'x' is not the URL of a collector - write one such as http://"),
        (
            "sinks:",
            "stages: [{filter: n > 0, select: [n]}]\nsinks:",
            "a stage is one name with its options, got a mapping with the keys filter, select - begin each stage with a dash of its own",
        ),
        ("sinks:", "stages: [{filter: n > 0, by: n}]\nsinks:", "write `name: options`, options indented deeper than the name"),
        ("sinks:", "stages: [{python: my.score}]\nsinks:", "a colon before the function, such as `my_company.flights:score`"),
        (
            's3: {url: "s3://lake/a/"}',
            WAREHOUSE.replace(", workgroup: main", ""),
            "neither `cluster` nor `workgroup` is given; name either",
        ),
        (
            's3: {url: "s3://lake/a/"}',
            WAREHOUSE.replace("main}", "main, cluster: main}"),
            "both `cluster` and `workgroup` are given; name either",
        ),
        (
            's3: {url: "s3://lake/a/"}',
            WAREHOUSE.replace("a.b", "d.a.b"),
            "'d.a.b' is not a table; write `table` or `schema.table`, and the",
        ),
        ('s3: {url: "s3://lake/a/"}', WAREHOUSE.replace("default", "role"), "such as arn:aws:iam::123456789012:role/redshift-copy"),
        (
            's3: {url: "s3://lake/a/"}',
            "iceberg: {location: s3://lake/i/, table: a.b, partition_by: [days(t)]}",
            "there is no column 'days(t)' - a partition is a column, or one of year, month, day, hour of a time, as in `day(time)`",
        ),
        ('"s3://lake/a/"}', '"s3://lake/a/"}, s3: {name: b, url: "s3://lake/a/"}', "the sinks `s3` and `b` both write to s3://lake/a/"),
        (
            '"s3://lake/a/"}',
            '"s3://lake/a/", partition_by: {d: "strftime(t, \\"%Y\\")"}}',
            '"%Y" in double quotes is the name of a column, and text is needed there',
        ),
    ],
)
def test_mistakes_of_newcomers_are_told_with_what_to_write_instead(before, after, says):
    text = VALID.replace(before, after, 1)
    assert text != VALID
    found = check_content(text.encode(), "p.yaml", Path(), {})
    assert not found.ok
    told = "\n".join(each.render() for each in found.findings)
    assert says in told
    assert check_content(VALID.encode(), "p.yaml", Path(), {}).findings == ()


def test_a_zone_in_place_of_a_region_is_told_once():
    found = check_content(REGIONAL.replace("REGION", "eu-west-1a").encode(), "p.yaml", Path(), {})
    assert [each.code for each in found.findings] == ["bad_name"]


def test_behind_an_endpoint_every_region_is_right():
    text = REGIONAL.replace("REGION", "xx-north-9, endpoint: 'http://127.0.0.1:4567'")
    assert not check_content(text.encode(), "p.yaml", Path(), {}).findings


def test_the_regions_are_those_of_the_sdk():
    partitions = create_loader().load_data("partitions")["partitions"]
    known = {region for partition in partitions for region in partition["regions"]}
    assert {region for region in known if not region.endswith("-global")} == REGIONS
