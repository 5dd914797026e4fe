"""The values for the Helm chart: schedule, attempts, time limit, region and proxy."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from stream.datapipeline.draft import VALUES, Draft, Refused
from stream.datapipeline.evaluated_text import Untranslatable
from stream.datapipeline.expressions import Scope, evaluated
from stream.datapipeline.resolve import ResolvedObject
from stream.datapipeline.run_times import date_of
from stream.datapipeline.schedules import Period, cron_of, last_run, period_of

MAX_ATTEMPTS: Final = 100
MAX_DEADLINE: Final = 604_800
"""The largest values that the chart allows; seconds."""

DEFAULT_ATTEMPTS: Final = 3
NEVER: Final = "0 0 1 1 *"
"""The cron line of a suspended schedule, whose runs are started by hand."""

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


def set_schedule(draft: Draft, nodes: list[ResolvedObject]) -> None:
    """Fill in the draft's values from the schedule of the activity, its limits and its resource."""
    plan: dict[str, Any] = {"timeZone": "Etc/UTC"}
    plan["cron"] = _cron_line(draft)
    attempts = _attempts(draft)
    if attempts is not None:
        plan["attempts"] = attempts
    limits = [_limit(draft, draft.activity, "attemptTimeout", attempts or DEFAULT_ATTEMPTS)]
    for resource in draft.definition.of(draft.activity.slot("runsOn")):
        draft.not_needed(draft.activity.slot("runsOn"), "a run is a pod or an Airflow task, and needs no machine of its own")
        limits.append(_limit(draft, resource, "terminateAfter", 1))
        _region(draft, resource)
        _proxy(draft, resource)
    for node in nodes:
        for database in draft.definition.of(node.slot("database")):
            _region(draft, database)
    known = [each for each in limits if each]
    if known:
        plan["deadlineSeconds"] = min(*known, MAX_DEADLINE)
    draft.values["schedule"] = dict(
        sorted(plan.items(), key=lambda each: ("cron", "timeZone", "attempts", "deadlineSeconds").index(each[0]))
    )


def _cron_line(draft: Draft) -> str:
    """The cron line of the activity's schedule."""
    slot, style = draft.activity.slot("schedule"), draft.activity.slot("scheduleType")
    schedule = draft.definition.one(slot)
    kind = draft.fixed_text_or_empty(draft.activity, "scheduleType").lower()
    if kind == "ondemand" or schedule is None:
        draft.suspended = True
        draft.taken_over(style, "replicas", VALUES)
        draft.not_needed(slot, "runs are started by hand")
        return NEVER
    if kind not in {"", "cron", "timeseries"}:
        draft.to_do(style, "it must be cron, timeseries or ondemand; it was read as timeseries")
    at = "its begin" if kind == "cron" else "its end"
    draft.not_needed(
        style,
        "a run reads what is new, not an interval; Airflow starts a run at the end of its interval, AWS Data Pipeline started this at "
        f"{at}",
    )
    draft.taken_over(slot, "schedule.cron", VALUES)
    return _line(draft, schedule, at_begin=kind == "cron")


def _line(draft: Draft, schedule: ResolvedObject, *, at_begin: bool) -> str:
    text = draft.fixed_text_or_empty(schedule, "period")
    period = period_of(text)
    if period is None:
        draft.suspended = True
        if text and "ondemand" not in text.lower():
            draft.to_do(
                schedule.slot("period"),
                "it is not a period such as `1 hours`: set `schedule.cron` in the values yourself, and remove `replicas: 0`",
            )
        else:
            draft.not_needed(schedule.slot("period"), "runs are started by hand")
        draft.not_needed(schedule.slot("startAt"), "runs are started by hand")
        return NEVER
    start = _date(draft, schedule, "startDateTime")
    cron = cron_of(period, start)
    if at_begin:
        draft.interval = ("data_interval_end", f"data_interval_end.add({period.unit}s={period.number})")
    draft.taken_over(schedule.slot("period"), "schedule.cron", VALUES)
    if cron.difference:
        draft.to_do(schedule.slot("period"), cron.difference)
    draft.taken_over(schedule.slot("startDateTime"), "schedule.cron", VALUES)
    draft.not_needed(schedule.slot("startDateTime"), "earlier intervals need no runs: the first run reads everything that is there")
    draft.not_needed(schedule.slot("startAt"), "runs begin once the chart is installed")
    _end(draft, schedule, period, start)
    return cron.line


