"""Responses that proxies and gateways give in place of Kinesis, DynamoDB or the Redshift Data API, over real HTTP."""

import asyncio

import pytest
from aiohttp import web

from stream.aws.dynamodb import open_dynamodb
from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.kinesis import IteratorAt, IteratorKind, open_kinesis
from stream.aws.redshift_data import Database, open_redshift_data
from stream.aws.session import AwsSession
from stream.clock import SystemClock

CALLS = {
    "kinesis:ListShards": lambda kinesis, *_: kinesis.list_shards("s"),
    "kinesis:GetShardIterator": lambda kinesis, *_: kinesis.get_shard_iterator("s", "x", IteratorAt(IteratorKind.LATEST)),
    "kinesis:GetRecords": lambda kinesis, *_: kinesis.get_records("s", "i"),
    "dynamodb:Scan": lambda _, dynamodb, __: dynamodb.call("Scan", "t", {}),
    "dynamodb:DescribeTable": lambda _, dynamodb, __: dynamodb.call("DescribeTable", "t", {}),
    "redshift-data:ExecuteStatement": lambda *clients: clients[2].execute("SELECT 1", "token"),
    "redshift-data:DescribeStatement": lambda *clients: clients[2].describe("id", 0),
}


async def asked(call, status, text):
    async def answer(request):
        await request.read()
        return web.Response(status=status, text=text)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    names, url = ("kinesis", "dynamodb", "redshift-data"), f"http://127.0.0.1:{runner.addresses[0][1]}"
    session = AwsSession(region="us-east-1", endpoints=dict.fromkeys(names, url))
    try:
        async with (
            open_kinesis(session) as kinesis,
            open_dynamodb(session, SystemClock()) as dynamodb,
            open_redshift_data(session, Database("d", workgroup="w")) as redshift,
        ):
            await CALLS[call](kinesis, dynamodb, redshift)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "<html>Sign in</html>", '{"Items": null, "Table": 5, "Shards": 1}', '{"Items": [']
)
def test_an_undocumented_answer_with_status_200_is_retryable(aws_env, call, text):
    with pytest.raises(AwsRetryable, match=f"^{call} on .* gave an answer that is not as documented"):
        asyncio.run(asked(call, 200, text))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "kind"), [(302, AwsFatal), (403, AwsFatal), (407, AwsFatal), (500, AwsRetryable), (503, AwsRetryable)])
def test_an_error_page_of_a_proxy_is_reported_with_its_status(aws_env, call, status, kind):
    with pytest.raises(kind, match=f"^{call} on .*: HTTP status {status}: <html>"):
        asyncio.run(asked(call, status, "<html>"))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"503 No", b"nonsense"])
def test_a_proxy_that_refuses_is_reported_without_its_credentials(aws_env, monkeypatch, call, status):
    async def run():
        async def refuse(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://somebody:NEVERSHOWN@127.0.0.1:{server.sockets[0].getsockname()[1]}")
            session = AwsSession(region="us-east-1")
            async with (
                open_kinesis(session) as kinesis,
                open_dynamodb(session, SystemClock()) as dynamodb,
                open_redshift_data(session, Database("d", workgroup="w")) as redshift,
            ):
                await CALLS[call](kinesis, dynamodb, redshift)

    with pytest.raises(AwsRetryable, match=r"had no answer: .*http://127\.0\.0\.1:") as found:
        asyncio.run(run())
    assert "NEVERSHOWN" not in str(found.value)
    assert "\n" not in str(found.value)
