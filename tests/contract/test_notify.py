"""Notifications of halted shards, against moto's SNS and an HTTP server that fails on purpose."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import boto3
import msgspec
from aiohttp import web
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sns import sns_backends

from stream import events
from stream.pipeline.replay import Notify
from stream.worker.receivers.notifying import ATTEMPTS, LOSS_SECONDS, Notification, open_notifier
from tests.unit.metrics.every_event import FixedClock

HALTED = events.ShardHalted("orders", "shardId-000000000001", "the größte of reasons")
BASE = Path()


async def events_after_notifying(config, notified, env=None, clock=None):
    heard = []
    async with AsyncExitStack() as stack:
        notifier = await open_notifier(config, "shop", env or {}, BASE, clock or FixedClock(), heard.append, stack)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(notifier.run())
            for event in notified:
                notifier(event)
            await notifier.finish()
            running.cancel()
    return heard


def topic(moto_url, monkeypatch, name, **attributes):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", moto_url)
    client = boto3.client("sns", endpoint_url=moto_url, region_name="us-east-1")
    arn = client.create_topic(Name=name, Attributes=attributes)["TopicArn"]
    client.close()
    return arn


def test_a_topic_receives_the_notification_as_json_with_a_plain_subject(moto_url, aws_env, monkeypatch):
    arn = topic(moto_url, monkeypatch, "alarms")
    assert asyncio.run(events_after_notifying(Notify(sns=arn), [events.ShardEnded("orders", "s", ()), HALTED])) == []
    sent = sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].topics[arn].sent_notifications
    assert len(sent) == 1
    _, message, subject, *_ = sent[0]
    assert subject == "shop: shard shardId-000000000001 of orders has halted"
    notification = msgspec.json.decode(message, type=Notification)
    assert (notification.event, notification.stream, notification.shard, notification.reason) == (
        "shard_halted",
        "orders",
        HALTED.shard,
        HALTED.reason,
    )


def test_a_topic_that_keeps_an_order_receives_it_too(moto_url, aws_env, monkeypatch):
    arn = topic(moto_url, monkeypatch, "in-order.fifo", FifoTopic="true")
    assert asyncio.run(events_after_notifying(Notify(sns=arn), [HALTED])) == []
    assert len(sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].topics[arn].sent_notifications) == 1


def test_a_missing_topic_is_reported_once_and_delays_nothing(moto_url, aws_env, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", moto_url)
    heard = asyncio.run(events_after_notifying(Notify(sns=f"arn:aws:sns:us-east-1:{DEFAULT_ACCOUNT_ID}:gone"), [HALTED]))
    assert [type(event) for event in heard] == [events.NotificationFailed]
    assert heard[0].channel == "sns"


class Webhook:
    """Answers with ``statuses`` in turn, and then always with the last."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.got = []

    async def answer(self, request):
        self.got.append((request.headers.get("x-key"), await request.json()))
        return web.Response(status=self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])


async def with_webhook(webhook, *given):
    app = web.Application()
    app.router.add_post("/hook", webhook.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        config = Notify(webhook=f"http://127.0.0.1:{port}/hook", headers={"x-key": "env:HOOK_KEY"})
        return await events_after_notifying(config, given, {"HOOK_KEY": "secret"})
    finally:
        await runner.cleanup()


def test_a_webhook_is_called_until_it_succeeds():
    webhook = Webhook(500, 429, 204)
    heard = asyncio.run(with_webhook(webhook, HALTED))
    assert [type(event) for event in heard] == [events.CallRepeated, events.CallRepeated]
    assert [key for key, _ in webhook.got] == ["secret"] * 3
    assert webhook.got[-1][1]["reason"] == HALTED.reason
    assert "secret" not in repr(heard)


def test_a_shard_that_halts_again_and_again_is_notified_of_once_until_it_gets_on():
    webhook, where = Webhook(204), (HALTED.stream, HALTED.shard)
    other = events.ShardHalted("orders", "shardId-000000000002", "why")
    sealed = events.UnitSealed(*where, 0, 1, (), 0.0, 0.0, 0.0)
    given = [HALTED, events.ShardStarted(*where, 0), HALTED, other, sealed, HALTED]
    assert asyncio.run(with_webhook(webhook, *given)) == []
    assert [message["shard"][-1] for _, message in webhook.got] == ["1", "2", "1"]


def test_lost_records_are_notified_of_once_an_hour_for_each_stream(moto_url, aws_env, monkeypatch):
    arn, clock = topic(moto_url, monkeypatch, "losses"), FixedClock()

    def for_two_hours():
        for _ in range(2):
            for stream in ("a", "b"):
                yield from (events.RecordsExpired(stream, f"shardId-{number}", 5, 9, "too slow") for number in range(3))
            clock.seconds += LOSS_SECONDS

    assert asyncio.run(events_after_notifying(Notify(sns=arn), for_two_hours(), clock=clock)) == []
    sent = sns_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].topics[arn].sent_notifications
    assert [subject for _, _, subject, *_ in sent] == [f"shop: shard shardId-0 of {stream} has lost records" for stream in "abab"]
    assert "the records after 5 up to 9 were lost" in sent[0][1]


def test_a_webhook_that_refuses_or_stays_down_is_given_up_and_reported():
    refusing, down = Webhook(403), Webhook(503)
    assert [type(event) for event in asyncio.run(with_webhook(refusing, HALTED))] == [events.NotificationFailed]
    assert len(refusing.got) == 1
    heard = asyncio.run(with_webhook(down, HALTED))
    assert isinstance(heard[-1], events.NotificationFailed)
    assert len(down.got) == ATTEMPTS


def test_without_channels_there_is_no_notifier():
    async def body():
        async with AsyncExitStack() as stack:
            return await open_notifier(Notify(), "shop", {}, BASE, FixedClock(), lambda _event: None, stack)

    assert asyncio.run(body()) is None


def test_a_topic_behind_a_refusing_proxy_is_given_up_and_reported(aws_env, monkeypatch):
    async def with_proxy():
        async def answer(request):
            await request.read()
            return web.Response(status=403, text="no way")

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            return await events_after_notifying(
                Notify(sns="arn:aws:sns:us-east-1:111122223333:alarms"), [HALTED, events.ShardHalted("orders", "another", "why")]
            )
        finally:
            await runner.cleanup()

    heard = asyncio.run(with_proxy())
    assert [type(event) for event in heard] == ([events.CallRepeated] * (ATTEMPTS - 1) + [events.NotificationFailed]) * 2
