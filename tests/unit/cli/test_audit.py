import asyncio
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from stream.cli.main import app
from stream.storage.directory import DirectoryStore
from tests.sealed import PIPELINE, another, sequence, shard_id, superseding, three_units


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    stores = {name: DirectoryStore(tmp_path / name, url=f"file:{tmp_path / name}", fsync=False) for name in ("state", "lake")}
    asyncio.run(three_units(state=stores["state"], lake=stores["lake"], base=tmp_path))
    return tmp_path


def run(folder, *arguments):
    words = [str(folder / "pipeline.yaml") if each == "FILE" else each for each in arguments]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def test_verify_reports_a_sound_log(folder):
    result = run(folder, "audit", "verify", "FILE", "--no-source")
    assert result.exit_code == 0, result.output
    assert "All 170 records are accounted for, once." in result.stdout
    assert shard_id(1) in result.stdout


def test_a_proof_about_nothing_does_not_read_like_one(folder):
    wrong = run(folder, "audit", "verify", "FILE", "--no-source", "--shard", "shardId-4711")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "--shard shardId-4711: the log has no such shard" in wrong.stderr
    assert "All 50 records" in run(folder, "audit", "verify", "FILE", "--no-source", "--shard", shard_id(1)).stdout
    for name in ("state", "lake"):
        shutil.rmtree(folder / name)
    empty = run(folder, "audit", "verify", "FILE", "--no-source")
    assert empty.exit_code == 0
    assert "accounted for" not in empty.stdout
    assert "Nothing has been committed yet by application" in empty.stdout


def test_with_a_range_only_what_was_checked_counts_as_proven(folder):
    listed = json.loads(run(folder, "audit", "verify", "FILE", "--no-source", "--json").stdout)
    assert (listed["in_scope"], sum(shard["records"] for shard in listed["shards"])) == (170, 170)
    ends = sorted(int(shard["last"]) for shard in listed["shards"])
    some = run(folder, "audit", "verify", "FILE", "--no-source", "--from", str(ends[0]))
    assert some.exit_code == 0
    assert "All 170 records" not in some.stdout
    assert "outside of --from and --to only the log was checked." in some.stdout
    none = run(folder, "audit", "verify", "FILE", "--no-source", "--from", str(ends[-1]))
    assert (none.exit_code, none.stdout) == (2, "")
    assert "no sealed unit has records between --from and --to, so none was verified" in none.stderr
    wrong = run(folder, "audit", "verify", "FILE", "--no-source", "--from", "7", "--to", "7")
    assert wrong.exit_code == 2
    assert "--to 7 must be after --from 7" in wrong.stderr


def test_a_finding_is_named_and_exits_with_1(folder):
    victim = next((folder / "lake").rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    result = run(folder, "audit", "verify", "FILE", "--no-source", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "failed"
    assert [finding["object"].endswith(victim.name) for finding in report["findings"]] == [True]
    assert run(folder, "audit", "verify", "FILE", "--no-source", "--names-only").exit_code == 0


def test_repair_removes_leftovers(folder):
    listed = next((folder / "lake").rglob("*.parquet"))
    manifest = max((folder / "state/flights/commits/events" / shard_id(0)).glob("0*.json"))
    leftover = listed.with_name(another(listed.name))
    manifest.write_bytes(superseding(manifest.read_bytes(), leftover.relative_to(folder / "lake").as_posix()))
    leftover.write_bytes(b"x")
    assert run(folder, "audit", "verify", "FILE", "--no-source").exit_code == 1
    repaired = run(folder, "audit", "verify", "FILE", "--no-source", "--repair")
    assert repaired.exit_code == 0
    assert f"removed file:{leftover}" in repaired.stdout
    assert not leftover.exists()
    assert listed.exists()


def test_ls_lists_the_chains(folder):
    result = run(folder, "audit", "ls", "FILE", "--json")
    assert [(each["units"], each["records"]) for each in json.loads(result.stdout)] == [(3, 120), (2, 50)]
    assert "ended" in run(folder, "audit", "ls", "FILE").stdout


def test_trace_finds_a_record_and_its_row_leads_back(folder):
    result = run(folder, "trace", "FILE", str(sequence(0, 44)), "--json")
    assert result.exit_code == 0
    (fate,) = json.loads(result.stdout)
    assert fate["outcome"] == "written"
    place = fate["places"][0]
    back = run(folder, "trace", "FILE", "--object", place["url"], "--row", str(place["row"]), "--json")
    assert json.loads(back.stdout) == [fate]
    shown = run(folder, "trace", "FILE", str(sequence(0, 45))).stdout
    assert "1:filter" in shown
    assert "filtered" in shown


def test_trace_finds_records_by_a_value(folder):
    found = json.loads(run(folder, "trace", "FILE", "message", "n=44", "--json").stdout)
    assert [fate["shard"] for fate in found] == [shard_id(1), shard_id(0)]
    assert json.loads(run(folder, "trace", "FILE", "n=44", "--json").stdout) == found
    missing = run(folder, "trace", "FILE", "message", "n=4711")
    assert missing.exit_code == 1
    assert "None of the newest 5 units" in missing.stdout
    assert run(folder, "trace", "FILE", "message", "order=1").exit_code == 2
    assert run(folder, "trace", "FILE", "message", "44").exit_code == 2


def test_trace_finds_records_by_several_values_that_all_hold(folder):
    found = json.loads(run(folder, "trace", "FILE", "message", "n=44", "outcome=written", "twice=88", "--json").stdout)
    assert [fate["shard"] for fate in found] == [shard_id(1), shard_id(0)]
    assert json.loads(run(folder, "trace", "FILE", "n=44", "twice=88", "--json").stdout) == found
    assert run(folder, "trace", "FILE", "n=44", "twice=90").exit_code == 1
    assert run(folder, "trace", "FILE", "n=44", "outcome=filtered").exit_code == 1
    torn = run(folder, "trace", "FILE", "message", "n=44", "Doe")
    assert (torn.exit_code, torn.stderr) == (
        2,
        "error: 'Doe' is not a search for a record; write column=value, such as order_id=4711, in quotes if the value has blanks\n",
    )
    assert "n is named twice" in run(folder, "trace", "FILE", "n=44", "n=45").stderr
    for words in (["message"], [str(sequence(0, 44)), str(sequence(0, 45))], ["n=44", "--object", "x.parquet"]):
        assert "name one record by its sequence number" in " ".join(run(folder, "trace", "FILE", *words).stderr.split()), words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("7", "--since", "1h"), "go with `message column=value`"),
        (("7", "--source"), "go with `message column=value`"),
        (("n=44", "--source"), "--source needs --since or --from"),
        (("n=44", "--source", "--to", "2026-01-02"), "--source needs --since or --from"),
        (("n=44", "--since", "1h", "--from", "2026-01-01"), "--since already names the time"),
        (("n=44", "--from", "2026-01-02", "--to", "2026-01-01"), "must be before --to"),
        (("n=44", "--since", "soon"), "--since: "),
    ],
)
def test_options_of_a_search_that_do_not_fit_are_refused(folder, words, says):
    result = run(folder, "trace", "FILE", *words)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", " ").split())


