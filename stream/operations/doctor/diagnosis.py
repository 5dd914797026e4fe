"""The checks of `stream doctor`: everything that a worker of a pipeline will need."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stream.audit.export import Mode
from stream.aws.errors import AwsFatal, Kind, classify
from stream.aws.identity import AUDIENCES, SIGNATURE_LIFE, Caller, Problem, ask_caller, judge_caller, judge_claims, read_claims
from stream.aws.session import AwsSession
from stream.cgroup import memory_limit
from stream.clock import SystemClock
from stream.commit.identity import DamagedPin
from stream.contracts import Clock
from stream.errors import DefinitionError, Retryable, StreamError
from stream.lease.pauses import PauseRecord, PausesUnreadable
from stream.operations.doctor.probe import GRANT_REMEDY, Note, Probe
from stream.operations.doctor.probes import probes, untried
from stream.pipeline.access.actions import needed
from stream.pipeline.limits import mebibytes, memory_need
from stream.pipeline.model import Pipeline
from stream.worker.opening.places import session_of
from stream.worker.opening.stores import Stores

TIMEOUT: Final = 20.0
"""Seconds that one check may take."""

SKEW_NOTED: Final = timedelta(seconds=60)

_REACH_IT: Final = "check the endpoint, the network policy and DNS"

_CORRECT_IT: Final = "set or correct what this names; nothing was asked of AWS"


class Verdict(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; ``remedy`` is empty if nothing needs to be done."""

    check: str
    verdict: Verdict
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a worker would run. ``role`` (ARN or name), ``audience`` and ``subject`` are the expected values, if known.

    ``root``: where ``proc`` and ``sys`` are.
    """

    base: Path
    env: Mapping[str, str]
    role: str | None = None
    audience: str | None = None
    subject: str | None = None
    root: Path = Path("/")
    timeout: float = TIMEOUT
    clock: Clock = field(default_factory=SystemClock)


async def examine(pipeline: Pipeline, environment: Environment) -> list[Finding]:
    """Check everything; a check that fails does not prevent the others. Writes nothing, and reveals no secret."""
    session = session_of(pipeline)
    findings = [*_token(environment), _memory(pipeline, environment)]
    if needed(pipeline):
        try:
            session.trust()
        except DefinitionError as error:
            # Every call would fail in the same way.
            remedy = "mount the file, or correct its path; without AWS_CA_BUNDLE the system's authorities are used. Nothing else was tried"
            return [*findings, Finding("authorities", Verdict.FAILED, str(error), remedy)]
        credentials = await _credentials(session, environment)
        findings += credentials
        if all(each.verdict is not Verdict.FAILED for each in credentials):
            findings += await _identity(session, environment)
    for probe in probes(pipeline, session, environment.base, environment.env):
        findings.append(await _run(probe, environment.timeout))
    findings += await _pauses(pipeline, session, environment)
    findings += [await _collector(pipeline, environment)] if pipeline.audit.otlp else []
    findings += [
        Finding("permission", Verdict.NOTE, f"{action} was not tried: {why}", "compare with `stream iam --diff`")
        for action, why in untried(pipeline).items()
    ]
    return findings


def _token(environment: Environment) -> list[Finding]:
    named = [(name, environment.env[name]) for name in AUDIENCES if environment.env.get(name)]
    if not named:
        return [Finding("token", Verdict.NOTE, "Kubernetes provided no token for AWS; other credentials are looked for", "")]
    name, path = named[0]
    findings = []
    if environment.env.get("AWS_ACCESS_KEY_ID"):
        remedy = "remove AWS_ACCESS_KEY_ID from the environment of the pod"
        findings.append(
            Finding("token", Verdict.FAILED, "keys in the environment take precedence over the token, and never change", remedy)
        )
    try:
        claims = read_claims(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DefinitionError) as error:
        remedy = "check the service account of the pod: its webhook mounts the token"
        return [*findings, Finding("token", Verdict.FAILED, f"the token in {path} ({name}) cannot be read: {error}", remedy)]
    audience = environment.audience or AUDIENCES[name]
    problems = judge_claims(claims, audience, environment.subject, environment.clock.now())
    findings += _findings_of("token", problems)
    if not problems:
        answer = f"for {audience}, of {claims.subject}, until {claims.expires.isoformat()}"
        findings.append(Finding("token", Verdict.OK, answer))
    return findings


def _findings_of(check: str, problems: list[Problem]) -> list[Finding]:
    return [Finding(check, Verdict.FAILED if each.fatal else Verdict.NOTE, each.what, each.remedy) for each in problems]


async def _credentials(session: AwsSession, environment: Environment) -> list[Finding]:
    try:
        async with asyncio.timeout(environment.timeout):
            await session.credentials()
            life = await session.credential_life()
    except (StreamError, TimeoutError) as error:
        remedy = "give the pod a role; with Pod Identity, allow 169.254.170.23 and fd00:ec2::23, port 80, in the network policy"
        return [Finding("credentials", Verdict.FAILED, str(error) or "no answer", remedy)]
    if life.method == "iam-role":
        remedy = "associate a role with the service account, and set AWS_EC2_METADATA_DISABLED=true"
        return [Finding("credentials", Verdict.FAILED, "they are the node's, from instance metadata", remedy)]
    until = f", valid until {life.expires.isoformat()} and renewed before" if life.expires else ", which do not expire"
    return [Finding("credentials", Verdict.OK, f"by {life.method}{until}")]


async def _identity(session: AwsSession, environment: Environment) -> list[Finding]:
    try:
        async with asyncio.timeout(environment.timeout):
            caller = await ask_caller(session, environment.clock)
    except (StreamError, TimeoutError) as error:
        remedy = _CORRECT_IT if isinstance(error, DefinitionError) else "STS must be reachable: by a VPC endpoint, or through port 443"
        return [Finding("identity", Verdict.FAILED, str(error) or "STS does not answer", remedy)]
    problems = judge_caller(caller, environment.role)
    findings = _findings_of("identity", problems) or [Finding("identity", Verdict.OK, caller.arn)]
    return [*findings, *_clock(caller, environment)]


def _clock(caller: Caller, environment: Environment) -> list[Finding]:
    if caller.time is None:
        return []
    skew = environment.clock.now() - caller.time
    answer = f"{skew.total_seconds():+.0f} s beside AWS"
    if abs(skew) > SIGNATURE_LIFE:
        return [Finding("clock", Verdict.FAILED, answer, "set the clock of the node: signatures are valid for 300 s")]
    if abs(skew) > SKEW_NOTED:
        return [Finding("clock", Verdict.NOTE, answer, "synchronise the node with the Amazon Time Sync Service")]
    return [Finding("clock", Verdict.OK, answer)]


def _memory(pipeline: Pipeline, environment: Environment) -> Finding:
    need, limit = memory_need(pipeline), memory_limit(environment.root)
    if limit is None:
        return Finding("memory", Verdict.NOTE, "there is no limit", f"give the container {mebibytes(need.advised)}")
    answer = f"limit {mebibytes(limit)}, memory.budget {mebibytes(need.budget)}"
    if need.shortage(limit):
        why = f"{mebibytes(need.least)} are needed" + (f", {mebibytes(need.readers)} of them for reader processes" if need.readers else "")
        remedy = f"lower memory.budget, or raise the limit to {mebibytes(need.advised)}"
        return Finding("memory", Verdict.FAILED, f"{answer}: {why}", remedy)
    return Finding("memory", Verdict.OK, answer)


async def _run(probe: Probe, timeout: float) -> Finding:
    try:
        async with asyncio.timeout(timeout):
            answer = await probe.attempt()
    except TimeoutError:
        return Finding(probe.check, Verdict.FAILED, f"{probe.what}: no answer in {timeout:g} s", _REACH_IT)
    except Note as error:
        return Finding(probe.check, Verdict.NOTE, f"{probe.what}: {error}", error.remedy or _remedy(probe, error.__cause__ or error))
    except (StreamError, OSError) as error:
        return Finding(probe.check, Verdict.FAILED, f"{probe.what}: {error}", _remedy(probe, error))
    return Finding(probe.check, Verdict.OK, f"{probe.what}: {answer}")


def _remedy(probe: Probe, error: BaseException) -> str:
    """The probe's own remedy; but permissions do not help against something that does not answer or does not exist."""
    if isinstance(error, DamagedPin):
        return error.remedy
    if probe.remedy != GRANT_REMEDY:
        return probe.remedy
    if isinstance(error, Retryable):
        return _REACH_IT
    if isinstance(error, DefinitionError):
        return _CORRECT_IT
    if isinstance(error, AwsFatal) and error.remedy and classify(error.code) is not Kind.DENIED:
        return error.remedy
    return GRANT_REMEDY


