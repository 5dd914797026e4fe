import polars as pl
import pytest
from pydantic import ValidationError

from stream.errors import Halted
from stream.transform.decoders.json import Json
from stream.transform.decoders.json_lines import JsonLines
from stream.transform.engine import compile_chain
from stream.transform.stage import Resources, SchemaMismatch
from stream.transform.stages.sql import Sql
from stream.transform.types import SYSTEM, SYSTEM_SCHEMA, parse_schema
from tests.frames import apply, batch, rows, ticks

FRAME = rows({"k": ["b", "a", "b"], "n": [1, 2, 3]})
SCHEMA = parse_schema({"k": "string", "n": "int64"})
RECORDS = [b'{"k":"b","n":1}', b'{"k":"a","n":2}', b'{"k":"b","n":3}']


def sql(query, **tables):
    return Sql(query=query, tables={name: name for name in tables})


def chain(query, decoder=None, **tables):
    return compile_chain(decoder or Json(), SCHEMA, [sql(query, **tables)], Resources(tables=tables), ticks())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM batch WHERE n > 1", [{"k": "a", "n": 2}, {"k": "b", "n": 3}]),
        ("SELECT _row, n * 2 AS m FROM self", [{"m": 2}, {"m": 4}, {"m": 6}]),
        ("SELECT * FROM batch ORDER BY n DESC", [{"k": "b", "n": 1}, {"k": "a", "n": 2}, {"k": "b", "n": 3}]),
        ("SELECT MIN(_row) AS _row, k, SUM(n) AS s FROM batch GROUP BY k", [{"k": "b", "s": 4}, {"k": "a", "s": 2}]),
        ("WITH x AS (SELECT * FROM batch) SELECT *, 'a; now()' AS t FROM x -- now();", None),
        ("SELECT *, SUM(n) OVER (PARTITION BY k) AS s FROM batch", None),
    ],
)
def test_rows_are_in_stream_order_with_their_lineage(query, expected):
    got, rejects = apply(sql(query), FRAME)
    assert len(got) == 3 if expected is None else got == expected
    assert not rejects


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM batch WHERE n > 1",
        "SELECT b.*, t.x FROM batch b LEFT JOIN t ON b.n = t.n",
        "SELECT b.*, t.* FROM batch b LEFT JOIN t ON b.n = t.n",
        "SELECT t.*, b.* FROM t LEFT JOIN batch b ON b.n = t.n WHERE b.n > 0",
        "SELECT * FROM batch NATURAL LEFT JOIN t",
        "SELECT * REPLACE ('x' AS _shard) FROM batch",
        "SELECT * EXCLUDE (_sequence), k AS _sequence FROM batch",
        "SELECT * EXCLUDE (_sequence) RENAME (k AS _sequence) FROM batch",
        "SELECT k AS _shard, k AS _sequence, _subsequence, _arrival, _row FROM batch",
        'SELECT "_row", k AS "_shard" FROM batch',
        "SELECT * FROM batch WHERE n < 2 UNION ALL SELECT k AS a, 'x' AS b, _subsequence, _arrival, _row, k AS c, n FROM batch WHERE n = 3",
    ],
)
def test_no_query_changes_the_lineage_of_a_row(query):
    table = pl.DataFrame({"n": [3, 2, 1], "x": [30, 20, 10], "y": ["c", "b", "a"]})
    stage, resources = sql(query, t=table), Resources(tables={"t": table})
    got = stage.bind(FRAME.schema, resources)(FRAME).frame
    assert got.height > 0
    assert got.select(SYSTEM).equals(FRAME.select(SYSTEM).filter(pl.col("_row").is_in(got["_row"].implode())))


def test_columns_of_a_reference_table_never_become_lineage():
    table = pl.DataFrame({"n": [3, 2, 1], "_shard": ["x"] * 3})
    got = sql("SELECT t.*, b.* FROM t JOIN batch b ON b.n = t.n", t=table).bind(FRAME.schema, Resources(tables={"t": table}))(FRAME).frame
    assert got["_shard"].to_list() == ["s"] * 3


def test_rows_left_out_by_the_query_are_filtered_and_lineage_is_restored():
    got = chain("SELECT _row, n FROM batch WHERE k = 'b'").run(batch(RECORDS), "shard-1")
    assert got.frame.columns == ["_shard", "_sequence", "_subsequence", "_arrival", "_row", "n"]
    assert got.frame["_sequence"].to_list() == [str(10**20), str(10**20 + 2)]
    assert got.settled.select("_row", "reason").rows() == [(1, "filtered")]


def test_a_join_that_duplicates_rows_halts_the_shard():
    table = pl.DataFrame({"k": ["b", "b"], "x": [1, 2]})
    with pytest.raises(Halted, match="duplicated"):
        chain("SELECT b.*, t.x FROM batch b JOIN t ON b.k = t.k", t=table).run(batch(RECORDS), "s")


def test_a_join_keeps_the_rows_of_each_record_together():
    table = pl.DataFrame({"k": ["a", "b"], "x": [1, 2]})
    compiled = chain("SELECT b.*, t.x FROM batch b JOIN t ON b.k = t.k", JsonLines(), t=table)
    got = compiled.run(batch([b"\n".join(reversed(RECORDS)), RECORDS[1]]), "s")
    assert got.frame.select("_row", "k", "n", "x").rows() == [(0, "a", 2, 1), (0, "b", 1, 2), (0, "b", 3, 2), (1, "a", 2, 1)]