def _end(draft: Draft, schedule: ResolvedObject, period: Period, start: datetime | None) -> None:
    if schedule.has("endDateTime"):
        end = _date(draft, schedule, "endDateTime")
        when = f" on {end:%Y-%m-%d %H:%M} UTC" if end is not None else ""
        draft.to_do(schedule.slot("endDateTime"), f"a CronJob has no end date: set `replicas: 0`{when}; in Airflow, set `end_date`")
    count = draft.fixed_text_or_empty(schedule, "occurrences")
    if count:
        number = int(count) if count.isdecimal() and len(count) < 10 else 0
        over = last_run(start, period, number) if start is not None else None
        when = f" after {over:%Y-%m-%d %H:%M} UTC" if over is not None else f" after {count} runs" if number else ""
        draft.to_do(schedule.slot("occurrences"), f"a CronJob does not count its runs: set `replicas: 0`{when}; in Airflow, set `end_date`")


def _date(draft: Draft, schedule: ResolvedObject, name: str) -> datetime | None:
    slot = schedule.slot(name)
    if not slot.text:
        return None
    written = slot.text if "#{" in slot.text or "(" not in slot.text else f"#{{{slot.text}}}"  # functions may be written without #{}
    try:
        found = date_of(evaluated(written, Scope(draft.definition, schedule, None, 0, draft.used)).plain)
    except Untranslatable:
        found = None
    if found is None:
        draft.to_do(slot, "it is not a date such as 2026-01-31T00:00:00: check `schedule.cron` in the values")
    return found


def _attempts(draft: Draft) -> int | None:
    slot = draft.activity.slot("maximumRetries")
    text = draft.fixed_text_or_empty(draft.activity, "maximumRetries")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9:
        draft.to_do(slot, "it is not a whole number: set `schedule.attempts` in the values yourself")
        return None
    draft.taken_over(slot, "schedule.attempts", VALUES)
    return min(int(text) + 1, MAX_ATTEMPTS)


def _limit(draft: Draft, obj: ResolvedObject, name: str, times: int) -> int:
    """The time limit in the field ``name``, in seconds, multiplied by ``times``; 0 if there is none."""
    text = draft.fixed_text_or_empty(obj, name)
    if not text:
        return 0
    period = period_of(text)
    if period is None:
        draft.to_do(obj.slot(name), "it is not a period such as `2 hours`: set `schedule.deadlineSeconds` in the values yourself")
        return 0
    draft.taken_over(obj.slot(name), "schedule.deadlineSeconds", VALUES)
    return period.seconds * times


def _region(draft: Draft, obj: ResolvedObject) -> None:
    slot = obj.slot("region")
    text = draft.fixed_text_or_empty(obj, "region").lower().replace("_", "-")
    if not text:
        return
    if not _REGION.fullmatch(text) or draft.values.get("region", text) != text:
        draft.to_do(slot, "a pipeline works in one region: check `region` in the values")
        return
    draft.values["region"] = text
    draft.taken_over(slot, "region", VALUES)


def _proxy(draft: Draft, resource: ResolvedObject) -> None:
    proxy = draft.definition.one(resource.slot("httpProxy"))
    if proxy is None:
        return
    try:
        host, port = draft.fixed_text(proxy, "hostname"), draft.fixed_text(proxy, "port")
    except Refused as refused:
        draft.to_do(resource.slot("httpProxy"), f"{refused}; set `env.HTTPS_PROXY` in the values yourself")
        return
    if not re.fullmatch(r"[A-Za-z0-9.-]+", host) or not re.fullmatch(r"\d{0,5}", port):
        draft.to_do(resource.slot("httpProxy"), "its hostname or port is not valid: set `env.HTTPS_PROXY` in the values yourself")
        return
    env = draft.values.setdefault("env", {})
    env["HTTPS_PROXY"] = f"http://{host}" + (f":{port}" if port else "")
    for name in ("hostname", "port"):
        draft.taken_over(proxy.slot(name), "env.HTTPS_PROXY", VALUES)
    draft.taken_over(resource.slot("httpProxy"), "env.HTTPS_PROXY", VALUES)
    if draft.fixed_text_or_empty(proxy, "s3NoProxy").lower() == "true":
        draft.to_do(proxy.slot("s3NoProxy"), "list the host names of S3 in your region under `env.NO_PROXY` in the values")
    else:
        draft.not_needed(proxy.slot("s3NoProxy"), "requests to S3 go through the proxy, too")