async def _pauses(pipeline: Pipeline, session: AwsSession, environment: Environment) -> list[Finding]:
    """What is paused on purpose, which a worker would obey. Another check finds a state that cannot be read."""
    try:
        async with asyncio.timeout(environment.timeout):
            record = PauseRecord(Stores.open(pipeline, environment.base, session).state)
            pauses = await record.in_force(environment.clock.now())
    except PausesUnreadable as error:
        return [Finding("paused", Verdict.FAILED, str(error), "a worker does not start before that")]
    except (StreamError, TimeoutError):
        return []
    return [Finding("paused", Verdict.NOTE, str(each), "`stream resume` ends it") for each in pauses.all]


async def _collector(pipeline: Pipeline, environment: Environment) -> Finding:
    otlp = pipeline.audit.otlp
    if otlp is None:
        msg = "there is no collector to check"
        raise DefinitionError(msg)
    answer = await _reached(otlp.endpoint, environment.timeout)
    if answer is None:
        return Finding("collector", Verdict.OK, f"{otlp.endpoint} answers")
    # A collector that is down makes the export lag and nothing else, unless checkpoints wait for it.
    verdict = Verdict.FAILED if otlp.mode is Mode.STRICT else Verdict.NOTE
    return Finding("collector", verdict, f"{otlp.endpoint}: {answer}", "check the address, the collector, and the network policy")


async def _reached(url: str, timeout: float) -> str | None:
    """Why nothing listens at ``url``; None if something does."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(parts.hostname, port)
            writer.close()
            await writer.wait_closed()
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return str(error)
    return None