@pytest.mark.parametrize(
    ("query", "divisible"),
    [
        ("SELECT * FROM batch WHERE UPPER(k) = 'B'", True),
        ("SELECT *, 'group by' AS x FROM batch", True),
        ("SELECT * FROM batch b JOIN batch c ON b._row = c._row", False),
        ("SELECT *, COUNT(*) OVER () AS c FROM batch", False),
        ("SELECT * FROM batch WHERE n = (SELECT MAX(n) FROM batch)", False),
        ("SELECT DISTINCT * FROM batch", False),
    ],
)
def test_only_row_wise_queries_are_divisible(query, divisible):
    assert sql(query).divisible() is divisible


def test_only_the_row_on_which_a_row_wise_query_fails_is_rejected():
    records = [b'{"k":"1","n":1}', b'{"k":"x","n":2}', b'{"k":"3","n":3}']
    plain = chain("SELECT _row, CAST(k AS BIGINT) AS i FROM batch").run(batch(records), "s")
    assert plain.frame["i"].to_list() == [1, 3]
    assert plain.settled["reason"].to_list() == ["stage_error:InvalidOperationError"]
    whole = chain("SELECT _row, CAST(k AS BIGINT) AS i, COUNT(*) OVER () AS c FROM batch").run(batch(records), "s")
    assert whole.settled.height == 3


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT n FROM batch", "no column `_row`"),
        ("SELECT k, SUM(n) FROM batch GROUP BY k", "no column `_row`"),
        ("SELECT CAST(_row AS BIGINT) AS _row FROM batch", "no column `_row`"),
        ("SELECT *, n AS _data FROM batch", "belongs to the service"),
        ("SELECT * FROM batch LIMIT 5", "LIMIT picks rows"),
        ("SELECT *, NOW() AS t FROM batch", "a different result"),
        ("SELECT *, CURRENT_DATE AS t FROM batch", "a different result"),
        ("SELECT * FROM read_csv('x.csv')", "unknown function 'read_csv'"),
        ("SELECT * FROM read_csv/* */('x.csv')", "unknown function 'read_csv'"),
        ("SELECT * FROM \"read_csv\"('x.csv')", "unknown function 'read_csv'"),
        ("SELECT UPER(k) AS u, _row FROM batch", "unknown function 'UPER'"),
        ("DROP TABLE batch", "begins with SELECT"),
        ("SELECT * FROM batch; SELECT 1", "one statement"),
        ("SELECT nothing, _row FROM batch", "does not fit"),
        ("SELECT *, strptime(k, '%F %T.%f') AS at FROM batch", "%f reads nanoseconds"),
        ("SELECT *, CAST(k AS DATE) AS day FROM batch", "Polars guesses its format from the first value"),
        ("SELECT *, TRY_CAST(k AS TIMESTAMP) AS at FROM batch", "Polars guesses its format from the first value"),
        ("SELECT * FROM batch WHERE k::date IS NULL", "Polars guesses its format from the first value"),
        ("SELECT *, CAST(k AS BOOLEAN) AS b FROM batch", "does not fit its columns: casting from Utf8View to Boolean"),
        ("SELECT * FROM other", "does not fit"),
        ("SELECT * FROM 'x.csv'", "does not fit"),
        ("SELECT FROM WHERE", "does not fit"),
    ],
)
def test_invalid_queries_are_refused_before_anything_is_read(query, says):
    with pytest.raises(SchemaMismatch, match=says) as caught:
        sql(query).output(FRAME.schema, Resources())
    assert caught.value.path == ("query",)


def test_a_result_of_another_type_than_declared_is_refused():
    frame = rows({"o": [{"a": 1}]})
    with pytest.raises(SchemaMismatch, match="Polars declares r as Int64, but computes Struct"):
        sql("SELECT *, CAST(o AS BIGINT) AS r FROM batch").output(frame.schema, Resources())


def test_tables_must_be_loaded_and_have_valid_names():
    with pytest.raises(SchemaMismatch, match="is not loaded"):
        Sql(query="SELECT * FROM batch", tables={"t": "t.csv"}).output(FRAME.schema, Resources())
    for name in ("batch", "Self", "a b"):
        with pytest.raises(ValidationError):
            Sql(query="SELECT * FROM batch", tables={name: "t.csv"})


OBJECTS = pl.Schema({**SYSTEM_SCHEMA, "o": pl.Struct({"y": pl.Float64, "x": pl.Float64}), "f": pl.Float64})


@pytest.mark.parametrize(
    "query",
    [
        "SELECT *, atan2(o, f) AS a FROM batch",
        "SELECT * FROM batch WHERE ATAN2D (o, o) > 1",
        'SELECT *, 1 + "atan2"(coalesce(o, o), f) AS a FROM batch',
        "WITH w AS (SELECT _row, o AS inner_one, f FROM batch) SELECT _row, atan2(inner_one, f) AS a FROM w",
    ],
)
def test_atan2_of_an_object_which_would_crash_polars_is_refused(query):
    """Polars 1.x answers with a segmentation fault, so before it can."""
    with pytest.raises(SchemaMismatch, match="atan2 takes numbers, no objects"):
        Sql(query=query).output(OBJECTS, Resources())


def test_atan2_of_fields_of_objects_works():
    query = "SELECT *, atan2(o.y, o.x) AS a, 'atan2(o, f)' AS t FROM batch WHERE atan2(f, 1) < 1"
    assert Sql(query=query).output(OBJECTS, Resources())["a"] == pl.Float64


def test_a_panic_of_polars_is_reported_without_its_internal_code():
    """Polars unwraps an error here, which Python gets as a panic."""
    with pytest.raises(SchemaMismatch, match=r"does not fit its columns: cannot unpack series of type `struct\[2\]` into `f64`$") as caught:
        Sql(query="SELECT _row, atan2('1', o) AS a FROM batch").output(OBJECTS, Resources())
    assert "unwrap" not in caught.value.message