def test_a_search_of_a_time_says_how_many_units_it_looked_into(folder):
    found = run(folder, "trace", "FILE", "n=44", "--from", "2026-01-01T12:00:00", "--to", "2026-01-01T12:01:00", "--json")
    assert [fate["shard"] for fate in json.loads(found.stdout)] == [shard_id(1), shard_id(0)]
    assert "note: searched 5 units, 10 files and " in found.stderr
    later = run(folder, "trace", "FILE", "n=44", "--from", "2026-01-02")
    assert later.exit_code == 1
    assert "None of the 0 units with records of that time holds such a record" in later.stdout


def test_searches_that_find_nothing_exit_with_1_and_invalid_ones_with_2(folder):
    assert run(folder, "trace", "FILE", "7").exit_code == 1
    assert run(folder, "trace", "FILE", "seven").exit_code == 2
    elsewhere = run(folder, "trace", "FILE", f"others/{shard_id(0)}:7")
    assert (elsewhere.exit_code, elsewhere.stderr) == (2, f"error: others/{shard_id(0)}:7: the pipeline reads events, not others\n")
    assert run(folder, "dlq", "show", "FILE", "seven").stderr.startswith("error: 'seven' names no record; give its sequence number")
    assert run(folder, "dlq", "show", "FILE", "seven").exit_code == 2
    assert run(folder, "trace", "FILE").exit_code == 2
    assert run(folder, "audit", "verify", "FILE", "--from", "x").exit_code == 2
    (folder / "pipeline.yaml").write_text("application: 7\n")
    assert run(folder, "audit", "verify", "FILE").exit_code == 2


def test_a_row_that_no_unit_lists_is_reported_as_such(folder):
    name = f"{shard_id(0)}-0-{sequence(0, 40)}.0.{'0' * 16}.parquet"
    result = run(folder, "trace", "FILE", "--object", name, "--row", "3")
    assert result.exit_code == 1, result.output
    assert f"No sealed unit lists a file {name} with a row 3: give the file's URL" in result.stdout.replace("\n", "")


@pytest.fixture
def collector():
    """A collector on loopback that answers every request with ``status``."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.mark.parametrize(("status", "code", "says"), [(200, 0, "215 spans accepted\n"), (400, 1, "0 spans accepted, 215 refused\n")])
def test_an_export_with_refused_spans_exits_with_1(folder, collector, status, code, says):
    collector.status = status
    done = run(folder, "audit", "export", "FILE", "--endpoint", f"http://127.0.0.1:{collector.server_port}")
    assert (done.exit_code, done.stdout) == (code, f"5 units exported, {says}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--endpoint", "collector:4318"], "--endpoint collector:4318: name the collector by its base URL"),
        (["--endpoint", "http://127.0.0.1:9", "--shard", "shardId-4711"], "--shard shardId-4711: the log has no such shard"),
    ],
)
def test_an_export_without_endpoint_or_units_is_refused(folder, options, says):
    done = run(folder, "audit", "export", "FILE", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {says}")
