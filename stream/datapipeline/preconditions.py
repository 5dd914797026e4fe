"""Preconditions as `requires`, and alarms as `notify`."""

from __future__ import annotations

from collections.abc import Iterable

from stream.datapipeline.draft import Draft, Refused, s3_text
from stream.datapipeline.evaluated_text import Text, Untranslatable
from stream.datapipeline.resolve import Slot, Thing

NOTHING_NEW = "a run reads what has arrived, and does nothing if nothing has"


def wait_for(draft: Draft, nodes: Iterable[Thing]) -> None:
    """Take over the preconditions of the activity and of its ``nodes``."""
    for thing in (draft.activity, *nodes):
        slot = thing.slot("precondition")
        for condition in draft.definition.of(slot):
            try:
                _condition(draft, condition, thing, slot)
            except Refused as refused:
                draft.open(slot, f"{refused}; let Airflow wait for it before it starts the task")


def _condition(draft: Draft, condition: Thing, thing: Thing, slot: Slot) -> None:
    is_input = thing.id in draft.activity.slot("input").ids
    match condition.type:
        case "S3KeyExists":
            _require(draft, s3_text(draft, condition, "s3Key", thing), condition.slot("s3Key"), slot)
        case "S3PrefixNotEmpty":
            text = s3_text(draft, condition, "s3Prefix", thing)
            if is_input and text is not None and text.timed:
                draft.unneeded(condition.slot("s3Prefix"), NOTHING_NEW)
                draft.unneeded(slot, NOTHING_NEW)
                return
            _require(draft, _folder(text), condition.slot("s3Prefix"), slot)
        case "Exists" if thing.type == "S3DataNode":
            field = "filePath" if thing.has("filePath") else "directoryPath"
            text = s3_text(draft, thing, field)
            if is_input and text is not None and text.timed:
                draft.unneeded(slot, NOTHING_NEW)
                return
            _require(draft, text if field == "filePath" else _folder(text), condition.slot("type"), slot)
        case _:
            draft.open(slot, f"stream cannot check a {condition.type}: let an Airflow sensor wait for it before the task")


def _folder(text: Text | None) -> Text | None:
    return text if text is None or not text.pieces else text.with_final_slash()


def _require(draft: Draft, text: Text | None, asked: Slot, slot: Slot) -> None:
    if text is None:
        msg = f"`{asked.owner}` has no {asked.field}"
        raise Refused(msg)
    url = text.render(draft.needs)
    if url not in draft.requires:
        draft.requires.append(url)
    draft.taken(slot, "requires")
    if asked.field != "type":
        draft.taken(asked, "requires")


def notify(draft: Draft, nodes: Iterable[Thing]) -> None:
    """Take over the topic that is notified of failures: the first one of the activity, or else of its ``nodes``."""
    for thing in (draft.activity, *nodes):
        slot = thing.slot("onFail")
        for action in draft.definition.of(slot):
            if action.type == "SnsAlarm":
                _topic(draft, action, slot)
            else:
                draft.unneeded(slot, "a run that fails ends in any case")


def _topic(draft: Draft, action: Thing, slot: Slot) -> None:
    try:
        text = draft.text(action, "topicArn")
        topic, plain = (text.render(draft.needs), text.plain) if text is not None else ("", "")
    except (Refused, Untranslatable):
        topic = plain = ""
    parts = plain.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sns" or not all(parts[3:]):
        draft.open(
            action.slot("topicArn"),
            "it is not the ARN of a topic, such as arn:aws:sns:REGION:ACCOUNT:NAME: write the right one under `notify.sns`",
        )
        return
    if draft.notify not in {"", topic}:
        draft.open(action.slot("topicArn"), "a pipeline notifies one topic: subscribe the receivers of this one to it")
        return
    draft.notify = topic
    draft.taken(action.slot("topicArn"), "notify.sns")
    draft.taken(slot, "notify.sns")
    draft.unneeded(
        slot,
        "the topic is notified of halted shards; for failed runs, alert on Jobs (`kube_job_status_failed`), or use `on_failure_callback` "
        "in Airflow",
    )
