"""Translates preconditions to `requires`, and alarms to `notify`."""

from __future__ import annotations

from collections.abc import Iterable

from stream.datapipeline.draft import Draft, Refused, s3_text
from stream.datapipeline.evaluated_text import Text, Untranslatable
from stream.datapipeline.resolve import ResolvedObject, Slot

NOTHING_NEW = "a run reads what has arrived, and does nothing if nothing has"


def add_requirements(draft: Draft, nodes: Iterable[ResolvedObject]) -> None:
    """Translate the preconditions of the activity and of its ``nodes``."""
    for obj in (draft.activity, *nodes):
        slot = obj.slot("precondition")
        for condition in draft.definition.of(slot):
            try:
                _condition(draft, condition, obj, slot)
            except Refused as refused:
                draft.to_do(slot, f"{refused}; let Airflow wait for it before it starts the task")


def _condition(draft: Draft, condition: ResolvedObject, obj: ResolvedObject, slot: Slot) -> None:
    is_input = obj.id in draft.activity.slot("input").ids
    match condition.type:
        case "S3KeyExists":
            _require(draft, s3_text(draft, condition, "s3Key", obj), condition.slot("s3Key"), slot)
        case "S3PrefixNotEmpty":
            text = s3_text(draft, condition, "s3Prefix", obj)
            if is_input and text is not None and text.has_run_time:
                draft.not_needed(condition.slot("s3Prefix"), NOTHING_NEW)
                draft.not_needed(slot, NOTHING_NEW)
                return
            _require(draft, _folder(text), condition.slot("s3Prefix"), slot)
        case "Exists" if obj.type == "S3DataNode":
            field = "filePath" if obj.has("filePath") else "directoryPath"
            text = s3_text(draft, obj, field)
            if is_input and text is not None and text.has_run_time:
                draft.not_needed(slot, NOTHING_NEW)
                return
            _require(draft, text if field == "filePath" else _folder(text), condition.slot("type"), slot)
        case _:
            draft.to_do(slot, f"stream cannot check a {condition.type}: let an Airflow sensor wait for it before the task")


def _folder(text: Text | None) -> Text | None:
    return text if text is None or not text.pieces else text.with_final_slash()


def _require(draft: Draft, text: Text | None, asked: Slot, slot: Slot) -> None:
    if text is None:
        msg = f"`{asked.owner}` has no {asked.field}"
        raise Refused(msg)
    url = text.render(draft.run_times)
    if url not in draft.requires:
        draft.requires.append(url)
    draft.taken_over(slot, "requires")
    if asked.field != "type":
        draft.taken_over(asked, "requires")


def add_notification(draft: Draft, nodes: Iterable[ResolvedObject]) -> None:
    """Translate the alarms that are raised on failure.

    A pipeline has one topic: the first one of the activity, or else of its ``nodes``.
    """
    for obj in (draft.activity, *nodes):
        slot = obj.slot("onFail")
        for action in draft.definition.of(slot):
            if action.type == "SnsAlarm":
                _topic(draft, action, slot)
            else:
                draft.not_needed(slot, "a run that fails ends in any case")


def _topic(draft: Draft, action: ResolvedObject, slot: Slot) -> None:
    try:
        text = draft.text(action, "topicArn")
        topic, plain = (text.render(draft.run_times), text.plain) if text is not None else ("", "")
    except (Refused, Untranslatable):
        topic = plain = ""
    parts = plain.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sns" or not all(parts[3:]):
        draft.to_do(
            action.slot("topicArn"),
            "it is not the ARN of a topic, such as arn:aws:sns:REGION:ACCOUNT:NAME: write the right one under `notify.sns`",
        )
        return
    if draft.notify not in {"", topic}:
        draft.to_do(action.slot("topicArn"), "a pipeline notifies one topic: subscribe the receivers of this one to it")
        return
    draft.notify = topic
    draft.taken_over(action.slot("topicArn"), "notify.sns")
    draft.taken_over(slot, "notify.sns")
    draft.not_needed(
        slot,
        "the topic is notified of halted shards; for failed runs, alert on Jobs (`kube_job_status_failed`), or use `on_failure_callback` "
        "in Airflow",
    )
