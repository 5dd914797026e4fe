"""What a queue does for its receivers: the same for moto's SQS over HTTP and for the fake."""

import asyncio
import itertools

import boto3
import pytest

from stream.aws.errors import AwsFatal, AwsRetryable
from stream.aws.session import AwsSession
from stream.aws.sqs import QueuePlace, open_sqs
from stream.clock import SystemClock
from stream.simulation.virtual_time import leaping
from tests.contract.queue_fake import FakeQueue

ACCOUNT = "123456789012"
_numbers = itertools.count()


def session(url):
    return AwsSession(region="us-east-1", endpoints={"sqs": url})


@pytest.fixture(params=["sqs", "fake"])
def run(request):
    """Runs a coroutine function with a queue and a function that sends messages."""
    if request.param == "fake":

        def in_no_time(body):
            async def main():
                queue = FakeQueue()
                await body(queue, queue.send)

            leaping(main)

        yield in_no_time
        return
    request.getfixturevalue("aws_env")
    url = request.getfixturevalue("moto_url")
    client = boto3.client("sqs", endpoint_url=url, region_name="us-east-1")
    name = f"q-{next(_numbers)}"
    address = client.create_queue(QueueName=name)["QueueUrl"]

    async def send(text):
        await asyncio.to_thread(client.send_message, QueueUrl=address, MessageBody=text)

    def over_http(body):
        async def main():
            async with open_sqs(session(url), QueuePlace(name, ACCOUNT, "us-east-1"), SystemClock()) as queue:
                await body(queue, send)

        asyncio.run(main())

    yield over_http
    client.close()


def bodies(messages):
    return sorted(message.body for message in messages)


async def everything(queue, hidden=30):
    found = []
    while messages := await queue.receive(wait=0, hidden=hidden):
        found += messages
    return found


def test_what_is_sent_is_received_and_hidden_from_others_meanwhile(run):
    async def body(queue, send):
        for text in ("one", "zwölf ✓", "three"):
            await send(text)
        assert bodies(await everything(queue)) == ["one", "three", "zwölf ✓"]
        assert await queue.receive(wait=0, hidden=30) == []

    run(body)


def test_what_is_not_deleted_comes_again_once_it_is_no_longer_hidden_and_what_is_deleted_does_not(run):
    async def body(queue, send):
        for text in ("kept", "deleted"):
            await send(text)
        found = []
        while {message.body for message in found} != {"kept", "deleted"}:  # on a busy machine, one may come twice before the other
            found += await queue.receive(wait=5, hidden=1)
        (newest,) = {message.body: message.handle for message in found if message.body == "deleted"}.values()
        assert await queue.delete([newest]) == 0
        assert bodies(await queue.receive(wait=20, hidden=30)) == ["kept"]

    run(body)


def test_a_receive_waits_for_a_message_that_is_not_there_yet(run):
    async def body(queue, send):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await queue.receive(wait=1, hidden=30) == []
        assert loop.time() - begun > 0.9
        waiting = asyncio.ensure_future(queue.receive(wait=3, hidden=1))
        await send("now")
        found = bodies(await waiting)
        while not found:
            # moto sometimes misses a message that arrives while it looks; SQS may do so too.
            found = bodies(await queue.receive(wait=3, hidden=1))
        assert found == ["now"]

    run(body)


def test_no_more_than_ten_come_at_a_time_and_all_come(run):
    async def body(queue, send):
        for number in range(23):
            await send(str(number))
        assert 1 < len(await queue.receive(wait=1, hidden=30)) <= 10
        assert len(await everything(queue)) >= 13

    run(body)


def test_more_than_a_batch_is_deleted_and_a_handle_that_is_none_is_counted(run):
    async def body(queue, send):
        for number in range(12):
            await send(str(number))
        found = await everything(queue)
        assert len(found) == 12
        assert await queue.delete([message.handle for message in found] + ["nonsense"]) == 1
        assert await queue.delete([]) == 0

    run(body)


def test_a_queue_that_is_missing_is_named_with_the_call_and_what_to_do(moto_url, aws_env):
    async def body():
        async with open_sqs(session(moto_url), QueuePlace("gone", ACCOUNT, "us-east-1"), SystemClock()) as queue:
            for call in (queue.receive(wait=0, hidden=1), queue.delete(["x"]), queue.attributes()):
                with pytest.raises(AwsFatal, match=r"queue gone .* QueueDoesNotExist.*or create it"):
                    await call

    asyncio.run(body())


def test_the_endpoint_is_that_of_the_url_unless_another_one_is_configured(moto_url, aws_env, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.client("sqs", endpoint_url=moto_url, region_name="us-east-1")
    client.create_queue(QueueName="by-url")
    client.close()

    async def body(where, given):
        async with open_sqs(where, QueuePlace("by-url", ACCOUNT, "", given), SystemClock()) as queue:
            return (await queue.attributes())["QueueArn"]

    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:by-url"
    assert asyncio.run(body(AwsSession(region="us-east-1"), f"{moto_url}/{ACCOUNT}/by-url")) == arn
    assert asyncio.run(body(session(moto_url), f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/by-url")) == arn
    with pytest.raises(AwsRetryable, match="no answer"):
        asyncio.run(body(session("http://127.0.0.1:9"), f"{moto_url}/{ACCOUNT}/by-url"))
