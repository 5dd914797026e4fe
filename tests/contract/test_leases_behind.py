"""How far leases are behind, when Kinesis refuses or fails to answer."""

import asyncio
import json

import pytest
from aiohttp import web

from stream.aws.session import AwsSession
from stream.cli.pipeline_work import carry_out
from stream.lease.rows import ExtendedSequenceNumber, Lease
from stream.operations.changes.leases import _seconds_behind, view_of

VIEWS = [view_of("clicks", Lease(f"shardId-{number}", ExtendedSequenceNumber("TRIM_HORIZON"))) for number in range(3)]


def behind(code, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    async def refuse(_request):
        return web.Response(status=400, body=json.dumps({"__type": code, "message": "no"}), content_type="application/x-amz-json-1.1")

    async def ask():
        runner = web.ServerRunner(web.Server(refuse))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            return await _seconds_behind(VIEWS, AwsSession(region="us-east-1", endpoints={"kinesis": f"http://{host}:{port}"}))
        finally:
            await runner.cleanup()

    return ask


def test_a_missing_shard_has_no_lag(monkeypatch):
    assert asyncio.run(behind("ResourceNotFoundException", monkeypatch)()) == {}


def test_a_missing_permission_is_reported_once_and_not_shown_as_zero_lag(monkeypatch, tmp_path, capsys):
    file = tmp_path / "pipeline.yaml"
    file.write_text("""\
application: a
source: {kinesis: {stream: clicks}, decode: raw}
sinks: [{s3: {url: "file:./lake"}}]
state: "file:./state"
""")
    ask = behind("AccessDeniedException", monkeypatch)
    with pytest.raises(Exception) as ended:  # noqa: PT011 - typer's, whose class is told below
        carry_out(file, lambda _pipeline: ask())
    assert getattr(ended.value, "exit_code", None) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: kinesis:GetShardIterator on stream clicks")
    assert "Remedy: allow kinesis:GetShardIterator" in said[0]
