"""S3 that fails, or refuses access, between a unit's intent and its seal: what workers do, what they say, and what is there afterwards."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.chaos.gateway import LOST, Answer, Asked, Gateway, Rule, gateway
from tests.chaos.workers import Worker, clean
from tests.chaos.world import World
from tests.ports import free_port

SLOW_DOWN = Answer(503, "SlowDown", "Please reduce your request rate.")
REFUSED = Answer(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
DENIED = Answer(403, "AccessDenied", "Access Denied")
ARN = "arn:aws:kms:us-east-1:123456789012:key/abc"


@pytest.fixture
def faulty(make_world: Callable[..., World]) -> Iterator[tuple[World, Gateway]]:
    """A world whose workers reach S3 through a gateway."""
    world = make_world(1, s3=True)
    with gateway(world.environment["AWS_ENDPOINT_URL_S3"]) as (url, gate):
        world.environment = {**world.environment, "AWS_ENDPOINT_URL_S3": url}
        yield world, gate


def creates(asked: Asked) -> bool:
    return asked.method == "PUT" and "/commits/" in asked.key and asked.condition == "If-None-Match" and "genesis" not in asked.key


def times(count: int, chosen: Callable[[Asked], bool], answer: Answer) -> Rule:
    """``answer`` for the first ``count`` of the ``chosen`` requests."""
    left = [answer] * count
    return lambda asked: left.pop() if left and chosen(asked) else None


def logged(worker: Worker, event: str) -> list[dict[str, Any]]:
    return [line for text in worker.said().splitlines() if f'"event":"{event}"' in text and (line := json.loads(text))]


STORMS = {
    "the seal is throttled": (Asked.seals.fget, SLOW_DOWN, "seal"),
    "the intent is throttled": (creates, SLOW_DOWN, "create intent"),
    "the seal is refused though nothing has changed": (Asked.seals.fget, REFUSED, "seal"),
    "the intent is refused though there is none": (creates, REFUSED, "create intent"),
    "the seal finds no object": (Asked.seals.fget, Answer(404, "NoSuchKey", "The specified key does not exist."), "seal"),
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_store_that_refuses_manifests_is_asked_less_and_less_and_not_sent_the_files_again(
    faulty: tuple[World, Gateway], storm: str
) -> None:
    (world, gate), (chosen, answer, call) = faulty, STORMS[storm]
    gate.rules.append(times(4, chosen, answer))
    world.produce(100)
    worker = world.finish(world.pipeline())
    assert len(gate.met) == 4
    waits = [line for line in logged(worker, "call_repeated") if line["call"] == call]
    why = "SlowDown: Please reduce your request rate." if answer is SLOW_DOWN else "as if another worker had been faster"
    assert why in waits[0]["detail"]
    written = Counter(asked.key for asked in gate.seen if asked.method == "PUT" and asked.key.endswith(".parquet"))
    assert max(written.values()) == 1, written.most_common(3)
    world.exact()


def test_replies_that_are_lost_after_the_write_took_effect_change_nothing(faulty: tuple[World, Gateway]) -> None:
    world, gate = faulty
    gate.rules += [times(4, lambda asked: asked.method == "PUT" and "/commits/" in asked.key, LOST)]
    gate.rules += [times(4, lambda asked: asked.method == "PUT" and asked.key.endswith(".parquet"), LOST)]
    world.produce(300)
    world.finish(world.pipeline())
    assert len(gate.met) == 8
    world.exact()


FINAL = {
    "data but not state": ("lake/", DENIED, "AccessDenied: Access Denied", "allow it for the role in use"),
    "state but not data": ("state/chaos/commits/", DENIED, "AccessDenied: Access Denied", "allow it for the role in use"),
    "the ledger only": ("state/chaos/ledger/", DENIED, "AccessDenied: Access Denied", "allow it for the role in use"),
    "the key of the data is disabled": (
        "lake/",
        Answer(400, "KMS.DisabledException", f"{ARN} is disabled."),
        f"KMS.DisabledException: {ARN} is disabled.",
        "enable the key",
    ),
    "the key of the state waits for its deletion": (
        "state/",
        Answer(400, "KMS.KMSInvalidStateException", f"{ARN} is pending deletion."),
        f"KMS.KMSInvalidStateException: {ARN} is pending deletion.",
        "enable the key",
    ),
    "the token is none": (
        "lake/",
        Answer(400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
        "InvalidToken: The provided token",
        "check the credentials",
    ),
    "the clock has jumped": (
        "",
        Answer(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
        "RequestTimeTooSkewed: The difference",
        "check the credentials and this machine's clock",
    ),
}


def unlisted(world: World) -> Rule:
    """As S3 answers a role without `s3:ListBucket`: it lists nothing, and does not say that an object is not there."""
    return lambda asked: DENIED if asked.method in {"GET", "HEAD"} and asked.key not in world.objects("") else None


def test_a_worker_that_must_not_list_any_more_goes_on_and_one_that_starts_says_so(faulty: tuple[World, Gateway]) -> None:
    world, gate = faulty
    world.produce(100)
    path = world.pipeline()
    worker = world.start(path)
    worker.until(world.committed)
    gate.rules.append(unlisted(world))
    world.produce(100)
    worker.until(world.committed)
    assert logged(worker, "shard_halted") == []
    assert worker.drain() == 0
    refused = world.start(path)
    refused.until(lambda: bool(logged(refused, "worker_failed")))
    (line,) = logged(refused, "worker_failed")
    assert "s3:ListBucket on '_preflight/'" in line["reason"]
    gate.rules.clear()
    world.produce(50)
    world.finish(path)
    world.exact()


def refuses(prefix: str, answer: Answer) -> Rule:
    return lambda asked: answer if asked.method == "PUT" and asked.key.startswith(prefix) else None


@pytest.mark.parametrize("refused", FINAL)
def test_while_access_is_refused_the_shard_is_halted_with_the_cause_and_then_goes_on_by_itself(
    faulty: tuple[World, Gateway], refused: str
) -> None:
    (world, gate), (prefix, answer, cause, remedy) = faulty, FINAL[refused]
    world.produce(100)
    worker = world.start(world.pipeline())
    worker.until(world.committed)
    gate.rules.append(refuses(prefix, answer))
    world.produce(100)
    worker.until(lambda: len(logged(worker, "shard_halted")) >= 2)
    for line in logged(worker, "shard_halted"):
        assert cause in line["reason"]
        assert remedy in line["reason"]
        assert "goes on by itself" in line["reason"]
    gate.rules.clear()
    worker.until(world.committed)
    assert worker.drain() == 0, worker.said()
    assert clean(worker.said())
    world.exact()


def readiness(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return int(answer.status)
    except HTTPError as refused:
        return refused.code


def test_while_a_halted_shard_is_tried_again_the_worker_is_never_ready_and_then_stays_so(faulty: tuple[World, Gateway]) -> None:
    """No intent can be created, so that each attempt reads the shard until the next unit is due."""
    (world, gate), (prefix, answer, _, _) = faulty, FINAL["state but not data"]
    path, seen = world.pipeline(), set()

    def asked_until(condition: Callable[[], bool]) -> bool:
        seen.add(readiness(port))
        return condition()

    with free_port() as port:
        path.write_text(path.read_text().replace("port: 0", f"port: {port}"))
        world.produce(100)
        worker = world.start(path)
        worker.until(world.committed)
        assert readiness(port) == 200
        gate.rules.append(refuses(prefix, answer))
        world.produce(100)
        worker.until(lambda: bool(logged(worker, "shard_halted")))
        worker.until(lambda: asked_until(lambda: len(logged(worker, "shard_halted")) >= 4))
        assert seen == {503}
        gate.rules.clear()
        worker.until(world.committed)
        worker.until(lambda: readiness(port) == 200)
        assert worker.drain() == 0
    world.exact()


def test_status_says_why_a_shard_waits_for_access_and_a_drain_does_not_wait_for_it(faulty: tuple[World, Gateway]) -> None:
    (world, gate), (prefix, answer, cause, remedy) = faulty, FINAL["the key of the data is disabled"]
    path = world.pipeline()
    world.produce(100)
    worker = world.start(path)
    worker.until(world.committed)
    gate.rules.append(refuses(prefix, answer))
    world.produce(100)
    worker.until(lambda: bool(world.objects(f"state/chaos/halts/{world.stream}/")))
    asking = world.operate("status", str(path), "--json")
    assert asking.exit() == 1
    (shown,) = json.loads(asking.said())["streams"]
    (finding,) = [each for each in shown["findings"] if each["code"] == "shard_halted"]
    assert cause in finding["details"][0]
    assert remedy in finding["details"][0]
    assert worker.drain() == 1
    (line,) = logged(worker, "worker_failed")
    assert cause in line["reason"]
    gate.rules.clear()
    world.finish(path)
    world.exact()


def test_a_worker_to_which_access_is_refused_before_it_has_sealed_anything_ends(faulty: tuple[World, Gateway]) -> None:
    (world, gate), (prefix, answer, cause, remedy) = faulty, FINAL["data but not state"]
    path = world.pipeline()
    world.produce(100)
    gate.rules.append(refuses(prefix, answer))
    worker = world.start(path)
    assert worker.exit() == 1
    assert clean(worker.said())
    (line,) = logged(worker, "worker_failed")
    assert cause in line["reason"]
    assert remedy in line["reason"]
    gate.rules.clear()
    world.finish(path)
    world.exact()
