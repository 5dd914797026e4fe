from __future__ import annotations

import asyncio
import hashlib
import io
from contextlib import suppress

import polars as pl
import pytest

from stream.errors import DefinitionError, Fatal
from stream.pipeline.model import Pipeline
from stream.pipeline.resources.fetching import MAX_TABLE_BYTES, fetch_resources, load_function, parse_table, read_local

TABLE = pl.DataFrame({"carrier": ["UA", "AA"], "name": ["United", "American"]})


def parquet():
    buffer = io.BytesIO()
    TABLE.write_parquet(buffer)
    return buffer.getvalue()


def pipeline(*stages):
    return Pipeline.model_validate(
        {
            "application": "a",
            "source": {"kinesis": {"stream": "s"}, "schema": {"carrier": "string"}},
            "stages": list(stages),
            "sinks": [{"s3": {"url": "s3://lake/x/"}}],
            "state": "s3://lake/_stream/",
        }
    )


def lookup(url):
    return {"lookup": {"table": url, "on": "carrier", "take": ["name"]}}


def fetch(definition, base, env=None, read=None):
    return asyncio.run(fetch_resources(definition, base, env or {}, read))


def test_every_resource_is_fetched_under_the_name_the_pipeline_uses(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(parquet())
    (tmp_path / "my_score.py").write_text("def score(frame):\n    return frame\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked = []

    async def remote(url):
        asked.append(url)
        return b"carrier,name\nUA,United\nAA,American\n"

    mask = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"env": "MASK_KEY"}}}
    definition = pipeline(lookup("t.parquet"), lookup("t.parquet"), lookup("s3://lake/t.csv"), mask, {"python": "my_score:score"})
    fetched = fetch(definition, tmp_path, {"MASK_KEY": "k"}, remote)
    assert asked == ["s3://lake/t.csv"]
    assert fetched.resources.tables["t.parquet"].equals(TABLE)
    assert fetched.resources.tables["s3://lake/t.csv"].equals(TABLE)
    assert fetched.digests["t.parquet"] == hashlib.sha256(parquet()).hexdigest()
    assert fetched.resources.secrets == {"env:MASK_KEY": b"k"}
    assert fetched.resources.functions["my_score:score"](TABLE) is TABLE


def test_all_missing_resources_are_named_at_once(tmp_path):
    mask = {"mask": {"columns": ["carrier"], "method": "keyed_hash", "key": {"env": "MASK_KEY"}}}
    definition = pipeline(lookup("none.csv"), lookup("s3://lake/t.csv"), mask, {"python": "no_such_module_here:score"})
    with pytest.raises(DefinitionError) as caught:
        fetch(definition, tmp_path)
    for word in ("none.csv", "s3://lake/t.csv", "MASK_KEY", "no_such_module_here"):
        assert word in str(caught.value)


def test_a_table_already_at_hand_needs_no_login(tmp_path):
    stage = {"enrich": {"table": "postgresql://h/db", "query": "SELECT 1", "login": "env:LOGIN", "on": "carrier", "take": ["name"]}}
    made = pipeline(stage)
    given = {"postgresql://h/db#SELECT 1": parquet()}
    found = asyncio.run(fetch_resources(made, tmp_path, {}, None, given))
    assert found.contents == given
    assert found.resources.secrets == {}
    with pytest.raises(DefinitionError, match="the secret env:LOGIN is not set") as caught:
        asyncio.run(fetch_resources(made, tmp_path, {}, None))
    assert "postgresql" not in str(caught.value)
    with pytest.raises(DefinitionError, match="is in a database, where this command does not look"):
        asyncio.run(fetch_resources(made, tmp_path, {"LOGIN": "a:b"}, None))


def test_a_failing_store_is_not_reported_as_an_invalid_definition(tmp_path):
    async def denied(url):
        raise Fatal("access denied")

    with pytest.raises(Fatal):
        fetch(pipeline(lookup("s3://lake/t.csv")), tmp_path, read=denied)


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("x/t.csv", b"carrier,name\nUA,United\nAA,American\n"),
        ("x/t.ndjson", b'{"carrier":"UA","name":"United"}\n{"carrier":"AA","name":"American"}\n'),
        ("x/T.PARQUET", parquet()),
    ],
)
def test_tables_are_read_in_each_format(url, content):
    assert parse_table(url, content).equals(TABLE)


