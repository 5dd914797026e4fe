"""Bad records become dead letters; a wrong set-up gives a clear error before anything is read."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from stream.local.kpl import MAGIC, UserRecord, aggregate
from tests.chaos.workers import clean

GOOD = b'{"id": 1, "kind": "a", "value": 2}'
WHOLE = aggregate([UserRecord("k", None, GOOD)])
BAD = {
    b"{": "json_syntax",
    b"": "empty_record",
    b"\xff\xfe": "invalid_utf8",
    b'{"id": "1", "kind": "a"}': "wrong_type:id",
    b'{"id": 1.0, "kind": "a"}': "wrong_type:id",
    b'{"id": 9223372036854775808, "kind": "a"}': "wrong_type:id",
    b'{"kind": "a"}': "missing_field:id",
    b'{"id": null, "kind": "a"}': "missing_field:id",
    b"[" * 2000: "json_too_deep",
    b"null": "json_not_object",
    WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]): "invalid_utf8",
}


def _aggregate_with_a_bad_index() -> bytes:
    """An aggregate, correct in its digest, whose record names a partition key that the table does not have."""
    message = b"\x0a\x01k\x1a\x06\x08\x07\x1a\x02{}"
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


def _rejects(world):
    rows = []
    for body in world.objects("state/chaos/rejects/").values():
        rows += pq.read_table(io.BytesIO(body), partitioning=None).to_pylist()
    return rows


def test_each_bad_record_becomes_an_unchanged_dead_letter_and_the_shard_continues(make_world):
    world = make_world(1)
    bad = {**BAD, _aggregate_with_a_bad_index(): "invalid_utf8"}
    world.put_all([each for data in bad for each in (GOOD, data)] + [GOOD])
    world.finish(world.pipeline())
    verdict = world.judge()
    assert len(verdict.rows) == len(bad) + 1
    rows = _rejects(world)
    assert {row["_data"]: row["reason"] for row in rows} == bad
    assert {row["stage"] for row in rows} == {"decode"}


def test_a_record_of_ten_mebibytes_is_written(make_world):
    world = make_world(1)
    arn = world.client.describe_stream_summary(StreamName=world.stream)["StreamDescriptionSummary"]["StreamARN"]
    world.client.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=10240)
    row = {"id": 1, "kind": "a", "value": 1, "note": ""}
    row["note"] = "x" * (10 * 2**20 - len(json.dumps(row)))
    for data in (GOOD, json.dumps(row).encode(), b"\xff" * (10 * 2**20), GOOD):
        world.client.put_record(StreamName=world.stream, Data=data, PartitionKey="k")
    world.put_so_far = 4
    world.finish(world.pipeline())
    verdict = world.exact()
    assert sorted(len(row["note"] or "") for row in verdict.rows) == [0, 0, len(row["note"])]


def test_a_pipeline_that_rejects_everything_stops_and_writes_no_file(make_world):
    world = make_world(2)
    world.put_all([b'{"other": 1}'] * 60)
    worker = world.start(world.pipeline(min_records=10))
    assert worker.exit() == 1
    assert clean(worker.said())
    assert "missing_field:id" in worker.said()
    assert "rejects.max_ratio" in worker.said()
    assert not [key for key in world.objects() if key.startswith("lake/") or "/rejects/" in key or "/ledger/" in key]
    assert world.sealed_units() == 0


VALUES = [
    "../x",
    "..",
    ".",
    "",
    "x" * 2000,
    "x" * 1999 + "y",
    "a/b",
    "a%2Fb",
    "\x00\x1f\x7f",
    "größer ✓ 🚀",
    "__EMPTY__",
    "a=b",
    "%",
    " ",
    "\\",
]


def test_partition_values_never_leave_the_prefix_and_never_share_a_directory(make_world):
    world = make_world(1)
    world.put_all([json.dumps({"id": at, "kind": value, "value": at}).encode() for at, value in enumerate(VALUES)])
    before = set(world.folder.parent.iterdir())
    world.finish(world.pipeline())
    files = [key for key in world.objects() if key.startswith("lake/")]
    found = {}
    for key in files:
        (row,) = pq.read_table(io.BytesIO(world.objects()[key]), partitioning=None).to_pylist()
        found[row["kind"]] = key.rpartition("/")[0]
    assert sorted(found) == sorted(VALUES)
    assert len(set(found.values())) == len(VALUES)
    assert all(folder.startswith("lake/kind=") and folder.count("/") == 1 for folder in found.values())
    assert set(world.folder.parent.iterdir()) == before
    assert not [path for path in world.folder.iterdir() if path.name not in {"lake", "state", "pipeline.yaml", "worker-0.log"}]


# --- set-ups that cannot work ---------------------------------------------------------------------------------------------------


def _assert_refused(world, path, code, *words, **environment):
    worker = world.start(path, **environment)
    assert worker.exit() == code, worker.said()
    assert clean(worker.said())
    missing = [word for word in words if word not in worker.said()]
    assert not missing, worker.said()
    return worker


def test_a_missing_stream_is_reported_with_a_remedy(world):
    _assert_refused(world, world.pipeline(stream="nobody"), 1, "worker_failed", "kinesis:DescribeStreamSummary", "nobody", "create it")
    assert not world.objects("lake/")


def test_a_missing_bucket_is_reported_with_a_remedy(make_world):
    world = make_world(1, s3=True)
    world.put_all([GOOD])
    _assert_refused(world, world.pipeline(place="s3://nobody-has-this/"), 1, "worker_failed", "s3://nobody-has-this", "create it")


class _Denying(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"__type": "AccessDeniedException", "message": "User is not authorized"}'
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return


@pytest.fixture
def denying() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Denying) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_denied_kinesis_call_is_reported_with_action_stream_and_remedy(world, denying):
    words = ("worker_failed", "kinesis:DescribeStreamSummary", world.stream, "AccessDenied", "allow")
    _assert_refused(world, world.pipeline(), 1, *words, AWS_ENDPOINT_URL_KINESIS=denying)


def test_a_denied_s3_call_is_reported_with_action_url_and_remedy(world, denying):
    words = ("worker_failed", "s3:ListBucket", "s3://closed", "allow")
    _assert_refused(world, world.pipeline(place="s3://closed/"), 1, *words, AWS_ENDPOINT_URL_S3=denying)


def test_a_wrong_pipeline_file_exits_with_2_and_gives_the_line(world):
    path = world.pipeline()
    text = path.read_text().replace("stages:", "stage:")
    path.write_text(text)
    line = text.splitlines().index("stage:") + 1
    _assert_refused(world, path, 2, f"{path.name}:{line}:1 unknown_key", "did you mean `stages`?")
    assert not world.objects()
