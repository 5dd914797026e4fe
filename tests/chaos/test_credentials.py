"""Real workers whose credentials end every few seconds, while their token or STS fails them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from stream.clock import SystemClock
from tests.chaos.test_leases import NATIVE
from tests.chaos.test_store_faults import logged
from tests.chaos.workers import Worker, clean
from tests.chaos.world import World
from tests.serving import serving

LIFE = timedelta(seconds=63)
"""Keys with less than a minute left are not used any more, so these are used for three seconds at most."""
ROLE = "arn:aws:iam::111122223333:role/flights"
SPACE = "https://sts.amazonaws.com/doc/2011-06-15/"


@dataclass
class Sts:
    """Gives keys for ``LIFE``, or answers with the error ``refusal``. ``tokens``: those that it was shown."""

    refusal: str = ""
    tokens: list[str] = field(default_factory=list)
    refused: threading.Event = field(default_factory=threading.Event)

    def answer(self, token: str) -> tuple[int, str]:
        self.tokens.append(token)
        if self.refusal:
            self.refused.set()
            return 403, f'<ErrorResponse xmlns="{SPACE}"><Error><Code>{self.refusal}</Code><Message>why</Message></Error></ErrorResponse>'
        ends = (SystemClock().now() + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
        return 200, (
            f'<AssumeRoleWithWebIdentityResponse xmlns="{SPACE}"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1'
            f"</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{ends}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )


def handler(sts: Sts) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Log nothing."""

        def do_POST(self) -> None:
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, text = sts.answer(asked["WebIdentityToken"][0])
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


@dataclass
class Pod:
    """A world whose workers have a token and no keys."""

    world: World
    sts: Sts
    token: Path
    path: Path

    def begin(self) -> Worker:
        """A worker that has sealed what was in the stream."""
        self.world.produce(100)
        worker = self.world.start(self.path)
        worker.until(self.world.committed)
        return worker

    def assert_goes_on(self, worker: Worker) -> None:
        """Records that come now are sealed by the same process."""
        self.world.produce(100)
        worker.until(self.world.committed)
        assert worker.drain() == 0, worker.said()
        assert clean(worker.said())
        self.world.exact()


@pytest.fixture(params=["alone", "leased"])
def pod(make_world: Callable[..., World], request: pytest.FixtureRequest) -> Iterator[Pod]:
    world, sts = make_world(1), Sts()
    token = world.folder / "token"
    token.write_text("first.claims.signature")
    with serving(handler(sts)) as url:
        keyless = {name: value for name, value in world.environment.items() if "ACCESS_KEY" not in name}
        role = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ENDPOINT_URL_STS": url}
        world.environment = {**keyless, **role}
        path = world.pipeline()
        if request.param == "leased":
            dynamo = request.getfixturevalue("s3_url")
            path.write_text(path.read_text() + NATIVE.format(table=f"leases-{world.stream}", url=dynamo, failover="5s"))
        yield Pod(world, sts, token, path)


def test_a_token_that_is_rotated_is_used_at_the_next_renewal(pod: Pod) -> None:
    worker = pod.begin()
    pod.token.write_text("second.claims.signature")
    worker.until(lambda: pod.sts.tokens[-1].startswith("second"))
    pod.assert_goes_on(worker)
    assert not logged(worker, "shard_halted")


def test_a_token_that_is_missing_for_a_while_is_named_and_the_worker_goes_on_when_it_is_back(pod: Pod) -> None:
    worker = pod.begin()
    content = pod.token.read_text()
    pod.token.unlink()
    pod.world.produce(100)
    worker.until(lambda: str(pod.token) in worker.said())
    pod.token.write_text(content)
    pod.assert_goes_on(worker)


def test_while_sts_refuses_the_role_the_worker_says_so_and_then_goes_on(pod: Pod) -> None:
    worker = pod.begin()
    pod.sts.refusal = "AccessDenied"
    pod.world.produce(100)
    worker.until(lambda: f"sts:AssumeRoleWithWebIdentity on {ROLE}" in worker.said())
    worker.until(lambda: "let the trust policy of the role name who asks" in worker.said())
    pod.sts.refusal = ""
    pod.assert_goes_on(worker)
