"""Rows that sinks choose by conditions, end to end over directories: in the files, the ledger, the proof, queries and traces."""

import gzip
import json
from dataclasses import dataclass

import polars as pl

from stream.audit.ledger import read_segment
from stream.audit.report import Check
from tests import forked
from tests.replays import Place, row

LOW = '  - s3: {name: low, url: "file:./low", where: value < 30}\n'
KIND_A = "  - s3: {name: kind-a, url: \"file:./kind-a\", where: kind = 'a', format: ndjson}\n"
REST = '  - s3: {name: rest, url: "file:./rest", where: else, partition_by: [kind, {tens: value / 10}], folders: plain}\n'


@dataclass
class Routed(Place):
    sinks: str = LOW + KIND_A + REST

    def text(self, **changes):
        before, _, after = super().text(**changes).partition("sinks:\n")
        return f"{before}sinks:\n{self.sinks}{after[after.index('flush') :]}"

    def ids(self, folder):
        parquet = [pl.read_parquet(path, hive_partitioning=False)["id"] for path in (self.folder / folder).rglob("*.parquet")]
        texts = [gzip.decompress(path.read_bytes()).splitlines() for path in (self.folder / folder).rglob("*.ndjson.gz")]
        return sorted([*(each for column in parquet for each in column), *(json.loads(line)["id"] for lines in texts for line in lines)])

    def ledger(self):
        segments = [read_segment(path.read_bytes()) for path in sorted((self.folder / "state").rglob("ledger/**/*.parquet"))]
        return pl.concat([segment.frame for segment in segments])


def test_each_row_is_in_the_files_of_its_sinks_and_the_proof_holds(tmp_path):
    place = Routed(tmp_path)
    place.lines("a.json", range(1000))
    place.lines("b.json", range(1000, 1400))
    assert place.run().code == 0
    every = [row(n) for n in range(1400)]
    low = [each["id"] for each in every if each["value"] is not None and each["value"] < 30]
    kind_a = [each["id"] for each in every if each["kind"] == "a"]
    rest = sorted({each["id"] for each in every}.difference(low, kind_a))
    assert min(len(low), len(rest), len(set(low).intersection(kind_a))) > 100
    assert (place.ids("low"), place.ids("kind-a"), place.ids("rest")) == (low, kind_a, rest)
    assert place.proof() == []
    assert place.result()["outcomes"] == {"written": 1400}
    ledger = place.ledger()
    assert [ledger[f"rows_{at}"].sum() for at in range(3)] == [len(low), len(kind_a), len(rest)]
    assert [ledger[f"dest_{at}"].count() for at in range(3)] == [len(low), len(kind_a), len(rest)]


def test_what_no_sink_takes_is_filtered_by_the_sinks(tmp_path):
    place = Routed(tmp_path, sinks=LOW + KIND_A)
    place.lines("a.json", range(300))
    assert place.run().code == 0
    taken = set(place.ids("low")) | set(place.ids("kind-a"))
    assert place.result()["outcomes"] == {"filtered": 300 - len(taken), "written": len(taken)}
    left_out = place.ledger().filter(pl.col("outcome") == "filtered")
    assert set(left_out.select("stage", "reason").rows()) == {("sinks", "filtered")}
    assert place.proof() == []


def test_rows_of_one_record_in_different_sinks_are_counted_in_each(tmp_path):
    class Exploded(Routed):
        def text(self, **changes):
            listed = {"value": '"list<int64>"', "stages": "  - explode: value"}
            return super().text(**listed, **changes).replace("  - derive: {doubled: value * 2}\n", "")

    sinks = '  - s3: {name: odd, url: "file:./odd", where: value % 2 = 1}\n  - s3: {name: four, url: "file:./four", where: value = 4}\n'
    place = Exploded(tmp_path, sinks=sinks)
    place.lines("a.json", range(40), render=lambda n: json.dumps({"id": n, "kind": "a", "value": [1, 2, 3, 4] if n % 2 else [2, 6]}))
    assert place.run().code == 0
    odd = list(range(1, 40, 2))
    assert place.ids("odd") == sorted(odd * 2)
    assert place.ids("four") == odd
    assert place.proof() == []
    assert place.ledger().filter(outcome="written").select("rows", "rows_0", "rows_1").unique().rows() == [(3, 2, 1)]


def test_a_file_without_a_row_that_the_ledger_places_there_is_found(tmp_path):
    place = Routed(tmp_path)
    place.lines("a.json", range(200))
    assert place.run().code == 0
    path = next((place.folder / "low").rglob("*.parquet"))
    pl.read_parquet(path).slice(1).write_parquet(path)
    assert {finding.check for finding in place.proof()} == {Check.OBJECTS}


def test_queries_traces_and_the_plan_know_which_sink_has_a_row(tmp_path):
    place = Routed(tmp_path)
    place.lines("a.json", range(60))
    place.file()
    assert place.run().code == 0
    for sink in ("low", "kind-a", "rest"):
        counts = "SELECT count(*) AS n, count(kind) AS kinds FROM rows"
        done = forked.run("query", "pipeline.yaml", counts, "--sink", sink, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"] == [{"n": len(place.ids(sink)), "kinds": len(place.ids(sink))}]
    tens = forked.run("query", "pipeline.yaml", "SELECT DISTINCT tens FROM rows ORDER BY ALL", "--sink", "rest", "--json", cwd=tmp_path)
    values = [row(n)["value"] for n in place.ids("rest")]
    expected = sorted({"null" if value is None else str(value / 10) for value in values})
    assert sorted({str(each["tens"]).replace("None", "null") for each in json.loads(tens.stdout)["rows"]}) == expected
    only_low = next(n for n in place.ids("low") if n not in place.ids("kind-a"))
    traced = forked.run("trace", "pipeline.yaml", "message", f"id={only_low}", "--json", cwd=tmp_path)
    assert traced.returncode == 0, traced.stderr
    assert [found["sink"] for found in json.loads(traced.stdout)[0]["places"]] == ["low"]
    shown = forked.run("explain", "pipeline.yaml", cwd=tmp_path)
    assert "sinks  low: value < 30, kind-a: kind = 'a', rest: else" in shown.stdout