def test_numeric_codes_in_a_csv_file_keep_their_zeros():
    table = parse_table("x.csv", b"zip,month,share,id,name\n00501,01,0.5,0,a\n2134,,-0.5,7,\n")
    assert table.schema == {"zip": pl.String, "month": pl.String, "share": pl.Float64, "id": pl.Int64, "name": pl.String}
    assert table.rows() == [("00501", "01", 0.5, 0, "a"), ("2134", None, -0.5, 7, None)]


@pytest.mark.parametrize(
    ("url", "says"),
    [("t.xlsx", "unknown suffix '.xlsx'"), ("t.parquet", "cannot be read as parquet"), ("t", "unknown suffix ''")],
)
def test_an_unreadable_table_is_refused(url, says):
    with pytest.raises(DefinitionError, match=says):
        parse_table(url, b"\x00garbage")


def test_each_form_of_local_path_is_read(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"x")
    assert read_local("t.csv", tmp_path) == b"x"
    assert read_local("./t.csv", tmp_path) == b"x"
    assert read_local("file:t.csv", tmp_path) == b"x"
    assert read_local(f"file://{tmp_path}/t.csv", tmp_path / "other") == b"x"
    assert read_local("package:stream.data/nycflights13/airlines.parquet", tmp_path)[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("none.csv", "no file"),
        (".", "cannot be read"),
        ("package:no_such_package/t.csv", "no package `no_such_package`"),
        ("package:/t.csv", "no package"),
    ],
)
def test_a_missing_local_table_is_reported(url, says, tmp_path):
    with pytest.raises(DefinitionError, match=says):
        read_local(url, tmp_path)


def test_a_huge_table_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(MAX_TABLE_BYTES + 1)
    with pytest.raises(DefinitionError, match="at most"):
        read_local("t.csv", tmp_path)


def test_functions_are_loaded_by_import_path_or_refused_with_a_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_score.py").write_text("def score(:\n")
    (tmp_path / "fine_score.py").write_text("class Model:\n    @staticmethod\n    def score(frame):\n        return 1\nlimit = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_function("fine_score:Model.score")(TABLE) == 1
    for path, says in [
        ("fine_score", "not an import path"),
        ("fine score:x", "not an import path"),
        ("fine_score:none", "cannot be imported"),
        ("fine_score:limit", "not a function"),
        ("broken_score:score", "cannot be imported"),
        ("no_such_score:score", "cannot be imported"),
    ]:
        with pytest.raises(DefinitionError, match=says):
            load_function(path)


def test_why_a_function_cannot_be_imported_is_said_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "beside_score.py").write_text("")
    (tmp_path / "on_path").mkdir()
    (tmp_path / "on_path" / "raising_score.py").write_text("{}['limit']\n")
    (tmp_path / "on_path" / "needing_score.py").write_text("import no_such_library\n")
    (tmp_path / "on_path" / "named_score.py").write_text("def score(frame):\n    return frame\n")
    monkeypatch.syspath_prepend(tmp_path / "on_path")
    for path, says in [
        ("beside_score:score", "beside_score.py lies beside the pipeline file, where Python does not look; set PYTHONPATH"),
        ("absent_score:score", "there is no module 'absent_score'; install its package where this runs, or set PYTHONPATH"),
        ("raising_score:score", "raising_score raises KeyError: 'limit'"),
        ("needing_score:score", "No module named 'no_such_library'"),
        ("named_score:scor", "module 'named_score' has no attribute 'scor'. did you mean 'score'?"),
    ]:
        with pytest.raises(DefinitionError) as refused:
            load_function(path, tmp_path)
        assert says in str(refused.value)


@pytest.mark.parametrize(("behind", "value"), [(599, 0), (447, 4), (412, 1), (376, 127), (372, 1)])
def test_a_damaged_table_is_read_or_refused(behind, value):
    whole = io.BytesIO()
    pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "x"]}).write_parquet(whole, compression="uncompressed", statistics=False)
    damaged = bytearray(whole.getvalue())
    damaged[-behind] = value
    with suppress(DefinitionError):
        assert parse_table("s3://lake/table.parquet", bytes(damaged)).width
