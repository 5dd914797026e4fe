"""Checks of the queue that tells a watched source of new objects, and of the bucket that should send to it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from stream.aws.errors import AwsFatal, Call
from stream.aws.session import AwsSession
from stream.aws.sqs import open_sqs
from stream.clock import SystemClock
from stream.errors import DefinitionError
from stream.operations.doctor.probe import GRANT_REMEDY, Note, Probe, unseen_remedy
from stream.pipeline.replay import ObjectsSource, Queue
from stream.pipeline.units import format_duration
from stream.source.notifications import place_of_notices
from stream.worker.objects.receiving import HIDDEN_SECONDS, LONGEST_HOLD
from stream.worker.opening.places import queue_place

FEW_RECEIVES: Final = 3
"""With fewer, a message is set aside after one or two workers that died while they held it."""

SHORT_RETENTION: Final = timedelta(days=1)

_NO_HANDLE: Final = "stream-doctor"
"""A receipt handle that no message has: whether a message may be deleted shows without one."""

_OPEN_POLICY: Final = "see docs/objects.md for the queue's policy and the bucket's notifications"


def queue_probes(objects: ObjectsSource, session: AwsSession) -> Iterator[Probe]:
    """Probes of the queue, if the source has one: what it is like, whether its messages may be received and deleted, and who sends them."""
    if objects.watch is None or objects.watch.queue is None:
        return
    text = objects.watch.queue
    yield Probe("queue", text, functools.partial(_attributes, session, text), GRANT_REMEDY)
    yield Probe("queue", f"sqs:ReceiveMessage on {text}", functools.partial(_receive, session, text), GRANT_REMEDY)
    yield Probe("queue", f"sqs:DeleteMessage on {text}", functools.partial(_delete, session, text), GRANT_REMEDY)
    yield Probe("queue", f"notifications of {objects.url}", functools.partial(_sent, session, objects, text), _OPEN_POLICY)


async def _attributes(session: AwsSession, text: str) -> str:
    async with open_sqs(session, queue_place(text), SystemClock()) as queue:
        found = await queue.attributes()
    retention = timedelta(seconds=int(found.get("MessageRetentionPeriod", "0")))
    problems = _problems(found, retention)
    answer = f"{found.get('ApproximateNumberOfMessages', '?')} messages wait, each for {format_duration(retention)} at most"
    if problems:
        msg = f"{answer}; {'; '.join(problems)}"
        raise Note(msg)
    return f"{answer}; a message is hidden for {LONGEST_HOLD + HIDDEN_SECONDS:.0f} s at most, whatever the queue's visibility timeout"


def _problems(found: Mapping[str, str], retention: timedelta) -> list[str]:
    problems = []
    if (receives := _receives(found.get("RedrivePolicy", ""))) is None:
        problems.append("it has no redrive policy, so messages that are no notifications come again until they expire")
    elif receives < FEW_RECEIVES:
        problems.append(
            f"its redrive policy sets a message aside after {receives} receives, also if workers died; allow {FEW_RECEIVES} or more"
        )
    if retention < SHORT_RETENTION:
        problems.append("after a longer outage only listings find what it forgot; let it keep messages for a day or longer")
    return problems


def _receives(policy: str) -> int | None:
    """How often a message may be received before it is set aside; None if it never is."""
    try:
        return int(msgspec.json.decode(policy, type=dict[str, Any])["maxReceiveCount"])
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError):
        return None


async def _receive(session: AwsSession, text: str) -> str:
    async with open_sqs(session, queue_place(text), SystemClock()) as queue:
        receives = _receives((await queue.attributes()).get("RedrivePolicy", ""))
        if receives is not None and receives < FEW_RECEIVES:
            msg = "not tried: each receive counts, and the redrive policy allows few"
            raise Note(msg)
        found = await queue.receive(wait=0, hidden=0, most=1)
    return "allowed" + (", and a message was there; it stays" if found else "")


async def _delete(session: AwsSession, text: str) -> str:
    async with open_sqs(session, queue_place(text), SystemClock()) as queue:
        await queue.delete([_NO_HANDLE])
    return "allowed"


async def _sent(session: AwsSession, objects: ObjectsSource, text: str) -> str:
    bucket, prefix = place_of_notices(objects.url)
    call = Call("s3:GetBucketNotification", f"bucket {bucket}", session.region)
    try:
        found = await session.ask("s3", "get_bucket_notification_configuration", call, Bucket=bucket)
    except AwsFatal as error:
        why = f"who sends to the queue could not be looked at, for which workers need no permission: {error}"
        raise Note(why, unseen_remedy(call, error)) from error
    queue = Queue.of(text)
    for configured in found.get("QueueConfigurations", ()):
        arn = str(configured.get("QueueArn", "")).split(":")
        if arn[-1] == queue.name and (not queue.account.isdecimal() or queue.account in arn) and _covers(configured, prefix):
            return "the bucket sends to the queue when objects are created"
    if found.get("TopicConfigurations") or "EventBridgeConfiguration" in found:
        return "the bucket sends to a topic or to EventBridge; whether that leads to the queue is not known here"
    msg = (
        f"the bucket {bucket} does not tell the queue {queue.name} of objects created under {prefix!r}: new objects are only found by "
        f"listing, every {format_duration(objects.watch.listed_every) if objects.watch is not None else 'time'}"
    )
    raise DefinitionError(msg)


def _covers(configured: Mapping[str, Any], prefix: str) -> bool:
    """Whether a notification of the bucket tells of every object created under ``prefix``."""
    if not any(str(event).startswith("s3:ObjectCreated:*") for event in configured.get("Events", ())):
        return False
    rules = configured.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    return all(str(rule.get("Name", "")).lower() == "prefix" and prefix.startswith(str(rule.get("Value", ""))) for rule in rules)
